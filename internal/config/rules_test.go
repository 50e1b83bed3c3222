package config

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/nix"
)

func loadText(t *testing.T, text string) (*Server, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(Options{File: file, Data: t.TempDir()})
}

func TestCacheRules(t *testing.T) {
	k, err := nix.GenerateKeypair("builder-1", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := k.Public().String()
	s, err := loadText(t, "[[cache-rules]]\ncache = \"system\"\nrequire-signed-by = [\""+key+"\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.CacheRules) != 1 || s.CacheRules[0].Cache != "system" || s.CacheRules[0].RequireSignedBy[0].String() != key {
		t.Errorf("rules: %+v", s.CacheRules)
	}
	// Each of these would leave a cache open that somebody wanted closed.
	for text, want := range map[string]string{
		"[[cache-rules]]\nrequire-signed-by = [\"" + key + "\"]\n":                               "no cache",
		"[[cache-rules]]\ncache = \"system\"\n":                                                  "no require-signed-by",
		"[[cache-rules]]\ncache = \"system\"\nrequire-signed-by = []\n":                          "no require-signed-by",
		"[[cache-rules]]\ncache = \"*\"\nrequire-signed-by = [\"" + key + "\"]\n":                "not a cache name",
		"[[cache-rules]]\ncache = \"a\"\nrequire-signed-by = [\"builder-1:AAAA\"]\n":             "key",
		"[[cache-rules]]\ncache = \"a\"\nrequire-signed = [\"" + key + "\"]\n":                   "did you mean require-signed-by",
		strings.Repeat("[[cache-rules]]\ncache = \"a\"\nrequire-signed-by = [\""+key+"\"]\n", 2): "already",
	} {
		if _, err := loadText(t, text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "server.toml:") {
			t.Errorf("%s\ngot %v, want it to say %q and where", text, err, want)
		}
	}
}
