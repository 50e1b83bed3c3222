package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBadPushesEndWithOneClearLine is what a user sees who made a mistake: what, where, what to do, and
// an exit code that push --help names.
func TestBadPushesEndWithOneClearLine(t *testing.T) {
	t.Parallel()
	help := run(t, environment(t.TempDir()), rig.action, "push", "--help")
	if !strings.Contains(help, "Exit codes: 0 ") || !strings.Contains(help, "1 some paths failed") || !strings.Contains(help, "2 the command line is wrong") {
		t.Fatalf("push --help does not name the exit codes:\n%s", help)
	}
	s := startServer(t)
	tok, _ := s.cache("main", false)
	expired := s.token("--push", "main", "--validity", "1s")
	time.Sleep(1100 * time.Millisecond) // until it is
	path := addTree(t, "tree", map[string]string{"bin/tool*": "#!/bin/sh\n", "file": "text"})
	outside := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	closed := "http://" + nobody.Addr().String()
	_ = nobody.Close() // nobody listens from now on
	invented := "/nix/store/00000000000000000000000000000000-nothing"
	for _, c := range []struct {
		name     string
		url, tok string
		args     []string
		code     int
		holds    []string
	}{
		{"unknown cache", s.url, s.token("--push", "*"), []string{"other", path}, 1, []string{"NoSuchCache", "hint: check the name, or create it"}},
		{"token of another cache", s.url, s.token("--push", "other"), []string{"main", path}, 1, []string{"Unauthorized", "hint: the token"}},
		{"token without the right to push", s.url, s.token("--pull", "main"), []string{"main", path}, 1, []string{"AccessError", "push", "hint: the token needs the right to push"}},
		{"expired token", s.url, expired, []string{"main", path}, 1, []string{"Unauthorized", "expired"}},
		{"garbage for a token", s.url, "garbage", []string{"main", path}, 1, []string{"Unauthorized", "hint: the token"}},
		{"token with a line break", s.url, "a\nb", []string{"main", path}, 1, []string{"$ATTIC_TOKEN", "characters that no token has"}},
		{"no token", s.url, "", []string{"main", path}, 1, []string{"Unauthorized", "--token-file"}},
		{"path outside the store", s.url, tok, []string{"main", outside}, 1, []string{outside, "not in the store"}},
		{"path that is nowhere", s.url, tok, []string{"main", outside + "-nowhere"}, 1, []string{outside + "-nowhere", "no such file"}},
		{"store path that is nowhere", s.url, tok, []string{"main", invented}, 1, []string{invented, "no such file"}},
		{"store path that Nix does not know", s.url, tok, []string{"main", plant(t)}, 1, []string{"planted", "valid", "hint: "}},
		{"unreachable server", closed, tok, []string{"main", path}, 1, []string{"connection refused", "hint: nothing listens there"}},
		{"no such host", "http://no-such-host.invalid", tok, []string{"main", path}, 1, []string{"no-such-host.invalid", "hint: "}},
		{"server without a scheme", strings.TrimPrefix(s.url, "http://"), tok, []string{"main", path}, 1, []string{"hint: write the whole URL"}},
		{"https where http is spoken", strings.Replace(s.url, "http", "https", 1), tok, []string{"main", path}, 1, []string{"hint: the server speaks http://"}},
		{"no jobs", s.url, tok, []string{"-j", "0", "main", path}, 2, []string{"-j 0"}},
		{"jobs that are no number", s.url, tok, []string{"-j", "many", "main", path}, 2, []string{"many"}},
		{"no cache", s.url, tok, nil, 2, []string{"CACHE"}},
		{"no path", s.url, tok, []string{"main"}, 2, []string{"PATH"}},
		{"name of no cache", s.url, tok, []string{"_main", path}, 2, []string{`"_main"`}},
		{"unknown flag", s.url, tok, []string{"--no-such-flag", "main", path}, 2, []string{"--no-such-flag"}},
		{"token file that is not there", s.url, tok, []string{"--token-file", "/no/such/file", "main", path}, 1, []string{"/no/such/file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := push(t, c.url, c.tok, c.args...)
			oneLine(t, got.ended, c.code, "attic-action: ", c.holds...)
			if c.tok != "" && strings.Contains(got.stderr, c.tok) {
				t.Error("it shows the token")
			}
			if got.json.Pushed != 0 {
				t.Errorf("it pushed something: %+v", got.json)
			}
		})
	}
}

// plant puts a file into the store directory that Nix was not told of.
func plant(t testing.TB) string {
	t.Helper()
	path := "/nix/store/" + strings.Repeat("0", 16) + strings.ReplaceAll(rig.salt, "e", "z") + "-planted" // no hash has an e
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) }) // an empty file at worst
	return path
}

// A path that somebody wrote into would be signed by the cache as what it is not.
func TestPathChangedBehindNixIsRefusedByName(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", true)
	good := addTree(t, "untouched", map[string]string{"file": "text"})
	for name, change := range map[string]string{"of the same length": "other contents\n", "longer": "some contents and more\n", "shorter": "no\n"} {
		t.Run(name, func(t *testing.T) {
			expr := `let bad = make "touched" "echo some contents >$out"; in make "on-top" "echo ${bad} ${toString noise} >$out"`
			top := build(t, name, expr)[0]
			var bad string
			for _, path := range closure(t, top) {
				if strings.HasSuffix(path, "-touched") {
					bad = path
				}
			}
			if err := os.Chmod(bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(bad, []byte(change), 0o644); err != nil {
				t.Fatal(err)
			}
			got := push(t, s.url, tok, "main", top, good)
			if got.code != 1 || got.json.Pushed+got.json.Present != 1 || len(got.json.Failed) != 2 {
				t.Errorf("exit %d, %+v", got.code, got.json)
			}
			for _, want := range []string{"attic-action: " + bad, "not what Nix recorded", "attic-action: " + top + ": depends on"} {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("stderr does not say %q:\n%s", want, got.stderr)
				}
			}
			if have := s.present("main", tok, []string{bad, top, good}); len(have) != 1 || have[0] != good {
				t.Errorf("the cache has %v", have)
			}
		})
	}
	pull(t, rig.nixes[0], s.url+"/main", key, good)
}

func TestFlakesThatHaveNoHostsSaySo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flake string
		holds string
	}{
		"no nixosConfigurations":    {"{ outputs = { self }: { packages = { }; }; }", "nixosConfigurations"},
		"empty nixosConfigurations": {"{ outputs = { self }: { nixosConfigurations = { }; }; }", "nixosConfigurations"},
		"no flake at all":           {"", "flake.nix"},
		"not Nix":                   {"{ outputs = ", "syntax error"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.flake != "" {
				if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(c.flake), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, args := range [][]string{{"discover", dir}, {"discover", "--json", "path:" + dir}} {
				end := start(t, environment(t.TempDir()), rig.action, args...).wait()
				oneLine(t, end, 1, "attic-action: ", c.holds)
				if end.stdout != "" {
					t.Errorf("it printed %q", end.stdout)
				}
			}
		})
	}
}

func TestServerThatCannotStartSaysWhy(t *testing.T) {
	const exConfig = 78 // of sysexits.h: a service manager need not try again
	t.Parallel()
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	config := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config("file", "")
	for _, c := range []struct {
		name  string
		args  []string
		code  int
		holds []string
	}{
		{"data is a file", []string{"--data", file}, 1, []string{file, "not a directory"}},
		{"data below a file", []string{"--data", file + "/data"}, 1, []string{file, "not a directory"}},
		{"data where nobody can write", []string{"--data", "/proc/attic"}, 1, []string{"/proc/attic"}},
		{"port in use", []string{"--listen", taken.Addr().String(), "--data", filepath.Join(dir, "a")}, 1, []string{taken.Addr().String(), "in use", "hint: "}},
		{"listen is no address", []string{"--listen", "localhost"}, 2, []string{"--listen", "localhost"}},
		{"no configuration", []string{"-f", filepath.Join(dir, "none.toml")}, exConfig, []string{"none.toml", "no such file"}},
		{"unknown key", []string{"-f", config("key.toml", "listen = \"127.0.0.1:0\"\nallowed-host = [\"a\"]\n")}, exConfig, []string{"key.toml:2: ", "allowed-host", "did you mean allowed-hosts?"}},
		{"unknown key of a table", []string{"-f", config("trust.toml", "[[trust]]\nname = \"x\"\nrepository_id = 7\n")}, exConfig, []string{"trust.toml:3: ", "did you mean repository-id?"}},
		{"wrong type", []string{"-f", config("type.toml", "\n\nsoft-delete-caches = \"yes\"\n")}, exConfig, []string{"type.toml:3: ", "soft-delete-caches", "true or false"}},
		{"not TOML", []string{"-f", config("broken.toml", "listen = \n")}, exConfig, []string{"broken.toml:1: "}},
		{"cut sizes that cannot be", []string{"-f", config("cut.toml", "[chunking]\nnar-size-threshold = 1\nmin-size = 9\navg-size = 8\nmax-size = 7\n")}, exConfig, []string{"cut.toml", "chunking"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(strings.Join(c.args, " "), "--listen") {
				c.args = append(c.args, "--listen", "127.0.0.1:0")
			}
			end := start(t, environment(t.TempDir()), rig.server, c.args...).wait()
			oneLine(t, end, c.code, "attic-server: ", c.holds...)
		})
	}
}
