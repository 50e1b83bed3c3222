package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"time"
)

// serve is the pipeline around dispatch: every request gets an id, a log line,
// deadlines and one answer.
func (s *Server) serve(rw http.ResponseWriter, r *http.Request) {
	start := s.Now()
	defer s.busy.begin()()
	rec := &record{id: newRequestID(), route: "-"}
	rec.address = s.Peers.Address(r)
	w, r := newStream(rw, r.WithContext(context.WithValue(r.Context(), recordKey{}, rec)), s.Limits.Stall)
	rw.Header().Set("X-Request-Id", rec.id)
	rw.Header().Set("X-Content-Type-Options", "nosniff") // error texts quote what was asked for
	defer func() { s.logRequest(r, w, rec, s.Now().Sub(start)) }()
	defer w.finish(s.Limits)
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { // from fail: its error is in the record
				panic(p)
			}
			rec.panic = p
			s.Log.Error("panic", "request_id", rec.id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.abort(w)
		}
	}()
	if err := s.checkHost(r); err != nil {
		s.fail(w, r, rec, err)
		return
	}
	var err error
	if rec.caller, err = s.identify(r, rec); err != nil {
		s.fail(w, r, rec, err)
		return
	}
	if err := s.dispatch(w, r, rec); err != nil {
		s.fail(w, r, rec, err)
	}
}

// fail answers with err, or cuts the connection when part of another answer
// is out: a client must not take a torn body for a whole one.
func (s *Server) fail(w *stream, r *http.Request, rec *record, err error) {
	rec.err = err
	e := classify(r.Context(), err)
	if e.status == statusClientGone && bodyEndedEarly(err) {
		e = endedEarly(err) // it may have closed only its half of the connection, and read on
	}
	if w.status != 0 || e.status == statusClientGone {
		w.torn = true
		panic(http.ErrAbortHandler)
	}
	answer(w, e, rec.id)
}

// abort answers a panic.
func (s *Server) abort(w *stream) {
	if w.status != 0 {
		w.torn = true
		panic(http.ErrAbortHandler)
	}
	send(w, http.StatusInternalServerError, "text/plain; charset=utf-8", []byte("Service panicked"))
}

// checkHost refuses requests that do not name one of the allowed hosts. An
// empty Host is one that was sent empty; a missing one is refused by net/http
// (see hostConn) except in HTTP/1.0 and HTTP/2.
func (s *Server) checkHost(r *http.Request) error {
	if r.Host == "" && !r.ProtoAtLeast(1, 1) || r.Host == "" && r.ProtoMajor == 2 {
		return requestError("Missing Host header")
	}
	for i := range len(r.Host) {
		if r.Host[i] >= 0x80 {
			return requestError("Invalid Host header")
		}
	}
	if len(s.AllowedHosts) > 0 && !slices.Contains(s.AllowedHosts, r.Host) {
		return requestError("Bad Host: %s is not one of the server's allowed-hosts", quoteShort(r.Host))
	}
	return nil
}

// logRequest writes the access line, and the audit where there is one. Query strings stay out of it, for people
// put tokens there; so do header values.
func (s *Server) logRequest(r *http.Request, w *stream, rec *record, took time.Duration) {
	level, status := slog.LevelInfo, w.status
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("route", rec.route),
		slog.String("path", shorten(r.URL.EscapedPath())),
		slog.Int64("bytes_in", w.read),
		slog.Int64("bytes_out", w.written),
		slog.Duration("took", took),
		slog.String("remote", remote(r, rec)),
		slog.String("request_id", rec.id),
	}
	if sub := rec.caller.subject(); sub != "" {
		attrs = append(attrs, slog.String("subject", shorten(sub)))
	}
	switch {
	case rec.panic != nil:
		level = slog.LevelError
	case rec.err != nil:
		level = slog.LevelWarn
		e := classify(r.Context(), rec.err)
		if e.status == statusClientGone {
			level, status = slog.LevelInfo, statusClientGone
		} else if e.status >= 500 && e.retryAfter == 0 {
			level = slog.LevelError
		}
		attrs = append(attrs, slog.String("error", rec.err.Error()))
	case w.err != nil || r.Context().Err() != nil:
		status = statusClientGone
	}
	if rec.route == "/" && level == slog.LevelInfo && r.URL.RawQuery == "" && r.Header.Get("Authorization") == "" {
		level = slog.LevelDebug // a health check: twice a minute, it would be all that a quiet log has
	}
	attrs = append(attrs, slog.Int("status", status))
	s.Log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", attrs...)
	s.finishEvent(r, w, rec, status)
}

// remote is the client's address, or what the connection says when it has none.
func remote(r *http.Request, rec *record) string {
	if rec.address.IsValid() {
		return rec.address.String()
	}
	return shorten(r.RemoteAddr)
}

// shorten bounds what a client put into a log line. The log's handler escapes.
func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// newRequestID is random, so that it says nothing about how busy the server is.
func newRequestID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}
