package config

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/token"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// authority is the one that a server makes of a configuration.
func authority(s *Server) *token.Authority {
	return &token.Authority{Keys: append(append([]token.Key{}, s.JWT.Keys...), s.JWT.Previous...), Now: time.Now}
}

func signedWith(t *testing.T, secret string) string {
	t.Helper()
	key, err := token.HS256([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := (&token.Authority{Keys: []token.Key{key}, Now: time.Now}).Sign(token.Claims{Subject: "s"})
	if err != nil {
		t.Fatal(err)
	}
	return jwt
}

func TestPreviousKeysVerifyAndDoNotSign(t *testing.T) {
	text := "[jwt.signing]\ntoken-hs256-secret-base64 = \"" + b64("new") + "\"\n" +
		"[[jwt.previous]]\ntoken-hs256-secret-base64 = \"" + b64("old") + "\"\n" +
		"[[jwt.previous]]\ntoken-hs256-secret-base64 = \"" + b64("older") + "\"\n"
	s, err := load(t, text, env(envHS256+"_PREVIOUS", b64("of the environment")+"  "+b64("and another")))
	if err != nil {
		t.Fatal(err)
	}
	a := authority(s)
	for _, secret := range []string{"new", "old", "older", "of the environment", "and another"} {
		if _, err := a.Verify(signedWith(t, secret)); err != nil {
			t.Errorf("a token of %q: %v", secret, err)
		}
	}
	if _, err := a.Verify(signedWith(t, "oldest")); err == nil {
		t.Error("a token of a key that was taken out is still good")
	}
	mine, err := a.Sign(token.Claims{Subject: "s"})
	if err != nil || mine != signedWith(t, "new") {
		t.Errorf("the newest does not sign: %v", err)
	}
	var secrets []string
	for _, b := range s.Secrets() {
		secrets = append(secrets, string(b))
	}
	// Each of them wraps the root key: whichever is taken out next, it stays open.
	if got := strings.Join(secrets, ","); got != "new,old,older,of the environment,and another" {
		t.Errorf("secrets that wrap the root key: %s", got)
	}
}

// A server with a public key cannot sign, whatever it was able to do before.
func TestPreviousSecretDoesNotSignForAPublicKey(t *testing.T) {
	s, err := load(t, "", env(envHS256, "", envHS256+"_PREVIOUS", b64("old")))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.JWT.Keys) != 0 || len(s.JWT.Previous) != 1 {
		t.Fatalf("keys %d, previous %d", len(s.JWT.Keys), len(s.JWT.Previous))
	}
	if jwt, err := authority(s).Sign(token.Claims{Subject: "s"}); err == nil {
		t.Errorf("a previous key signed %s", jwt)
	}
}

func TestPreviousKeysAreChecked(t *testing.T) {
	many := strings.Repeat("[[jwt.previous]]\ntoken-hs256-secret-base64 = \""+b64("x")+"\"\n", maxPrevious+1)
	for name, c := range map[string]struct{ text, variable, want string }{
		"empty table":   {"\n[[jwt.previous]]", "", "server.toml:2: key jwt.previous[0]: it has no key"},
		"two in one":    {"[[jwt.previous]]\ntoken-hs256-secret-base64 = \"x\"\ntoken-rs256-secret-base64 = \"y\"", "", "key jwt.previous[0]: it has token-rs256-secret-base64 and token-hs256-secret-base64"},
		"no base64":     {"[[jwt.previous]]\ntoken-hs256-secret-base64 = \"" + b64("x") + "\"\n[[jwt.previous]]\ntoken-hs256-secret-base64 = \"hunter2!\"", "", "server.toml:4: key jwt.previous[1].token-hs256-secret-base64: not base64"},
		"plain strings": {"[jwt]\nprevious = [\"hunter2!\"]", "", "server.toml:2: key jwt.previous: want tables, each under [[jwt.previous]]"},
		"too many":      {many, "", "9 previous keys of tokens: at most 8"},
		"environment":   {"", "hunter2!", envHS256 + "_PREVIOUS: not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text, env(envHS256+"_PREVIOUS", c.variable))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q shows a secret", err)
			}
		})
	}
}

func TestMaxTTL(t *testing.T) {
	const head = "api-endpoint = \"https://x/\"\n[oidc]\n"
	for text, want := range map[string]time.Duration{"": 6 * time.Hour, "max-ttl = \"10m\"": 10 * time.Minute, "max-ttl = \"6h\"": 6 * time.Hour} {
		s, err := load(t, head+text+"\n"+policy, env())
		if err != nil || s.OIDC.MaxTTL != want {
			t.Errorf("%q: got %v, %v, want %s", text, s, err, want)
			continue
		}
		if warned := strings.Contains(fmt.Sprint(s.Warnings), "trust[0].ttl: \"15m\" is longer than [oidc] max-ttl"); warned != (want < 15*time.Minute) {
			t.Errorf("%q: warnings %v", text, s.Warnings)
		}
	}
	for _, text := range []string{"max-ttl = \"7h\"", "max-ttl = \"0s\"", "max-ttl = \"soon\"", "max-ttl = 900"} {
		if _, err := load(t, head+text, env()); err == nil || !strings.Contains(err.Error(), "server.toml:3: key oidc.max-ttl") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
