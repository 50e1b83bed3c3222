package exchange_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/exchange"
	"github.com/org/attic-action/internal/trust"
)

func compiled(t *testing.T, w *world, policies ...trust.Policy) *trust.Set {
	t.Helper()
	for i := range policies {
		policies[i].Issuer = w.issuer.URL
	}
	s, err := trust.Compile(policies)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPoliciesAreAskedAtEachExchange(t *testing.T) {
	w := newWorld(t)
	set := compiled(t, w)
	w.Policies = func(context.Context) (*trust.Set, error) { return set, nil }
	if got := w.send(request(form(w.issuer.Token(audience)).Encode())); got.Code != http.StatusBadRequest {
		t.Errorf("without policies: status %d", got.Code)
	}
	set = compiled(t, w, infra())
	if got := w.send(request(form(w.issuer.Token(audience)).Encode())); got.Code != http.StatusOK {
		t.Errorf("with a policy: status %d: %s", got.Code, got.Body)
	}
	set = nil
	if got := w.send(request(form(w.issuer.Token(audience)).Encode())); got.Code != http.StatusBadRequest {
		t.Errorf("without a set: status %d", got.Code)
	}
	w.Policies = func(context.Context) (*trust.Set, error) { return nil, errors.New("the disk is gone") }
	got := w.send(request(form(w.issuer.Token(audience)).Encode()))
	if got.Code != http.StatusInternalServerError || strings.Contains(got.Body.String(), "disk") || !strings.Contains(w.log.String(), "disk is gone") {
		t.Errorf("policies that cannot be read: status %d: %s", got.Code, got.Body)
	}
}

// Whoever removes a policy and then revokes its tokens must not miss the one that is
// being made meanwhile.
func TestPolicyRemovedWhileATokenIsMade(t *testing.T) {
	w := newWorld(t)
	set := compiled(t, w, infra())
	w.Policies = func(context.Context) (*trust.Set, error) { return set, nil }
	w.Book = func(context.Context, exchange.Trade) error {
		set = compiled(t, w, reader())
		return nil
	}
	got := w.send(request(form(w.issuer.Token(audience)).Encode()))
	if got.Code != http.StatusBadRequest || strings.Contains(got.Body.String(), "access_token\"") || !strings.Contains(w.log.String(), "policies changed") {
		t.Errorf("status %d: %s", got.Code, got.Body)
	}
	// A change that leaves this grant alone is none.
	set = compiled(t, w, infra())
	w.Book = func(context.Context, exchange.Trade) error {
		other := infra()
		other.Name, other.RepositoryID, other.Repository = "other", 5, ""
		set = compiled(t, w, infra(), other)
		return nil
	}
	if got := w.send(request(form(w.issuer.Token(audience)).Encode())); got.Code != http.StatusOK {
		t.Errorf("another policy was added: status %d: %s", got.Code, got.Body)
	}
}
