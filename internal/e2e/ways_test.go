package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Paths and tokens may come from anywhere that a user would try.
func TestPushTakesPathsAndTokensAsUsersGiveThem(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	tree := addTree(t, "tree", map[string]string{"bin/tool*": "#!/bin/sh\n"})
	run := func(t *testing.T, tok string, env []string, stdin string, args ...string) ended {
		home := t.TempDir()
		for name, text := range map[string]string{
			"token":                    tok + "\n",
			"config/attic/config.toml": fmt.Sprintf("default-server = \"here\"\n[servers.here]\nendpoint = %q\ntoken = %q\n[servers.away]\nendpoint = \"http://127.0.0.1:1/\"\n", s.url, tok),
		} {
			name = filepath.Join(home, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(tree, filepath.Join(home, "result")); err != nil {
			t.Fatal(err)
		}
		all := append([]string{"-c", `printf %s "$0" | "$@"`, stdin, rig.action, "push"}, args...)
		return start(t, append(environment(home), env...), "sh", all...).wait()
	}
	for _, c := range []struct {
		name  string
		env   func(tok string) []string
		stdin string
		args  []string
		want  []string // is in the cache then
	}{
		{"a symlink, the token in a file", nil, "", []string{"--server", s.url, "--token-file", "token", "CACHE", "result"}, []string{tree}},
		{"a file in a path, attic's configuration", nil, "", []string{"CACHE", "result/bin/tool"}, []string{tree}},
		{"attic's name of server and cache", nil, "", []string{"here:CACHE", tree}, []string{tree}},
		{"lines of standard input", nil, tree + "\n\n  " + top + "  \n", []string{"--stdin", "CACHE"}, append([]string{tree}, paths...)},
		{"the environment", func(tok string) []string { return []string{"ATTIC_SERVER=" + s.url + "/", "ATTIC_TOKEN=" + tok} }, "", []string{"CACHE", tree, tree}, []string{tree}},
		{"a path alone", nil, "", []string{"--no-closure", "CACHE", tree}, []string{tree}},
		{"a dry run", nil, "", []string{"--dry-run", "CACHE", top}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(c.name)
			tok, key := s.cache(cache, false)
			for i := range c.args {
				c.args[i] = strings.Replace(c.args[i], "CACHE", cache, 1)
			}
			var env []string
			if c.env != nil {
				env = c.env(tok)
			}
			end := run(t, tok, env, c.stdin, c.args...)
			if end.code != 0 || strings.Contains(end.stderr, tok) {
				t.Fatalf("exit %d\n%s", end.code, tail(end.stderr))
			}
			if have := s.present(cache, tok, append(paths, tree)); len(have) != len(c.want) {
				t.Errorf("the cache has %d paths, want %d\n%s", len(have), len(c.want), end.stderr)
			}
			s.verifyServed(cache, tok, key, c.want)
			if c.name == "a dry run" && strings.Count(end.stdout, "\n") != len(paths) {
				t.Errorf("it would push %d paths:\n%s", strings.Count(end.stdout, "\n"), end.stdout)
			}
		})
	}
	t.Run("a path whose references are nowhere", func(t *testing.T) {
		tok, _ := s.cache("alone", false)
		end := run(t, tok, nil, "", "--no-closure", "alone", top)
		if end.code != 1 || !strings.Contains(end.stderr, "attic-action: "+top+": refers to ") {
			t.Errorf("exit %d\n%s", end.code, tail(end.stderr))
		}
	})
}

// What cache.nixos.org has need not be pushed again: the machine that pulls knows that cache as well.
func TestPathsThatAnUpstreamSignedAreNotPushed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	expr := `let dep = make "from-upstream" "echo ${salt} >$out"; in make "ours" "echo ${dep} >$out"`
	top := build(t, "", expr)[0]
	var dep string
	for _, path := range closure(t, top) {
		if path != top {
			dep = path
		}
	}
	home := t.TempDir()
	env := environment(home)
	nix := rig.nixes[0]
	secret := run(t, env, nix, "key", "generate-secret", "--key-name", "upstream-1")
	file := filepath.Join(home, "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	public := run(t, env, "sh", "-c", `"$0" key convert-secret-to-public <secret`, nix)
	run(t, env, nix, "store", "sign", "--key-file", file, dep)
	upstream := "file://" + filepath.Join(home, "upstream")
	run(t, env, nix, "copy", "--to", upstream, dep)

	tok, key := s.cache("main", true)
	admin := s.token("--configure-cache", "main", "--pull", "main")
	patch := s.request("PATCH", "/_api/v1/cache-config/main", admin, strings.NewReader(`{"upstream_cache_key_names":["upstream-1"]}`))
	patch.Header.Set("Content-Type", "application/json")
	s.want(200, patch)
	if p := mustPush(t, s.url, tok, "main", top); p.json.Pushed != 1 || p.json.Paths != 2 {
		t.Errorf("pushed: %+v", p.json)
	}
	if have := s.present("main", tok, []string{top, dep}); len(have) != 1 || have[0] != top {
		t.Errorf("the cache has %v", have)
	}
	eachNix(t, func(t *testing.T, nix string) {
		pull(t, nix, s.url+"/main "+upstream, key+" "+public, top)
		if end := newPuller(t, nix).substitute(s.url+"/main", key, top); end.code == 0 {
			t.Error("the path was pulled without the upstream that has what it needs")
		}
	})
	if p := mustPush(t, s.url, tok, "main", "--ignore-upstream-cache-filter", top); p.json.Pushed != 1 || p.json.Present != 1 {
		t.Errorf("pushed without the filter: %+v", p.json)
	}
	pull(t, nix, s.url+"/main", key, top)
}
