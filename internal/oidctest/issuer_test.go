package oidctest_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/oidctest"
)

func askToken(t *testing.T, is *oidctest.Issuer, more, bearer string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, is.RequestURL()+more, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Value string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Value == "" {
		return resp.StatusCode, nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(answer.Value, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, claims
}

func TestIDTokenIsIssuedAsToAJob(t *testing.T) {
	is := oidctest.NewIssuer(t)
	is.Identity.Environment = "production"
	status, claims := askToken(t, is, "&audience="+url.QueryEscape("https://cache.example.com"), is.RequestToken)
	if status != http.StatusOK || claims["aud"] != "https://cache.example.com" || claims["sub"] != "repo:acme/infra:environment:production" || claims["repository_id"] != "123456789" {
		t.Errorf("got %d, %v", status, claims)
	}
	if _, claims = askToken(t, is, "", is.RequestToken); claims["aud"] != "https://github.com/acme" {
		t.Errorf("without audience: got %v", claims["aud"])
	}
	if status, claims = askToken(t, is, "", "wrong"); status != http.StatusUnauthorized || claims != nil {
		t.Errorf("with another request token: got %d, %v", status, claims)
	}
}
