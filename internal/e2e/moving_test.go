package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A cache that Nix has made moves through a web server into ours, from there to another of ours, and out into a folder
// that each Nix reads. Every command is killed on its way, and goes on.
func TestCacheMovesThroughKills(t *testing.T) {
	t.Parallel()
	top := build(t, "", network)[0]
	paths := closure(t, top)
	old := filepath.Join(t.TempDir(), "old")
	run(t, environment(t.TempDir()), "nix", "copy", "--to", "file://"+old+"?compression=xz&compression-level=0", top)
	web := httptest.NewServer(http.FileServer(http.Dir(old)))
	defer web.Close()

	first, second := startServer(t), startServer(t)
	tok, key := first.cache("main", false)
	first.killed(paths, "main", tok, "import", "--from", web.URL, "--to", "main", "--jobs", "2")
	first.verifyServed("main", tok, key, paths)

	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte(tok), 0o600); err != nil {
		t.Fatal(err)
	}
	mirrored, _ := second.cache("mirror", true)
	from := []string{"import", "--from", first.url + "/main", "--to", "mirror", "--token-file", secret, "--jobs", "2"}
	second.killed(paths, "mirror", mirrored, from...)
	if end := second.command(from...); end.code != 0 || !strings.HasPrefix(end.stdout, "0 of 0 paths came") {
		t.Errorf("nothing new: exit %d\n%s%s", end.code, end.stdout, end.stderr)
	}

	// Out, with the server stopped. Who trusts the first server's key need not know the second one's.
	second.stopped()
	dir := filepath.Join(t.TempDir(), "out")
	for n := 5; ; n += 15 {
		p := start(t, second.env, rig.server, "export", "--to", dir, "--jobs", "2", "--data", second.data)
		until(t, "files of an export", func() bool {
			files, _ := filepath.Glob(filepath.Join(dir, "*.narinfo"))
			return len(files) >= n || !p.running()
		})
		if p.running() && n < len(paths) {
			p.kill()
			continue
		}
		if end := p.wait(); end.code != 0 {
			t.Fatalf("export: exit %d\n%s", end.code, end.stderr)
		}
		break
	}
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, "file://"+dir, key, top) })
}

// killed runs an import again and again, and kills it while it has not come to its end. However it ends, what is
// there has what it refers to.
func (s *server) killed(paths []string, cache, tok string, args ...string) {
	s.t.Helper()
	refs := map[string][]string{}
	for _, path := range paths {
		refs[path] = strings.Fields(run(s.t, s.env, "nix-store", "--query", "--references", path))
	}
	for n := 5; ; n += 15 {
		p := start(s.t, s.env, rig.server, append(args, "--data", s.data)...)
		until(s.t, "paths of an import", func() bool {
			return len(paths)-len(s.absent(cache, tok, paths)) >= n || !p.running()
		})
		last := !p.running() || n >= len(paths)
		if !last {
			p.kill()
		}
		end := p.wait()
		absent := s.absent(cache, tok, paths)
		for _, path := range paths {
			for _, ref := range refs[path] {
				if !slices.Contains(absent, path) && slices.Contains(absent, ref) {
					s.t.Errorf("%s is there without %s", path, ref)
				}
			}
		}
		if last {
			if end.code != 0 || len(absent) > 0 {
				s.t.Fatalf("%q: exit %d, %d paths are absent\n%s", args, end.code, len(absent), end.stderr)
			}
			return
		}
	}
}

// What is damaged counts as missing, so an import from a copy that is whole heals it; and an export names it.
func TestImportHealsWhatIsDamaged(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", false)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	dir := filepath.Join(t.TempDir(), "copy")
	if end := s.command("export", "--to", dir); end.code != 0 {
		t.Fatalf("export: exit %d\n%s", end.code, end.stderr)
	}
	for _, pack := range s.files("packs") {
		flip(t, pack, 2)
	}
	oneLine(t, s.command("export", "--to", filepath.Join(t.TempDir(), "damaged"), "--json"), 1, "attic-server: ", "were not exported")
	if end := s.command("verify", "--deep"); end.code != 1 {
		t.Fatalf("verify: exit %d\n%s", end.code, end.stdout)
	}
	paths := closure(t, top)
	if len(s.absent("main", tok, paths)) == 0 {
		t.Fatal("nothing is absent")
	}
	if end := s.command("import", "--from", dir, "--to", "main"); end.code != 0 {
		t.Fatalf("import: exit %d\n%s", end.code, end.stderr)
	}
	s.verifyServed("main", tok, key, paths)
}
