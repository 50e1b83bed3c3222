package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// pin sets a pin as our client does.
func (h *house) pin(t *testing.T, tok, cache, name string, path nix.StorePath) (*http.Response, string) {
	t.Helper()
	return h.Do(t, "PUT", api.Expand(api.PinRoute, "cache", cache, "name", name), tok, fmt.Sprintf(`{"store_path":%q}`, path))
}

// answerOf sends a request that must succeed and reads its answer.
func answerOf[T any](t *testing.T, h *house, method, url, tok, in string) (out T) {
	t.Helper()
	resp, body := h.Do(t, method, url, tok, in)
	if resp.StatusCode != 200 {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// web is a host of two paths in cache "pub".
func (h *house) web(t *testing.T, name string) (top servertest.NAR) {
	t.Helper()
	lib := servertest.NewNAR(t, name+"-lib", []byte("lib of "+name))
	top = servertest.NewNAR(t, name, []byte("system "+name), lib.Path.Base())
	for _, n := range []servertest.NAR{lib, top} {
		if resp, body := h.Upload(t, h.Root, "pub", n); resp.StatusCode != 200 {
			t.Fatalf("upload: %s: %s", resp.Status, body)
		}
	}
	return top
}

func pinHouse(t *testing.T, change ...func(*server.Server)) (h *house, pinner string) {
	t.Helper()
	h = &house{Server: servertest.Start(t, change...)}
	h.CreateCache(t, "pub", true)
	h.CreateCache(t, "priv", false)
	return h, h.PinToken(t, []string{"acme/infra/*"}, servertest.Grant{Caches: "pub", Perm: token.Pull | token.Push})
}

func TestPinIsSetShownAndDeleted(t *testing.T) {
	h, pinner := pinHouse(t)
	top := h.web(t, "web")
	const name = "acme/infra/main/web"
	url := "/_api/v1/cache/pub/pins/acme%2Finfra%2Fmain%2Fweb"
	set := answerOf[api.Pin](t, h, "PUT", url, pinner, fmt.Sprintf(`{"store_path":%q,"keep":2,"expires_in":3600}`, top.Path))
	if set.Name != name || set.Keep != 2 || set.Expires == nil || time.Until(*set.Expires) > time.Hour || len(set.Revisions) != 1 {
		t.Errorf("set: %+v", set)
	}
	if r := set.Revisions[0]; r.StorePath != top.Path.String() || r.SetBy != "test" || r.Paths != 2 || r.Size != uint64(len("lib of web")+len("system web")) || time.Since(r.SetAt) > time.Minute {
		t.Errorf("set: %+v", r)
	}
	// A proxy may have taken the escape out of the name.
	for _, u := range []string{url, "/_api/v1/cache/pub/pins/" + name} {
		got := answerOf[api.Pin](t, h, "GET", u+"?sizes=1", pinner, "")
		if got.Name != name || got.Sizes == nil || got.Sizes.Paths != 2 || got.Sizes.OnlyPaths != 2 || got.Sizes.OnlyFile == 0 {
			t.Errorf("%s: %+v %+v", u, got, got.Sizes)
		}
	}
	for i := range 3 {
		if resp, body := h.pin(t, pinner, "pub", fmt.Sprintf("acme/infra/x/%d", i), top.Path); resp.StatusCode != 200 {
			t.Fatalf("%s: %s", resp.Status, body)
		}
	}
	var names []string
	for next := ""; ; {
		page := answerOf[api.PinList](t, h, "GET", "/_api/v1/cache/pub/pins?limit=2&after="+next, pinner, "")
		for _, p := range page.Pins {
			names = append(names, p.Name)
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if want := []string{name, "acme/infra/x/0", "acme/infra/x/1", "acme/infra/x/2"}; !slices.Equal(names, want) {
		t.Errorf("listed %q, want %q", names, want)
	}
	if resp, body := h.Do(t, "DELETE", url, pinner, ""); resp.StatusCode != 200 {
		t.Errorf("delete: %s: %s", resp.Status, body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if resp, body := h.Do(t, method, url, pinner, ""); resp.StatusCode != 404 || !strings.Contains(body, api.NoSuchPin) {
			t.Errorf("%s afterwards: %s: %s", method, resp.Status, body)
		}
	}
}

// A pin that held half a system would be found out when the machine needs it.
func TestPinOfAnIncompleteClosureNamesWhatIsMissing(t *testing.T) {
	h, pinner := pinHouse(t)
	there := servertest.NewNAR(t, "there", []byte("x"))
	gone := servertest.NewNAR(t, "gone", nil)
	top := servertest.NewNAR(t, "top", []byte("top"), there.Path.Base(), gone.Path.Base())
	for _, n := range []servertest.NAR{there, top} {
		h.Upload(t, h.Root, "pub", n)
	}
	refused := func(path nix.StorePath, want ...string) {
		t.Helper()
		resp, body := h.pin(t, pinner, "pub", "acme/infra/main/web", path)
		var e api.Error
		if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != 409 || e.Name != api.MissingReferences || !slices.Equal(e.References, want) {
			t.Errorf("%s: %s, want 409 with %q", resp.Status, body, want)
		}
	}
	refused(top.Path, gone.Path.Base())
	refused(gone.Path, gone.Path.Base())
	body := fmt.Sprintf(`{"store_path":%q,"upstream":[%q]}`, top.Path, gone.Path.Base())
	if resp, text := h.Do(t, "PUT", "/_api/v1/cache/pub/pins/acme%2Finfra%2Fx", pinner, body); resp.StatusCode != 200 {
		t.Errorf("with what upstream has: %s: %s", resp.Status, text)
	}
}

// The right to pin is a claim of its own, in the caches that the token names: what somebody else's
// machines run must not be pushed out of its pin, and nobody keeps things for ever who may only read.
func TestPinningNeedsItsOwnRight(t *testing.T) {
	h, pinner := pinHouse(t)
	top := h.web(t, "web")
	own := h.PinToken(t, []string{"*"}, servertest.Grant{Caches: "priv", Perm: token.All})
	for _, c := range []struct {
		what, tok, name string
		put, get, del   int
	}{
		{"nobody", "", "acme/infra/x", 401, 401, 401},
		{"a token that may do all else", h.Root, "acme/infra/x", 403, 404, 403},
		{"another cache's token", own, "acme/infra/x", 401, 401, 401},
		{"another name", pinner, "acme/infrared/x", 403, 404, 403},
		{"another name that ends alike", pinner, "evil/acme/infra/x", 403, 404, 403},
		{"no right to contents", h.PinToken(t, []string{"*"}, servertest.Grant{Caches: "pub", Perm: token.ConfigureCache}), "acme/infra/x", 403, 401, 403},
		{"may only push", h.PinToken(t, []string{"acme/infra/*"}, servertest.Grant{Caches: "pub", Perm: token.Push}), "acme/infra/p", 200, 401, 200},
		{"may only pull", h.PinToken(t, []string{"acme/infra/*"}, servertest.Grant{Caches: "pub", Perm: token.Pull}), "acme/infra/q", 200, 200, 200},
	} {
		url := api.Expand(api.PinRoute, "cache", "pub", "name", c.name)
		if resp, body := h.pin(t, c.tok, "pub", c.name, top.Path); resp.StatusCode != c.put {
			t.Errorf("%s: PUT: %s: %s, want %d", c.what, resp.Status, body, c.put)
		}
		if resp, body := h.Do(t, "GET", url, c.tok, ""); resp.StatusCode != c.get {
			t.Errorf("%s: GET: %s: %s, want %d", c.what, resp.Status, body, c.get)
		}
		if resp, body := h.Do(t, "DELETE", url, c.tok, ""); resp.StatusCode != c.del {
			t.Errorf("%s: DELETE: %s: %s, want %d", c.what, resp.Status, body, c.del)
		}
	}
	// Of a public cache everybody may pull; its pins would tell him every hash.
	if resp, body := h.Do(t, "GET", "/_api/v1/cache/pub/pins", "", ""); resp.StatusCode != 401 {
		t.Errorf("nobody lists pins of a public cache: %s: %s", resp.Status, body)
	}
}

func TestPinRequestsAreChecked(t *testing.T) {
	h, pinner := pinHouse(t)
	top := h.web(t, "web")
	good := fmt.Sprintf(`"store_path":%q`, top.Path)
	all := h.PinToken(t, []string{"*"}, servertest.Grant{Caches: "pub", Perm: token.All})
	for _, c := range []struct {
		name, body string
		want       int
	}{
		{"acme%2Finfra%2Fx", "{" + good + "}", 200},
		{"..", "{" + good + "}", 400}, {"a%2F..%2Fb", "{" + good + "}", 400}, {"a%2F%2Fb", "{" + good + "}", 400},
		{"%2Fa", "{" + good + "}", 400}, {"a%0Ab", "{" + good + "}", 400}, {"a%1b%5B2J", "{" + good + "}", 400}, {"a*", "{" + good + "}", 400},
		{"a%20b", "{" + good + "}", 400}, {"%ff", "{" + good + "}", 400}, {strings.Repeat("a", 513), "{" + good + "}", 400},
		{"x", "{", 400}, {"x", "{}", 422}, {"x", `{"store_path":"/nix/store/../../etc/passwd"}`, 400}, {"x", `{"store_path":7}`, 422},
		{"x", "{" + good + `,"keep":0}`, 422}, {"x", "{" + good + `,"keep":101}`, 400}, {"x", "{" + good + `,"keep":-1}`, 422},
		{"x", "{" + good + `,"expires_in":-5}`, 422}, {"x", "{" + good + `,"expires_in":99999999999}`, 422},
		{"x", "{" + good + `,"upstream":[` + strings.Repeat(`"a",`, api.MaxPinUpstream) + `"a"]}`, 422},
		{"x", strings.Replace("{"+good+"}", "/nix/store", "/gnu/store", 1), 400},
	} {
		if resp, body := h.Do(t, "PUT", "/_api/v1/cache/pub/pins/"+c.name, all, c.body); resp.StatusCode != c.want {
			t.Errorf("%.60s %.80s: %s: %.200s, want %d", c.name, c.body, resp.Status, body, c.want)
		}
	}
	for query, want := range map[string]int{"limit=0": 400, "limit=x": 400, "limit=1000000": 200, "after=" + strings.Repeat("a", 600): 400, "a;b": 400, "sizes=2": 200} {
		if resp, body := h.Do(t, "GET", "/_api/v1/cache/pub/pins?"+query, pinner, ""); resp.StatusCode != want {
			t.Errorf("%.30s: %s: %s, want %d", query, resp.Status, body, want)
		}
	}
}

func TestPinsAreAudited(t *testing.T) {
	seen := new(events)
	h, pinner := pinHouse(t, func(s *server.Server) { s.Audit = seen.add })
	top := h.web(t, "web")
	h.pin(t, pinner, "pub", "acme/infra/x", top.Path)
	list := seen.of(t, audit.PinSet, 1)
	h.pin(t, pinner, "pub", "other", top.Path)
	list = append(list, seen.of(t, audit.PinSet, 2)[1])
	h.Do(t, "GET", "/_api/v1/cache/pub/pins", pinner, "") // changes nothing
	h.Do(t, "DELETE", "/_api/v1/cache/pub/pins/acme%2Finfra%2Fx", pinner, "")
	list = append(list, seen.of(t, audit.PinDelete, 1)...)
	var got []string
	for _, e := range list {
		got = append(got, strings.Join([]string{e.Action, e.Result, e.Cache, e.Object, e.Subject}, " "))
	}
	base := top.Path.Base()
	if want := []string{"pin.set ok pub acme/infra/x " + base + " test", "pin.set refused pub other " + base + " test", "pin.delete ok pub acme/infra/x test"}; !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
