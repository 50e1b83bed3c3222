package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/limit"
	"github.com/org/attic-action/internal/peer"
)

// Rates bound how often something may happen. A zero Rate is no limit.
type Rates struct {
	BadTokens        limit.Rate // tokens that do not verify, by address
	Uploads          limit.Rate // requests of a push, by token
	UploadsOfAddress limit.Rate // requests of a push, by address
	// Saved is for how many times as much as its rate a push may come at once after a
	// pause; 0 means 1.
	Saved int
}

// maxPace is how long a request of a push waits for its turn before it is refused. The
// stock client repeats nothing, so it must rather be slowed than refused: at two hundred
// requests a second it would have to send six thousand at once to see 429.
const maxPace = 30 * time.Second

// rates are the counters of a Server.
type rates struct {
	bad     limit.Buckets // by address
	repeats limit.Buckets // by address and token: a read with a token that was bad a moment ago
	uploads limit.Buckets // by token
	from    limit.Buckets // by address
}

func (c *rates) set(r Rates) {
	c.bad.Rate, c.uploads.Rate, c.from.Rate = r.BadTokens, r.Uploads, r.UploadsOfAddress
	c.uploads.Burst, c.from.Burst = r.Uploads.N*max(1, r.Saved), r.UploadsOfAddress.N*max(1, r.Saved)
	c.repeats.Rate = limit.PerMinute(1)
}

func tooMany(wait time.Duration, msg string) error {
	return &statusError{status: http.StatusTooManyRequests, name: "TooManyRequests", msg: msg,
		retryAfter: max(1, int(math.Ceil(wait.Seconds())))}
}

// countBad notes a token that did not verify, and returns how long its address has to
// wait until another bad one is answered as such. Good ones are always served: many
// runners share an address.
//
// Nix sends what its netrc holds with every read, thousands of times, and a public
// cache serves it all the same: so a read with the same token again within a minute is
// not counted again. Each other token is, or reads would be the place to guess at.
func (s *Server) countBad(r *http.Request, rec *record, jwt string, why error) time.Duration {
	key, now := peer.Key(rec.address), s.Now()
	if isRead(r) && s.rates.repeats.Take(key+" "+digest(jwt), now) > 0 {
		return s.rates.bad.Wait(key, now)
	}
	wait := s.rates.bad.Take(key, now)
	switch {
	case wait == 0:
		rec.event = audit.Event{Action: audit.Auth, Reason: why.Error()}
	case s.rates.repeats.Take(key+" limited", now) == 0: // once a minute
		rec.event = audit.Event{Action: audit.Auth, Reason: fmt.Sprintf("more than %d bad tokens in %s from %s; the last one: %v",
			s.Rates.BadTokens.N, s.Rates.BadTokens.Per, key, why)}
	}
	return wait
}

// isRead tells whether r is what Nix sends: not of the API.
func isRead(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && !strings.HasPrefix(r.URL.Path, "/_api/")
}

// digest stands for a token in memory.
func digest(jwt string) string {
	sum := sha256.Sum256([]byte(jwt))
	return string(sum[:16])
}

// denied is the answer to a caller who has no right at all: otherwise, or, when his
// address has sent too many bad tokens, to come again later. It says the same whatever
// is there, so the limit is no way to learn more.
func denied(c caller, otherwise error) error {
	if c.wait > 0 {
		return tooMany(c.wait, "Too many bad tokens from this address.")
	}
	return otherwise
}

// pace holds a request of a push back when the token or the address sends more than it
// may, and refuses it when it would have to wait too long.
func (s *Server) pace(r *http.Request) error {
	now := s.Now()
	wait, ok := s.rates.uploads.Reserve(callerOf(r).key(), now, maxPace)
	if ok {
		var more time.Duration
		more, ok = s.rates.from.Reserve(peer.Key(recordOf(r).address), now, maxPace)
		wait = max(wait, more)
	}
	if !ok {
		return tooMany(wait, "Too many requests at once; send fewer in parallel.")
	}
	return sleep(r.Context(), wait)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a turn: %w", ctx.Err())
	}
}

// key is what a caller's requests are counted by: the token, or its subject where it
// has no name.
func (c caller) key() string {
	switch {
	case c.claims == nil:
		return ""
	case c.claims.ID != "":
		return "jti " + c.claims.ID
	}
	return "sub " + c.claims.Subject
}
