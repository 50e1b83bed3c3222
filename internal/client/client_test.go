package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
)

// serve starts a server and a client of it with short waits.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*Options)) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	o := Options{Endpoint: srv.URL, Token: StaticToken("s3cret"), RetryWait: time.Millisecond, MaxRetryWait: 2 * time.Millisecond, MaxRetryAfter: 20 * time.Millisecond}
	for _, ch := range change {
		ch(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRedirectDoesNotCarryTheToken(t *testing.T) {
	var stolen atomic.Value
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stolen.Store(r.Header.Get("Authorization"))
		fmt.Fprint(w, "{}")
	}))
	defer thief.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+"/elsewhere?token=x", status)
		})
		_, err := c.CacheConfig(t.Context(), "main")
		var se *StatusError
		if !errors.As(err, &se) || se.Status != status || !strings.Contains(err.Error(), thief.URL) {
			t.Errorf("redirect %d: %v", status, err)
		}
	}
	if stolen.Load() != nil {
		t.Errorf("another host was called, with the token %q", stolen.Load())
	}
}

func TestAPIEndpointDoesNotDowngradeToHTTP(t *testing.T) {
	c, err := New(Options{Endpoint: "https://cache.example.org/x/"})
	if err != nil {
		t.Fatal(err)
	}
	for endpoint, want := range map[string]string{
		"http://cache.example.org/":      "https://cache.example.org/x/", // a proxy hides the scheme
		"http://evil.example.org/":       "https://cache.example.org/x/",
		"https://api.example.org/attic/": "https://api.example.org/attic/",
	} {
		at, err := c.At(endpoint)
		if err != nil || at.Endpoint() != want {
			t.Errorf("At(%s) = %v, %v, want %s", endpoint, at, err, want)
		}
	}
	for _, bad := range []string{"", "file:///etc/passwd", "//evil", "https://u:p@x/"} {
		if _, err := c.At(bad); !errors.Is(err, ErrEndpoint) {
			t.Errorf("At(%q): %v", bad, err)
		}
	}
}

func TestRetriesWhatCanChange(t *testing.T) {
	for _, status := range []int{408, 429, 500, 502, 503, 504} {
		var n atomic.Int64
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) < 3 {
				w.WriteHeader(status)
				return
			}
			fmt.Fprint(w, `{"api_endpoint":"http://x/"}`)
		})
		if _, err := c.CacheConfig(t.Context(), "main"); err != nil || n.Load() != 3 {
			t.Errorf("status %d: %d requests, %v", status, n.Load(), err)
		}
	}
}

func TestDoesNotRetryWhatTheUserHasToChange(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 405, 409, 413, 415, 422, 501, 507} {
		var n atomic.Int64
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"code":%d,"error":"Name","message":"text"}`, status)
		})
		_, err := c.CacheConfig(t.Context(), "main")
		if Status(err) != status || APIError(err) == nil || n.Load() != 1 {
			t.Errorf("status %d: %d requests, %v", status, n.Load(), err)
		}
	}
}

func TestGivesUpAfterSomeAttempts(t *testing.T) {
	var n atomic.Int64
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.WriteHeader(503)
		io.WriteString(w, `{"code":503,"error":"Overloaded","message":"come back"}`)
	}, func(o *Options) { o.Retries = 3 })
	_, err := c.CacheConfig(t.Context(), "main")
	if n.Load() != 4 || Status(err) != 503 || APIError(err).Name != "Overloaded" {
		t.Errorf("%d requests, %v", n.Load(), err)
	}
}

func TestBackoffHonoursRetryAfterWithinABound(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	after := func(v string) *http.Response { return &http.Response{Header: http.Header{"Retry-After": {v}}} }
	for _, c := range []struct {
		header   string
		from, to time.Duration
	}{
		{"3", 3 * time.Second, 4 * time.Second},
		{now.Add(5 * time.Second).Format(http.TimeFormat), 5 * time.Second, 6 * time.Second},
		{now.Add(-time.Hour).Format(http.TimeFormat), 0, time.Second},
		{"99999999", time.Minute, 61 * time.Second}, // a server must not hold us for years
		{"-5", 0, 10 * time.Second},
		{"soon", 0, 10 * time.Second},
		{"", 0, 10 * time.Second},
	} {
		for attempt := range 70 {
			if d := backoff(time.Second, 10*time.Second, time.Minute, attempt, after(c.header), now); d < c.from || d > c.to {
				t.Errorf("Retry-After %q, attempt %d: %v, want %v to %v", c.header, attempt, d, c.from, c.to)
			}
		}
	}
	if d := backoff(time.Second, 10*time.Second, time.Minute, 1, nil, now); d < 0 || d > 2*time.Second {
		t.Errorf("second attempt waits %v, want at most 2s", d)
	}
}

func TestUnreachableServerFailsSoon(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	c, err := New(Options{Endpoint: srv.URL, RetryWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CacheConfig(t.Context(), "main")
	if err == nil || c.Stats().Requests > firstContact+1 {
		t.Errorf("%d attempts, %v", c.Stats().Requests, err)
	}
}

func TestWrongSchemeIsNotRetried(t *testing.T) {
	srv := httptest.NewServer(nil)
	defer srv.Close()
	c, err := New(Options{Endpoint: strings.Replace(srv.URL, "http:", "https:", 1)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CacheConfig(t.Context(), "main")
	if err == nil || !strings.Contains(err.Error(), "HTTP response to HTTPS client") || c.Stats().Requests != 1 {
		t.Errorf("%d attempts, %v", c.Stats().Requests, err)
	}
}

func TestEachAttemptAsksForTheToken(t *testing.T) {
	var asked atomic.Int64
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token-2" {
			w.WriteHeader(503)
			return
		}
		fmt.Fprint(w, "{}")
	}, func(o *Options) {
		o.Token = func(context.Context) (string, error) { return fmt.Sprintf("token-%d", asked.Add(1)), nil }
	})
	if _, err := c.CacheConfig(t.Context(), "main"); err != nil || asked.Load() != 2 {
		t.Errorf("asked %d times, %v", asked.Load(), err)
	}
}

func TestTokenSourceErrorEndsTheRequest(t *testing.T) {
	broken := errors.New("no ID token here")
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") }, func(o *Options) {
		o.Token = func(context.Context) (string, error) { return "", broken }
	})
	if _, err := c.CacheConfig(t.Context(), "main"); !errors.Is(err, ErrToken) || !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestHostileAnswers(t *testing.T) {
	ids := make([]chunk.ID, 20)
	hash := strings.Repeat("a", 32)
	missingPaths := func(c *Client) error { _, err := c.MissingPaths(t.Context(), "main", []string{hash}); return err }
	missingChunks := func(c *Client) error { _, err := c.MissingChunks(t.Context(), "main", ids); return err }
	config := func(c *Client) error { _, err := c.CacheConfig(t.Context(), "main"); return err }
	put := func(c *Client) error {
		_, err := c.PutPack(t.Context(), "main", Pack{Body: bytes.NewReader([]byte("pack")), Size: 4})
		return err
	}
	post := func(c *Client) error { _, err := c.PostPaths(t.Context(), "main", []byte("x"), 2); return err }
	for _, test := range []struct {
		name, answer string
		call         func(*Client) error
	}{
		{"bitmap too short", "ab", missingChunks},
		{"bitmap too long", "abcd", missingChunks},
		{"bitmap of megabytes", strings.Repeat("x", 5<<20), missingChunks},
		{"configuration of megabytes", `{"x":"` + strings.Repeat("x", 5<<20) + `"}`, config},
		{"configuration is no JSON", "<html>", config},
		{"configuration of wrong types", `{"api_endpoint":5}`, config},
		{"a path that was not asked for", `{"missing_paths":["` + strings.Repeat("b", 32) + `"]}`, missingPaths},
		{"no list of paths", `{}`, missingPaths},
		{"null list of paths", `{"missing_paths":null}`, missingPaths},
		{"endless list of paths", `{"missing_paths":["` + strings.Repeat(hash+`","`, 5000) + `"]}`, missingPaths},
		{"pack of another size", `{"size":5,"chunks":1}`, put},
		{"too few results", `{"results":[]}`, post},
	} {
		t.Run(test.name, func(t *testing.T) {
			var n atomic.Int64
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				io.Copy(io.Discard, r.Body)
				io.WriteString(w, test.answer)
			})
			if err := test.call(c); !errors.Is(err, ErrAnswer) || n.Load() != 1 {
				t.Errorf("%d requests, error %v", n.Load(), err)
			}
		})
	}
}

func TestErrorTextOfAStrangerIsOneCleanLine(t *testing.T) {
	for _, body := range []string{
		"\x1b[31mred\r\nline two " + strings.Repeat("x", 5000),
		`{"code":502,"error":"\u001b[2J\nName","message":"a\nb` + strings.Repeat("y", 5000) + `"}`,
	} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			io.WriteString(w, body)
		})
		_, err := c.CacheConfig(t.Context(), "main")
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\r\n") || len(err.Error()) > 800 {
			t.Errorf("error %q", err)
		}
	}
}

func TestAnswerCutInTheMiddleIsAskedAgain(t *testing.T) {
	var n atomic.Int64
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		if n.Add(1) == 1 {
			w.Write([]byte("{"))
			panic(http.ErrAbortHandler)
		}
		w.Write([]byte("{}"))
	})
	if _, err := c.CacheConfig(t.Context(), "main"); err != nil || n.Load() != 2 {
		t.Errorf("%d requests, %v", n.Load(), err)
	}
}

func TestStalledAnswerEndsTheAttempt(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-release
	}, func(o *Options) { o.Stall, o.AnswerWait, o.Retries = 50*time.Millisecond, 50*time.Millisecond, -1 })
	if _, err := c.CacheConfig(t.Context(), "main"); !errors.Is(err, ErrStalled) {
		t.Errorf("error %v", err)
	}
}

func TestPackIsSentAgainFromItsStart(t *testing.T) {
	body := bytes.Repeat([]byte("pack"), 100_000)
	var n atomic.Int64
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			io.CopyN(io.Discard, r.Body, 70_000)
			panic(http.ErrAbortHandler)
		}
		got, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(got, body) || r.ContentLength != int64(len(body)) {
			t.Errorf("second attempt: %d bytes of announced %d, %v", len(got), r.ContentLength, err)
		}
		fmt.Fprintf(w, `{"size":%d,"chunks":1}`, len(got))
	})
	if _, err := c.PutPack(t.Context(), "main", Pack{Body: bytes.NewReader(body), Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Requests != 2 || s.Sent <= int64(len(body)) {
		t.Errorf("stats %+v do not count the repeated bytes", s)
	}
}

func TestUnreadableBodyIsNotRetried(t *testing.T) {
	broken := errors.New("disk gone")
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	_, err := c.UploadPath(t.Context(), api.UploadInfo{Cache: "main", StorePath: "/nix/store/x"},
		func() (io.Reader, error) { return io.MultiReader(strings.NewReader("nar"), failing{broken}), nil })
	if !errors.Is(err, broken) || c.Stats().Requests != 1 {
		t.Errorf("%d requests, %v", c.Stats().Requests, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCancelledRequestEndsWhileItWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	}, func(o *Options) { o.MaxRetryAfter = time.Hour })
	if _, err := c.CacheConfig(ctx, "main"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestEndpointsThatCannotBeMeant(t *testing.T) {
	for _, s := range []string{"", "localhost:8080", "cache.example.org", "ftp://x/", "http://", "https://user:pw@x/", "http://x/?a=b", "http://x/#f", "http://[::1"} {
		_, err := New(Options{Endpoint: s})
		if !errors.Is(err, ErrEndpoint) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzErrorAnswer(f *testing.F) {
	f.Add([]byte(`{"code":404,"error":"NoSuchCache","message":"x"}`))
	f.Add([]byte("\x1b[0m<html>\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		req := httptest.NewRequest("GET", "http://x/y", nil)
		e := statusError(&http.Response{StatusCode: 502, Request: req, Header: http.Header{}}, body)
		if s := e.Error(); strings.ContainsAny(s, "\x1b\r\n\x00") || len(s) > 1000 {
			t.Errorf("error %q", s)
		}
	})
}

// A server that was deployed with another secret takes no token of before; a new one is worth an attempt, and only one.
func TestRejectedTokenIsReplacedOnceAtMost(t *testing.T) {
	for name, c := range map[string]struct {
		good string // token that the server takes
		want int    // attempts
		ok   bool
	}{"renewed": {"new", 2, true}, "no better": {"none", 2, false}} {
		var attempts atomic.Int64
		token := "old"
		cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
			attempts.Add(1)
			if r.Header.Get("Authorization") != "Bearer "+c.good {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, "{}")
		}, func(o *Options) {
			o.Token = func(context.Context) (string, error) { return token, nil }
			o.Rejected = func(rejected string) bool {
				was := token
				token = "new"
				return rejected == "old" && was == "old"
			}
		})
		if _, err := cl.CacheConfig(t.Context(), "main"); (err == nil) != c.ok || int(attempts.Load()) != c.want {
			t.Errorf("%s: %v after %d attempts", name, err, attempts.Load())
		}
	}
}

func TestAnOutageIsToldInOneLine(t *testing.T) {
	var log bytes.Buffer
	var left atomic.Int64
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if left.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "{}")
	}, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for i, c2 := range []struct{ down, lines int }{{2, 0}, {6, 1}, {6, 2}} {
		left.Store(int64(c2.down))
		if _, err := c.CacheConfig(t.Context(), "main"); err != nil || strings.Count(log.String(), "\n") != c2.lines {
			t.Errorf("%d: %v, log\n%s", i, err, &log)
		}
	}
}
