package comment_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/github/comment"
)

type user struct {
	Login string `json:"login"`
	Type  string `json:"type"`
}

type posted struct {
	ID   int64  `json:"id"`
	Body string `json:"body"`
	User user   `json:"user"`
}

var (
	robot  = user{"github-actions[bot]", "Bot"}
	person = user{"mallory", "User"}
)

// gitHub is the part of an API that comments need, as an enterprise server has it: below /api/v3.
type gitHub struct {
	t        *testing.T
	me       user // "" is a token of an app, which may not ask who it is
	comments []posted
	writes   []string
	before   func(w http.ResponseWriter, r *http.Request) bool // answers in place of the rest
	url      string
}

func start(t *testing.T, comments ...posted) *gitHub {
	t.Helper()
	g := &gitHub{t: t, comments: comments}
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	g.url = s.URL + "/api/v3"
	return g
}

func (g *gitHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if got := r.Header.Get("Authorization"); got != "Bearer t0k" {
		g.t.Errorf("%s %s with %q", r.Method, r.URL, got)
	}
	if g.before != nil && g.before(w, r) {
		return
	}
	var in posted
	if r.Method != http.MethodGet {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			g.t.Error(err)
		}
		g.writes = append(g.writes, r.Method+" "+r.URL.Path)
	}
	const issues = "/api/v3/repos/acme/infra/issues/"
	switch {
	case r.Method == "GET" && r.URL.Path == "/api/v3/user" && g.me.Login != "":
		_ = json.NewEncoder(w).Encode(g.me)
	case r.Method == "GET" && r.URL.Path == issues+"7/comments":
		g.list(w, r)
	case r.Method == "POST" && r.URL.Path == issues+"7/comments":
		g.comments = append(g.comments, posted{int64(len(g.comments) + 1), in.Body, robot})
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "{}")
	case r.Method == "PATCH" && strings.HasPrefix(r.URL.Path, issues+"comments/"):
		for i := range g.comments {
			if strings.HasSuffix(r.URL.Path, fmt.Sprintf("/%d", g.comments[i].ID)) {
				g.comments[i].Body = in.Body
			}
		}
		fmt.Fprint(w, "{}")
	default:
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"message":"Resource not accessible by integration"}`)
	}
}

// list shows pages of two comments, whatever is asked for.
func (g *gitHub) list(w http.ResponseWriter, r *http.Request) {
	page := 1
	_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
	from := min(len(g.comments), (page-1)*2)
	to := min(len(g.comments), from+2)
	if to < len(g.comments) {
		w.Header().Set("Link", fmt.Sprintf(`<%s/repos/acme/infra/issues/7/comments?page=%d>; rel="next"`, g.url, page+1))
	}
	_ = json.NewEncoder(w).Encode(g.comments[from:to])
}

func (g *gitHub) put(body string) error {
	s := comment.Server{URL: g.url, Token: "t0k", Wait: func(context.Context, time.Duration) error { return nil }}
	return s.Put(g.t.Context(), comment.Comment{Repo: "acme/infra", Number: 7, Key: "k1", Body: body})
}

func TestOneCommentIsMadeAndThenUpdated(t *testing.T) {
	g := start(t, posted{1, "first!", person}, posted{2, "LGTM", person}, posted{3, "ship it", person})
	for _, body := range []string{"one", "two", "two", "three"} {
		if err := g.put(body); err != nil {
			t.Fatal(err)
		}
		if len(g.comments) != 4 || g.comments[3].Body != comment.Marker("k1")+body {
			t.Fatalf("after %s: %+v", body, g.comments)
		}
	}
	const issues = "/api/v3/repos/acme/infra/issues/"
	want := "POST " + issues + "7/comments, PATCH " + issues + "comments/4, PATCH " + issues + "comments/4"
	if got := strings.Join(g.writes, ", "); got != want {
		t.Errorf("writes %s, want %s", got, want)
	}
}

// Whoever may comment may write the marker. Were his comment taken for ours, he could change afterwards what it says.
func TestCommentOfSomebodyElseIsNotTakenForOurs(t *testing.T) {
	for name, c := range map[string]struct{ me, author user }{
		"app":               {user{}, person},
		"looks like a bot":  {user{}, user{"github-actions", "User"}},
		"bot by type alone": {user{}, user{"mallory", "Bot"}},
		"somebody's token":  {user{"alice", "User"}, robot},
		"no author":         {user{}, user{}},
	} {
		g := start(t, posted{1, comment.Marker("k1") + "all is well", c.author})
		g.me = c.me
		if err := g.put("broken"); err != nil || len(g.comments) != 2 || g.comments[0].Body != comment.Marker("k1")+"all is well" {
			t.Errorf("%s: %v, %+v", name, err, g.comments)
		}
	}
	g := start(t, posted{1, comment.Marker("k1") + "old", user{"alice", "User"}}, posted{2, comment.Marker("k2") + "another's", robot})
	g.me = user{"alice", "User"}
	if err := g.put("new"); err != nil || len(g.comments) != 2 || g.comments[0].Body != comment.Marker("k1")+"new" {
		t.Errorf("%v, %+v", err, g.comments)
	}
}

func TestRefusalsAreOneLineThatSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header string
		body   string
		want   string
	}{
		"fork":      {403, "", `{"message":"Resource not accessible by integration\n::error::x"}`, "pull-requests: write is needed"},
		"not there": {404, "", `{"message":"Not Found"}`, "the token may not do that (404)"},
		"bad token": {401, "", `{"message":"Bad credentials"}`, "is the input github-token set?"},
		"limit":     {403, "0", `{"message":"API rate limit exceeded"}`, "GitHub answers no more before"},
		"secondary": {403, "", `{"message":"slow down","documentation_url":"https://docs.github.com/x#secondary-rate-limits"}`, "too many requests in a short time"},
		"429":       {429, "", `{"message":"slow down"}`, "too many requests in a short time"},
		"broken":    {502, "", `<html>`, "GitHub answered 502"},
		"moved":     {302, "", ``, "GitHub answered 302"},
		"no JSON":   {200, "", `<html>`, "invalid character"},
	} {
		g := start(t)
		g.before = func(w http.ResponseWriter, r *http.Request) bool {
			if c.header != "" {
				w.Header().Set("X-RateLimit-Remaining", c.header)
				w.Header().Set("X-RateLimit-Reset", "4102444800")
			}
			if c.status == 302 {
				w.Header().Set("Location", "https://elsewhere.example/")
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
			return true
		}
		if err := g.put("x"); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "t0k") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestSecondaryRateLimitIsWaitedForOnce(t *testing.T) {
	for after, want := range map[string]int{"2": 1, "3600": 0} {
		g := start(t)
		limited := 0
		g.before = func(w http.ResponseWriter, r *http.Request) bool {
			if limited++; limited > 1 {
				return false
			}
			w.Header().Set("Retry-After", after)
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"documentation_url":"https://docs.github.com/x#secondary-rate-limits"}`)
			return true
		}
		if err := g.put("x"); (err == nil) != (want == 1) || len(g.comments) != want {
			t.Errorf("after %s s: %v, %+v", after, err, g.comments)
		}
	}
}

// A GitHub that is not one, or is behind a proxy that is not one, could send the token on to whoever it likes.
func TestTheTokenGoesToNoOtherHost(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was asked", r.URL) }))
	t.Cleanup(other.Close)
	g := start(t)
	g.before = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		return true
	}
	if err := g.put("x"); err == nil {
		t.Error("no error")
	}
	for _, url := range []string{"", "file:///x", "https://u:p@api.example", "::"} {
		err := comment.Server{URL: url, Token: "t0k"}.Put(t.Context(), comment.Comment{Repo: "a/b", Number: 1, Key: "k"})
		if err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
