package oidc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/oidctest"
)

func TestLookSaysWhatVerifyWouldWithoutTheNetwork(t *testing.T) {
	is := oidctest.NewIssuer(t)
	v, err := oidc.New(oidc.Config{Audience: "https://cache.example.com", Issuers: []oidc.Issuer{{URL: is.URL, AllowInsecure: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		changes map[string]any
		want    string
	}{
		"good":            {nil, ""},
		"expired":         {map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}, "exp"},
		"other audience":  {map[string]any{"aud": "https://github.com/acme"}, "aud"},
		"unlisted issuer": {map[string]any{"iss": "https://evil.example"}, "not a listed issuer"},
		"no issuer":       {map[string]any{"iss": nil}, "iss"},
	} {
		claims, err := oidc.ReadClaims(is.Sign(is.With("https://cache.example.com", tt.changes)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := v.Look(claims); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if n := is.AllRequests(); n != 0 {
		t.Errorf("the issuer was asked %d times", n)
	}
	if _, err := oidc.ReadClaims("a.b"); err == nil {
		t.Error("half a token was read")
	}
}
