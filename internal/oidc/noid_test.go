package oidc_test

import (
	"strings"
	"testing"

	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/oidctest"
)

// Buildkite's tokens have no jti. Without a name of their own they could be traded in
// again and again while they live.
func TestTokensWithoutIDAreNamedByTheirHash(t *testing.T) {
	is := oidctest.NewIssuer(t)
	verifier := func(noID bool) *oidc.Verifier {
		v, err := oidc.New(oidc.Config{Audience: "https://cache.example.com",
			Issuers: []oidc.Issuer{{URL: is.URL, AllowInsecure: true, NoID: noID}}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	raw := is.Sign(is.With("https://cache.example.com", map[string]any{"jti": nil}))
	if _, err := verifier(false).Verify(t.Context(), raw); err == nil || !strings.Contains(err.Error(), "jti") {
		t.Errorf("an issuer with ids: got %v, want a refusal that names jti", err)
	}
	v := verifier(true)
	one, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Verify(t.Context(), raw)
	if err != nil || one.ID == "" || again.ID != one.ID {
		t.Errorf("got ids %q and %q, %v, want one twice", one.ID, again.ID, err)
	}
	other, err := v.Verify(t.Context(), is.Sign(is.With("https://cache.example.com", map[string]any{"jti": nil, "run_id": "2"})))
	if err != nil || other.ID == one.ID {
		t.Errorf("another token: got id %q, %v", other.ID, err)
	}
	// A jti that is there counts, and must be well formed.
	if _, err := v.Verify(t.Context(), is.Sign(is.With("https://cache.example.com", map[string]any{"jti": 7}))); err == nil {
		t.Error("a jti that is a number was accepted")
	}
}
