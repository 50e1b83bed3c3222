package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/roots"
)

// upload pushes a made-up path as the stock client does, and returns it.
func upload(t *testing.T, url, jwt, cache, name string, refs ...string) nix.StorePath {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	path, err := nix.ParseBaseName(nix.StoreDir, nix.EncodeBase32(sum[:20])+"-"+name)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("NAR of " + name)
	info, err := json.Marshal(map[string]any{"cache": cache, "store_path_hash": path.Hash(), "store_path": path.String(), "references": append([]string{}, refs...),
		"system": nil, "deriver": nil, "sigs": []string{}, "ca": nil, "nar_hash": fmt.Sprintf("sha256:%x", sha256.Sum256(body)), "nar_size": len(body)})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("PUT", url+api.UploadPathRoute, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "bearer "+strings.TrimSpace(jwt))
	req.Header.Set(api.NarInfoHeader, string(info))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("upload %s: %s", name, resp.Status)
	}
	return path
}

func contains(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s: no %q in\n%s", what, w, text)
		}
	}
}

func TestCachesAreManagedWithoutAToken(t *testing.T) {
	home := shortHome(t)
	// Nobody runs.
	var made cacheRow
	if err := json.Unmarshal([]byte(ok(t, home, "cache", "create", "system", "--public", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	if !made.Public || !strings.HasPrefix(made.PublicKey, "system:") || made.Priority != 41 || len(made.UpstreamKeys) != 1 {
		t.Errorf("made %+v", made)
	}
	url, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	// The server does, and sees each change at once.
	contains(t, "create", ok(t, home, "cache", "create", "team", "--upstream-cache-key-name", "", "--priority", "7"), "cache team is there, private", "team:")
	jwt := ok(t, home, "make-token", "--sub", "me", "--validity", "1d", "--pull", "team")
	config := func() string {
		code, body := status(t, "GET", url+"/_api/v1/cache-config/team", jwt, "")
		return fmt.Sprint(code, " ", body)
	}
	contains(t, "made", config(), `"priority":7`, `"is_public":false`, `"upstream_cache_key_names":[]`, `"retention_period":"Global"`)
	ok(t, home, "cache", "configure", "team", "--public", "--retention-period", "30 days")
	contains(t, "configured", config(), `"priority":7`, `"is_public":true`, `"retention_period":{"Period":2592000}`)
	ok(t, home, "cache", "configure", "team", "--private", "--reset-retention-period")
	contains(t, "configured again", config(), `"is_public":false`, `"retention_period":"Global"`)
	contains(t, "list", ok(t, home, "cache", "list"), "system", "public", "team", "private", made.PublicKey)
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"cache", "create", "team"}, 1, "exists already"},
		{[]string{"cache", "create", "a/b"}, 2, "name of one cache"},
		{[]string{"cache", "create", "x", "--store-dir", "relative"}, 1, "relative"},
		{[]string{"cache", "configure", "none", "--public"}, 1, `no cache is called "none"`},
		{[]string{"cache", "configure", "team"}, 2, "needs a setting"},
		{[]string{"cache", "configure", "team", "--public", "--private"}, 2, "exclude each other"},
		{[]string{"cache", "configure", "team", "--retention-period", "900 years"}, 1, "retention"},
		{[]string{"cache", "destroy", "team"}, 2, "--yes"},
		{[]string{"cache", "destroy", "none", "--yes"}, 1, `no cache is called "none"`},
		{[]string{"cache"}, 2, "list, create"},
	} {
		code, _, stderr := call(t, home, append([]string{"attic-server"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.text) {
			t.Errorf("%q: exit %d, %q; want %d with %q", c.args, code, stderr, c.code, c.text)
		}
	}
	ok(t, home, "cache", "destroy", "team", "--yes")
	contains(t, "destroyed", config(), "404")
}

func TestPinsPathsAndDeletionOnTheServer(t *testing.T) {
	home := shortHome(t)
	ok(t, home, "cache", "create", "c", "--public")
	url, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	jwt := ok(t, home, "make-token", "--sub", "ci", "--validity", "1d", "--pull", "c", "--push", "c", "--pin", "acme/*")
	lib := upload(t, url, jwt, "c", "lib")
	web := upload(t, url, jwt, "c", "web", lib.Base())
	half := upload(t, url, jwt, "c", "half", "0c0ikz3plkm3fv8hd16w1xihs47zahbb-gone")

	contains(t, "set", ok(t, home, "pin", "set", "c", "hosts/web", web.String(), "--keep", "2", "--expires", "30 days"), "hosts/web holds "+web.String(), "2 paths", "1 of 2 revisions")
	body := fmt.Sprintf(`{"store_path":%q}`, web)
	if code, text := status(t, "PUT", url+"/_api/v1/cache/c/pins/acme%2Fweb", jwt, body); code != 200 {
		t.Errorf("a token of make-token --pin: %d %s", code, text)
	}
	contains(t, "list", ok(t, home, "pin", "list", "c", "--sizes"), "hosts/web", "acme/web", "administrator", "ci", "0 bytes in 0 paths")
	contains(t, "path", ok(t, home, "path", lib.String()), "by ci", "needed by   "+web.String(), "acme/web", "hosts/web", "in the database", "for ever")
	contains(t, "path by its hash", ok(t, home, "path", half.Hash()), "NOT IN THE CACHE", "pinned by   none")
	contains(t, "why", ok(t, home, "why", lib.Base()), "pinned as", "  "+web.String(), "└ "+lib.String())
	contains(t, "why", ok(t, home, "why", half.String()), "last used", half.String())
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"delete", web.String(), "--closure"}, 1, "is pinned as acme/web and 1 more"},
		{[]string{"delete", lib.String()}, 1, "is needed by " + web.String()},
		{[]string{"delete", "/nix/store/x"}, 2, "no store path"},
		{[]string{"path", "0c0ikz3plkm3fv8hd16w1xihs47zahbb"}, 1, "no cache has"},
		{[]string{"why", lib.String(), "--cache", "d"}, 1, `no cache is called "d"`},
		{[]string{"pin", "set", "c", "x", half.String()}, 1, "0c0ikz3plkm3fv8hd16w1xihs47zahbb-gone"},
		{[]string{"pin", "set", "c", "a//b", web.String()}, 1, "no part that is empty"},
		{[]string{"pin", "set", "c", "x", web.String(), "--expires", "soon"}, 2, "--expires"},
		{[]string{"pin", "remove", "c", "none"}, 1, `no pin "none"`},
		{[]string{"pin", "list"}, 2, "needs CACHE"},
		{[]string{"make-token", "--sub", "x", "--validity", "1d", "--pin", "a b"}, 2, "--pin"},
	} {
		code, _, stderr := call(t, home, append([]string{"attic-server"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.text) {
			t.Errorf("%q: exit %d, %q; want %d with %q", c.args, code, stderr, c.code, c.text)
		}
	}
	ok(t, home, "pin", "remove", "c", "hosts/web")
	ok(t, home, "pin", "remove", "c", "acme/web")
	var s roots.Stats
	if err := json.Unmarshal([]byte(ok(t, home, "stats", "--json")), &s); err != nil || s.Total.Paths != 3 || s.Caches[0].Pins != 0 {
		t.Errorf("stats: %+v, %v", s, err)
	}
	contains(t, "stats", ok(t, home, "stats"), "CACHE   PATHS  SIZE", "in all  3      ", "collected: ")
	contains(t, "stats --plan", ok(t, home, "stats", "--plan"), "planned: ", "what keeps the most:", "KEPT BY", web.String())
	contains(t, "what is remembered", ok(t, home, "stats", "--json"), `"planned": {`, `"growth"`, `"runs": {`)
	ok(t, home, "gc")
	if text := ok(t, home, "stats"); strings.Contains(text, "planned:") || !strings.Contains(text, "collected: 2") {
		t.Errorf("after a collection: %s", text)
	}
	contains(t, "dry run", ok(t, home, "delete", web.String(), "--closure", "-n"), "would delete "+web.String(), "would delete "+lib.String())
	contains(t, "delete", ok(t, home, "delete", web.String(), "--closure"), "deleted "+web.String(), "deleted "+lib.String())
	if code, text := status(t, "GET", url+"/c/"+lib.Hash()+".narinfo", jwt, ""); code != 404 {
		t.Errorf("after delete: %d %s", code, text)
	}
}

// "For ever" would be wrong where a quota takes what was not used for the longest time.
func TestWhatKeepsAPathNamesTheRulesOfItsCache(t *testing.T) {
	home := shortHome(t)
	ok(t, home, "cache", "create", "c", "--public")
	conf := filepath.Join(home, "server.toml")
	text := "[garbage-collection]\n[[garbage-collection.cache]]\nname = \"c\"\nkeep-last = 3\nquota = \"1 GiB\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	url, _, stop := start(t, home, "attic-server", "-f", conf, "--listen", "127.0.0.1:0")
	defer stop()
	jwt := ok(t, home, "make-token", "--sub", "ci", "--validity", "1d", "--pull", "c", "--push", "c")
	path := upload(t, url, jwt, "c", "lib").String()
	for _, verb := range []string{"path", "why"} {
		out := ok(t, home, verb, path)
		contains(t, verb, out, "keep-last = 3 and quota = 1073741824 bytes", "gc --dry-run")
		if strings.Contains(out, "for ever") {
			t.Errorf("%s: %s", verb, out)
		}
	}
}
