// Package admin is administration without a second writer. The database's records
// are numbered by the one process that has it open, so a command never opens a
// database that a server is using: it asks that server, on a unix socket beside
// the database, and where no server runs it answers itself, by the same handler.
//
//	attic-server trust add          a server runs            nobody runs
//	  └─ Call(ctx, client, verb, in)   │                        │
//	                                   ▼                        ▼
//	                        Dial: server.db.sock, 0600    Local: in this process,
//	                                   │                  with the data's lock held
//	                                   └──────► Mux ◄───────────┘
//	                                       Handle(mux, verb, func)
//
// A verb is a route: POST /trust/add with a JSON object, answered by a JSON object
// or by {"error": …}; or, if it streams, by bytes. Whoever may open the socket may read the database's file as
// well (mode 0600, the server's user); so errors here say everything.
package admin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// maxBody bounds requests and answers, in bytes.
const (
	maxBody   = 1 << 20
	maxAnswer = 64 << 20
)

// Record is one call that was answered, for the audit.
type Record struct {
	ID     string // of the request
	Verb   string // "trust/add"
	UID    int    // of the user who called; Nobody when that is not known
	Input  any    // what the verb's function was given; nil when it could not be read
	Output any    // what it returned; nil after an error
	Err    error  // nil when it was done
	At     time.Time
	Took   time.Duration
}

// Mux has a function for each verb. Verbs are registered before it serves.
type Mux struct {
	// Audit is told of every call, refused ones too, after it was answered; nil
	// means nobody. It must not block for long.
	Audit func(ctx context.Context, r Record)
	Now   func() time.Time // nil means time.Now

	verbs map[string]verb
}

type verb func(ctx context.Context, body []byte) (in, out any, err error)

// Handle registers a verb such as "trust/add". The function's input is decoded
// strictly: a member that it does not have is an error. An error of it is shown to
// the caller whole; As ErrNotFound or ErrConflict it is told apart.
func Handle[In, Out any](m *Mux, name string, fn func(ctx context.Context, in In) (Out, error)) {
	if m.verbs == nil {
		m.verbs = make(map[string]verb)
	}
	if m.verbs[name] != nil {
		panic("admin: verb " + name + " is registered twice")
	}
	m.verbs[name] = func(ctx context.Context, body []byte) (any, any, error) {
		var in In
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			return nil, nil, fmt.Errorf("%w: read input: %w", ErrBadRequest, err)
		}
		if _, err := dec.Token(); err != io.EOF {
			return nil, nil, fmt.Errorf("%w: read input: more than one value", ErrBadRequest)
		}
		out, err := fn(ctx, in)
		return in, out, err
	}
}

// HandleStream registers a verb whose answer is bytes. What its reader fails with
// after the first byte ends the caller's stream early, which he sees.
func HandleStream[In any](m *Mux, name string, fn func(ctx context.Context, in In) (io.ReadCloser, error)) {
	Handle(m, name, func(ctx context.Context, in In) (streamed, error) {
		body, err := fn(ctx, in)
		return streamed{body}, err
	})
}

type streamed struct{ body io.ReadCloser }

// send answers with bytes, and cuts the connection where they end early.
func (s streamed) send(w http.ResponseWriter) {
	defer s.body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := io.Copy(w, s.body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// What callers can tell apart.
var (
	ErrNotFound   = errors.New("there is no such thing")
	ErrConflict   = errors.New("it exists already")
	ErrBadRequest = errors.New("bad request")
)

var statuses = []struct {
	err    error
	status int
}{{ErrNotFound, http.StatusNotFound}, {ErrConflict, http.StatusConflict}, {ErrBadRequest, http.StatusBadRequest}}

// Error is a refusal as a client sees it.
type Error struct {
	Status    int
	Message   string
	RequestID string
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is find ErrNotFound and its like on the client's side.
func (e *Error) Is(target error) bool {
	for _, s := range statuses {
		if s.err == target {
			return s.status == e.Status
		}
	}
	return false
}

// As marks an error as one of those that callers tell apart, and leaves its text.
func As(kind, err error) error { return marked{err, kind} }

type marked struct {
	error
	kind error
}

func (m marked) Unwrap() []error { return []error{m.error, m.kind} }

type answer struct {
	Error     string `json:"error"`
	RequestID string `json:"request_id"`
}

// ServeHTTP answers one call.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := m.Now
	if now == nil {
		now = time.Now
	}
	rec := Record{ID: rand.Text(), Verb: strings.TrimPrefix(r.URL.Path, "/"), UID: callerUID(r), At: now()}
	out, status := m.answer(w, r, &rec)
	rec.Took = now().Sub(rec.At)
	if m.Audit != nil {
		m.Audit(r.Context(), rec)
	}
	if s, ok := out.(streamed); ok {
		s.send(w)
		return
	}
	body, err := json.Marshal(out)
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer has %d bytes, at most %d are possible", len(body), maxAnswer)
	}
	if err != nil {
		status = http.StatusInternalServerError
		body, _ = json.Marshal(answer{Error: err.Error(), RequestID: rec.ID}) // two strings always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone away has gone away
}

func (m *Mux) answer(w http.ResponseWriter, r *http.Request, rec *Record) (out any, status int) {
	fail := func(err error, status int) (any, int) {
		rec.Err = err
		return answer{Error: err.Error(), RequestID: rec.ID}, status
	}
	fn := m.verbs[rec.Verb]
	if fn == nil {
		return fail(fmt.Errorf("this server has no verb %q", rec.Verb), http.StatusNotImplemented)
	}
	if r.Method != http.MethodPost {
		return fail(fmt.Errorf("method %s: use POST", r.Method), http.StatusMethodNotAllowed)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fail(fmt.Errorf("read request: %w", err), http.StatusBadRequest)
	}
	if rec.Input, out, err = safely(r.Context(), fn, body); err == nil {
		rec.Output = out
		return out, http.StatusOK
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return fail(err, s.status)
		}
	}
	return fail(err, http.StatusInternalServerError)
}

// safely makes an error of a panic: a command must not end the server it asks.
func safely(ctx context.Context, fn verb, body []byte) (in, out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx, body)
}
