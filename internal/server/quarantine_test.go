package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/roots"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// Whatever a client asks about a damaged path, and about what needs it, is answered as if it were not there; and
// all of it is there again after an upload of the same.
func TestDamagedPathIsNotThere(t *testing.T) {
	srv := servertest.Start(t, func(s *server.Server) { s.Roots = &roots.Keeper{DB: s.DB} })
	srv.CreateCache(t, "main", true)
	tok := srv.Token(t, servertest.Grant{Caches: "main", Perm: token.Pull | token.Push})
	body := make([]byte, 40_000)
	for i := range body {
		body[i] = "abcdefghijklmnop"[rand.IntN(16)]
	}
	lib := servertest.NewNAR(t, "lib", body)
	top := servertest.NewNAR(t, "top", []byte("a literal"), lib.Path.Base())
	upload := func(n servertest.NAR) {
		t.Helper()
		if resp, text := srv.Upload(t, tok, "main", n); resp.StatusCode != http.StatusOK {
			t.Fatalf("upload: %s %s", resp.Status, text)
		}
	}
	upload(lib)
	upload(top)
	look := func(there bool) {
		t.Helper()
		want := map[bool]int{true: 200, false: 404}[there]
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, name := range []string{".narinfo", ".nar"} {
				path := "/main/" + lib.Path.Hash() + name
				if name == ".nar" {
					path = "/main/nar/" + lib.Path.Hash() + name
				}
				if resp, _ := srv.Do(t, method, path, tok, ""); resp.StatusCode != want {
					t.Errorf("%s %s: %s, want %d", method, path, resp.Status, want)
				}
			}
		}
		if resp, _ := srv.Do(t, http.MethodGet, "/main/"+top.Path.Hash()+".narinfo", tok, ""); resp.StatusCode != 200 {
			t.Errorf("what needs it: %s", resp.Status)
		}
		ask := fmt.Sprintf(`{"cache":"main","store_path_hashes":[%q,%q]}`, lib.Path.Hash(), top.Path.Hash())
		if _, text := srv.Do(t, http.MethodPost, api.MissingPathsRoute, tok, ask); strings.Contains(text, lib.Path.Hash()) == there || strings.Contains(text, top.Path.Hash()) {
			t.Errorf("missing: %s", text)
		}
		closure := api.Expand(api.ClosureRoute, "cache", "main")
		if _, text := srv.Do(t, http.MethodPost, closure, tok, fmt.Sprintf(`{"store_path_hashes":[%q]}`, top.Path.Hash())); strings.Contains(text, `"complete":[]`) == there ||
			strings.Contains(text, lib.Path.Hash()) == there {
			t.Errorf("closure: %s", text)
		}
		pin := api.Expand(api.PinRoute, "cache", "main", "name", "x")
		pinner := srv.PinToken(t, []string{"*"}, servertest.Grant{Caches: "main", Perm: token.Pull | token.Push})
		if resp, text := srv.Do(t, http.MethodPut, pin, pinner, fmt.Sprintf(`{"store_path":%q}`, top.Path)); (resp.StatusCode == 200) != there ||
			!there && !strings.Contains(text, lib.Path.Base()) {
			t.Errorf("pin: %s %s", resp.Status, text)
		}
	}
	look(true)
	var pack int64
	if err := srv.DB.View(context.Background(), func(tx *meta.Tx) error {
		list, err := tx.PackFacts(0, 1)
		if len(list) == 1 {
			pack = list[0].ID
		}
		return err
	}); err != nil || pack == 0 {
		t.Fatalf("pack %d, %v", pack, err)
	}
	if _, err := srv.Depot.Quarantine(context.Background(), pack, nil, "a test says so"); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = srv.Depot.Spread(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	look(false)
	upload(lib)
	look(true)
}
