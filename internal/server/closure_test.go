package server_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// Who may pull learns all of it anyhow, one path at a time, and a job that may not push can then leave hosts unbuilt.
func TestWhoMayPullMayAskForClosures(t *testing.T) {
	h, _ := pinHouse(t)
	top := h.web(t, "web")
	lib := servertest.NewNAR(t, "web-lib", []byte("lib of web"))
	ask := fmt.Sprintf(`{"store_path_hashes":[%q],"list":true}`, top.Path.Hash())
	for _, perm := range []token.Perm{token.Pull, token.Push} {
		tok := h.Token(t, servertest.Grant{Caches: "pub", Perm: perm})
		got := answerOf[api.ClosureResult](t, h, "POST", "/_api/v1/cache/pub/closure", tok, ask)
		want := map[string]uint64{top.Path.Base(): uint64(len("system web")), lib.Path.Base(): uint64(len("lib of web"))}
		if len(got.Complete) != 1 || !maps.Equal(got.Paths, want) || len(got.Upstream) != 0 {
			t.Errorf("%v: %+v", perm, got)
		}
	}
}

// A walk reads thousands of rows and writes as many uses: strangers get neither, in a public cache too.
func TestStrangersMayNotAskForClosures(t *testing.T) {
	h, _ := pinHouse(t)
	top := h.web(t, "web")
	elsewhere := h.Token(t, servertest.Grant{Caches: "priv", Perm: token.Pull | token.Push})
	for _, tok := range []string{"", elsewhere} {
		for _, list := range []string{"", `,"list":true`} {
			resp, body := h.Do(t, "POST", "/_api/v1/cache/pub/closure", tok, fmt.Sprintf(`{"store_path_hashes":[%q]%s}`, top.Path.Hash(), list))
			if resp.StatusCode != 401 || strings.Contains(body, top.Path.Hash()) {
				t.Errorf("%s: %s", resp.Status, body)
			}
		}
	}
}

// A cache need not hold what an upstream cache does. Such references are named, so that whoever asks can look there.
func TestListOfAClosureNamesWhatIsElsewhere(t *testing.T) {
	h, _ := pinHouse(t)
	glibc := servertest.NewNAR(t, "glibc-2.40", []byte("glibc"))
	top := servertest.NewNAR(t, "top", []byte("top"), glibc.Path.Base())
	if resp, body := h.Upload(t, h.Root, "pub", top); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	got := answerOf[api.ClosureResult](t, h, "POST", "/_api/v1/cache/pub/closure", h.Root, fmt.Sprintf(`{"store_path_hashes":[%q],"list":true}`, top.Path.Hash()))
	if len(got.Paths) != 1 || len(got.Upstream) != 1 || got.Upstream[0] != glibc.Path.Base() {
		t.Errorf("%+v", got)
	}
	none := answerOf[api.ClosureResult](t, h, "POST", "/_api/v1/cache/pub/closure", h.Root, fmt.Sprintf(`{"store_path_hashes":[%q],"list":true}`, glibc.Path.Hash()))
	if len(none.Missing) != 1 || none.Paths != nil || none.Upstream != nil {
		t.Errorf("of what is not there: %+v", none)
	}
}
