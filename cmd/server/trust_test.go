package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/oidctest"
	"github.com/org/attic-action/internal/trust"
)

const trustAudience = "https://cache.example.com"

// trustConfig writes a server.toml that lists an issuer, and perhaps more.
func trustConfig(t *testing.T, is *oidctest.Issuer, more string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "server.toml")
	text := fmt.Sprintf("listen = \"127.0.0.1:0\"\n[oidc]\naudience = %q\n[[oidc.issuer]]\nurl = %q\nallow-insecure = true\n%s", trustAudience, is.URL, more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// trade exchanges an ID token and returns the status and the scope granted.
func trade(t *testing.T, server, idToken string) (int, string) {
	t.Helper()
	resp, err := http.PostForm(server+"/_api/v1/oidc/token", url.Values{
		"grant_type":    {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token": {idToken}, "subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Scope string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer.Scope
}

func TestPolicyHoldsAndEndsWithoutARestart(t *testing.T) {
	home, is := t.TempDir(), oidctest.NewIssuer(t)
	file := trustConfig(t, is, "")
	server, _, stop := start(t, home, "attic-server", "-f", file)
	defer stop()
	if status, _ := trade(t, server, is.Token(trustAudience)); status != http.StatusBadRequest {
		t.Fatalf("without a policy: status %d", status)
	}
	add := []string{"-f", file, "trust", "add", "--name", "infra", "--issuer", is.URL, "--repository-id", "123456789",
		"--repository", "acme/infra", "--ref", "refs/heads/main", "--caches", "system", "--grant", "pull,push"}
	ok(t, home, add...)
	if status, scope := trade(t, server, is.Token(trustAudience)); status != http.StatusOK || scope != "cache:system:pull cache:system:push" {
		t.Errorf("with the policy: status %d, scope %q", status, scope)
	}
	if out := ok(t, home, "-f", file, "trust", "list"); !strings.Contains(out, "# from database") || !strings.Contains(out, "repository-id = 123456789") {
		t.Errorf("list: got %s", out)
	}
	if code, _, errs := call(t, home, append([]string{"attic-server"}, add...)...); code != 1 || !strings.Contains(errs, "name is taken") {
		t.Errorf("add again: exit %d: %s", code, errs)
	}
	ok(t, home, append(add, "--replace", "--ttl", "5m")...)
	ok(t, home, "-f", file, "trust", "remove", "infra")
	if status, _ := trade(t, server, is.Token(trustAudience)); status != http.StatusBadRequest {
		t.Errorf("after remove: status %d", status)
	}
	if code, _, errs := call(t, home, "attic-server", "-f", file, "trust", "remove", "infra"); code != 1 || !strings.Contains(errs, "no such policy") {
		t.Errorf("remove again: exit %d: %s", code, errs)
	}
}

func TestRemovedPolicyTakesItsTokensAlong(t *testing.T) {
	home, is := t.TempDir(), oidctest.NewIssuer(t)
	file := trustConfig(t, is, "")
	server, _, stop := start(t, home, "attic-server", "-f", file)
	defer stop()
	ok(t, home, "-f", file, "trust", "add", "--name", "infra", "--issuer", is.URL, "--repository-id", "123456789",
		"--ref", "refs/heads/main", "--caches", "system", "--grant", "pull")
	if status, _ := trade(t, server, is.Token(trustAudience)); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if out := ok(t, home, "-f", file, "trust", "remove", "--revoke", "infra"); !strings.Contains(out, "and 1 tokens") {
		t.Errorf("got %s", out)
	}
	if out := ok(t, home, "-f", file, "token", "list", "--json"); strings.Contains(out, `"infra"`) && !strings.Contains(out, "revoked") {
		t.Errorf("the token is still listed as good: %s", out)
	}
}

// A command has the database for a moment; a server that starts just then waits for it.
func TestServerStartsWhileACommandEnds(t *testing.T) {
	home, is := t.TempDir(), oidctest.NewIssuer(t)
	data := filepath.Join(home, ".local/share/attic-server")
	lock, err := lockData(filepath.Join(data, "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openSoon(t.Context(), &config.Server{Storage: config.Storage{Type: config.Local, Path: data}, Database: config.Database{File: filepath.Join(data, "server.db"), Create: true}}, slog.New(slog.DiscardHandler)); !errors.Is(err, errLocked) {
		t.Errorf("while the lock is held: got %v", err)
	}
	time.AfterFunc(200*time.Millisecond, func() { lock.Close() })
	_, _, stop := start(t, home, "attic-server", "-f", trustConfig(t, is, ""))
	if code := stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestPolicyAddedWithoutAServerHoldsOnceItRuns(t *testing.T) {
	home, is := t.TempDir(), oidctest.NewIssuer(t)
	file := trustConfig(t, is, "")
	policy := filepath.Join(t.TempDir(), "policy.toml")
	text := fmt.Sprintf("[[trust]]\nname = \"infra\"\nissuer = %q\nrepository-id = 123456789\nref = \"refs/heads/main\"\ncaches = [\"system\"]\ngrant = [\"pull\"]\n", is.URL)
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ok(t, home, "-f", file, "trust", "add", "--file", policy)
	server, _, stop := start(t, home, "attic-server", "-f", file)
	if status, scope := trade(t, server, is.Token(trustAudience)); status != http.StatusOK || scope != "cache:system:pull" {
		t.Errorf("status %d, scope %q", status, scope)
	}
	stop()
	var list trustList
	if err := json.Unmarshal([]byte(ok(t, home, "-f", file, "trust", "list", "--json")), &list); err != nil || len(list.Policies) != 1 || list.Policies[0].Policy.Name != "infra" {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestTrustAddRefuses(t *testing.T) {
	home, is := t.TempDir(), oidctest.NewIssuer(t)
	file := trustConfig(t, is, "")
	good := []string{"--name", "p", "--issuer", is.URL, "--repository-id", "1", "--ref", "refs/heads/main", "--caches", "a", "--grant", "push"}
	for name, tt := range map[string]struct {
		more []string
		want string
	}{
		"issuer that is not listed":    {[]string{"--issuer", "https://evil.example"}, "[[oidc.issuer]]"},
		"push for pull requests":       {[]string{"--events", "pull_request"}, "pull-request-push"},
		"prefix of sub":                {[]string{"--sub", "repo:acme/*"}, "sub"},
		"no id":                        {[]string{"--repository-id", "0"}, "required"},
		"cache name that is a pattern": {[]string{"--caches", "*/*"}, "caches"},
		"flags beside a file":          {[]string{"--file", "x.toml"}, "exclude"},
	} {
		code, _, errs := call(t, home, append(append([]string{"attic-server", "-f", file, "trust", "add"}, good...), tt.more...)...)
		if code == 0 || !strings.Contains(errs, tt.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
	bare := filepath.Join(t.TempDir(), "bare.toml")
	if err := os.WriteFile(bare, []byte("listen = \"127.0.0.1:0\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good[3] = trust.GitHub
	if code, _, errs := call(t, home, append([]string{"attic-server", "-f", bare, "trust", "add"}, good...)...); code != 1 || !strings.Contains(errs, "audience") {
		t.Errorf("without an audience: exit %d: %s", code, errs)
	}
}

func TestTrustTestExplains(t *testing.T) {
	home, is := t.TempDir(), oidctest.NewIssuer(t)
	file := trustConfig(t, is, fmt.Sprintf("[[trust]]\nname = \"infra\"\nissuer = %q\nrepository-id = 123456789\nref = \"refs/heads/main\"\ncaches = [\"system\"]\ngrant = [\"pull\", \"push\"]\n", is.URL))
	run := func(args ...string) (int, string, string) {
		t.Helper()
		return call(t, home, append([]string{"attic-server", "-f", file, "trust", "test"}, args...)...)
	}
	secret := filepath.Join(t.TempDir(), "token")
	write := func(raw string) {
		t.Helper()
		if err := os.WriteFile(secret, []byte(raw+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(is.Token(trustAudience))
	code, out, errs := run("--token", secret)
	if code != 0 || !strings.Contains(out, "✓ policy infra matches") || !strings.Contains(out, "grants pull, push on system") || strings.Contains(out, "refuse") {
		t.Errorf("a good token: exit %d:\n%s%s", code, out, errs)
	}
	raw := is.Sign(is.With(trustAudience, map[string]any{"exp": 1, "ref": "refs/heads/dev"}))
	write(raw)
	code, out, errs = run("--token", secret)
	if code != 1 || !strings.Contains(out, "✗ policy infra does not match") || !strings.Contains(out, `ref is "refs/heads/dev"`) || !strings.Contains(out, "would refuse this token") {
		t.Errorf("a bad token: exit %d:\n%s%s", code, out, errs)
	}
	if strings.Contains(out+errs, raw) || strings.Contains(out+errs, raw[strings.LastIndex(raw, "."):]) {
		t.Error("the token was printed")
	}
	code, out, errs = run("--claim", "iss="+is.URL, "--claim", "repository_id=123456789", "--claim", "ref=refs/heads/main",
		"--claim", "event_name=push", "--claim", "runner_environment=self-hosted", "--claim", "repository_visibility=public")
	if code != 1 || !strings.Contains(out, "self-hosted-public") || strings.Count(out, "✗") != 2 || !strings.Contains(errs, "no trust policy matches") {
		t.Errorf("claims: exit %d:\n%s%s", code, out, errs)
	}
	for _, args := range [][]string{{}, {"--claim", "x"}, {"--claim", "a=1", "--claim", "a=2"}, {"--claim", "a=1", "--token", secret}} {
		if code, _, errs := run(args...); code != 2 {
			t.Errorf("%q: exit %d: %s", args, code, errs)
		}
	}
	if _, err := os.Stat(filepath.Join(home, ".local/share/attic-server/server.db")); err == nil {
		t.Error("a question made a database")
	}
}

func TestTrustInitWritesAPolicyThatHolds(t *testing.T) {
	visibility := "private"
	gh := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v3/repos/acme/infra" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"id":123456789,"full_name":"acme/infra","owner":{"id":987654,"login":"acme"},"default_branch":"trunk","visibility":%q}`, visibility)
	}))
	t.Cleanup(gh.Close)
	home, is := t.TempDir(), oidctest.NewIssuer(t)
	file := trustConfig(t, is, "[[oidc.issuer]]\nurl = \""+gh.URL+"/_services/token\"\nallow-insecure = true\n")
	out := ok(t, home, "-f", file, "trust", "init", "--repo", "acme/infra", "--cache", "system", "--github-url", gh.URL)
	policy := filepath.Join(t.TempDir(), "p.toml")
	if err := os.WriteFile(policy, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	ok(t, home, "-f", file, "trust", "add", "--file", policy)
	list := ok(t, home, "-f", file, "trust", "list")
	for _, want := range []string{"repository-id = 123456789", "repository-owner-id = 987654", `ref = "refs/heads/trunk"`, `name = "acme-infra"`, `caches = ["system"]`, "/_services/token"} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in\n%s", want, list)
		}
	}
	visibility = "public"
	if out := ok(t, home, "-f", file, "trust", "init", "--repo", "acme/infra", "--github-url", gh.URL, "--add", "--replace"); !strings.Contains(out, `runner-environment = "github-hosted"`) || !strings.Contains(out, "holds") {
		t.Errorf("a public repository: got\n%s", out)
	}
	if code, _, errs := call(t, home, "attic-server", "-f", file, "trust", "init", "--repo", "acme/none", "--github-url", gh.URL); code != 1 || !strings.Contains(errs, "GITHUB_TOKEN") {
		t.Errorf("a repository that is not there: exit %d: %s", code, errs)
	}
}

// Every key of a policy has a flag and a place in the documentation, and so has every
// allowance.
func TestEveryKeyHasAFlagAndIsDocumented(t *testing.T) {
	p := &program{}
	flags := p.trustAdd().Flags()
	doc, err := os.ReadFile("../../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range trust.Keys() {
		if flags.Lookup(key) == nil {
			t.Errorf("key %s has no flag", key)
		}
		if !strings.Contains(string(doc), "`"+key+"`") {
			t.Errorf("key %s is not in docs/trust.md", key)
		}
	}
	for _, a := range trust.Allowances {
		if !strings.Contains(string(doc), "`"+a.Name+"`") {
			t.Errorf("allowance %s is not in docs/trust.md", a.Name)
		}
	}
}

// What the documentation shows must work.
func TestDocumentedPoliciesCompile(t *testing.T) {
	doc, err := os.ReadFile("../../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("[oidc]\naudience = \"https://cache.example.com\"\n")
	blocks := 0
	for i, block := range strings.Split(string(doc), "```toml\n") {
		if block, _, _ = strings.Cut(block, "```"); i > 0 {
			// The examples repeat a name, since each stands for itself.
			text.WriteString(strings.ReplaceAll(block, `name = "infra"`, fmt.Sprintf("name = \"infra-%d\"", i)))
			blocks++
		}
	}
	file := filepath.Join(t.TempDir(), "server.toml")
	text.WriteString("[[oidc.issuer]]\nurl = \"https://git.example.org/api/actions\"\n")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := call(t, t.TempDir(), "attic-server", "check-config", "-f", file); code != 0 || errs != "" || blocks < 6 {
		t.Errorf("%d examples: exit %d: %s", blocks, code, errs)
	}
}
