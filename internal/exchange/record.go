package exchange

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/token"
)

// record hands an event to the audit.
func (e *Exchange) record(event audit.Event, id string, from netip.Addr) {
	if e.Audit == nil {
		return
	}
	event.Time, event.Action, event.Request = e.now(), audit.Exchange, id
	if from.IsValid() {
		event.Address = from.String()
	}
	e.Audit(event)
}

// originClaims lead from whatever a token did to the job that it was given to.
var originClaims = []string{"repository_id", "run_id", "run_attempt", "sha", "actor_id", "workflow_ref"}

// origin is what an access token says of itself.
func origin(id map[string]any, policies []string) map[string]string {
	out := map[string]string{"policy": strings.Join(policies, ",")}
	for _, name := range originClaims {
		if s, ok := id[name].(string); ok && s != "" {
			out[name] = clean(s)
		}
	}
	return out
}

// granted is the record of a token that was issued.
func granted(claims token.Claims, c choice, scope string, id map[string]any) audit.Event {
	var caches []string
	for _, it := range c.entries {
		caches = append(caches, it.cache)
	}
	return audit.Event{
		Result: audit.OK, Status: http.StatusOK, Subject: claims.Subject, Token: claims.ID,
		Policy: strings.Join(c.policies, ","), Cache: strings.Join(caches, ","), Object: scope, Claims: chosenClaims(id),
	}
}

// audited is the record of a refusal. Anybody who has a repository at the issuer can
// send tokens that verify; whom no policy fits is a stranger.
func (r *Refusal) audited() audit.Event {
	event := audit.Event{
		Result: audit.Refused, Status: r.Status, Reason: r.Code + ": " + r.Reason.Error(), Subject: r.claims["sub"],
		Policy: strings.ReplaceAll(r.policy, ", ", ","), Claims: r.claims, Unverified: r.policy == "",
	}
	switch {
	case r.Status == http.StatusTooManyRequests:
		event.Result = audit.Limited
	case r.Status >= 500:
		event.Result = audit.Failed
	}
	return event
}
