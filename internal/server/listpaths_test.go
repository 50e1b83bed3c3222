package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

func TestPathsAreListedPageByPage(t *testing.T) {
	h, _ := pinHouse(t)
	var want []string
	for i := range 5 {
		n := servertest.NewNAR(t, fmt.Sprintf("path-%d", i), []byte{byte(i)})
		if resp, body := h.Upload(t, h.Root, "priv", n); resp.StatusCode != 200 {
			t.Fatalf("upload: %s: %s", resp.Status, body)
		}
		want = append(want, n.Path.Hash())
	}
	slices.Sort(want)
	tok := h.Token(t, servertest.Grant{Caches: "priv", Perm: token.Pull})
	var got []string
	for after, pages := "", 0; pages == 0 || after != ""; pages++ {
		page := answerOf[api.PathList](t, h, "GET", "/_api/v1/cache/priv/paths?limit=2&after="+after, tok, "")
		if len(page.Paths) > 2 || pages > 3 {
			t.Fatalf("page %d: %+v", pages, page)
		}
		for _, p := range page.Paths {
			got = append(got, p.Hash)
		}
		after = page.Next
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, bad := range []string{"limit=0", "limit=x", "after=" + strings.Repeat("a", 33), "%zz"} {
		if resp, body := h.Do(t, "GET", "/_api/v1/cache/priv/paths?"+bad, tok, ""); resp.StatusCode != 400 {
			t.Errorf("%s: %s: %s", bad, resp.Status, body)
		}
	}
}

// Of a public cache everybody may pull what he knows the hash of. A list would tell him all hashes.
func TestPathsAreListedOnlyForTokensThatMayPull(t *testing.T) {
	h, _ := pinHouse(t)
	top := h.web(t, "web")
	elsewhere := h.Token(t, servertest.Grant{Caches: "priv", Perm: token.Pull | token.Push})
	pusher := h.Token(t, servertest.Grant{Caches: "pub", Perm: token.Push})
	for name, tok := range map[string]string{"nobody": "", "of another cache": elsewhere, "push": pusher} {
		resp, body := h.Do(t, "GET", "/_api/v1/cache/pub/paths", tok, "")
		if resp.StatusCode != 401 && resp.StatusCode != 403 || strings.Contains(body, top.Path.Hash()) {
			t.Errorf("%s: %s: %s", name, resp.Status, body)
		}
	}
}
