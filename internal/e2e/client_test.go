package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pushed is a push that came to its end.
type pushed struct {
	ended
	json struct {
		Paths, Present, Missing, Pushed, Kept, Packs, Requests int
		NARBytes                                               int64 `json:"nar_bytes"`
		BytesSent                                              int64 `json:"bytes_sent"`
		NewChunks                                              int   `json:"new_chunks"`
		Seconds                                                float64
		Failed                                                 []struct{ Path, Reason string }
	}
}

// pushing starts attic-action push, with --json, to a server.
func pushing(t testing.TB, url, tok string, args ...string) *process {
	t.Helper()
	env := environment(t.TempDir(), "ATTIC_TOKEN="+tok)
	return start(t, env, rig.action, append([]string{"push", "--json", "--server", url}, args...)...)
}

func (p *process) pushed(t testing.TB) pushed {
	t.Helper()
	out := pushed{ended: p.wait()}
	if out.stdout != "" {
		if err := json.Unmarshal([]byte(out.stdout), &out.json); err != nil {
			t.Fatalf("push printed %q: %v", tail(out.stdout), err)
		}
	}
	return out
}

// push pushes and comes back with whatever happened.
func push(t testing.TB, url, tok string, args ...string) pushed {
	t.Helper()
	return pushing(t, url, tok, args...).pushed(t)
}

// mustPush pushes what must succeed.
func mustPush(t testing.TB, url, tok string, args ...string) pushed {
	t.Helper()
	p := push(t, url, tok, args...)
	p.ok(t)
	return p
}

func (p pushed) ok(t testing.TB) {
	t.Helper()
	if p.code != 0 || len(p.json.Failed) > 0 {
		t.Fatalf("push: exit %d\n%s\n%s", p.code, tail(p.stderr), tail(p.stdout))
	}
}

// puller is a machine that trusts one cache and has an empty store.
type puller struct {
	t    testing.TB
	nix  string // the program
	root string // of the store
	env  []string
}

// eachNix runs a test with every nix.
func eachNix(t *testing.T, test func(t *testing.T, nix string)) {
	t.Helper()
	for _, nix := range rig.nixes {
		_, version, _ := strings.Cut(run(t, environment(t.TempDir()), nix, "--version"), ") ")
		t.Run("nix "+version, func(t *testing.T) { test(t, nix) })
	}
}

func newPuller(t testing.TB, nix string) *puller {
	t.Helper()
	home := t.TempDir()
	p := &puller{t: t, nix: nix, root: filepath.Join(home, "machine"), env: environment(home)}
	t.Cleanup(func() { start(t, nil, "chmod", "-R", "u+w", home).wait() }) // so that the directory can be removed
	return p
}

func (p *puller) store() string { return "local?root=" + p.root }

// tool runs nix-store of the same Nix.
func (p *puller) tool(args ...string) ended {
	p.t.Helper()
	return start(p.t, p.env, filepath.Join(filepath.Dir(p.nix), "nix-store"), args...).wait()
}

// substitute has the store fetch paths and all they need from a cache whose signatures it demands.
func (p *puller) substitute(cache, key string, paths ...string) ended {
	p.t.Helper()
	return p.tool(append([]string{"--realise", "--store", p.store(), "--option", "substituters", cache,
		"--option", "trusted-public-keys", key, "--option", "require-sigs", "true"}, paths...)...)
}

// copy does the same with nix copy.
func (p *puller) copy(cache, key string, paths ...string) ended {
	p.t.Helper()
	return start(p.t, p.env, p.nix, append([]string{"copy", "--from", cache, "--to", p.store(),
		"--option", "trusted-public-keys", key, "--option", "require-sigs", "true"}, paths...)...).wait()
}

// verify compares what was pulled with where it came from: the same paths with the same hashes, and
// contents that have these hashes.
func (p *puller) verify(paths ...string) {
	p.t.Helper()
	wanted := closure(p.t, paths...)
	got := p.tool(append([]string{"--store", p.store(), "--query", "--hash"}, wanted...)...)
	want := start(p.t, p.env, "nix-store", append([]string{"--query", "--hash"}, wanted...)...).wait()
	if got.code != 0 || got.stdout != want.stdout || strings.Count(got.stdout, "\n") != len(wanted) {
		p.t.Fatalf("hashes of what was pulled: exit %d\ngot  %s\nwant %s\n%s", got.code, got.stdout, want.stdout, tail(got.stderr))
	}
	check := p.tool("--store", p.store(), "--verify", "--check-contents")
	if check.code != 0 || strings.Contains(check.stderr, "was modified") {
		p.t.Fatalf("verify: exit %d\n%s", check.code, tail(check.stderr))
	}
}

// pull fetches paths into a new store and verifies them.
func pull(t testing.TB, nix, cache, key string, paths ...string) {
	t.Helper()
	p := newPuller(t, nix)
	if end := p.substitute(cache, key, paths...); end.code != 0 {
		t.Fatalf("pull: exit %d\n%s", end.code, tail(end.stderr))
	}
	p.verify(paths...)
}

// closure lists store paths and all they refer to.
func closure(t testing.TB, paths ...string) []string {
	t.Helper()
	out := run(t, environment(t.TempDir()), "nix-store", append([]string{"--query", "--requisites"}, paths...)...)
	all := strings.Fields(out)
	slices.Sort(all)
	return slices.Compact(all)
}

// hashOf is the hash part of a store path.
func hashOf(path string) string {
	hash, _, _ := strings.Cut(filepath.Base(path), "-")
	return hash
}
