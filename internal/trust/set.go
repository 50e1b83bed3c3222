package trust

import (
	"time"

	"github.com/org/attic-action/internal/token"
)

// Bounds of a granted token's life.
const (
	DefaultTTL = 15 * time.Minute
	MaxTTL     = 6 * time.Hour
)

// Grant is what one policy gives to a token that fits it.
type Grant struct {
	Policy string        // the policy's name
	Caches []string      // cache names and patterns, all with Perm
	Perm   token.Perm    // what it may do in each of them
	Pins   []string      // patterns of pin names
	TTL    time.Duration // life of the token to be issued, at most MaxTTL
}

// Explanation says what one policy made of a token. It is for the log and the owner of
// the server, never for the caller: it tells which rules there are.
type Explanation struct {
	Policy  string
	Matched bool
	Reason  string // the first rule that failed, with both values; "" when matched
}

// Set is a checked, immutable list of policies, safe for concurrent use. The zero Set
// grants nothing.
type Set struct {
	policies []compiled
}

// Match returns the grants of all policies that the claims of a verified token of this
// issuer fit, and for every policy why it did or did not. The order is that of the
// policies and means nothing.
func (s *Set) Match(issuer string, claims map[string]any) ([]Grant, []Explanation) {
	if s == nil {
		return nil, nil
	}
	var grants []Grant
	why := make([]Explanation, 0, len(s.policies))
	for _, p := range s.policies {
		reason := p.mismatch(issuer, claims)
		why = append(why, Explanation{Policy: p.grant.Policy, Matched: reason == "", Reason: reason})
		if reason == "" {
			grants = append(grants, p.grant.clone())
		}
	}
	return grants, why
}

// Issuers returns every issuer that a policy names, once each, in order of appearance.
func (s *Set) Issuers() []string {
	var out []string
	seen := make(map[string]bool)
	for _, p := range s.policies {
		if !seen[p.issuer] {
			seen[p.issuer] = true
			out = append(out, p.issuer)
		}
	}
	return out
}

// Len returns the number of policies.
func (s *Set) Len() int { return len(s.policies) }

func (g Grant) clone() Grant {
	g.Caches = append([]string(nil), g.Caches...)
	g.Pins = append([]string(nil), g.Pins...)
	return g
}
