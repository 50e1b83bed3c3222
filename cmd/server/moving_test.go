package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/importer"
)

// One cache through a folder and a web server into another, and from server to server: while they run and while not.
func TestCacheMovesOutAndIn(t *testing.T) {
	old, fresh, dir := shortHome(t), shortHome(t), filepath.Join(t.TempDir(), "out")
	ok(t, old, "cache", "create", "c")
	url, _, stop := start(t, old, "attic-server", "--listen", "127.0.0.1:0")
	jwt := ok(t, old, "make-token", "--sub", "ci", "--validity", "1d", "--pull", "c", "--push", "c")
	lib := upload(t, url, jwt, "c", "lib")
	web := upload(t, url, jwt, "c", "web", lib.Base())
	alone := upload(t, url, jwt, "c", "alone")

	contains(t, "export of a closure", ok(t, old, "export", "--to", dir, web.String()), "2 paths, 2 written")
	contains(t, "export of all", ok(t, old, "export", "--to", dir), "3 paths, 1 written", "2 were there")
	ok(t, fresh, "cache", "create", "d")
	contains(t, "import of a folder", ok(t, fresh, "import", "--from", dir, "--to", "d", web.Hash()), "2 of 2 paths came")

	files := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer files.Close()
	contains(t, "import over HTTP", ok(t, fresh, "import", "--from", files.URL, "--to", "d"), "1 of 1 paths came", "2 were here")

	// From server to server, with a token that may pull.
	ok(t, fresh, "cache", "create", "mirror")
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte(jwt), 0o600); err != nil {
		t.Fatal(err)
	}
	url2, _, stop2 := start(t, fresh, "attic-server", "--listen", "127.0.0.1:0")
	if code, _, stderr := call(t, fresh, "attic-server", "import", "--from", url+"/c", "--to", "mirror"); code != 1 || !strings.Contains(stderr, "--token-file") {
		t.Errorf("without a token: exit %d: %s", code, stderr)
	}
	var r importer.Result
	if err := json.Unmarshal([]byte(ok(t, fresh, "import", "--from", url+"/c", "--to", "mirror", "--token-file", secret, "--json")), &r); err != nil || r.Imported != 3 || r.Failing != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	contains(t, "path", ok(t, fresh, "path", alone.String(), "--cache", "mirror"), "import from "+url+"/c")
	mine := ok(t, fresh, "make-token", "--sub", "me", "--validity", "1d", "--pull", "mirror")
	if code, text := status(t, "GET", url2+"/mirror/"+web.Hash()+".narinfo", mine, ""); code != 200 || strings.Count(text, "\nSig: ") != 2 || !strings.Contains(text, "\nSig: c:") {
		t.Errorf("narinfo: %d %s", code, text)
	}
	if text, err := os.ReadFile(filepath.Join(fresh, ".local/share/attic-server/audit.log")); err != nil || strings.Contains(string(text), strings.TrimSpace(jwt)) || !strings.Contains(string(text), "import.take") {
		t.Errorf("the audit has the token, or no import: %v", err)
	}
	stop()
	stop2()
}

func TestMovingSaysWhatIsWrong(t *testing.T) {
	home, empty := shortHome(t), t.TempDir()
	ok(t, home, "cache", "create", "c")
	bare := httptest.NewServer(http.NotFoundHandler())
	defer bare.Close()
	attic := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/system/nix-cache-info":
			_, _ = w.Write([]byte("StoreDir: /nix/store\n"))
		case "/_api/v1/cache-config/system":
			_, _ = w.Write([]byte(`{"substituter_endpoint":"x"}`))
		case "/guix/nix-cache-info":
			_, _ = w.Write([]byte("StoreDir: /gnu/store\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer attic.Close()
	const hash = "0c0ikz3plkm3fv8hd16w1xihs47zahbb"
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"import", "--to", "c"}, 2, "--from URL"},
		{[]string{"import", "--from", empty}, 2, "--to CACHE"},
		{[]string{"import", "--from", "ftp://x/y", "--to", "c"}, 2, "want https://"},
		{[]string{"import", "--from", "https://me:secret@x/y", "--to", "c"}, 2, "--netrc"},
		{[]string{"import", "--from", empty + "/none", "--to", "c"}, 1, "no such file"},
		{[]string{"import", "--from", empty, "--to", "c"}, 1, "no binary cache"},
		{[]string{"import", "--from", bare.URL + "/c", "--to", "c"}, 1, "no binary cache"},
		{[]string{"import", "--from", attic.URL + "/guix", "--to", "c"}, 1, "/gnu/store"},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c"}, 2, "--paths-from"},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "none"}, 1, `no cache is called "none"`},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c", "hello"}, 2, "no store path"},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c", hash}, 1, hash},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c", "--paths-from", empty + "/none"}, 1, "no such file"},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c", "--require-sigs", "key"}, 2, "--require-sigs"},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c", "--jobs", "0"}, 2, "--jobs"},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c", "--netrc", os.DevNull}, 1, "nothing for 127.0.0.1"},
		{[]string{"import", "--from", attic.URL + "/system", "--to", "c", "--token-file", os.DevNull}, 1, "no token"},
		{[]string{"export"}, 2, "--to DIR"},
		{[]string{"export", "--to", empty, "--compression", "xz"}, 2, "zstd or none"},
		{[]string{"export", "--to", empty, "--cache", "none"}, 1, `no cache is called "none"`},
		{[]string{"export", "--to", empty, hash}, 1, "has no path " + hash},
		{[]string{"export", "--to", os.DevNull}, 1, "export to " + os.DevNull},
	} {
		code, _, stderr := call(t, home, append([]string{"attic-server"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.text) {
			t.Errorf("%q: exit %d, %q; want %d with %q", c.args, code, stderr, c.code, c.text)
		}
	}
	ok(t, home, "cache", "create", "d")
	if code, _, stderr := call(t, home, "attic-server", "export", "--to", empty); code != 1 || !strings.Contains(stderr, "say --cache, one of c, d") {
		t.Errorf("two caches: exit %d, %s", code, stderr)
	}
}
