// Package audit keeps a record of who did what: a file of JSON lines that only
// the server's own user can read, and a reader for it.
//
//	<data>/audit.log           what is written now
//	<data>/audit.log.1         the one before, and so on up to .N; the oldest goes
//	<data>/audit-pushes.log    the same of uploads, packs and commits that were let in
//
// One line is one Event. What is recorded: each exchange of an ID token, granted
// or refused; uploads, packs and commits; changes of caches; calls of the
// administrator; tokens that did not verify. Reads are not: they are many, and
// change nothing.
//
// A caller learns little about why something was refused; the line has the exact
// reason, and the same request id as the answer. It has no token, no secret and
// no query string, whoever put one where: events are made of named fields, never
// of headers or URLs, and what looks like a token within them is cut out.
//
// # What an attacker can do to it
//
// Text from outside is bounded and holds nothing that a terminal obeys, so no line
// can be forged or hidden. Nobody can flush the record of a break-in: what pushes send
// is as many lines as the pusher likes, and has files of its own; those who cannot
// authenticate share a small quota of lines, and what went over it is counted in a line
// of its own; those who can share a larger one, and what goes over it is written beside
// the pushes. Commands of the administrator have none.
package audit

import (
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What an event can be about. Calls of the administrator are "admin." and the
// verb, such as "admin.trust.add".
const (
	Exchange       = "exchange"        // an ID token for an access token
	Auth           = "auth"            // a token that did not verify
	Upload         = "upload"          // one path, from the stock client
	Pack           = "pack"            // chunks, from ours
	Commit         = "commit"          // paths, from ours
	CacheCreate    = "cache.create"    //
	CacheConfigure = "cache.configure" //
	CacheDestroy   = "cache.destroy"   //
	PinSet         = "pin.set"         // what machines run is to stay
	PinDelete      = "pin.delete"      //
	Suppressed     = "suppressed"      // lines that were left out
	AdminPrefix    = "admin."
)

// What came of it.
const (
	OK      = "ok"
	Refused = "refused" // the caller's fault, or what he may not do
	Failed  = "failed"  // ours
	Gone    = "gone"    // the client hung up
	Limited = "limited" // too often
)

// Event is one line. Fields that do not apply are left out.
type Event struct {
	Time    time.Time         `json:"time"`
	Request string            `json:"request,omitempty"` // the X-Request-Id of the answer
	Action  string            `json:"action"`
	Result  string            `json:"result"`
	Status  int               `json:"status,omitempty"` // of HTTP
	Reason  string            `json:"reason,omitempty"` // exact; not what the caller was told
	Subject string            `json:"sub,omitempty"`    // of the access token
	Token   string            `json:"jti,omitempty"`    // of the access token that was used, issued or revoked; several are joined by a comma
	Policy  string            `json:"policy,omitempty"` // several are joined by a comma
	Cache   string            `json:"cache,omitempty"`  // the same
	Object  string            `json:"object,omitempty"` // a store path's base name, a pack's hash, a scope
	Objects int64             `json:"objects,omitempty"`
	Bytes   int64             `json:"bytes,omitempty"` // that the client sent
	Address string            `json:"address,omitempty"`
	User    string            `json:"user,omitempty"`   // of this machine, who gave an administrator's command
	Claims  map[string]string `json:"claims,omitempty"` // of the ID token, or what an administrator asked for

	// Unverified marks an event of somebody who did not authenticate; those share a quota.
	Unverified bool `json:"-"`

	push bool // it goes to the file of pushes
}

// Bounds of text in an event, in bytes.
const (
	maxText   = 400
	maxReason = 2000
	maxClaims = 32
)

// clean returns the event as it may be written.
func (e Event) clean() Event {
	e.Time = e.Time.UTC()
	for _, f := range []*string{&e.Request, &e.Action, &e.Result, &e.Subject, &e.Token, &e.Policy, &e.Cache, &e.Object, &e.Address, &e.User} {
		*f = cleanText(*f, maxText)
	}
	e.Reason = cleanText(e.Reason, maxReason)
	if len(e.Claims) == 0 {
		return e
	}
	claims := make(map[string]string, min(len(e.Claims), maxClaims))
	for k, v := range e.Claims {
		if len(claims) == maxClaims {
			break
		}
		claims[cleanText(k, maxText)] = cleanText(v, maxText)
	}
	e.Claims = claims
	return e
}

// secrets match a JWT, whole or cut, what follows the name of a scheme, and 64 bytes in
// base64: a private key of a cache, or a token secret.
var secrets = regexp.MustCompile(`[A-Za-z0-9+/]{86}==|eyJ[A-Za-z0-9_-]{6,}(\.[A-Za-z0-9_-]*){0,2}|(?i:\b(bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}`)

// cleanText bounds s and takes out what must not be in a log: tokens, and runes
// that move a cursor, turn the writing direction or show nothing.
func cleanText(s string, limit int) string {
	if len(s) > limit {
		// A token that the cut goes through must still be known for one.
		s = secrets.ReplaceAllString(s[:min(len(s), 16*limit)], "[redacted]")
	}
	if len(s) > limit {
		cut := limit
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	s = secrets.ReplaceAllString(s, "[redacted]")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
