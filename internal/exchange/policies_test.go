package exchange_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

// issueFunc is what lists tokens, as a function.
type issueFunc func()

func (f issueFunc) Issue(context.Context, token.Claims, []string) error { f(); return nil }

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
	w.Issued = issueFunc(func() { set = compiled(t, w, reader()) })
	got := w.send(request(form(w.issuer.Token(audience)).Encode()))
	if got.Code != http.StatusBadRequest || strings.Contains(got.Body.String(), "access_token\"") || !strings.Contains(w.log.String(), "policies changed") {
		t.Errorf("status %d: %s", got.Code, got.Body)
	}
	// A change that leaves this grant alone is none.
	set = compiled(t, w, infra())
	w.Issued = issueFunc(func() {
		other := infra()
		other.Name, other.RepositoryID, other.Repository = "other", 5, ""
		set = compiled(t, w, infra(), other)
	})
	if got := w.send(request(form(w.issuer.Token(audience)).Encode())); got.Code != http.StatusOK {
		t.Errorf("another policy was added: status %d: %s", got.Code, got.Body)
	}
}
