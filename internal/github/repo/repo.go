// Package repo looks up what a trust policy must say about a repository on GitHub: its
// numeric ids, which its name does not tell.
package repo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
)

// Repo is a repository.
type Repo struct {
	ID, OwnerID   int64
	FullName      string // owner/name as GitHub spells it now
	Owner         string
	DefaultBranch string
	Visibility    string // public, private, internal
}

// Server is a GitHub.
type Server struct {
	URL   string       // empty means https://github.com
	Token string       // may be empty where the repository is public
	HTTP  *http.Client // nil means one with a time limit
}

// lookupTime bounds the whole lookup.
const lookupTime = 30 * time.Second

// Lookup finds a repository by owner/name.
func (s Server) Lookup(ctx context.Context, name string) (Repo, error) {
	owner, short, ok := strings.Cut(name, "/")
	if !ok || owner == "" || short == "" || strings.Contains(short, "/") {
		return Repo{}, fmt.Errorf("repository %q: want owner/name", name)
	}
	c, err := s.client()
	if err != nil {
		return Repo{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	r, _, err := c.Repositories.Get(ctx, owner, short)
	if err != nil {
		return Repo{}, s.explain(name, err)
	}
	found := Repo{
		ID: r.GetID(), OwnerID: r.GetOwner().GetID(), FullName: r.GetFullName(), Owner: r.GetOwner().GetLogin(),
		DefaultBranch: r.GetDefaultBranch(), Visibility: r.GetVisibility(),
	}
	if found.Visibility == "" && r.GetPrivate() {
		found.Visibility = "private"
	}
	if found.ID <= 0 || found.OwnerID <= 0 || found.Owner == "" || found.DefaultBranch == "" {
		return Repo{}, fmt.Errorf("look up %s: the answer has no ids", name)
	}
	return found, nil
}

func (s Server) explain(name string, err error) error {
	var answer *github.ErrorResponse
	var limited *github.RateLimitError
	switch {
	case errors.As(err, &limited):
		return fmt.Errorf("look up %s: GitHub answers no more before %s: set GITHUB_TOKEN", name, limited.Rate.Reset.Format(time.TimeOnly))
	case errors.As(err, &answer) && answer.Response.StatusCode == http.StatusNotFound && s.Token == "":
		return fmt.Errorf("look up %s: there is no such public repository; set GITHUB_TOKEN for a private one", name)
	case errors.As(err, &answer) && answer.Response.StatusCode == http.StatusNotFound:
		return fmt.Errorf("look up %s: there is no such repository that GITHUB_TOKEN may see", name)
	case errors.As(err, &answer) && answer.Response.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("look up %s: GITHUB_TOKEN is not valid", name)
	}
	return fmt.Errorf("look up %s: %w", name, err)
}

func (s Server) client() (*github.Client, error) {
	hc := s.HTTP
	if hc == nil {
		hc = &http.Client{Timeout: lookupTime, CheckRedirect: sameHost}
	}
	c := github.NewClient(hc)
	if s.Token != "" {
		c = c.WithAuthToken(s.Token)
	}
	base, err := s.api()
	if err != nil {
		return nil, err
	}
	c.BaseURL = base
	return c, nil
}

// sameHost follows a repository that was renamed, and takes the token nowhere else.
func sameHost(r *http.Request, via []*http.Request) error {
	if len(via) >= 3 || r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
		return fmt.Errorf("redirected to %s", r.URL.Host)
	}
	return nil
}

func (s Server) parse() (*url.URL, error) {
	if s.URL == "" {
		return &url.URL{Scheme: "https", Host: "github.com"}, nil
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("GitHub's URL %q: want https://HOST", s.URL)
	}
	return u, nil
}

// api is where the API of a server is.
func (s Server) api() (*url.URL, error) {
	u, err := s.parse()
	switch {
	case err != nil:
		return nil, err
	case u.Host == "github.com" || strings.HasSuffix(u.Host, ".ghe.com"):
		return &url.URL{Scheme: u.Scheme, Host: "api." + u.Host, Path: "/"}, nil
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/api/v3/"}, nil
}

// Issuer is who issues ID tokens to a server's jobs; empty means github.com's.
func (s Server) Issuer() (string, error) {
	u, err := s.parse()
	switch {
	case err != nil:
		return "", err
	case u.Host == "github.com":
		return "", nil
	case strings.HasSuffix(u.Host, ".ghe.com"):
		return u.Scheme + "://token.actions." + u.Host, nil
	}
	return u.Scheme + "://" + u.Host + "/_services/token", nil
}
