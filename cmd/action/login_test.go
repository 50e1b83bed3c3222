package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/client"
)

const stockConfig = `default-server = "central"
[servers.central]
endpoint = "https://cache.example.org/"
token = "central-token"
[servers.other]
endpoint = "http://10.0.0.2:8080"
token-file = "%s"
[servers.bare]
endpoint = "localhost:8080"
`

// withConfig makes sources with the configuration above and env.
func withConfig(t *testing.T, env map[string]string) sources {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "other-token"), " other-token\n")
	write(t, filepath.Join(dir, "attic", "config.toml"), fmt.Sprintf(stockConfig, filepath.Join(dir, "other-token")))
	return sources{stdin: strings.NewReader("stdin-token\n"), getenv: func(k string) string {
		if k == "XDG_CONFIG_HOME" {
			return dir
		}
		return env[k]
	}}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoginIsFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "file-token\n")
	for _, test := range []struct {
		name, ref, server, tokenFile string
		env                          map[string]string
		endpoint, token, cache       string
	}{
		{name: "default server", ref: "main", endpoint: "https://cache.example.org/", token: "central-token"},
		{name: "named server", ref: "other:main", endpoint: "http://10.0.0.2:8080", token: "other-token"},
		{name: "flag with the token of the same endpoint", ref: "main", server: "https://CACHE.example.org", endpoint: "https://CACHE.example.org", token: "central-token"},
		{name: "flag with nobody's endpoint", ref: "main", server: "https://new.example.org", endpoint: "https://new.example.org", token: ""},
		{name: "another path is another server", ref: "main", server: "https://cache.example.org/x", endpoint: "https://cache.example.org/x", token: ""},
		{name: "http is another server than https", ref: "main", server: "http://cache.example.org/", endpoint: "http://cache.example.org/", token: ""},
		{name: "environment", ref: "main", env: map[string]string{"ATTIC_SERVER": "https://e/", "ATTIC_TOKEN": "env-token"}, endpoint: "https://e/", token: "env-token"},
		{name: "environment's token alone", ref: "main", env: map[string]string{"ATTIC_TOKEN": "env-token"}, endpoint: "https://cache.example.org/", token: "env-token"},
		{name: "environment's token is for its own server", ref: "other:main", env: map[string]string{"ATTIC_SERVER": "https://e/", "ATTIC_TOKEN": "env-token"}, endpoint: "http://10.0.0.2:8080", token: "other-token"},
		{name: "and not for that of the flag", ref: "main", server: "https://f/", env: map[string]string{"ATTIC_SERVER": "https://e/", "ATTIC_TOKEN": "env-token"}, endpoint: "https://f/", token: ""},
		{name: "file before environment", ref: "main", tokenFile: file, env: map[string]string{"ATTIC_TOKEN": "env-token"}, endpoint: "https://cache.example.org/", token: "file-token"},
		{name: "standard input", ref: "main", tokenFile: "-", endpoint: "https://cache.example.org/", token: "stdin-token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := withConfig(t, test.env)
			s.server, s.tokenFile = test.server, test.tokenFile
			got, err := s.resolve(test.ref)
			if err != nil || got.Endpoint != test.endpoint || string(got.Token) != test.token || got.Cache != "main" {
				t.Errorf("got %s, %q, %s, %v; want %s, %q", got.Endpoint, string(got.Token), got.Cache, err, test.endpoint, test.token)
			}
		})
	}
}

func TestLoginRefusals(t *testing.T) {
	var usage *usageError
	s := withConfig(t, nil)
	for _, ref := range []string{"", "a/b", "../x", ":main", "other:", "a:b:c", "main\n"} {
		if _, err := s.resolve(ref); err == nil {
			t.Errorf("%q was taken", ref)
		}
	}
	if _, err := s.resolve("bare:main"); !errors.Is(err, client.ErrEndpoint) || !strings.Contains(hint(err), "http://") {
		t.Errorf("endpoint without a scheme: %v", err)
	}
	s.server = "https://x/"
	if _, err := s.resolve("other:main"); !errors.As(err, &usage) {
		t.Errorf("two servers: %v", err)
	}
	none := sources{getenv: func(string) string { return "" }}
	if _, err := none.resolve("main"); !errors.Is(err, errNoServer) {
		t.Errorf("no server: %v", err)
	}
}

func TestTokensThatAreNone(t *testing.T) {
	for _, text := range []string{"", " \n", "two words", "a\r\nX-Evil: 1", "caf\u00e9", strings.Repeat("x", maxToken+1)} {
		if tok, err := readToken(strings.NewReader(text), "the file"); err == nil || len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("%.20q: %q, %v", text, string(tok), err)
		}
	}
}

func TestBrokenConfigurationIsNotRepeatedInTheError(t *testing.T) {
	for _, text := range []string{
		"[servers.a]\ntoken = \"hush-hush\ntoken2 = 1",
		"[servers.a]\ntoken = [\"hush-hush\"]",
		"servers = \"hush-hush\"",
		"[servers.a]\ntoken = hush-hush",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "attic", "config.toml"), text)
		s := sources{getenv: func(k string) string { return map[string]string{"XDG_CONFIG_HOME": dir}[k] }}
		if _, err := s.resolve("main"); err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "config.toml") {
			t.Errorf("error %v", err)
		}
	}
}

func TestSecretPrintsRedacted(t *testing.T) {
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if got := fmt.Sprintf(format, login{Token: "hush"}); strings.Contains(got, "hush") {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(stockConfig))
	f.Add([]byte("default-server = 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "attic", "config.toml"), string(b))
		s := sources{getenv: func(k string) string { return map[string]string{"XDG_CONFIG_HOME": dir}[k] }}
		if got, err := s.resolve("main"); err == nil {
			if _, err := client.ParseEndpoint(got.Endpoint); err != nil {
				t.Errorf("endpoint %q was taken", got.Endpoint)
			}
		}
	})
}
