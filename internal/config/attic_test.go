package config

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/attic/*.golden")

// Files as people have them from Attic: what its NixOS modules write, what it writes
// itself, what articles and repositories show, every key there is, and slips. Beside
// each lies what we make of it. The first line may say in which environment.
func TestFilesOfAttic(t *testing.T) {
	files, err := filepath.Glob("testdata/attic/*.toml")
	if err != nil || len(files) < 8 {
		t.Fatalf("%v, %v", files, err)
	}
	key := rsaKey(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := describe(strings.ReplaceAll(string(text), "@RS256@", key))
			golden := strings.TrimSuffix(file, ".toml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if strings.Contains(got, "hunter2") || strings.Contains(got, key) {
				t.Errorf("it shows a secret:\n%s", got)
			}
		})
	}
}

// describe loads a file and says what came out of it.
func describe(text string) string {
	var environ []string
	first, _, _ := strings.Cut(text, "\n")
	if rest, ok := strings.CutPrefix(first, "# env: "); ok {
		environ = strings.Fields(rest)
	}
	b, err := parse("server.toml", []byte(text))
	if err == nil {
		b.environ = func() []string { return environ }
		b.getenv = func(name string) string {
			for _, pair := range environ {
				if v, ok := strings.CutPrefix(pair, name+"="); ok {
					return v
				}
			}
			return ""
		}
		var s *Server
		if s, err = b.server(); err == nil {
			return describeServer(s)
		}
	}
	return fmt.Sprintf("error: %v\n", err)
}

func describeServer(s *Server) string {
	var b strings.Builder
	line := func(key string, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s %s\n", key, fmt.Sprintf(format, args...))
	}
	line("listen", "%s", s.Listen)
	line("endpoints", "%q %q", s.APIEndpoint, s.SubstituterEndpoint)
	line("hosts", "%q", s.AllowedHosts)
	line("caches", "soft delete %t, proof %t, info %d", s.SoftDeleteCaches, s.RequireProof, s.MaxNarInfoSize)
	line("data", "%s", s.Data)
	line("database", "%s, made if missing %t", s.Database.File, s.Database.Create)
	st := s.Storage
	line("storage", "%s path=%q bucket=%q region=%q endpoint=%q", st.Type, st.Path, st.Bucket, st.Region, st.Endpoint)
	line("chunks", "%d/%d/%d, told from %d", s.Chunking.Min, s.Chunking.Avg, s.Chunking.Max, s.NARSizeThreshold)
	line("garbage", "every %s, kept %s", s.GC.Interval, s.GC.Retention)
	signs := len(s.JWT.Keys) > 0 && s.JWT.Keys[0].CanSign()
	line("tokens", "%d keys, signs %t, issuer %q, audiences %q", len(s.JWT.Keys), signs, s.JWT.Issuer, s.JWT.Audiences)
	line("id tokens", "for %q", s.OIDC.Audience)
	line("addresses", "from %q", s.Peers.Header)
	for _, w := range s.Warnings {
		line("warning", "%s", w)
	}
	return b.String()
}

// rsaKey is what `openssl genrsa -traditional | base64 -w0` prints.
func rsaKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return base64.StdEncoding.EncodeToString(block)
}

// On fly.io a server without any file is reachable, and knows its URL.
func TestFlyNeedsNoFile(t *testing.T) {
	fly := map[string]string{envFly: "my-cache", "XDG_DATA_HOME": "/data", envHS256: secret}
	s, err := Load(Options{Getenv: func(name string) string { return fly[name] }})
	if err != nil {
		t.Fatal(err)
	}
	if s.Listen != "[::]:8080" || s.APIEndpoint != "https://my-cache.fly.dev/" || s.OIDC.Audience != "https://my-cache.fly.dev" ||
		s.Peers.Header != "Fly-Client-IP" || s.Data != "/data/attic-server" || len(s.Warnings) != 0 {
		t.Errorf("%+v", s)
	}
	s, err = load(t, "api-endpoint = \"https://cache.example.org/\"\nlisten = \"127.0.0.1:9\"", func(name string) string { return fly[name] })
	if err != nil || s.APIEndpoint != "https://cache.example.org/" || s.Listen != "127.0.0.1:9" {
		t.Errorf("the file does not come first: %+v, %v", s, err)
	}
}

// The name goes into URLs that clients are sent to.
func TestFlyAppThatIsNoHostNameIsNotUsed(t *testing.T) {
	for _, app := range []string{"evil.example/", "a b", "A", "-a", "a-", "a\n", "a.b", strings.Repeat("a", 64)} {
		s, err := load(t, "", env(envFly, app))
		if err != nil || s.APIEndpoint != "" || len(s.Warnings) != 1 {
			t.Errorf("%q: %q, %q, %v", app, s.APIEndpoint, s.Warnings, err)
		}
	}
}

// A variable that is read and not in the list would be reported as unknown.
func TestEveryVariableOfOursIsListed(t *testing.T) {
	variable := regexp.MustCompile(`^ATTIC_SERVER_[A-Z0-9_]+[A-Z0-9]$`)
	found := map[string]bool{}
	for _, root := range []string{"../../cmd", ".."} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/e2e/") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return nil // somebody is writing it
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if name := strings.Trim(lit.Value, "\"`"); variable.MatchString(name) {
						found[name] = true
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) < 6 {
		t.Fatalf("only %v were found", found)
	}
	for name := range found {
		if !slices.Contains(environment, name) {
			t.Errorf("%s is read, and package config does not list it", name)
		}
	}
}
