package blob

import (
	"path/filepath"
	"strings"
	"testing"
)

// A key that is a path must not lead out of a store's directory.
func FuzzCheckKey(f *testing.F) {
	for _, s := range []string{"packs/3f/3f9c-01", "../x", "a/../../b", "/etc/passwd", ".", "a//b", "a/.tmp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if CheckKey(key) != nil {
			return
		}
		if p := filepath.Join("/root", key); p != "/root/"+key || !strings.HasPrefix(p, "/root/") {
			t.Errorf("%q leads to %s", key, p)
		}
	})
}
