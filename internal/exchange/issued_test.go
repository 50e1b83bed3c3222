package exchange_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/token"
)

// book is an exchange.Issued.
type book struct {
	claims   []token.Claims
	policies [][]string
	err      error
}

func (b *book) Issue(_ context.Context, c token.Claims, policies []string) error {
	b.claims, b.policies = append(b.claims, c), append(b.policies, policies)
	return b.err
}

func TestEachTokenIsListedAsItIsGiven(t *testing.T) {
	w := newWorld(t, infra())
	b := &book{}
	w.Issued = b
	_, claims := granted(t, w, w.post(form(w.issuer.Token(audience))))
	if len(b.claims) != 1 || !slices.Equal(b.policies[0], []string{"infra"}) {
		t.Fatalf("listed %+v of %v", b.claims, b.policies)
	}
	if l := b.claims[0]; l.ID == "" || l.ID != claims.ID || l.Subject != claims.Subject || !l.Expires.Equal(*claims.Expires) ||
		l.Caches.For("system") != claims.Caches.For("system") {
		t.Errorf("listed %+v, given %+v", l, claims)
	}
	w.post(form("not a token"))
	if len(b.claims) != 1 {
		t.Error("a refused token was listed")
	}
}

// The attack: tokens that nobody can find to revoke, got while the database was in trouble.
func TestTokenThatCannotBeListedIsNotGiven(t *testing.T) {
	w := newWorld(t, infra())
	w.Issued = &book{err: errors.New("disk is full")}
	rec := w.post(form(w.issuer.Token(audience)))
	if rec.Code != http.StatusInternalServerError || strings.Contains(rec.Body.String(), "access_token") || strings.Contains(rec.Body.String(), "disk") {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

func TestLifeIsBoundByPolicyAndServer(t *testing.T) {
	for _, tt := range []struct {
		policy string
		server time.Duration
		want   time.Duration
	}{
		{"", 0, 15 * time.Minute},
		{"", 6 * time.Hour, 15 * time.Minute},
		{"5m", 6 * time.Hour, 5 * time.Minute},
		{"6h", time.Hour, time.Hour},
		{"", time.Minute, time.Minute},
	} {
		p := infra()
		p.TTL = tt.policy
		w := newWorld(t, p)
		w.MaxTTL = tt.server
		resp, claims := granted(t, w, w.post(form(w.issuer.Token(audience))))
		if got := claims.Expires.Sub(*claims.IssuedAt); got != tt.want || resp.ExpiresIn != int64(tt.want/time.Second) {
			t.Errorf("policy %q, server %s: lives %s, told %ds, want %s", tt.policy, tt.server, got, resp.ExpiresIn, tt.want)
		}
	}
}

func TestTokensNameTheBoundIssuer(t *testing.T) {
	w := newWorld(t, infra())
	w.Authority.Issuer, w.Authority.Audiences = "https://cache.example.com", []string{"nix"}
	_, claims := granted(t, w, w.post(form(w.issuer.Token(audience))))
	if claims.Issuer != "https://cache.example.com" || !slices.Equal(claims.Audience, []string{"nix"}) {
		t.Errorf("iss %q, aud %q", claims.Issuer, claims.Audience)
	}
}
