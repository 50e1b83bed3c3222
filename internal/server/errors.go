package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/spool"
)

// A statusError is an answer that is not a success: what the client sees is
// chosen here, what the log sees besides is cause.
type statusError struct {
	status     int
	name       string // the "error" of Attic's JSON shape; "" answers plain text
	msg        string
	chunks     []string // UnknownChunks
	references []string // MissingReferences
	retryAfter int      // seconds; 0 leaves the header out
	cause      error
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%d %s: %s", e.status, e.name, e.msg)
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

func (e *statusError) Unwrap() error { return e.cause }

func notFound(name, msg string) error {
	return &statusError{status: http.StatusNotFound, name: name, msg: msg}
}

func requestError(format string, args ...any) error {
	return &statusError{status: http.StatusBadRequest, name: api.RequestError, msg: fmt.Sprintf(format, args...)}
}

// badText is the plain-text 400 of what Attic's framework refuses.
func badText(format string, args ...any) error {
	return &statusError{status: http.StatusBadRequest, msg: fmt.Sprintf(format, args...)}
}

func unauthorized() error {
	return &statusError{status: http.StatusUnauthorized, name: "Unauthorized",
		msg: "No token, or one that gives no right to this cache."}
}

func forbidden(needed string) error {
	return &statusError{status: http.StatusForbidden, name: "AccessError",
		msg: "The token does not permit to " + needed + "."}
}

func noSuchCache() error {
	return notFound("NoSuchCache", "There is no such cache.")
}

func noSuchObject() error {
	return notFound("NoSuchObject", "The cache has no such path.")
}

func overloaded(msg string) error {
	return &statusError{status: http.StatusServiceUnavailable, name: "Overloaded", msg: msg, retryAfter: 5}
}

// statusClientGone is logged when nobody is left to read an answer.
const statusClientGone = 499

// classify turns what a handler returned into what is sent. Texts of errors
// that are not chosen for the public stay in the log.
func classify(ctx context.Context, err error) *statusError {
	var se *statusError
	var ae *api.Error
	var settings *SettingsError
	switch {
	case errors.As(err, &settings):
		return &statusError{status: http.StatusBadRequest, name: api.RequestError, msg: settings.Msg}
	case errors.As(err, &se):
		return se
	case errors.As(err, &ae):
		return &statusError{status: ae.Code, name: ae.Name, msg: ae.Message, cause: err}
	case errors.Is(err, errDisplaced):
		return &statusError{status: http.StatusRequestTimeout, name: api.RequestError,
			msg: "The request came too slowly while others waited.", cause: err}
	case errors.Is(err, errBody) && errors.Is(err, os.ErrDeadlineExceeded):
		// Before clientGone: net/http ends the context for a deadline, too.
		return &statusError{status: http.StatusRequestTimeout, name: api.RequestError,
			msg: "The request made no progress for too long.", cause: err}
	case clientGone(ctx, err):
		return &statusError{status: statusClientGone, name: "ClientGone", cause: err}
	}
	if errors.Is(err, meta.ErrRevoked) { // while the request was under way
		return &statusError{status: http.StatusUnauthorized, name: "Unauthorized",
			msg: "No token, or one that gives no right to this cache.", cause: err}
	}
	if e := depotError(err); e != nil {
		return e
	}
	if e := rootsError(err); e != nil {
		return e
	}
	switch {
	case bodyEndedEarly(err):
		return endedEarly(err)
	case errors.Is(err, errBody):
		return &statusError{status: http.StatusBadRequest, name: api.RequestError,
			msg: "The request body could not be read.", cause: err}
	case errors.Is(err, spool.ErrFull), errors.Is(err, syscall.ENOSPC):
		return &statusError{status: http.StatusInsufficientStorage, name: api.InsufficientSpace,
			msg: "The server's disk is full; nothing of this request was kept.", cause: err}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, spool.ErrBudget):
		return &statusError{status: http.StatusServiceUnavailable, name: "Overloaded",
			msg: "The server was too busy for this request.", retryAfter: 5, cause: err}
	case errors.Is(err, blob.ErrUnavailable):
		return &statusError{status: http.StatusServiceUnavailable, name: "Unavailable",
			msg: "The server's storage does not answer at present.", retryAfter: 10, cause: err}
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrRange):
		// Not 503: Nix would come again five times, where another cache or a build would help.
		return &statusError{status: http.StatusNotFound, name: api.NoSuchObject,
			msg: "Part of this path's contents is gone.", cause: err}
	case errors.Is(err, meta.ErrNotFound):
		return &statusError{status: http.StatusNotFound, name: api.NoSuchObject,
			msg: "The cache has no such path.", cause: err}
	}
	return &statusError{status: http.StatusInternalServerError, name: api.InternalError,
		msg: "The server encountered an internal error.", cause: err}
}

func bodyEndedEarly(err error) bool {
	return errors.Is(err, errBody) && errors.Is(err, io.ErrUnexpectedEOF)
}

func endedEarly(cause error) *statusError {
	return &statusError{status: http.StatusBadRequest, name: api.RequestError,
		msg: "The request body ended early.", cause: cause}
}

// clientGone tells whether err means that the client hung up. Network errors
// count only when they come from the body: the bucket is on a network too.
func clientGone(ctx context.Context, err error) bool {
	if errors.Is(ctx.Err(), context.Canceled) {
		return true
	}
	var op *net.OpError
	return errors.Is(err, errBody) && errors.As(err, &op) && !op.Timeout()
}

// answer sends e. The request id is in the X-Request-Id header of every
// answer and in the body of 5xx, for that is where a user looks for it.
func answer(w http.ResponseWriter, e *statusError, requestID string) {
	h := w.Header()
	for _, k := range []string{"Content-Length", "ETag", "Accept-Ranges", "Content-Range"} {
		h.Del(k) // those of the answer that did not come about
	}
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.name == "" {
		send(w, e.status, "text/plain; charset=utf-8", []byte(e.msg))
		return
	}
	body := api.Error{Code: e.status, Name: e.name, Message: e.msg, Chunks: e.chunks, References: e.references}
	if e.status >= 500 {
		body.RequestID = requestID
	}
	sendJSON(w, e.status, body)
}

// sendJSON sends v, which must be a type of package api.
func sendJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // a type of ours that does not encode is a bug; say so rather than send half
		panic(fmt.Sprintf("server: internal error: encode answer: %v", err))
	}
	send(w, status, "application/json", b)
}

// send writes a whole answer whose length is known.
func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone is noticed by the access log
}
