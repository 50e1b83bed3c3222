package action

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/github"
)

// ended notes which tokens are given back.
type ended struct {
	fakeServer
	tokens []string
}

func (e *ended) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Path == api.OIDCRevokeRoute && q.Context().Err() == nil {
		_ = q.ParseForm()
		e.tokens = append(e.tokens, q.PostForm.Get("token"))
	}
	return e.fakeServer.RoundTrip(q) // 404, as of a server that has no such route
}

func TestJobsGiveTheirTokenBack(t *testing.T) {
	e := &ended{fakeServer: fakeServer{expires: 900}}
	l := login(&e.fakeServer, io.Discard)
	l.HTTP = &http.Client{Transport: e}
	l.Logout(t.Context())
	if _, err := l.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as the job was
	l.Logout(ctx)
	l.Logout(ctx)
	if !slices.Equal(e.tokens, []string{"access-1"}) {
		t.Errorf("given back: %q", e.tokens)
	}
	if got, err := l.Token(t.Context()); err != nil || got != "access-2" {
		t.Errorf("after the end: %q, %v", got, err)
	}
}

// A token that was renewed lives on for a quarter of its life; a job that is over gives that one back, too.
func TestJobsGiveTheTokensBackThatTheyRenewed(t *testing.T) {
	e := &ended{fakeServer: fakeServer{expires: 900}}
	l := login(&e.fakeServer, io.Discard)
	clock := time.Unix(1_790_000_000, 0)
	l.HTTP, l.Now = &http.Client{Transport: e}, func() time.Time { return clock }
	for range 3 {
		if _, err := l.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(e.tokens) > 0 {
			t.Fatal("given back while requests may use it")
		}
		clock = clock.Add(12 * time.Minute)
	}
	clock = clock.Add(-11 * time.Minute) // a minute after the last one came; the first has ended by itself
	l.Logout(t.Context())
	if want := []string{"access-2", "access-3"}; !slices.Equal(e.tokens, want) {
		t.Errorf("given back: %q, want %q", e.tokens, want)
	}
}

// A token out of the workflow's secrets is the next run's, too.
func TestStaticTokensAreKept(t *testing.T) {
	e := &ended{}
	l := login(&e.fakeServer, io.Discard)
	l.HTTP, l.Static = &http.Client{Transport: e}, github.NewSecret("static")
	if _, err := l.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Logout(t.Context())
	if len(e.tokens) != 0 {
		t.Errorf("given back: %q", e.tokens)
	}
}
