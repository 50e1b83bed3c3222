package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestCacheIsMadeWithoutAToken(t *testing.T) {
	home := t.TempDir()
	url, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	out := ok(t, home, "cache", "create", "system", "--public")
	resp, err := http.Get(url + "/_api/v1/cache-config/system")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(body, &c); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	// As the attic client makes one.
	for key, want := range map[string]any{"is_public": true, "priority": 41.0, "store_dir": "/nix/store"} {
		if c[key] != want {
			t.Errorf("%s: got %v, want %v", key, c[key], want)
		}
	}
	if up := c["upstream_cache_key_names"].([]any); len(up) != 1 || up[0] != "cache.nixos.org-1" {
		t.Errorf("upstream: %v", up)
	}
	if !strings.Contains(out, "extra-trusted-public-keys = "+c["public_key"].(string)+"\n") || !strings.Contains(out, "<URL of this server>/system") {
		t.Errorf("it said\n%s", out)
	}
	if out := ok(t, home, "cache", "create", "secret"); !strings.Contains(out, "private: who pulls needs a token") {
		t.Errorf("it said\n%s", out)
	}
	if resp, err := http.Get(url + "/_api/v1/cache-config/secret"); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a private cache is shown to everybody: %v, %v", resp, err)
	}
	for name, args := range map[string][]string{"again": {"system"}, "no name": {}, "two": {"a", "b"}, "a pattern": {"a*"}, "a path": {"../x"}} {
		code, _, stderr := call(t, home, append([]string{"attic-server", "cache", "create"}, args...)...)
		if want := map[bool]int{true: 1, false: 2}[name == "again"]; code != want || !strings.HasPrefix(stderr, "attic-server: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, %q", name, code, stderr)
		}
	}
}
