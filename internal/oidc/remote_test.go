package oidc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/oidctest"
)

const discovery, jwks = "/.well-known/openid-configuration", "/.well-known/jwks"

// direct carries requests to handlers by host, without a network, so that the tests below
// run on synctest's clock.
type direct map[string]http.Handler

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	h := d[r.URL.Host]
	if h == nil {
		return nil, fmt.Errorf("no host %s", r.URL.Host)
	}
	done := make(chan *http.Response, 1)
	go func() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		done <- w.Result()
	}()
	select {
	case resp := <-done:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// remote is a verifier and two issuers that it trusts, on one fake clock.
type remote struct {
	*oidc.Verifier
	a, b *oidctest.Issuer
}

func newRemote(t *testing.T) remote {
	t.Helper()
	r := remote{a: oidctest.New("https://a.example.com"), b: oidctest.New("https://b.example.com")}
	v, err := oidc.New(oidc.Config{
		Audience:  audience,
		Issuers:   []oidc.Issuer{{URL: r.a.URL}, {URL: r.b.URL}},
		Transport: direct{"a.example.com": r.a, "b.example.com": r.b},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Verifier = v
	return r
}

func (r remote) accepts(t *testing.T, raw string) {
	t.Helper()
	if _, err := r.Verify(t.Context(), raw); err != nil {
		t.Errorf("refused: %v", err)
	}
}

func (r remote) unavailable(t *testing.T, raw string) {
	t.Helper()
	if _, err := r.Verify(t.Context(), raw); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func down(w http.ResponseWriter, _ *http.Request) bool {
	http.Error(w, "down", http.StatusBadGateway)
	return true
}

func TestKeysAreFetchedOnceForManyTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { r.accepts(t, r.a.Token(audience)) })
		}
		wg.Wait()
		if n := r.a.Requests(jwks); n != 1 {
			t.Errorf("keys were fetched %d times", n)
		}
	})
}

func TestFloodOfUnknownKidsFetchesOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		r.accepts(t, r.a.Token(audience))
		flood := func() {
			for i := range 100 {
				refused(t, r.Verifier, r.a.Forge(r.a.Claims(audience), oidctest.Forgery{Header: map[string]any{"kid": fmt.Sprint("made-up-", i)}}), "kid")
			}
		}
		flood()
		if n := r.a.Requests(jwks); n != 1 {
			t.Errorf("keys were fetched %d times within a minute, want 1", n)
		}
		time.Sleep(time.Minute)
		flood()
		if n := r.a.Requests(jwks); n != 2 {
			t.Errorf("keys were fetched %d times within two minutes, want 2", n)
		}
	})
}

func TestRotatedKeysReplaceOldOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		old := r.a.Keys()[0]
		r.accepts(t, r.a.Token(audience))
		r.a.SetKeys(oidctest.ECKey("key-2"))
		time.Sleep(time.Minute)
		r.accepts(t, r.a.Token(audience))
		// A key taken back is taken back: it may have been stolen.
		refused(t, r.Verifier, r.a.Forge(r.a.Claims(audience), oidctest.Forgery{Key: &old}), "kid")
	})
}

func TestKeyTakenBackIsRefusedWithinAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		old := r.a.Keys()[0]
		r.accepts(t, r.a.Token(audience))
		r.a.SetKeys(oidctest.ECKey("key-2"))
		time.Sleep(time.Hour + time.Second)
		refused(t, r.Verifier, r.a.Forge(r.a.Claims(audience), oidctest.Forgery{Key: &old}), "kid")
	})
}

func TestStaleKeysServeWhileTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		r.accepts(t, r.a.Token(audience))
		r.a.Hook = down
		time.Sleep(6 * time.Hour)
		r.accepts(t, r.a.Token(audience))
		n := r.a.Requests(discovery)
		r.accepts(t, r.a.Token(audience))
		if again := r.a.Requests(discovery); again != n {
			t.Error("every token asked the issuer that is down")
		}
		time.Sleep(7 * time.Hour) // but not for ever
		r.unavailable(t, r.a.Token(audience))
		r.a.Hook = nil
		time.Sleep(10 * time.Second)
		r.accepts(t, r.a.Token(audience))
	})
}

func TestUnreachableWithNothingCachedIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		r.a.Hook = down
		for range 20 {
			r.unavailable(t, r.a.Token(audience))
		}
		if n := r.a.AllRequests(); n != 1 {
			t.Errorf("%d requests were made at once, want 1", n)
		}
		r.a.Hook = nil
		time.Sleep(10 * time.Second)
		r.accepts(t, r.a.Token(audience))
	})
}

func TestSlowIssuerHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		release := make(chan struct{})
		r.a.Hook = func(http.ResponseWriter, *http.Request) bool { <-release; return false }
		var wg sync.WaitGroup
		start := time.Now()
		for range 5 {
			wg.Go(func() { r.unavailable(t, r.a.Token(audience)) })
		}
		synctest.Wait()
		r.accepts(t, r.b.Token(audience))
		if took := time.Since(start); took != 0 {
			t.Errorf("a token of the other issuer took %s", took)
		}
		wg.Wait()
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("the slow issuer was given %s, want 10s in all", took)
		}
		close(release)
	})
}

func TestSlowRenewalHoldsUpNoTokenWhoseKeyIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		r.accepts(t, r.a.Token(audience))
		release := make(chan struct{})
		r.a.Hook = func(http.ResponseWriter, *http.Request) bool { <-release; return false }
		time.Sleep(2 * time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() { r.accepts(t, r.a.Token(audience)) }) // renews, waits in vain, uses the old key
		synctest.Wait()
		start := time.Now()
		r.accepts(t, r.a.Token(audience))
		if took := time.Since(start); took != 0 {
			t.Errorf("took %s behind somebody else's renewal", took)
		}
		wg.Wait()
		close(release)
	})
}

// A client that sends an unknown kid and hangs up must not use up the minute's fetch.
func TestFetchSurvivesItsCallerHangingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		r.a.Hook = func(http.ResponseWriter, *http.Request) bool { time.Sleep(time.Second); return false }
		ctx, hangUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = r.Verify(ctx, r.a.Token(audience)) })
		synctest.Wait()
		hangUp()
		wg.Wait()
		r.accepts(t, r.a.Token(audience))
		if n := r.a.Requests(jwks); n != 1 {
			t.Errorf("keys were fetched %d times", n)
		}
	})
}

func TestWaiterForKeysLeavesWhenItsRequestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(t)
		release := make(chan struct{})
		r.a.Hook = func(http.ResponseWriter, *http.Request) bool { <-release; return false }
		var wg sync.WaitGroup
		wg.Go(func() { r.unavailable(t, r.a.Token(audience)) })
		synctest.Wait()
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		start := time.Now()
		if _, err := r.Verify(ctx, r.a.Token(audience)); !errors.Is(err, oidc.ErrUnavailable) || time.Since(start) != 0 {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		wg.Wait()
		close(release)
	})
}

// What a hijacked or careless issuer may answer; none of it may yield keys, and none of it
// may send us to another host.
func TestHostileIssuerAnswersYieldNoKeys(t *testing.T) {
	doc := func(changes map[string]any) func(*oidctest.Issuer, http.ResponseWriter) {
		return func(is *oidctest.Issuer, w http.ResponseWriter) {
			d := is.Discovery()
			for k, v := range changes {
				d[k] = v
			}
			oidctest.WriteJSON(w, http.StatusOK, d)
		}
	}
	text := func(s string) func(*oidctest.Issuer, http.ResponseWriter) {
		return func(_ *oidctest.Issuer, w http.ResponseWriter) { _, _ = io.WriteString(w, s) }
	}
	redirect := func(to string) func(*oidctest.Issuer, http.ResponseWriter) {
		return func(_ *oidctest.Issuer, w http.ResponseWriter) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
	}
	for _, tt := range []struct {
		name, path string
		answer     func(*oidctest.Issuer, http.ResponseWriter)
	}{
		{"discovery of another issuer", discovery, doc(map[string]any{"issuer": "https://b.example.com"})},
		{"discovery with a slash behind the issuer", discovery, doc(map[string]any{"issuer": "https://a.example.com/"})},
		{"keys on another host", discovery, doc(map[string]any{"jwks_uri": "https://b.example.com/.well-known/jwks"})},
		{"keys on another port", discovery, doc(map[string]any{"jwks_uri": "https://a.example.com:8443/.well-known/jwks"})},
		{"keys over http", discovery, doc(map[string]any{"jwks_uri": "http://a.example.com/.well-known/jwks"})},
		{"keys of the cloud's metadata service", discovery, doc(map[string]any{"jwks_uri": "https://169.254.169.254/latest"})},
		{"keys behind a user part", discovery, doc(map[string]any{"jwks_uri": "https://a.example.com@b.example.com/.well-known/jwks"})},
		{"keys on our host with a password", discovery, doc(map[string]any{"jwks_uri": "https://x:y@a.example.com/.well-known/jwks"})},
		{"no keys' address", discovery, doc(map[string]any{"jwks_uri": 7})},
		{"redirect of discovery to another host", discovery, redirect("https://b.example.com" + discovery)},
		{"redirect of keys to another host", jwks, redirect("https://b.example.com" + jwks)},
		{"redirect of keys on the same host", jwks, redirect("https://a.example.com/elsewhere")},
		{"discovery of a mebibyte and more", discovery, text(strings.Repeat(" ", 1<<20+1))},
		{"keys of a mebibyte and more", jwks, text(strings.Repeat(" ", 1<<20+1))},
		{"keys that are not JSON", jwks, text("<html>")},
		{"key set without keys", jwks, text(`{"keys":[]}`)},
		{"issuer given twice", discovery, text(`{"issuer":"https://a.example.com","issuer":"https://a.example.com","jwks_uri":"https://a.example.com/.well-known/jwks"}`)},
		{"members in another case", discovery, text(`{"Issuer":"https://a.example.com","JWKS_URI":"https://a.example.com/.well-known/jwks"}`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRemote(t)
				r.a.Hook = func(w http.ResponseWriter, req *http.Request) bool {
					if req.URL.Path != tt.path {
						return false
					}
					tt.answer(r.a, w)
					return true
				}
				r.unavailable(t, r.a.Token(audience))
				if n := r.b.AllRequests() + r.a.Requests("/elsewhere"); n != 0 {
					t.Errorf("%d requests went where the issuer sent us", n)
				}
			})
		})
	}
}

func TestIssuerOnAPrivateAddressIsNotContacted(t *testing.T) {
	reached := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer s.Close()
	v, err := oidc.New(oidc.Config{Audience: audience, Issuers: []oidc.Issuer{{URL: s.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), oidctest.New(s.URL).Token(audience)); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if reached {
		t.Error("the request arrived")
	}
}

func TestKeyFileNeedsNoNetwork(t *testing.T) {
	is := oidctest.New("https://air-gap.example.com")
	is.Now = now
	b, err := json.Marshal(is.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := oidc.New(oidc.Config{
		Audience: audience, Now: now, Transport: direct{},
		Issuers: []oidc.Issuer{{URL: is.URL, JWKSFile: file}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), is.Token(audience)); err != nil {
		t.Errorf("refused: %v", err)
	}
	refused(t, v, is.Forge(is.Claims(audience), oidctest.Forgery{Header: map[string]any{"kid": "other"}}), "kid")
}
