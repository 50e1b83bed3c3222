package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/token"
)

// A caller is who sent a request: the claims of a good token, or nothing.
type caller struct {
	claims  *token.Claims
	refused error         // why a token that was sent is no good
	wait    time.Duration // when there were too many such tokens from here
}

// callerOf returns who sent the request, as identify found.
func callerOf(r *http.Request) caller { return recordOf(r).caller }

// identify reads the token. A bad one is as good as none: a public cache goes
// on working with an expired token, and no request is refused for its token
// alone.
//
// A token whose revocation cannot be looked up is neither good nor bad: that is
// an error.
func (s *Server) identify(r *http.Request, rec *record) (caller, error) {
	jwt, ok := bearer(r.Header.Get("Authorization"))
	if !ok || s.Auth == nil {
		return caller{}, nil
	}
	claims, bad, err := s.verify(r.Context(), jwt)
	if err != nil {
		return caller{}, err
	}
	if bad != nil {
		return caller{refused: bad, wait: s.countBad(r, rec, jwt, bad)}, nil
	}
	return caller{claims: claims}, nil
}

// verify returns the claims of a token, or what is bad about it, or an error when
// nobody knows.
func (s *Server) verify(ctx context.Context, jwt string) (claims *token.Claims, bad, err error) {
	if claims, bad = s.Auth.Verify(jwt); bad != nil {
		return nil, bad, nil
	}
	revoked, err := s.revoked(ctx, claims.ID)
	if err != nil {
		return nil, nil, err
	}
	if revoked {
		return nil, fmt.Errorf("token %s of %q: %w", claims.ID, shorten(claims.Subject), meta.ErrRevoked), nil
	}
	return claims, nil, nil
}

// revoked reports whether the token of this jti was taken back. Tokens without
// one are Attic's; nobody can revoke those.
func (s *Server) revoked(ctx context.Context, id string) (bool, error) {
	if s.Revoked == nil || id == "" {
		return false, nil
	}
	return s.Revoked.Revoked(ctx, id)
}

// bearer takes the JWT out of an Authorization header: "Bearer <jwt>", or
// "Basic <base64 of user:jwt>", which is what Nix makes of a netrc line. The
// scheme's case is free; one space follows it.
func bearer(header string) (string, bool) {
	scheme, rest, ok := strings.Cut(header, " ")
	if !ok || strings.HasPrefix(rest, " ") {
		return "", false
	}
	switch strings.ToLower(scheme) {
	case "bearer":
		return rest, true
	case "basic":
		raw, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return "", false
		}
		_, password, ok := strings.Cut(string(raw), ":")
		return password, ok
	}
	return "", false
}

func (c caller) subject() string {
	if c.claims == nil {
		return ""
	}
	return c.claims.Subject
}

// tokenID is the token's jti, or "".
func (c caller) tokenID() string {
	if c.claims == nil {
		return ""
	}
	return c.claims.ID
}

// perms is what the token alone permits on a cache name.
func (c caller) perms(name string) token.Perm {
	if c.claims == nil {
		return 0
	}
	return c.claims.Caches.For(name)
}

// permsOn adds what the cache gives to everybody.
func (c caller) permsOn(cache *meta.Cache) token.Perm {
	p := c.perms(cache.Name)
	if cache.Public {
		p |= token.Pull
	}
	return p
}

// permit looks the cache up and checks that the caller may do what is needed.
// A caller who holds no permission gets 401 whether the cache is there or not.
func (s *Server) permit(r *http.Request, name string, need token.Perm, verb string) (*meta.Cache, error) {
	c := callerOf(r)
	cache, err := s.cache(r.Context(), name)
	switch {
	case errors.Is(err, meta.ErrNotFound) && c.perms(name) == 0:
		return nil, denied(c, unauthorized())
	case errors.Is(err, meta.ErrNotFound):
		return nil, noSuchCache()
	case err != nil:
		return nil, err
	}
	switch have := c.permsOn(cache); {
	case have == 0:
		return nil, denied(c, unauthorized())
	case have&need != need:
		return nil, forbidden(verb)
	}
	return cache, nil
}

// cache returns a live cache by name, or meta.ErrNotFound.
func (s *Server) cache(ctx context.Context, name string) (*meta.Cache, error) {
	all, err := s.caches.get(ctx)
	if err != nil {
		return nil, err
	}
	if c, ok := all.byName[name]; ok {
		return c, nil
	}
	return nil, meta.ErrNotFound
}
