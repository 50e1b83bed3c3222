package exchange_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

func TestRequestsThatAreRefusedForTheirForm(t *testing.T) {
	w := newWorld(t, infra())
	w.Address = uncounted()
	raw := w.issuer.Token(audience)
	good := form(raw).Encode()
	for _, tt := range []struct {
		name string
		req  func() *http.Request
		code string
	}{
		{"parameter in the URL", func() *http.Request { r := request(good); r.URL.RawQuery = "scope=cache:system:push"; return r }, "invalid_request"},
		{"token in the URL", func() *http.Request { r := request(""); r.URL.RawQuery = good; return r }, "invalid_request"},
		{"Authorization header", func() *http.Request { r := request(good); r.Header.Set("Authorization", "Bearer x"); return r }, "invalid_request"},
		{"empty Authorization header", func() *http.Request { r := request(good); r.Header.Set("Authorization", ""); return r }, "invalid_request"},
		{"JSON", func() *http.Request { r := request(`{}`); r.Header.Set("Content-Type", "application/json"); return r }, "invalid_request"},
		{"multipart", func() *http.Request {
			r := request(good)
			r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
			return r
		}, "invalid_request"},
		{"no content type", func() *http.Request { r := request(good); r.Header.Del("Content-Type"); return r }, "invalid_request"},
		{"two content types", func() *http.Request { r := request(good); r.Header.Add("Content-Type", "application/json"); return r }, "invalid_request"},
		{"encoded body", func() *http.Request { r := request(good); r.Header.Set("Content-Encoding", "gzip"); return r }, "invalid_request"},
		{"two tokens", func() *http.Request { return request(good + "&subject_token=x") }, "invalid_request"},
		{"two equal scopes", func() *http.Request { return request(good + "&scope=cache:a:pull&scope=cache:a:pull") }, "invalid_request"},
		{"unknown parameter twice", func() *http.Request { return request(good + "&x=1&x=2") }, "invalid_request"},
		{"semicolon", func() *http.Request { return request(good + ";x=1") }, "invalid_request"},
		{"broken escape", func() *http.Request { return request(good + "&x=%zz") }, "invalid_request"},
		{"more than 16 KiB", func() *http.Request { return request(good + "&x=" + strings.Repeat("x", 16<<10)) }, "invalid_request"},
		{"no grant type", func() *http.Request { return request(strings.Replace(good, "grant_type", "grant", 1)) }, "invalid_request"},
		{"other grant type", func() *http.Request { return request(form(raw, "grant_type", "client_credentials").Encode()) }, "unsupported_grant_type"},
		{"no token", func() *http.Request { return request(form("").Encode()) }, "invalid_request"},
		{"other subject type", func() *http.Request {
			return request(form(raw, "subject_token_type", "urn:ietf:params:oauth:token-type:saml2").Encode())
		}, "invalid_request"},
		{"actor token", func() *http.Request { return request(form(raw, "actor_token", raw).Encode()) }, "invalid_request"},
		{"refresh token wanted", func() *http.Request {
			return request(form(raw, "requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token").Encode())
		}, "invalid_request"},
		{"token for another server", func() *http.Request { return request(form(raw, "audience", "https://other.example.com").Encode()) }, "invalid_target"},
		{"token for another resource", func() *http.Request { return request(form(raw, "resource", "https://other.example.com").Encode()) }, "invalid_target"},
		{"scope of another kind", func() *http.Request { return request(form(raw, "scope", "repo:system:push").Encode()) }, "invalid_scope"},
		{"scope without permission", func() *http.Request { return request(form(raw, "scope", "cache:system").Encode()) }, "invalid_scope"},
		{"scope with an unknown permission", func() *http.Request { return request(form(raw, "scope", "cache:system:root").Encode()) }, "invalid_scope"},
		{"scope with one part more", func() *http.Request { return request(form(raw, "scope", "cache:system:push:x").Encode()) }, "invalid_scope"},
		{"scope with a bad name", func() *http.Request { return request(form(raw, "scope", "cache:../x:push").Encode()) }, "invalid_scope"},
		{"scope with two spaces", func() *http.Request { return request(form(raw, "scope", "cache:a:pull  cache:b:pull").Encode()) }, "invalid_scope"},
		{"scope of many items", func() *http.Request {
			return request(form(raw, "scope", strings.Repeat("cache:a:pull ", 64)+"cache:a:pull").Encode())
		}, "invalid_scope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := w.send(tt.req())
			refused(t, rec, http.StatusBadRequest, tt.code)
			if strings.Contains(rec.Body.String(), raw[:40]) {
				t.Errorf("the answer holds the token: %s", rec.Body)
			}
		})
	}
	if len(w.seen) != 0 {
		t.Error("a refused request used the token up")
	}
	r := request(good)
	r.Method = http.MethodGet
	if rec := w.send(r); rec.Code != http.StatusMethodNotAllowed || rec.Header().Get("Allow") != "POST" {
		t.Errorf("GET: got %d, Allow %q", rec.Code, rec.Header().Get("Allow"))
	}
	// What the standard lets a client send does no harm.
	r = request(form(raw, "client_id", "x", "audience", audience, "scope", "", "requested_token_type", "urn:ietf:params:oauth:token-type:access_token").Encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	granted(t, w, w.send(r))
}

// uncounted gives every request another address.
func uncounted() func(*http.Request) netip.Addr {
	var a [4]byte
	return func(*http.Request) netip.Addr {
		a[3]++
		if a[3] == 0 {
			a[2]++
		}
		return netip.AddrFrom4(a)
	}
}

func TestScopeNarrows(t *testing.T) {
	w := newWorld(t, infra())
	resp, claims := granted(t, w, w.post(form(w.issuer.Token(audience), "scope", "cache:system:pull")))
	if resp.Scope != "cache:system:pull" || claims.Caches.For("system") != token.Pull {
		t.Errorf("got %q, %v", resp.Scope, claims.Caches.For("system"))
	}
}

func TestPartsNotGrantedAreLeftOut(t *testing.T) {
	w := newWorld(t, infra())
	resp, claims := granted(t, w, w.post(form(w.issuer.Token(audience), "scope", "cache:other:push cache:system:push cache:system:destroy-cache")))
	if resp.Scope != "cache:system:push" || claims.Caches.For("system") != token.Push || claims.Caches.For("other") != 0 {
		t.Errorf("got %q, %v", resp.Scope, claims.Caches)
	}
}

func TestNothingGrantedRefuses(t *testing.T) {
	w := newWorld(t, infra())
	for _, scope := range []string{"cache:other:push", "cache:system:configure-cache", "cache:*:push", "cache:sys*:push", "cache:System:push"} {
		refused(t, w.post(form(w.issuer.Token(audience), "scope", scope)), http.StatusBadRequest, "invalid_scope")
	}
}

func TestSeveralMatchingPoliciesNeedAScope(t *testing.T) {
	w := newWorld(t, infra(), reader())
	refused(t, w.post(form(w.issuer.Token(audience))), http.StatusBadRequest, "invalid_scope")
	resp, claims := granted(t, w, w.post(form(w.issuer.Token(audience), "scope", "cache:system:push")))
	if resp.ExpiresIn != 900 || claims.Caches.For("shared") != 0 || len(claims.Pins) != 1 {
		t.Errorf("the other policy got in: %+v, %v", resp, claims)
	}
}

func TestTokenOfTwoPoliciesHasTheShorterLifeAndNoPinsOfOne(t *testing.T) {
	w := newWorld(t, infra(), reader())
	resp, claims := granted(t, w, w.post(form(w.issuer.Token(audience), "scope", "cache:system:push cache:team-a:pull cache:team-a:push")))
	if resp.Scope != "cache:system:push cache:team-a:pull" || resp.ExpiresIn != 300 || len(claims.Pins) != 0 {
		t.Errorf("got %+v, pins %v", resp, claims.Pins)
	}
}

// One policy lets the branch pull, another lets the environment push: a cache named in
// both gets one policy's grant, whatever their order.
func TestOneCacheGetsTheGrantOfOnePolicy(t *testing.T) {
	pull := trust.Policy{Name: "a-pull", RepositoryID: 123456789, Caches: []string{"*"}, Grant: []string{"pull", "create-cache"}, Ref: "refs/heads/main", TTL: "1h"}
	push := trust.Policy{Name: "b-push", RepositoryID: 123456789, Caches: []string{"system"}, Grant: []string{"push"}, Ref: "refs/heads/main", TTL: "1m"}
	for _, policies := range [][]trust.Policy{{pull, push}, {push, pull}} {
		w := newWorld(t, policies...)
		resp, _ := granted(t, w, w.post(form(w.issuer.Token(audience), "scope", "cache:system:pull cache:system:push cache:system:create-cache")))
		if resp.Scope != "cache:system:pull cache:system:create-cache" || resp.ExpiresIn != 3600 {
			t.Errorf("got %+v", resp)
		}
	}
}

func TestScopeOfAnAnswerCanBeAskedForAgain(t *testing.T) {
	w := newWorld(t, reader())
	first, _ := granted(t, w, w.post(form(w.issuer.Token(audience))))
	again, claims := granted(t, w, w.post(form(w.issuer.Token(audience), "scope", first.Scope)))
	if first.Scope != "cache:shared:pull cache:team-*:pull" || again.Scope != first.Scope || claims.Caches.For("team-x") != token.Pull {
		t.Errorf("got %q, then %q", first.Scope, again.Scope)
	}
}

func TestFloodOfBadTokensIsStoppedAndServedAgain(t *testing.T) {
	w := newWorld(t, infra())
	limitedAfter := 0
	for limitedAfter < 60 { // one a second
		rec := w.post(form("bad"))
		if rec.Code == http.StatusTooManyRequests {
			refused(t, rec, http.StatusTooManyRequests, "slow_down")
			if s, err := strconv.Atoi(rec.Header().Get("Retry-After")); err != nil || s < 1 || s > 60 {
				t.Errorf("Retry-After is %q", rec.Header().Get("Retry-After"))
			}
			break
		}
		refused(t, rec, http.StatusBadRequest, "invalid_grant")
		limitedAfter++
		w.clock = w.clock.Add(time.Second)
	}
	if limitedAfter == 60 {
		t.Fatal("a minute of bad tokens was served")
	}
	// A good token waits as well, others' addresses do not.
	if rec := w.post(form(w.issuer.Token(audience))); rec.Code != http.StatusTooManyRequests {
		t.Errorf("a token from the flooding address got %d", rec.Code)
	}
	other := request(form(w.issuer.Token(audience)).Encode())
	other.RemoteAddr = "198.51.100.7:1"
	granted(t, w, w.send(other))
	// Asking meanwhile does not lengthen the wait.
	for range 1000 {
		w.post(form("bad"))
	}
	w.clock = w.clock.Add(2 * time.Minute)
	granted(t, w, w.post(form(w.issuer.Token(audience))))
}

func TestGoodTokensAreNotCounted(t *testing.T) {
	w := newWorld(t, infra())
	for range 100 { // a matrix of jobs behind one address
		granted(t, w, w.post(form(w.issuer.Token(audience))))
	}
}

func TestFloodOutOfOneIPv6NetworkIsOneFlood(t *testing.T) {
	w := newWorld(t, infra())
	for i := range 30 {
		r := request(form("bad").Encode())
		r.RemoteAddr = fmt.Sprintf("[2001:db8::%x]:1", i+1)
		if rec := w.send(r); rec.Code == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("changing the lower half of the address gets around the limit")
}
