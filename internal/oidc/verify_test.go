package oidc_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/oidctest"
)

const audience = "https://cache.example.com"

// now is the time of every test here.
func now() time.Time { return time.Unix(1_790_000_000, 0) }

func newIssuer(t *testing.T) *oidctest.Issuer {
	is := oidctest.NewIssuer(t)
	is.Now = now
	return is
}

func newVerifier(t *testing.T, issuers ...*oidctest.Issuer) *oidc.Verifier {
	t.Helper()
	c := oidc.Config{Audience: audience, Now: now}
	for _, is := range issuers {
		c.Issuers = append(c.Issuers, oidc.Issuer{URL: is.URL, AllowInsecure: true})
	}
	v, err := oidc.New(c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return v
}

// refused checks that a token is refused for this reason, as a refusal (not as trouble
// on our side), and that neither the token nor a line break is in the error.
func refused(t *testing.T, v *oidc.Verifier, raw, reason string) {
	t.Helper()
	tok, err := v.Verify(t.Context(), raw)
	if err == nil {
		t.Fatalf("accepted: %+v", tok)
	}
	if errors.Is(err, oidc.ErrUnavailable) || !strings.Contains(err.Error(), reason) {
		t.Errorf("got error %q, want one about %q", err, reason)
	}
	if len(raw) > 100 && strings.Contains(err.Error(), raw[len(raw)-100:]) || strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("error %q holds the token or a line break", err)
	}
}

func TestVerifyAcceptsTokensAsGitHubIssuesThem(t *testing.T) {
	is := newIssuer(t)
	tok, err := newVerifier(t, is).Verify(t.Context(), is.Token(audience))
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if tok.Issuer != is.URL || tok.ID == "" || tok.Claims["repository_id"] != "123456789" || !tok.Expires.Equal(now().Add(5*time.Minute)) {
		t.Errorf("got %+v", tok)
	}
}

func TestVerifyAcceptsES256(t *testing.T) {
	is := newIssuer(t)
	is.SetKeys(oidctest.ECKey("ec"))
	if _, err := newVerifier(t, is).Verify(t.Context(), is.Token(audience)); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

// Each row is an attack or an accident by way of the claims; the token is signed with the
// issuer's own key, so nothing but the check named stands in its way.
func TestVerifyRefusesClaims(t *testing.T) {
	is := newIssuer(t)
	v := newVerifier(t, is)
	at := now().Unix()
	for _, tt := range []struct {
		name    string
		changes map[string]any
		reason  string
	}{
		{"audience of another service", map[string]any{"aud": "https://pypi.example.org"}, "aud"},
		{"GitHub's default audience, which all services get", map[string]any{"aud": "https://github.com/acme"}, "aud"},
		{"audience with a slash", map[string]any{"aud": audience + "/"}, "aud"},
		{"audience in another case", map[string]any{"aud": "https://Cache.example.com"}, "aud"},
		{"audience with a look-alike", map[string]any{"aud": "https://cаche.example.com"}, `\u0430`},
		{"list of audiences with ours in it", map[string]any{"aud": []string{audience, "https://evil.example.com"}}, "aud"},
		{"list with our audience alone", map[string]any{"aud": []string{audience}}, "aud"},
		{"no audience", map[string]any{"aud": nil}, "aud"},
		{"Aud in place of aud", map[string]any{"aud": nil, "Aud": audience}, "aud"},
		{"issuer not listed", map[string]any{"iss": "https://evil.example.com"}, "iss"},
		{"issuer with a slash", map[string]any{"iss": is.URL + "/"}, "iss"},
		{"no issuer", map[string]any{"iss": nil}, "iss"},
		{"issuer in a list", map[string]any{"iss": []string{is.URL}}, "iss"},
		{"no subject", map[string]any{"sub": nil}, "sub"},
		{"empty subject", map[string]any{"sub": ""}, "sub"},
		{"subject with a line break, to forge a log line", map[string]any{"sub": "repo:a\nlevel=INFO"}, "sub"},
		{"huge subject", map[string]any{"sub": strings.Repeat("x", 1025)}, "sub"},
		{"no jti, so that it could be replayed", map[string]any{"jti": nil}, "jti"},
		{"jti is a number", map[string]any{"jti": 7}, "jti"},
		{"empty jti", map[string]any{"jti": ""}, "jti"},
		{"expired", map[string]any{"iat": at - 300, "exp": at - 60}, "exp"},
		{"no exp", map[string]any{"exp": nil}, "exp"},
		{"exp is a string", map[string]any{"exp": "1790000300"}, "exp"},
		{"exp with a fraction", map[string]any{"exp": json.RawMessage("1790000300.5")}, "exp"},
		{"exp with an exponent", map[string]any{"exp": json.RawMessage("1.7900003e9")}, "exp"},
		{"exp beyond all numbers", map[string]any{"exp": json.RawMessage("99999999999999999999999")}, "exp"},
		{"negative exp", map[string]any{"exp": -5}, "exp"},
		{"issued in the future", map[string]any{"iat": at + 61}, "iat"},
		{"issued more than ten minutes ago", map[string]any{"iat": at - 601}, "iat"},
		{"no iat", map[string]any{"iat": nil}, "iat"},
		{"iat is null", map[string]any{"iat": json.RawMessage("null")}, "iat"},
		{"lives longer than an hour", map[string]any{"exp": at + 3601}, "lives"},
		{"expires before it is issued", map[string]any{"iat": at + 30, "exp": at + 20}, "exp"},
		{"not valid yet", map[string]any{"nbf": at + 61}, "nbf"},
		{"nbf is a string", map[string]any{"nbf": "0"}, "nbf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, v, is.Sign(is.With(audience, tt.changes)), tt.reason)
		})
	}
}

func TestVerifyAllowsClocksToDifferByAMinute(t *testing.T) {
	is := newIssuer(t)
	v := newVerifier(t, is)
	at := now().Unix()
	for name, changes := range map[string]map[string]any{
		"expired 59 s ago":    {"iat": at - 300, "exp": at - 59},
		"issued in 60 s":      {"iat": at + 60, "exp": at + 300},
		"valid in 60 s":       {"nbf": at + 60},
		"without nbf":         {"nbf": nil},
		"ten minutes old":     {"iat": at - 600},
		"lives an hour":       {"exp": at + 3600},
		"sub of the new kind": {"sub": "repo:acme@987654/infra@123456789:ref:refs/heads/main"},
	} {
		if _, err := v.Verify(t.Context(), is.Sign(is.With(audience, changes))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyRefusesForgedSignatures(t *testing.T) {
	is := newIssuer(t)
	v := newVerifier(t, is)
	own := is.Keys()[0]
	der, err := x509.MarshalPKIXPublicKey(own.RSA.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	evil := oidctest.FreshRSAKey(own.Kid)
	evilEC := oidctest.ECKey(own.Kid)
	for _, tt := range []struct {
		name   string
		forge  oidctest.Forgery
		reason string
	}{
		{"alg none", oidctest.Forgery{Header: map[string]any{"alg": "none"}, NoSig: true}, "signature"},
		{"alg none with a signature", oidctest.Forgery{Header: map[string]any{"alg": "none"}}, "alg"},
		{"alg nOnE", oidctest.Forgery{Header: map[string]any{"alg": "nOnE"}}, "alg"},
		{"HS256 with the public key in PEM as its secret", oidctest.Forgery{Header: map[string]any{"alg": "HS256"}, HMAC: public}, "alg"},
		{"HS256 with the public key in DER as its secret", oidctest.Forgery{Header: map[string]any{"alg": "HS256"}, HMAC: der}, "alg"},
		{"RS256 made of an HMAC", oidctest.Forgery{HMAC: public}, "signature"},
		{"PS256", oidctest.Forgery{Header: map[string]any{"alg": "PS256"}}, "alg"},
		{"RS512", oidctest.Forgery{Header: map[string]any{"alg": "RS512"}}, "alg"},
		{"alg in another case", oidctest.Forgery{Header: map[string]any{"alg": "rs256"}}, "alg"},
		{"alg missing", oidctest.Forgery{Header: map[string]any{"alg": nil}}, "alg"},
		{"alg is a list", oidctest.Forgery{Header: map[string]any{"alg": []string{"RS256"}}}, "alg"},
		{"another key under the same kid", oidctest.Forgery{Key: &evil}, "signature"},
		{"EC key under the kid of an RSA key", oidctest.Forgery{Key: &evilEC}, "kid"},
		{"ES256 header over an RSA signature", oidctest.Forgery{Header: map[string]any{"alg": "ES256"}}, "kid"},
		{"another key, brought along as jwk", oidctest.Forgery{Key: &evil, Header: map[string]any{"jwk": evil.JWK()}}, "signature"},
		{"another key, pointed to by jku", oidctest.Forgery{Key: &evil, Header: map[string]any{"jku": "https://evil.example.com/jwks"}}, "signature"},
		{"no signature", oidctest.Forgery{NoSig: true}, "signature"},
		{"no kid", oidctest.Forgery{Header: map[string]any{"kid": nil}}, "kid"},
		{"empty kid", oidctest.Forgery{Header: map[string]any{"kid": ""}}, "kid"},
		{"kid is a number", oidctest.Forgery{Header: map[string]any{"kid": 1}}, "kid"},
		{"kid is a path", oidctest.Forgery{Header: map[string]any{"kid": "../../dev/null"}}, "kid"},
		{"huge kid", oidctest.Forgery{Header: map[string]any{"kid": strings.Repeat("k", 300)}}, "kid"},
		{"crit", oidctest.Forgery{Header: map[string]any{"crit": []string{"exp"}}}, "crit"},
		{"empty crit", oidctest.Forgery{Header: map[string]any{"crit": []string{}}}, "crit"},
		{"b64 false: payload not encoded", oidctest.Forgery{Header: map[string]any{"b64": false}}, "b64"},
		{"b64 true", oidctest.Forgery{Header: map[string]any{"b64": true}}, "b64"},
		{"an access token in place of an ID token", oidctest.Forgery{Header: map[string]any{"typ": "at+jwt"}}, "typ"},
		{"typ is an object", oidctest.Forgery{Header: map[string]any{"typ": map[string]any{}}}, "typ"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, v, is.Forge(is.Claims(audience), tt.forge), tt.reason)
		})
	}
}

func TestVerifyRefusesJSONThatHasTwoMeanings(t *testing.T) {
	is := newIssuer(t)
	v := newVerifier(t, is)
	good, err := json.Marshal(is.Claims(audience))
	if err != nil {
		t.Fatal(err)
	}
	more := func(s string) []byte { return []byte(strings.TrimSuffix(string(good), "}") + "," + s + "}") }
	for _, tt := range []struct {
		name    string
		payload []byte
		reason  string
	}{
		{"member twice", more(`"repository_id":"5"`), "twice"},
		{"member twice with equal values", more(`"repository_id":"123456789"`), "twice"},
		{"member twice, once escaped", more(`"repository\u005fid":"5"`), "twice"},
		{"member twice in an object within", more(`"x":{"a":1,"a":1}`), "twice"},
		{"member twice in a list's object", more(`"x":[{"a":1,"a":1}]`), "twice"},
		{"something behind the object", append(good, []byte(` {}`)...), "JSON"},
		{"list", []byte(`["a"]`), "object"},
		{"null", []byte(`null`), "object"},
		{"empty object", []byte(`{}`), "iss"},
		{"comment", more(`/**/"x":1`), "JSON"},
		{"comma at the end", []byte(strings.TrimSuffix(string(good), "}") + ",}"), "JSON"},
		{"NaN", more(`"x":NaN`), "JSON"},
		{"not UTF-8", more("\"x\":\"\xff\""), "UTF-8"},
		{"half a character", more(`"x":"\ud800"`), "half"},
		{"half a character, the other half", more(`"x":"\udc00a"`), "half"},
		{"half a character before another escape", more(`"x":"\ud83d\n"`), "half"},
		{"two first halves", more(`"x":"\ud83d\ud83d\ude00"`), "half"},
		{"half a character in a name", more(`"\ud800":"x"`), "half"},
		{"byte order mark", append([]byte("\xef\xbb\xbf"), good...), "JSON"},
		{"deep nesting", more(`"x":` + strings.Repeat("[", 50) + strings.Repeat("]", 50)), "deeper"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, v, is.Forge(nil, oidctest.Forgery{Payload: tt.payload}), tt.reason)
		})
	}
	t.Run("members in another case are other members", func(t *testing.T) {
		tok, err := v.Verify(t.Context(), is.Forge(nil, oidctest.Forgery{Payload: more(`"AUD":"x","Repository_ID":"5"`)}))
		if err != nil || tok.Claims["repository_id"] != "123456789" || tok.Claims["aud"] != audience {
			t.Errorf("got %v, %v", tok.Claims, err)
		}
	})
}

func TestVerifyRefusesOtherSpellingsOfAToken(t *testing.T) {
	is := newIssuer(t)
	v := newVerifier(t, is)
	good := is.Token(audience)
	parts := strings.Split(good, ".")
	std := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, raw := range map[string]string{
		"empty":                         "",
		"two parts":                     parts[0] + "." + parts[1],
		"four parts":                    good + ".x",
		"five parts, as if encrypted":   good + ".a.b",
		"padding":                       parts[0] + "==." + parts[1] + "." + parts[2],
		"standard alphabet":             parts[0] + "." + parts[1] + "." + std("\xff\xfe\xfd"),
		"line break within":             parts[0] + "." + parts[1][:10] + "\n" + parts[1][10:] + "." + parts[2],
		"carriage return at the end":    good + "\r",
		"space in front":                " " + good,
		"Bearer in front":               "Bearer " + good,
		"stray bits at the end":         parts[0] + "." + parts[1] + "." + strayBits(parts[2]),
		"JSON form of a JWS":            `{"payload":"` + parts[1] + `","signatures":[]}`,
		"header that is not JSON":       base64.RawURLEncoding.EncodeToString([]byte("alg")) + "." + parts[1] + "." + parts[2],
		"alg given twice in the header": base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","alg":"RS256","kid":"key-1"}`)) + "." + parts[1] + "." + parts[2],
		"more than 8 KiB":               is.Sign(is.With(audience, map[string]any{"x": strings.Repeat("x", 8<<10)})),
	} {
		t.Run(name, func(t *testing.T) { refused(t, v, raw, "token") })
	}
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Errorf("the token itself: %v", err)
	}
}

// strayBits sets the bits behind the last whole byte, which decode to nothing.
func strayBits(sig string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, sig[len(sig)-1])
	return sig[:len(sig)-1] + string(alphabet[last|1])
}

func TestVerifyContactsNoIssuerThatIsNotListed(t *testing.T) {
	listed, evil := newIssuer(t), newIssuer(t)
	v := newVerifier(t, listed)
	refused(t, v, evil.Token(audience), "iss")
	if n := evil.AllRequests() + listed.AllRequests(); n != 0 {
		t.Errorf("%d requests were made for a token of an issuer that is not listed", n)
	}
}

func TestIssuersCannotSpeakForEachOther(t *testing.T) {
	a, b := newIssuer(t), newIssuer(t)
	b.SetKeys(oidctest.FreshRSAKey("key-1")) // of the same name, as it happens
	v := newVerifier(t, a, b)
	refused(t, v, b.Sign(b.With(audience, map[string]any{"iss": a.URL})), "signature")
}

func TestGitHubIsListedByDefaultAndSignsWithRS256Alone(t *testing.T) {
	v := newVerifier(t)
	if got := v.Issuers(); len(got) != 1 || got[0] != oidc.GitHub {
		t.Fatalf("issuers are %v", got)
	}
	is := oidctest.New(oidc.GitHub)
	is.Now = now
	is.SetKeys(oidctest.ECKey("ec"))
	refused(t, v, is.Token(audience), "alg")
}

func TestNewRefusesConfigurationThatWouldTrustTooMuch(t *testing.T) {
	good := oidc.Issuer{URL: "https://gitlab.example.com"}
	for name, c := range map[string]oidc.Config{
		"no audience":               {},
		"GitHub's default audience": {Audience: "https://github.com/acme"},
		"GitHub's, shouting":        {Audience: "HTTPS://GITHUB.COM/acme"},
		"http":                      {Audience: audience, Issuers: []oidc.Issuer{{URL: "http://gitlab.example.com"}}},
		"no scheme":                 {Audience: audience, Issuers: []oidc.Issuer{{URL: "gitlab.example.com"}}},
		"file":                      {Audience: audience, Issuers: []oidc.Issuer{{URL: "file:///etc/passwd", AllowInsecure: true}}},
		"user in the URL":           {Audience: audience, Issuers: []oidc.Issuer{{URL: "https://a:b@gitlab.example.com"}}},
		"query in the URL":          {Audience: audience, Issuers: []oidc.Issuer{{URL: "https://gitlab.example.com?x"}}},
		"twice":                     {Audience: audience, Issuers: []oidc.Issuer{good, good}},
		"HS256":                     {Audience: audience, Issuers: []oidc.Issuer{{URL: good.URL, Algorithms: []string{"HS256"}}}},
		"none":                      {Audience: audience, Issuers: []oidc.Issuer{{URL: good.URL, Algorithms: []string{"none"}}}},
		"missing key file":          {Audience: audience, Issuers: []oidc.Issuer{{URL: good.URL, JWKSFile: "/nonexistent/keys.json"}}},
	} {
		if _, err := oidc.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
