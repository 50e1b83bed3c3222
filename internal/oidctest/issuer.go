// Package oidctest is an issuer of ID tokens that signs anything: what tests of the
// verifier, the exchange and the action talk to in place of GitHub.
//
//	GET /.well-known/openid-configuration   discovery
//	GET /.well-known/jwks                   the public keys
//	GET /idtoken?api-version=2.0&audience=  what a job asks, with the request token as
//	                                        bearer: {"value": "<jwt>"}
package oidctest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// Identity is the job that tokens are issued to. New fills in DefaultIdentity.
type Identity struct {
	Repository   string // owner/name
	RepositoryID string
	OwnerID      string
	Ref          string
	Event        string
	Environment  string // empty: the job has none
}

// DefaultIdentity is a push to the main branch of an invented repository.
func DefaultIdentity() Identity {
	return Identity{
		Repository: "acme/infra", RepositoryID: "123456789", OwnerID: "987654",
		Ref: "refs/heads/main", Event: "push",
	}
}

// Issuer is an http.Handler that stands in for token.actions.githubusercontent.com. Set
// its exported fields before it is used.
type Issuer struct {
	URL          string // iss, and where discovery is
	Identity     Identity
	RequestToken string           // bearer that /idtoken wants
	Now          func() time.Time // nil means time.Now
	// Hook sees every request first, and returns true when it has answered it.
	Hook func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	keys     []Key
	requests map[string]int
}

// New returns an issuer with one RS256 key, which listens nowhere.
func New(url string) *Issuer {
	return &Issuer{
		URL: url, Identity: DefaultIdentity(), RequestToken: "request-token-for-tests",
		keys: []Key{RSAKey("key-1")}, requests: make(map[string]int),
	}
}

// TB is the part of testing.TB that NewIssuer needs.
type TB interface{ Cleanup(func()) }

// NewIssuer starts an issuer on a local address until the test ends.
func NewIssuer(t TB) *Issuer {
	i := New("")
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	i.URL = s.URL
	return i
}

// RequestURL is what a runner puts into ACTIONS_ID_TOKEN_REQUEST_URL.
func (i *Issuer) RequestURL() string { return i.URL + "/idtoken?api-version=2.0" }

// Requests returns how often a path was asked for.
func (i *Issuer) Requests(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests[path]
}

// AllRequests returns how many requests came in at all.
func (i *Issuer) AllRequests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, c := range i.requests {
		n += c
	}
	return n
}

// SetKeys replaces the keys that are published. The first signs.
func (i *Issuer) SetKeys(keys ...Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = slices.Clone(keys)
}

// Keys returns the published keys.
func (i *Issuer) Keys() []Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.keys)
}

// Claims returns the claims of a token for this audience, as GitHub writes them: every
// value but the times is a string. The caller may change the map.
func (i *Issuer) Claims(audience string) map[string]any {
	now := time.Now
	if i.Now != nil {
		now = i.Now
	}
	iat := now().Unix()
	id := i.Identity
	owner, _, _ := strings.Cut(id.Repository, "/")
	workflow := id.Repository + "/.github/workflows/deploy.yml@" + id.Ref
	refType := "branch"
	if strings.HasPrefix(id.Ref, "refs/tags/") {
		refType = "tag"
	}
	claims := map[string]any{
		"iss": i.URL, "aud": audience, "sub": "repo:" + id.Repository + ":ref:" + id.Ref,
		"jti": rand.Text(), "iat": iat, "nbf": iat - 600, "exp": iat + 300,
		"actor": "octo-dev", "actor_id": "1201", "base_ref": "", "head_ref": "", "check_run_id": "40001",
		"event_name": id.Event, "job_workflow_ref": workflow, "job_workflow_sha": strings.Repeat("b", 40),
		"ref": id.Ref, "ref_type": refType, "ref_protected": "true",
		"repository": id.Repository, "repository_id": id.RepositoryID,
		"repository_owner": owner, "repository_owner_id": id.OwnerID, "repository_visibility": "private",
		"run_id": "9000000001", "run_number": "7", "run_attempt": "1", "runner_environment": "github-hosted",
		"sha": strings.Repeat("a", 40), "workflow": "deploy", "workflow_ref": workflow, "workflow_sha": strings.Repeat("b", 40),
	}
	switch {
	case id.Environment != "":
		claims["environment"], claims["environment_node_id"] = id.Environment, "EN_invented"
		claims["sub"] = "repo:" + id.Repository + ":environment:" + id.Environment
	case id.Event == "pull_request":
		claims["sub"] = "repo:" + id.Repository + ":pull_request"
	}
	return claims
}

// Token returns a good token for this audience.
func (i *Issuer) Token(audience string) string { return i.Sign(i.Claims(audience)) }

// With returns the claims of Claims with some replaced; a nil value removes one.
func (i *Issuer) With(audience string, changes map[string]any) map[string]any {
	claims := i.Claims(audience)
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// ServeHTTP answers as GitHub would.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.requests[r.URL.Path]++
	i.mu.Unlock()
	if i.Hook != nil && i.Hook(w, r) {
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		WriteJSON(w, http.StatusOK, i.Discovery())
	case "/.well-known/jwks":
		WriteJSON(w, http.StatusOK, i.JWKS())
	case "/idtoken":
		i.serveToken(w, r)
	default:
		http.NotFound(w, r)
	}
}

// Discovery returns the discovery document.
func (i *Issuer) Discovery() map[string]any {
	return map[string]any{
		"issuer": i.URL, "jwks_uri": i.URL + "/.well-known/jwks",
		"subject_types_supported": []string{"public", "pairwise"}, "response_types_supported": []string{"id_token"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "scopes_supported": []string{"openid"},
	}
}

func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+i.RequestToken {
		WriteJSON(w, http.StatusUnauthorized, map[string]string{"message": "the request token is not ours"})
		return
	}
	if v := r.URL.Query().Get("api-version"); v != "2.0" {
		WriteJSON(w, http.StatusBadRequest, map[string]string{"message": fmt.Sprintf("api-version %q is not 2.0", v)})
		return
	}
	audience := r.URL.Query().Get("audience")
	if audience == "" {
		owner, _, _ := strings.Cut(i.Identity.Repository, "/")
		audience = "https://github.com/" + owner
	}
	WriteJSON(w, http.StatusOK, map[string]string{"value": i.Token(audience)})
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client has gone away
}
