// Package comment keeps one comment on a pull request up to date.
//
//	look through the comments ─► one of ours, by marker and author ─► edit it
//	                          └► none                              ─► a new one
//
// The marker is the comment's first line and shows nowhere. Whoever may comment can write it too, so the author counts
// as well: a comment of a person is never edited in place of ours, and never believed to be ours.
package comment

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

// MaxBody is how many bytes a body may have. GitHub counts characters, which are no more than the bytes.
const MaxBody = 65536

// Server is a GitHub's API.
type Server struct {
	URL   string       // such as https://api.github.com, or https://HOST/api/v3
	Token string       // with pull-requests: write
	HTTP  *http.Client // nil means one with a time limit; follows no redirects in either case
	// Wait waits before a request that GitHub wants later. Nil means time.
	Wait func(ctx context.Context, d time.Duration) error
}

// Comment is what is to be said, and where.
type Comment struct {
	Repo   string // owner/name
	Number int    // of the pull request
	Key    string // of all comments with the same key there is one: letters, digits, "-"
	Body   string // Markdown, with its marker at most MaxBody bytes
}

const (
	wholeTime = time.Minute      // for all of it
	maxWait   = 30 * time.Second // that GitHub may ask for
	perPage   = 100
	maxPages  = 30 // of comments that are looked through
)

// Marker is the line that a comment of a key begins with.
func Marker(key string) string { return "<!-- attic-action " + key + " -->\n" }

// Put makes the comment say what it should. The error is one line for people, and says what to do.
func (s Server) Put(ctx context.Context, c Comment) error {
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	owner, name, ok := strings.Cut(c.Repo, "/")
	if !ok || owner == "" || name == "" || c.Number <= 0 {
		return fmt.Errorf("comment on %s#%d: want owner/name and a number", c.Repo, c.Number)
	}
	client, err := s.newClient()
	if err != nil {
		return err
	}
	p := &pull{Server: s, client: client, owner: owner, repo: name, number: c.Number, marker: Marker(c.Key)}
	if err := p.put(ctx, p.marker+c.Body); err != nil {
		return fmt.Errorf("comment on %s#%d: %w", c.Repo, c.Number, explain(err))
	}
	return nil
}

// pull is one pull request.
type pull struct {
	Server
	client      *github.Client
	owner, repo string
	number      int
	marker      string
}

func (p *pull) put(ctx context.Context, body string) error {
	old, err := p.find(ctx)
	if err != nil {
		return err
	}
	switch {
	case old == nil:
		return p.patient(ctx, func() error {
			_, _, err := p.client.Issues.CreateComment(ctx, p.owner, p.repo, p.number, &github.IssueComment{Body: &body})
			return err
		})
	case old.GetBody() == body:
		return nil
	}
	return p.patient(ctx, func() error {
		_, _, err := p.client.Issues.EditComment(ctx, p.owner, p.repo, old.GetID(), &github.IssueComment{Body: &body})
		return err
	})
}

// find looks for our comment, the oldest first. It is nil where there is none.
func (p *pull) find(ctx context.Context) (*github.IssueComment, error) {
	me := "" // not asked yet
	at := &github.IssueListCommentsOptions{ListOptions: github.ListOptions{PerPage: perPage}}
	for range maxPages {
		var page []*github.IssueComment
		var res *github.Response
		err := p.patient(ctx, func() (err error) {
			page, res, err = p.client.Issues.ListComments(ctx, p.owner, p.repo, p.number, at)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, c := range page {
			if !strings.HasPrefix(strings.ReplaceAll(c.GetBody(), "\r\n", "\n"), p.marker) {
				continue
			}
			if me == "" {
				me = p.whoAmI(ctx)
			}
			if ours(c.GetUser(), me) {
				return c, nil
			}
		}
		if res.NextPage == 0 {
			return nil, nil
		}
		at.Page = res.NextPage
	}
	return nil, nil // a pull request with thousands of comments gets a new one
}

// aBot is who a token of an app belongs to: it may not ask for its own name.
const aBot = "[bot]"

// whoAmI is the login of the token's owner.
func (p *pull) whoAmI(ctx context.Context) string {
	u, _, err := p.client.Users.Get(ctx, "")
	if err != nil || u.GetLogin() == "" {
		return aBot
	}
	return u.GetLogin()
}

// ours reports whether a comment's author is me. No person's login has brackets in it.
func ours(author *github.User, me string) bool {
	if me == aBot {
		return author.GetType() == "Bot" && strings.HasSuffix(author.GetLogin(), aBot)
	}
	return author.GetLogin() == me
}

// patient asks a second time where GitHub says that it was too much at once, and when.
func (p *pull) patient(ctx context.Context, ask func() error) error {
	err := ask()
	var slower *github.AbuseRateLimitError
	if !errors.As(err, &slower) || slower.RetryAfter == nil || *slower.RetryAfter > maxWait {
		return err
	}
	wait := p.Wait
	if wait == nil {
		wait = sleep
	}
	if err := wait(ctx, *slower.RetryAfter); err != nil {
		return err
	}
	if p.client, err = p.newClient(); err != nil { // by its own clock the old one would say that it is too early
		return err
	}
	return ask()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// explain says in one line what GitHub's answer means here. GitHub's own words are not repeated: they may be anything.
func explain(err error) error {
	var answer *github.ErrorResponse
	var limited *github.RateLimitError
	var slower *github.AbuseRateLimitError
	switch {
	case errors.As(err, &limited):
		return fmt.Errorf("GitHub answers no more before %s", limited.Rate.Reset.UTC().Format(time.TimeOnly))
	case errors.As(err, &slower):
		return errors.New("GitHub says that there were too many requests in a short time")
	case !errors.As(err, &answer):
		return err
	}
	switch status := answer.Response.StatusCode; status {
	case http.StatusUnauthorized:
		return errors.New("GitHub does not know the token; is the input github-token set?")
	case http.StatusTooManyRequests:
		return errors.New("GitHub says that there were too many requests in a short time")
	case http.StatusForbidden, http.StatusNotFound:
		return fmt.Errorf("the token may not do that (%d); under permissions, pull-requests: write is needed, which GitHub never "+
			"gives to a pull request from a fork", status)
	default:
		return fmt.Errorf("GitHub answered %d", status)
	}
}

// newClient makes a client whose token goes nowhere but to the URL.
func (s Server) newClient() (*github.Client, error) {
	base, err := url.Parse(strings.TrimRight(s.URL, "/") + "/")
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, errors.New("the URL of GitHub's API is not one, such as https://api.github.com")
	}
	hc := http.Client{Timeout: wholeTime}
	if s.HTTP != nil {
		hc = *s.HTTP
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := github.NewClient(&hc).WithAuthToken(s.Token)
	c.BaseURL = base
	return c, nil
}
