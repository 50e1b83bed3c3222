package repo_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/github/repo"
)

// enterprise stands in for a GitHub Enterprise Server.
func enterprise(t *testing.T, h http.HandlerFunc) repo.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return repo.Server{URL: s.URL}
}

const found = `{"id": 123456789, "full_name": "acme/infra", "owner": {"id": 987654, "login": "acme"}, "default_branch": "main", "visibility": "private", "private": true}`

func TestLookupReadsTheIDs(t *testing.T) {
	s := enterprise(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v3/repos/acme/infra" || r.Header.Get("Authorization") != "Bearer t0k" {
			t.Errorf("got %s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		fmt.Fprint(w, found)
	})
	s.Token = "t0k"
	got, err := s.Lookup(t.Context(), "acme/infra")
	want := repo.Repo{ID: 123456789, OwnerID: 987654, FullName: "acme/infra", Owner: "acme", DefaultBranch: "main", Visibility: "private"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestLookupFollowsARename(t *testing.T) {
	s := enterprise(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v3/repos/acme/old" {
			http.Redirect(w, r, "/api/v3/repositories/123456789", http.StatusMovedPermanently)
			return
		}
		fmt.Fprint(w, found)
	})
	got, err := s.Lookup(t.Context(), "acme/old")
	if err != nil || got.FullName != "acme/infra" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A GitHub that is not one could send the token on to whoever it likes.
func TestLookupTakesTheTokenToNoOtherHost(t *testing.T) {
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(other.Close)
	s := enterprise(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	s.Token = "t0k"
	if _, err := s.Lookup(t.Context(), "acme/infra"); err == nil || asked {
		t.Errorf("got %v, other host asked: %v", err, asked)
	}
}

func TestLookupSaysWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		status      int
		token, want string
	}{
		{404, "", "GITHUB_TOKEN"}, {404, "t", "may see"}, {401, "t", "not valid"}, {200, "", "no ids"}, {500, "", "acme/infra"},
	} {
		s := enterprise(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(tt.status); fmt.Fprint(w, `{}`) })
		s.Token = tt.token
		if _, err := s.Lookup(t.Context(), "acme/infra"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("status %d: got %v, want %q", tt.status, err, tt.want)
		}
	}
	for _, name := range []string{"", "acme", "acme/", "/infra", "a/b/c"} {
		if _, err := (repo.Server{}).Lookup(t.Context(), name); err == nil || !strings.Contains(err.Error(), "owner/name") {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestIssuerOfEachGitHub(t *testing.T) {
	for url, want := range map[string]string{
		"": "", "https://github.com": "", "https://github.com/": "",
		"https://git.example.com": "https://git.example.com/_services/token",
		"https://acme.ghe.com":    "https://token.actions.acme.ghe.com",
	} {
		if got, err := (repo.Server{URL: url}).Issuer(); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", url, got, err, want)
		}
	}
	for _, url := range []string{"git.example.com", "https://u:p@git.example.com", "https://git.example.com/acme", "ftp://x"} {
		if _, err := (repo.Server{URL: url}).Issuer(); err == nil {
			t.Errorf("%q was accepted", url)
		}
	}
}
