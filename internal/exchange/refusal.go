package exchange

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/org/attic-action/internal/trust"
)

// The error codes of RFC 6749 §5.2 and RFC 8693 §2.2.2 that we use.
const (
	codeRequest   = "invalid_request"
	codeGrant     = "invalid_grant"
	codeScope     = "invalid_scope"
	codeGrantType = "unsupported_grant_type"
	codeTarget    = "invalid_target"
)

// Refusal is an answer without a token. Its first half is for the caller, Reason is for
// the log alone.
type Refusal struct {
	Status      int // HTTP status
	Code        string
	Description string
	RetryAfter  time.Duration // zero means: do not

	Reason error
	claims map[string]string // that say who asked
	policy string            // those that fit the token; empty if none did
}

// about adds what the token says of itself to the log line.
func (r *Refusal) about(claims map[string]any) *Refusal {
	r.claims = chosenClaims(claims)
	return r
}

// fits adds that the caller is one of those whom policies let in.
func (r *Refusal) fits(grants []trust.Grant) *Refusal {
	r.policy = policyNames(grants)
	return r
}

// fitting is fits by names.
func (r *Refusal) fitting(policies []string) *Refusal {
	r.policy = strings.Join(policies, ", ")
	return r
}

func refuse(code, description string, reason error) *Refusal {
	if reason == nil {
		reason = fmt.Errorf("%s", description)
	}
	return &Refusal{Status: http.StatusBadRequest, Code: code, Description: description, Reason: reason}
}

// refuseGrant is the one answer for every token that is not good enough, for whatever
// reason: which part of token or policy failed is nobody's business but the owner's.
func refuseGrant(reason error) *Refusal {
	return refuse(codeGrant, "the ID token is not accepted for anything here; the server's log tells why under this request id", reason)
}

// slowDown is for those who come too often. It does not say which limit it was.
func slowDown(wait time.Duration, reason string) *Refusal {
	return &Refusal{
		Status: http.StatusTooManyRequests, Code: "slow_down", RetryAfter: wait,
		Description: "too many requests; come again later", Reason: errors.New(reason),
	}
}

func unavailable(reason error) *Refusal {
	return &Refusal{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable",
		Description: "the issuer's keys cannot be fetched at the moment", RetryAfter: 10 * time.Second, Reason: reason,
	}
}

func internal(doing string, err error) *Refusal {
	return &Refusal{
		Status: http.StatusInternalServerError, Code: "server_error",
		Description: "the server could not issue a token", Reason: fmt.Errorf("%s: %w", doing, err),
	}
}

// loggedClaims say who asked. None of them is secret.
var loggedClaims = []string{
	"iss", "sub", "repository", "repository_id", "repository_owner_id", "ref", "event_name",
	"environment", "workflow_ref", "job_workflow_ref", "runner_environment", "run_id", "run_attempt", "sha", "actor", "actor_id",
}

// chosenClaims returns claims for the log, escaped and bounded: they are outside text,
// and a branch may have a name that looks like a log line.
func chosenClaims(claims map[string]any) map[string]string {
	chosen := make(map[string]string)
	for _, name := range loggedClaims {
		if s, ok := claims[name].(string); ok && s != "" {
			chosen[name] = clean(s)
		}
	}
	return chosen
}

// attrs returns them in the order of loggedClaims.
func attrs(chosen map[string]string) []slog.Attr {
	var attrs []slog.Attr
	for _, name := range loggedClaims {
		if s, ok := chosen[name]; ok {
			attrs = append(attrs, slog.String(name, s))
		}
	}
	return attrs
}

// clean escapes and bounds s.
func clean(s string) string {
	q := strconv.QuoteToASCII(s[:min(len(s), maxLogged)])
	return q[1 : len(q)-1]
}

func quote(s string) string { return `"` + clean(s) + `"` }

// maxLogged bounds a claim in the log, in bytes before escaping.
const maxLogged = 200
