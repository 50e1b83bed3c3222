package exchange_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/exchange"
)

// book is what records exchanges, with what came to it.
type book struct {
	trades []exchange.Trade
	err    error
}

func (b *book) trade(_ context.Context, t exchange.Trade) error {
	b.trades = append(b.trades, t)
	return b.err
}

func TestEachTokenIsListedAsItIsGiven(t *testing.T) {
	w := newWorld(t, infra())
	b := &book{}
	w.Book = b.trade
	_, claims := granted(t, w, w.post(form(w.issuer.Token(audience))))
	if len(b.trades) != 1 || !slices.Equal(b.trades[0].Policies, []string{"infra"}) || b.trades[0].Issuer != w.issuer.URL || b.trades[0].ID == "" {
		t.Fatalf("recorded %+v", b.trades)
	}
	if l := b.trades[0].Claims; l.ID == "" || l.ID != claims.ID || l.Subject != claims.Subject || !l.Expires.Equal(*claims.Expires) ||
		l.Caches.For("system") != claims.Caches.For("system") {
		t.Errorf("listed %+v, given %+v", l, claims)
	}
	w.post(form("not a token"))
	if len(b.trades) != 1 {
		t.Error("a refused token was recorded")
	}
}

// The attack: tokens that nobody can find to revoke, got while the database was in trouble.
func TestTokenThatCannotBeListedIsNotGiven(t *testing.T) {
	w := newWorld(t, infra())
	w.Book = (&book{err: errors.New("disk is full")}).trade
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
