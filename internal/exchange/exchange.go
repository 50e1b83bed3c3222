// Package exchange trades a verified ID token for an access token: RFC 8693 with one
// grant, one kind of subject and one kind of result.
//
//	POST /_api/v1/oidc/token (form)          refusal
//	  │ form, parameters                     invalid_request, unsupported_grant_type
//	  │ oidc.Verifier: issuer, signature,    invalid_grant (503 when keys are not to be had)
//	  │   audience, times
//	  │ trust.Set: which policies fit        invalid_grant
//	  │ scope: what of their grants          invalid_scope
//	  │ Book: first use of this jti          invalid_grant
//	  ▼ token.Authority signs
//	access token
//
// Callers learn a code and a request id; every refusal for token or policy reads alike,
// or an attacker could learn the rules by trying. The log has the exact reason.
package exchange

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"time"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/limit"
	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

// ErrReplayed says that an ID token was used before.
var ErrReplayed = errors.New("ID token was used before")

// Trade is one ID token for one access token.
type Trade struct {
	Issuer, ID string    // of the ID token: iss and jti
	Until      time.Time // the end of the time in which it would be accepted again

	Claims   token.Claims // of the access token, which have an ID
	Policies []string     // that granted it
}

// Exchange is the token endpoint. Use it by pointer; it is safe for concurrent use.
type Exchange struct {
	Verifier *oidc.Verifier
	// Policies returns the policies that hold at this moment; it is asked for each
	// exchange, before it is judged and once the token is listed. Nil grants nothing.
	Policies  func(context.Context) (*trust.Set, error)
	Authority *token.Authority
	// Book records, in one step and before the access token is signed, that the ID token
	// is used and that the access token can be listed and revoked: both or, after an
	// error, neither. It remembers across restarts and replicas: of any number of calls
	// with one ID token exactly one returns nil, the others ErrReplayed. After any error
	// nothing is issued.
	Book func(context.Context, Trade) error
	// MaxTTL is the longest life of a token, whatever a policy says; zero means
	// trust.MaxTTL, which is the most that a policy can say.
	MaxTTL time.Duration
	// Since is when it was last forgotten which ID tokens were used: one that may have
	// been issued before is refused. Zero: never.
	Since time.Time
	// Endpoint is the absolute URL at which TokenHandler is reached, RevocationEndpoint
	// that at which its tokens are given back (RFC 7009); empty is not announced.
	Endpoint, RevocationEndpoint string
	// Address says whom a request comes from, for limits and the audit; nil means
	// the peer's address.
	Address func(*http.Request) netip.Addr
	Limits  Limits
	// Audit takes a record of each request; nil means nobody does.
	Audit func(audit.Event)
	// RequestID returns the id that the server gave the request; nil means a fresh one.
	RequestID func(*http.Request) string
	Now       func() time.Time // nil means time.Now
	Log       *slog.Logger     // nil discards
}

// Limits bound how often something may happen; nil is no limit.
type Limits struct {
	// Refused counts tokens that were refused, by address. A matrix of jobs with a wrong
	// policy stays near ten a minute, guessing does not. Good tokens are not counted:
	// many runners share an address.
	Refused *limit.Buckets
	Asked   *limit.Buckets // requests, by address
	Granted *limit.Buckets // tokens issued, by policy
}

// Request is what a caller asks for, its parameters taken apart but not judged.
type Request struct {
	ID               string // request id, for the log
	SubjectToken     string
	SubjectTokenType string
	// RequestedType is requested_token_type; empty means an access token.
	RequestedType string
	// Audience and Resource, when given, must name this server.
	Audience, Resource string
	// Scope is a list of cache:NAME:PERMISSION; empty means all that the one matching
	// policy grants.
	Scope string
}

// Response is an access token.
type Response struct {
	AccessToken string
	Scope       string        // what was granted, in the syntax of Request.Scope
	TTL         time.Duration // life of the token

	event audit.Event
}

// Token types of RFC 8693 §3.
const (
	typeIDToken = "urn:ietf:params:oauth:token-type:id_token"
	typeJWT     = "urn:ietf:params:oauth:token-type:jwt"
	typeAccess  = "urn:ietf:params:oauth:token-type:access_token"
)

// Do judges a request and issues a token. It logs a grant; a refusal is for the caller
// to log.
func (e *Exchange) Do(ctx context.Context, r Request) (Response, *Refusal) {
	if refusal := e.checkRequest(r); refusal != nil {
		return Response{}, refusal
	}
	wanted, err := parseScope(r.Scope)
	if err != nil {
		return Response{}, refuse(codeScope, "scope must be a list of cache:NAME:PERMISSION", err)
	}
	id, err := e.Verifier.Verify(ctx, r.SubjectToken)
	if errors.Is(err, oidc.ErrUnavailable) {
		return Response{}, unavailable(err)
	}
	if err != nil {
		return Response{}, refuseGrant(err)
	}
	if err := e.remembered(id); err != nil {
		return Response{}, refuseGrant(err).about(id.Claims)
	}
	policies, err := e.policies(ctx)
	if err != nil {
		return Response{}, internal("read policies", err).about(id.Claims)
	}
	grants, why := policies.Match(id.Issuer, id.Claims)
	if len(grants) == 0 {
		return Response{}, refuseGrant(noPolicy(why)).about(id.Claims)
	}
	chosen, refusal := choose(grants, wanted)
	if refusal != nil {
		return Response{}, refusal.about(id.Claims).fits(grants)
	}
	for _, policy := range chosen.policies {
		if wait := e.Limits.Granted.Take(policy, e.now()); wait > 0 {
			return Response{}, slowDown(wait, "policy "+policy+" has granted as often as it may").about(id.Claims).fits(grants)
		}
	}
	return e.mint(ctx, r, id, chosen, func() error { return e.stands(ctx, policies, id, wanted, chosen) })
}

// remembered refuses a token that may have been used before the database was rebuilt:
// which ones were is in the database alone. The issuer's clock may be ahead of ours.
func (e *Exchange) remembered(id oidc.Token) error {
	if e.Since.IsZero() || id.Issued.After(e.Since.Add(oidc.Leeway)) {
		return nil
	}
	return fmt.Errorf("the database was rebuilt at %s, and whether the ID token was used before is not known; run the job again", e.Since.UTC().Format(time.RFC3339))
}

// stands looks at the policies again once the token is listed. Whoever takes a policy
// back and then its tokens would otherwise miss the one that is being made.
func (e *Exchange) stands(ctx context.Context, judged *trust.Set, id oidc.Token, wanted []item, c choice) error {
	policies, err := e.policies(ctx)
	if err != nil || policies == judged {
		return err
	}
	grants, _ := policies.Match(id.Issuer, id.Claims)
	if len(grants) > 0 {
		if again, refusal := choose(grants, wanted); refusal == nil && reflect.DeepEqual(again, c) {
			return nil
		}
	}
	return errChanged
}

var errChanged = errors.New("the policies changed while the token was made")

func (e *Exchange) mint(ctx context.Context, r Request, id oidc.Token, c choice, stands func() error) (Response, *Refusal) {
	if e.MaxTTL > 0 {
		c.ttl = min(c.ttl, e.MaxTTL)
	}
	now := e.now().Truncate(time.Second)
	expires := now.Add(c.ttl)
	sub, _ := id.Claims["sub"].(string) // Verify has checked it
	claims := token.Claims{
		Subject:  sub,
		ID:       rand.Text(),
		Issuer:   cmp.Or(e.Authority.Issuer, e.Verifier.Audience()), // who made it: this server, by its own URL
		Audience: e.Authority.Audiences,
		IssuedAt: &now,
		Expires:  &expires,
		Pins:     c.pins,
		Origin:   origin(id.Claims, c.policies),
	}
	for _, it := range c.entries {
		if err := claims.Caches.Add(it.cache, it.perm); err != nil {
			return Response{}, internal("grant cache", err)
		}
	}
	// Last before signing: a request that is refused for its scope does not use up the
	// token, one that is answered has used it up even if the answer is lost.
	err := e.Book(ctx, Trade{Issuer: id.Issuer, ID: id.ID, Until: id.Expires.Add(2 * oidc.Leeway), Claims: claims, Policies: c.policies})
	if errors.Is(err, ErrReplayed) {
		return Response{}, refuseGrant(err).about(id.Claims).fitting(c.policies)
	}
	if err != nil {
		return Response{}, internal("record the exchange", err).about(id.Claims)
	}
	if err := stands(); errors.Is(err, errChanged) {
		return Response{}, refuseGrant(err).about(id.Claims)
	} else if err != nil {
		return Response{}, internal("read policies again", err).about(id.Claims)
	}
	signed, err := e.Authority.Sign(claims)
	if err != nil {
		return Response{}, internal("sign access token", err)
	}
	scope := c.scope()
	e.log().LogAttrs(ctx, slog.LevelInfo, "exchanged ID token", append([]slog.Attr{
		slog.String("request_id", r.ID),
		slog.Any("policy", c.policies),
		slog.String("scope", scope),
		slog.String("jti", claims.ID),
		slog.Time("expires", expires.UTC()),
	}, attrs(chosenClaims(id.Claims))...)...)
	return Response{AccessToken: signed, Scope: scope, TTL: c.ttl, event: granted(claims, c, scope, id.Claims)}, nil
}

func (e *Exchange) checkRequest(r Request) *Refusal {
	switch {
	case r.SubjectToken == "":
		return refuse(codeRequest, "subject_token is required", nil)
	case r.SubjectTokenType != typeIDToken && r.SubjectTokenType != typeJWT:
		return refuse(codeRequest, "subject_token_type must be that of an id_token or jwt", nil)
	case r.RequestedType != "" && r.RequestedType != typeAccess && r.RequestedType != typeJWT:
		return refuse(codeRequest, "requested_token_type must be that of an access_token", nil)
	case r.Audience != "" && r.Audience != e.Verifier.Audience(), r.Resource != "" && r.Resource != e.Verifier.Audience():
		return refuse(codeTarget, "tokens are issued for this server only", nil)
	}
	return nil
}

func (e *Exchange) policies(ctx context.Context) (*trust.Set, error) {
	if e.Policies == nil {
		return nil, nil
	}
	return e.Policies(ctx)
}

func (e *Exchange) now() time.Time {
	if e.Now == nil {
		return time.Now()
	}
	return e.Now()
}

func (e *Exchange) log() *slog.Logger {
	if e.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Log
}
