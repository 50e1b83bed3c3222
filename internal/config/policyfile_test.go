package config

import (
	"strings"
	"testing"
)

func TestReadPoliciesTakesTrustTablesOnly(t *testing.T) {
	good := "[[trust]]\nname = \"infra\"\nrepository-id = 1\n"
	list, err := ReadPolicies("p.toml", []byte(good))
	if err != nil || len(list) != 1 || list[0].Name != "infra" || list[0].RepositoryID != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	for text, want := range map[string]string{
		good + "[oidc]\naudience = \"https://evil.example\"\n": "[[trust]] tables only",
		"listen = \"0.0.0.0:1\"\n" + good:                      "[[trust]] tables only",
		good + "repositroy = \"a/b\"\n":                        "did you mean repository",
		good + "Ref = \"refs/heads/main\"\n":                   "Ref",
		good + "sub-prefix = \"repo:acme/\"\n":                 "sub-prefix",
		good + "repository-id = 2\n":                           "p.toml:4",
		"":                                                     "no [[trust]] table",
		"[[trust]\n":                                           "not TOML",
	} {
		if _, err := ReadPolicies("p.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestIssuersHaveKinds(t *testing.T) {
	load := func(issuer, policy string) (*Server, error) {
		b, err := parse("server.toml", []byte("[oidc]\naudience = \"https://cache.example.com\"\n[[oidc.issuer]]\n"+issuer+"[[trust]]\nname = \"p\"\n"+policy))
		if err != nil {
			return nil, err
		}
		b.getenv, b.data = func(string) string { return "" }, t.TempDir()
		return b.server()
	}
	policy := "issuer = \"https://git.example.com\"\nproject-id = 7\nref = \"refs/heads/main\"\ncaches = [\"a\"]\ngrant = [\"push\"]\n"
	s, err := load("url = \"https://git.example.com\"\nkind = \"gitlab\"\n", policy)
	if err != nil || s.OIDC.Kinds()["https://git.example.com"] != "gitlab" {
		t.Fatalf("got %+v, %v", s, err)
	}
	if _, err := load("url = \"https://git.example.com\"\n", policy); err == nil || !strings.Contains(err.Error(), "project-id") {
		t.Errorf("GitLab's id with GitHub's claims: got %v", err)
	}
	if _, err := load("url = \"https://git.example.com\"\nkind = \"jenkins\"\n", policy); err == nil || !strings.Contains(err.Error(), "buildkite") {
		t.Errorf("unknown kind: got %v", err)
	}
}
