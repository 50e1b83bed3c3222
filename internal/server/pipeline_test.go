package server

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
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/spool"
)

// with is a server whose front page is h.
func with(h handler, log io.Writer) *Server {
	s := &Server{Log: slog.New(slog.NewTextHandler(log, nil))}
	s.init()
	s.routes.home = &route{"/", []method{{"GET", h}, {"POST", h}}}
	return s
}

func ask(s *Server, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	r.Header.Set("Authorization", "bearer secret.secret.secret")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestUnknownErrorsAreTheLogsAlone(t *testing.T) {
	var log bytes.Buffer
	w := ask(with(func(http.ResponseWriter, *http.Request) error {
		return errors.New("dial database 10.0.0.1: password wrong")
	}, &log), "/?token=secret")
	id := w.Header().Get("X-Request-Id")
	if w.Code != 500 || strings.Contains(w.Body.String(), "database") || !strings.Contains(w.Body.String(), id) ||
		!strings.Contains(w.Body.String(), `"error":"InternalServerError"`) {
		t.Errorf("answer: %d %s", w.Code, w.Body)
	}
	if got := log.String(); !strings.Contains(got, "10.0.0.1") || !strings.Contains(got, "request_id="+id) || !strings.Contains(got, "level=ERROR") {
		t.Errorf("log: %s", got)
	}
}

// People put tokens into query strings, and everybody into headers.
func TestLogHoldsNeitherQueriesNorTokens(t *testing.T) {
	var log bytes.Buffer
	ask(with(func(w http.ResponseWriter, _ *http.Request) error { send(w, 200, "", nil); return nil }, &log), "/?token=secret")
	if got := log.String(); strings.Contains(got, "secret") || strings.Count(got, "\n") != 1 {
		t.Errorf("log: %s", got)
	}
}

func TestHealthChecksStayOutOfTheLog(t *testing.T) {
	var log bytes.Buffer
	s := with(func(w http.ResponseWriter, _ *http.Request) error { send(w, 200, "", nil); return nil }, &log)
	s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if log.Len() != 0 {
		t.Errorf("log: %s", log.String())
	}
}

func TestPanicIsA500AndTheServerGoesOn(t *testing.T) {
	var log bytes.Buffer
	w := ask(with(func(http.ResponseWriter, *http.Request) error { panic("a bug") }, &log), "/")
	if w.Code != 500 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") || strings.Contains(w.Body.String(), "bug") {
		t.Errorf("answer: %d %s %s", w.Code, w.Header(), w.Body)
	}
	if !strings.Contains(log.String(), "a bug") {
		t.Errorf("log: %s", &log)
	}
}

func TestErrorsHaveTheirAnswers(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{spool.ErrFull, 507},
		{context.DeadlineExceeded, 503},
		{fmt.Errorf("put: %w", blob.ErrUnavailable), 503},
		{errors.Join(errBody, io.ErrUnexpectedEOF), 400},
		{forbidden("x"), 403},
	} {
		w := ask(with(func(http.ResponseWriter, *http.Request) error { return c.err }, io.Discard), "/")
		if w.Code != c.status {
			t.Errorf("%v: got %d, want %d", c.err, w.Code, c.status)
		}
	}
}

func TestRequestsThatWaitTooLongAreToldToComeAgain(t *testing.T) {
	s := with(nil, io.Discard)
	s.heavy.limits.Queue = time.Millisecond
	leave, err := s.heavy.enter(httptest.NewRequest("GET", "/", nil), s.heavy.commits, int64(s.Limits.Commits))
	if err != nil {
		t.Fatal(err)
	}
	s.routes.home.methods[0].do = func(_ http.ResponseWriter, r *http.Request) error {
		_, err := s.heavy.enter(r, s.heavy.commits, 1)
		return err
	}
	if w := ask(s, "/"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	leave()
	if w := ask(s, "/"); w.Code != 200 {
		t.Errorf("afterwards: got %d", w.Code)
	}
}

// A header that claims gigabytes costs what comes, not what it claims.
func TestBodiesAreReadAsTheyCome(t *testing.T) {
	b, err := readAtMost(strings.NewReader("abc"), 1<<40, 1<<39)
	if err != nil || string(b) != "abc" || cap(b) > smallBody {
		t.Errorf("got %q with room for %d, %v", b, cap(b), err)
	}
	if _, err := readAtMost(strings.NewReader("abcd"), 3, -1); err == nil {
		t.Error("a body over its limit was read")
	}
}

func FuzzFind(f *testing.F) {
	for _, p := range []string{"/", "/a/b", "//", "/_api/v1/cache/x/packs/y", "/a/nar/b.nar", "*", "", "/%zz/%ff", "/_api/v1/oidc/token"} {
		f.Add(p)
	}
	s := with(nil, io.Discard)
	f.Fuzz(func(t *testing.T, path string) {
		rt, params := s.find(path)
		if rt == nil {
			return
		}
		if len(params) > len(paramNames) || len(params) != strings.Count(strings.ReplaceAll(rt.name, "}.", "} ."), "{") {
			t.Errorf("%q is %s with parameters %q", path, rt.name, params)
		}
		for _, p := range params {
			if p == "" || strings.Contains(p, "/") {
				t.Errorf("%q: parameter %q", path, p)
			}
		}
	})
}

func FuzzBearer(f *testing.F) {
	for _, h := range []string{"bearer x", "Basic OnRva2Vu", "basic", "Bearer  x", "", " "} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if jwt, ok := bearer(header); !ok && jwt != "" {
			t.Errorf("%q: refused with %q", header, jwt)
		}
	})
}
