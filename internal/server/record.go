package server

import (
	"net/http"
	"net/netip"

	"github.com/org/attic-action/internal/audit"
)

// record is what the access log, and the audit where something changes, say about a
// request.
type record struct {
	id      string
	route   string
	address netip.Addr // of the client; the zero Addr if nobody knows
	caller  caller
	err     error
	panic   any
	event   audit.Event // begun by the handler; without an action there is none
}

type recordKey struct{}

// recordOf returns the record that serve put into the request's context.
func recordOf(r *http.Request) *record {
	if rec, ok := r.Context().Value(recordKey{}).(*record); ok {
		return rec
	}
	return new(record)
}

// RequestID is the id that the server gave a request on its way in: the one in
// its log line, in the audit, and in the X-Request-Id header of the answer.
func RequestID(r *http.Request) string { return recordOf(r).id }

// audited begins the audit of a request that changes something. Who, whence and what
// came of it are added when it is over.
func audited(r *http.Request, action, cache string) *audit.Event {
	rec := recordOf(r)
	if rec.event.Action == "" {
		rec.event.Action = action
	}
	rec.event.Cache = cache
	return &rec.event
}

// finishEvent writes what became of a request that changes something, or that came with
// a bad token.
func (s *Server) finishEvent(r *http.Request, w *stream, rec *record, status int) {
	e := rec.event
	bad := rec.caller.refused != nil
	if s.Audit == nil || e.Action == "" || bad && e.Action != audit.Auth {
		return // of bad tokens over the limit there is a line a minute
	}
	e.Time, e.Request = s.Now(), rec.id
	if rec.address.IsValid() {
		e.Address = rec.address.String()
	}
	e.Subject, e.Token, e.Unverified = rec.caller.subject(), rec.caller.tokenID(), rec.caller.claims == nil
	if c := rec.caller.claims; c != nil && c.Origin != nil {
		e.Policy, e.Claims = c.Origin["policy"], c.Origin
	}
	e.Status, e.Bytes, e.Result = status, w.read, resultOf(status)
	switch {
	case bad:
		e.Object = r.Method + " " + rec.route
		if e.Result == audit.OK { // a public cache serves everybody; the token was refused
			e.Result = audit.Refused
		}
	case rec.panic != nil:
		e.Result, e.Reason = audit.Failed, "panic"
	case rec.err != nil:
		e.Reason = rec.err.Error()
	}
	s.Audit(e)
}

func resultOf(status int) string {
	switch {
	case status == statusClientGone:
		return audit.Gone
	case status == http.StatusTooManyRequests:
		return audit.Limited
	case status >= 500:
		return audit.Failed
	case status >= 400:
		return audit.Refused
	}
	return audit.OK
}
