package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/org/attic-action/internal/api"
)

var (
	// ErrStalled is an attempt that made no progress for too long.
	ErrStalled = errors.New("no progress")
	// ErrAnswer is an answer that makes no sense.
	ErrAnswer = errors.New("the server's answer makes no sense")
	// ErrToken is a token that could not be obtained.
	ErrToken = errors.New("get token")
)

// StatusError is an answer that is not a success.
type StatusError struct {
	Method   string
	URL      *url.URL
	Status   int
	API      *api.Error // nil when the answer is not in Attic's shape: mostly a proxy's
	Text     string     // of other answers: the first of it, on one line
	Location *url.URL   // of redirects
}

func (e *StatusError) Error() string {
	at := fmt.Sprintf("%s %s: ", e.Method, e.URL.Redacted())
	if e.API != nil {
		return at + Clean(e.API.Name, 60) + ": " + Clean(e.API.Message, 400)
	}
	at += fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.Location != nil {
		at += " to " + e.Location.Scheme + "://" + e.Location.Host
	}
	if e.Text != "" {
		at += ": " + e.Text
	}
	return at
}

// Status returns the HTTP status behind err, or 0.
func Status(err error) int {
	var se *StatusError
	if errors.As(err, &se) {
		return se.Status
	}
	return 0
}

// APIError returns the structured answer behind err, or nil.
func APIError(err error) *api.Error {
	var se *StatusError
	if errors.As(err, &se) {
		return se.API
	}
	return nil
}

func statusError(resp *http.Response, body []byte) *StatusError {
	e := &StatusError{Method: resp.Request.Method, URL: resp.Request.URL, Status: resp.StatusCode}
	if api, ok := api.DecodeError(body); ok {
		e.API = api
	} else {
		e.Text = Clean(string(body), 200)
	}
	if resp.StatusCode/100 == 3 {
		e.Location, _ = resp.Location() // nil: a redirect without a target
	}
	return e
}

// Clean makes text of a stranger fit for one line of a terminal: no control
// characters (escape sequences), no line breaks, at most max bytes.
func Clean(s string, max int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == utf8.RuneError
	}), " ")
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + "…"
	}
	return s
}
