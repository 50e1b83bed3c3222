package action

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/github"
)

// fakeServer is GitHub's issuer at github.example and a cache server everywhere else.
type fakeServer struct {
	mu       sync.Mutex
	calls    int
	ids      int               // ID tokens given
	subjects []string          // ID tokens exchanged
	scopes   []string          // asked for
	grants   string            // scope of the answers
	other    http.RoundTripper // for all other hosts
	ref      string            // claim; empty: refs/heads/main
	audience string            // announced; empty: the server's own URL
	config   string            // in place of the configuration
	endpoint string
	refuse   string // body of a 400
	broken   []int  // statuses of the first exchanges; 0 is a lost connection
	expires  int
	asked    string // for this audience
	revoked  []string
	given    map[string]time.Time // when an access token was
}

func (f *fakeServer) RoundTrip(q *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if q.URL.Host == "nowhere.example" {
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: q}, nil
	}
	switch {
	case f.other != nil && !strings.HasSuffix(q.URL.Host, ".example"):
		return f.other.RoundTrip(q)
	case q.URL.Host == "github.example":
		f.ids++
		f.asked = q.URL.Query().Get("audience")
		claims, _ := json.Marshal(map[string]any{"jti": f.ids, "repository_id": "74", "event_name": "pull_request", "aud": f.asked, "ref": cmp.Or(f.ref, "refs/heads/main"), "repository": "acme/infra", "iss": githubIssuer})
		return answer(200, fmt.Sprintf(`{"value":"eyJh.%s.c2ln"}`, base64.RawURLEncoding.EncodeToString(claims)))
	case q.URL.Path == "/_api/v1/oidc/config" && f.config != "":
		return answer(404, f.config)
	case q.URL.Path == "/_api/v1/oidc/config":
		audience := f.audience
		if audience == "" {
			audience = "http://cache.example"
		}
		return answer(200, fmt.Sprintf(`{"issuers":["x"],"audience":%q,"token_endpoint":%q}`, audience, f.endpoint))
	case q.URL.Host == "cache.example" && q.URL.Path == "/_api/v1/oidc/token" && q.Method == "POST":
		_ = q.ParseForm()
		f.subjects = append(f.subjects, q.PostForm.Get("subject_token"))
		f.scopes = append(f.scopes, q.PostForm.Get("scope"))
		if len(f.broken) > 0 {
			status := f.broken[0]
			f.broken = f.broken[1:]
			if status == 0 {
				return nil, errors.New("connection refused")
			}
			return answer(status, "")
		}
		if f.refuse != "" {
			return answer(400, f.refuse)
		}
		if f.given == nil {
			f.given = map[string]time.Time{}
		}
		f.given[fmt.Sprintf("access-%d", len(f.subjects))] = time.Now()
		return answer(200, fmt.Sprintf(`{"access_token":"access-%d","token_type":"Bearer","expires_in":%d,"scope":%q}`, len(f.subjects), f.expires, f.grants))
	}
	if q.URL.Path == api.OIDCRevokeRoute {
		_ = q.ParseForm()
		f.revoked = append(f.revoked, q.PostForm.Get("token"))
	}
	return answer(404, "")
}

func login(f *fakeServer, out io.Writer) *Login {
	env := map[string]string{"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": "http://github.example/idtoken", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "rt"}
	c := &http.Client{Transport: f}
	r := &github.Runner{Getenv: func(k string) string { return env[k] }, Stdout: out, HTTP: c}
	return &Login{Server: "http://cache.example", Runner: r, HTTP: c, Now: time.Now}
}

func TestTokenIsRenewedAtThreeQuartersOfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeServer{expires: 900}
		l := login(f, io.Discard)
		want := func(want string) {
			t.Helper()
			if got, err := l.Token(t.Context()); err != nil || got != want {
				t.Fatalf("token %q, %v, want %q", got, err, want)
			}
		}
		want("access-1")
		time.Sleep(674 * time.Second)
		want("access-1")
		time.Sleep(time.Second)
		want("access-2")
		if f.ids != 2 || f.subjects[0] == f.subjects[1] {
			t.Errorf("%d ID tokens for two exchanges: a server takes one only once", f.ids)
		}
		time.Sleep(700 * time.Second)
		f.refuse = `{"error":"invalid_grant"}`
		want("access-2") // it lives for another 200 s
		time.Sleep(201 * time.Second)
		if _, err := l.Token(t.Context()); err == nil {
			t.Error("a token beyond its life")
		}
	})
}

func TestSleepingServerIsWaitedForWithFreshTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		f := &fakeServer{expires: 900, broken: []int{0, 503, 502, 429}}
		if got, err := login(f, &out).Token(t.Context()); err != nil || got != "access-5" {
			t.Fatalf("token %q, %v", got, err)
		}
		if slices.Sort(f.subjects); len(slices.Compact(f.subjects)) != 5 {
			t.Errorf("ID tokens were used twice: %q", f.subjects)
		}
		if n := strings.Count(out.String(), "trying for"); n != 1 {
			t.Errorf("%d lines say so, want 1:\n%s", n, &out)
		}
	})
}

func TestServerThatStaysAwayIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &fakeServer{broken: make([]int, 1000)}
		_, err := login(f, io.Discard).Token(t.Context())
		if err == nil || time.Since(start) > loginPatience || time.Since(start) < loginPatience/2 {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
	})
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := login(&fakeServer{broken: make([]int, 1000)}, io.Discard).Token(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 4*time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
	})
}

func TestMistypedServerIsNotWaitedFor(t *testing.T) {
	f := &fakeServer{}
	l := login(f, io.Discard)
	l.Server = "http://nowhere.example"
	if _, err := l.Token(t.Context()); err == nil || f.calls != 1 {
		t.Errorf("error %v after %d calls", err, f.calls)
	}
}

// A server that could name any audience would be handed a token that opens somebody else's door.
func TestServerCannotAskForATokenForOthers(t *testing.T) {
	f := &fakeServer{audience: "sts.amazonaws.com", expires: 900}
	l := login(f, io.Discard)
	if _, err := l.Token(t.Context()); err == nil || !strings.Contains(err.Error(), `"sts.amazonaws.com"`) || f.ids != 0 {
		t.Errorf("error %v, %d ID tokens given", err, f.ids)
	}
	l.Audience = "my-cache" // the workflow says so
	if _, err := l.Token(t.Context()); err != nil || f.asked != "my-cache" {
		t.Errorf("error %v, asked for %q", err, f.asked)
	}
}

// An ID token goes to the server that the workflow names, wherever that one would like to have it sent.
func TestIDTokenIsSentToNoOtherHost(t *testing.T) {
	f := &fakeServer{endpoint: "http://evil.example/_api/v1/oidc/token", expires: 900}
	if _, err := login(f, io.Discard).Token(t.Context()); err != nil || len(f.subjects) != 1 {
		t.Errorf("error %v, %d exchanges at the right place", err, len(f.subjects))
	}
}

func TestServerWithoutTrust(t *testing.T) {
	f := &fakeServer{config: `{"code":404,"error":"NoSuchRoute"}`}
	if _, err := login(f, io.Discard).Token(t.Context()); err == nil || !strings.Contains(err.Error(), "set the input token") {
		t.Errorf("error %v", err)
	}
}

func TestAccessTokenIsMasked(t *testing.T) {
	var out strings.Builder
	if _, err := login(&fakeServer{expires: 900}, &out).Token(t.Context()); err != nil || !strings.HasSuffix(out.String(), "::add-mask::access-1\n") {
		t.Errorf("error %v, printed %q", err, out.String())
	}
}

// The expiry is counted from the answer, by this machine's clock alone: how far that one is off does not matter, nor that it is set meanwhile.
func TestAClockThatIsOffByTwoMinutesIsNoMatter(t *testing.T) {
	for _, off := range []time.Duration{-2 * time.Minute, 2 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			start, by := time.Now(), time.Duration(0)
			f := &fakeServer{expires: 900}
			l := login(f, io.Discard)
			l.Now = func() time.Time { return time.Now().Round(0).Add(by) } // without the monotonic reading, which a real one has
			for at := range 60 {
				time.Sleep(time.Minute)
				if at == 7 {
					by = off
				}
				token, err := l.Token(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if age := time.Since(f.given[token]); age > 900*time.Second {
					t.Errorf("off by %v, after %v: the token is %v old", off, time.Since(start), age)
				}
			}
		})
	}
}

func TestATokenThatIsNotAcceptedAnyMoreIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeServer{expires: 900}
		l := login(f, io.Discard)
		if _, err := l.Token(t.Context()); err != nil || l.Rejected("access-1") {
			t.Errorf("%v: a token that is refused when it is new is exchanged for another, without end", err)
		}
		time.Sleep(time.Minute)
		if !l.Rejected("access-1") {
			t.Fatal("it was good before: a new one may be, too")
		}
		if got, err := l.Token(t.Context()); err != nil || got != "access-2" || !l.Rejected("access-1") {
			t.Errorf("%q, %v", got, err)
		}
		l.Static = github.NewSecret("static")
		if l.Rejected("static") {
			t.Error("there is no other one")
		}
	})
}
