package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	vectorSecret = "Y29uZm9ybWFuY2Utc2VjcmV0LTAxMjM0NTY3ODlhYmNkZWY="
	vectorToken  = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsIm5iZiI6MTcwMDAwMDAwMCwic3ViIjoiY29uZm9ybWFuY2UiLCJodHRwczovL2p3dC5hdHRpYy5ycy92MSI6eyJjYWNoZXMiOnsibWFpbiI6eyJyIjoxLCJ3IjoxfSwidGVhbS0qIjp7InIiOjF9LCIqIjp7ImNjIjoxLCJjciI6MSwiY3EiOjEsImNkIjoxfX19fQ.NNEyC07fDqb_BnsYzjetD5EDn-iywRuCM1W7HXZR13I"
	someCaches   = `"https://jwt.attic.rs/v1":{"caches":{"main":{"r":1}}}`
)

var noon = time.Unix(1_800_000_000, 500_000_000)

func authority(t *testing.T) *Authority {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(vectorSecret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := HS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{Keys: []Key{key}, Now: func() time.Time { return noon }}
}

// sign signs header and payload as they are.
func sign(t *testing.T, a *Authority, header, payload string) string {
	t.Helper()
	text := b64(header) + "." + b64(payload)
	signature, err := a.Keys[0].k.method.Sign(text, a.Keys[0].k.sign)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(string(signature))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const header = `{"alg":"HS256","typ":"JWT"}`

func TestVerifyConformanceVector(t *testing.T) {
	c, err := authority(t).Verify(vectorToken)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "conformance" || c.Expires.Unix() != 4102444800 || c.NotBefore.Unix() != 1700000000 {
		t.Errorf("claims: %+v", c)
	}
	admin := CreateCache | ConfigureCache | ConfigureCacheRetention | DestroyCache
	for name, want := range map[string]Perm{"main": Pull | Push, "team-x": Pull, "other": admin} {
		if got := c.Caches.For(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestVerifyJudgesClaimsAsAttic(t *testing.T) {
	attic := func(caches string) string { return `{"https://jwt.attic.rs/v1":{"caches":` + caches + `}}` }
	with := func(claim string) string { return `{` + claim + `,` + someCaches + `}` }
	for _, c := range []struct {
		name, payload string
		ok            bool
	}{
		{"nothing else", `{` + someCaches + `}`, true},
		{"no claim of Attic's", `{"sub":"a"}`, false},
		{"no caches", `{"https://jwt.attic.rs/v1":{}}`, false},
		{"empty caches", attic(`{}`), true},
		{"caches null", attic(`null`), false},
		{"caches an array", attic(`[]`), false},
		{"namespace an array", `{"https://jwt.attic.rs/v1":[{"main":{"r":1}}]}`, false},
		{"namespace null", `{"https://jwt.attic.rs/v1":null}`, false},
		{"payload an array", `[1]`, false},
		{"permissions by position", attic(`{"c":[1]}`), false},
		{"permission true", attic(`{"c":{"r":true}}`), false},
		{"permission 2", attic(`{"c":{"r":2}}`), false},
		{"permission -1", attic(`{"c":{"r":-1}}`), false},
		{"permission 1.0", attic(`{"c":{"r":1.0}}`), false},
		{"permission as text", attic(`{"c":{"r":"1"}}`), false},
		{"permission null", attic(`{"c":{"r":null}}`), false},
		{"permission 0", attic(`{"c":{"r":0}}`), true},
		{"unknown permission", attic(`{"c":{"r":1,"x":"y","x":2}}`), true},
		{"permission twice", attic(`{"c":{"r":1,"r":1}}`), false},
		{"bad pattern", attic(`{"a b":{"r":1}}`), false},
		{"empty pattern", attic(`{"":{"r":1}}`), false},
		{"namespace twice", with(someCaches), false},
		{"caches twice", `{"https://jwt.attic.rs/v1":{"caches":{},"caches":{}}}`, false},
		{"namespace with more", `{"https://jwt.attic.rs/v1":{"more":1,"caches":{}}}`, true},
		{"unknown claims, even twice", with(`"x":{"y":[1]},"x":2`), true},

		{"exp later", with(`"exp":1800000001`), true},
		{"exp this second", with(`"exp":1800000000`), false},
		{"exp as a float is cut", with(`"exp":1800000000.9`), false},
		{"exp as a float", with(`"exp":1.8000000019e9`), true},
		{"exp negative", with(`"exp":-1`), false},
		{"exp huge", with(`"exp":1e300`), true},
		{"exp beyond floats", with(`"exp":1e400`), false},
		{"exp null", with(`"exp":null`), false},
		{"exp as text", with(`"exp":"4102444800"`), false},
		{"exp twice", with(`"exp":4102444800,"exp":4102444800`), false},
		{"nbf this second", with(`"nbf":1800000000`), true},
		{"nbf next second", with(`"nbf":1800000001`), false},
		{"nbf as text", with(`"nbf":"1"`), false},
		{"iat this second", with(`"iat":1800000000`), true},
		{"iat in the future", with(`"iat":1800000001`), false},
		{"iat null", with(`"iat":null`), false},

		{"sub null", with(`"sub":null`), true},
		{"sub a number", with(`"sub":1`), false},
		{"sub twice", with(`"sub":"a","sub":"a"`), false},
		{"iss unbound", with(`"iss":"x"`), true},
		{"iss a number, unbound", with(`"iss":1`), false},
		{"jti an array", with(`"jti":["a"]`), false},
		{"aud a number, unbound", with(`"aud":1`), false},
		{"aud of numbers", with(`"aud":[1]`), false},
		{"aud unbound", with(`"aud":["a","a"]`), true},

		{"BOM", "\ufeff{" + someCaches + "}", false},
		{"not UTF-8", with("\"x\":\"\xff\""), false},
		{"half a surrogate", with(`"x":"\ud800"`), false},
		{"something behind", `{` + someCaches + `} x`, false},
		{"white space behind", `{` + someCaches + `} ` + "\n", true},
		{"deep nesting", with(`"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200)), false},

		{"pins", with(`"https://github.com/org/attic-action/v1":{"pins":["acme/*"]}`), true},
		{"pins null", with(`"https://github.com/org/attic-action/v1":{"pins":null}`), false},
		{"neither pins nor act", with(`"https://github.com/org/attic-action/v1":{}`), true},
		{"act", with(`"https://github.com/org/attic-action/v1":{"act":{"run_id":"9"}}`), true},
		{"act of numbers", with(`"https://github.com/org/attic-action/v1":{"act":{"run_id":9}}`), false},
		{"act of objects", with(`"https://github.com/org/attic-action/v1":{"act":{"act":{}}}`), false},
		{"act of many members", with(`"https://github.com/org/attic-action/v1":{"act":{` + manyMembers(100) + `}}`), false},
		{"pin with a line break", with(`"https://github.com/org/attic-action/v1":{"pins":["a\nb"]}`), false},
		{"pins twice", with(`"https://github.com/org/attic-action/v1":{"pins":[],"pins":[]}`), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := authority(t)
			if _, err := a.Verify(sign(t, a, header, c.payload)); (err == nil) != c.ok {
				t.Errorf("%s: %v", c.payload, err)
			}
		})
	}
}

func TestRepeatedPatternKeepsFirstPlaceAndLastValue(t *testing.T) {
	a := authority(t)
	c, err := a.Verify(sign(t, a, header, `{"https://jwt.attic.rs/v1":{"caches":{"a*":{"r":1},"*":{"d":1},"a*":{"w":1}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Caches.For("ab"); got != Push {
		t.Errorf("ab: %v", got)
	}
}

func TestVerifyBindsIssuerAndAudience(t *testing.T) {
	for _, c := range []struct {
		name, claims string
		bind         func(*Authority)
		ok           bool
	}{
		{"issuer equal", `"iss":"me"`, func(a *Authority) { a.Issuer = "me" }, true},
		{"issuer other", `"iss":"you"`, func(a *Authority) { a.Issuer = "me" }, false},
		{"issuer missing", `"x":1`, func(a *Authority) { a.Issuer = "me" }, false},
		{"issuer null", `"iss":null`, func(a *Authority) { a.Issuer = "me" }, false},
		{"audience as text", `"aud":"b"`, func(a *Authority) { a.Audiences = []string{"a", "b"} }, true},
		{"audiences meet", `"aud":["c","b"]`, func(a *Authority) { a.Audiences = []string{"a", "b"} }, true},
		{"audiences don't meet", `"aud":["c"]`, func(a *Authority) { a.Audiences = []string{"a", "b"} }, false},
		{"audience missing", `"x":1`, func(a *Authority) { a.Audiences = []string{"a"} }, false},
		{"bound to no audience", `"aud":"a"`, func(a *Authority) { a.Audiences = []string{} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := authority(t)
			c.bind(a)
			if _, err := a.Verify(sign(t, a, header, `{`+c.claims+`,`+someCaches+`}`)); (err == nil) != c.ok {
				t.Error(err)
			}
		})
	}
}

func TestVerifyReadsHeaderAsAttic(t *testing.T) {
	for h, ok := range map[string]bool{
		`{"alg":"HS256"}`:                                         true,
		`{"alg":"HS256","typ":"jwt"}`:                             true,
		`{"alg":"HS256","typ":"at+JWT"}`:                          true,
		`{"alg":"HS256","typ":"JOSE"}`:                            false,
		`{"alg":"HS256","typ":1}`:                                 false,
		`{"alg":"hs256"}`:                                         false,
		`{"alg":"HS512"}`:                                         false,
		`{"alg":"none"}`:                                          false,
		`{"alg":null}`:                                            false,
		`{"typ":"JWT"}`:                                           false,
		`{"alg":"HS256","alg":"HS256"}`:                           false,
		`{"alg":"none","alg":"HS256"}`:                            false,
		`{"alg":"HS256","Alg":"none"}`:                            true, // another case, another member
		`{"alg":"HS256","kid":"../../dev/null","jku":"http"}`:     true,
		`{"alg":"HS256","crit":["exp"],"exp":1}`:                  false,
		`{"alg":"HS256","crit":[]}`:                               false,
		`["HS256"]`:                                               false,
		`{"alg":"HS256"} {}`:                                      false,
		`{"alg":"HS256","x":"` + strings.Repeat("x", 8192) + `"}`: false,
	} {
		a := authority(t)
		if _, err := a.Verify(sign(t, a, h, `{`+someCaches+`}`)); (err == nil) != ok {
			t.Errorf("%.80s: %v", h, err)
		}
	}
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func pemOf(kind string, der []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func publicPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	return pemOf("PUBLIC KEY", der, err)
}

// Attacks on the choice of algorithm and key, and on the encoding.
func TestVerifyRefusesForgedTokens(t *testing.T) {
	hs := authority(t)
	good := strings.Split(vectorToken, ".")
	public, err := RS256Public(publicPEM())
	if err != nil {
		t.Fatal(err)
	}
	rs := &Authority{Keys: []Key{public}, Now: hs.Now}
	confused := func(h string) string {
		text := b64(h) + "." + good[1]
		mac, err := jwt.SigningMethodHS256.Sign(text, publicPEM())
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + b64(string(mac))
	}
	embedded := func() string {
		other, err := HS256([]byte("the attacker's"))
		if err != nil {
			t.Fatal(err)
		}
		return sign(t, &Authority{Keys: []Key{other}}, `{"alg":"HS256","jwk":{"kty":"oct","k":"`+b64("the attacker's")+`"}}`, `{`+someCaches+`}`)
	}
	last := good[2][len(good[2])-1:]
	for name, c := range map[string]struct {
		a     *Authority
		token string
	}{
		"no algorithm":                       {hs, b64(`{"alg":"none"}`) + "." + good[1] + "."},
		"no signature":                       {hs, good[0] + "." + good[1] + "."},
		"two parts":                          {hs, good[0] + "." + good[1]},
		"four parts":                         {hs, vectorToken + "." + good[2]},
		"a fourth, empty part":               {hs, vectorToken + "."},
		"the public key as an HS256 secret":  {rs, confused(header)},
		"the same, said to be RS256":         {rs, confused(`{"alg":"RS256"}`)},
		"HS256 to a server with RS256":       {rs, vectorToken},
		"a key in the token":                 {hs, embedded()},
		"other claims under the signature":   {hs, good[0] + "." + b64(`{`+someCaches+`}`) + "." + good[2]},
		"padding":                            {hs, vectorToken + "="},
		"a line break in the signature":      {hs, vectorToken[:len(vectorToken)-4] + "\n" + vectorToken[len(vectorToken)-4:]},
		"standard base64":                    {hs, strings.NewReplacer("-", "+", "_", "/").Replace(vectorToken)},
		"bits behind the end of a signature": {hs, strings.TrimSuffix(vectorToken, last) + "J"},
		"a signature cut short":              {hs, vectorToken[:len(vectorToken)-2]},
		"a space before":                     {hs, " " + vectorToken},
		"empty":                              {hs, ""},
		"dots":                               {hs, ".."},
		"a huge one":                         {hs, vectorToken + strings.Repeat("A", maxToken)},
		"no keys at all":                     {&Authority{Now: hs.Now}, vectorToken},
		"a zero key":                         {&Authority{Keys: []Key{{}}, Now: hs.Now}, vectorToken},
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := c.a.Verify(c.token); err == nil {
				t.Errorf("accepted: %+v", c)
			}
		})
	}
	if last != "I" {
		t.Errorf("the vector ends in %q: the test of trailing bits needs another letter", last)
	}
}

func TestRS256KeysInEveryEncoding(t *testing.T) {
	k := rsaKey()
	pkcs8, err8 := x509.MarshalPKCS8PrivateKey(k)
	for name, text := range map[string][]byte{
		"PKCS#1": pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k), nil),
		"PKCS#8": pemOf("PRIVATE KEY", pkcs8, err8),
	} {
		secret, err := RS256Secret(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a := &Authority{Keys: []Key{secret}, Now: func() time.Time { return noon }}
		signed, err := a.Sign(Claims{Subject: "x"})
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range map[string][]byte{"SPKI": publicPEM(), "PKCS#1": pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.PublicKey), nil)} {
			public, err := RS256Public(text)
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if public.CanSign() || public.Secret() != nil {
				t.Errorf("%s: a public key signs", form)
			}
			b := &Authority{Keys: []Key{public}, Now: a.Now}
			if c, err := b.Verify(signed); err != nil || c.Subject != "x" {
				t.Errorf("%s, %s: %v", name, form, err)
			}
			if _, err := b.Sign(Claims{}); err == nil {
				t.Errorf("%s: a public key signed", form)
			}
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	if _, err := HS256(nil); err == nil {
		t.Error("an empty secret is accepted: anybody could sign")
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RS256Secret(pemOf("", x509.MarshalPKCS1PrivateKey(small), nil)); err == nil {
		t.Error("1024 bits are accepted")
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if _, e := RS256Secret(pemOf("PRIVATE KEY", der, err)); e == nil {
		t.Error("an EC key is accepted")
	}
	for _, text := range []string{"", "x", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"} {
		if _, err := RS256Secret([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
		if _, err := RS256Public([]byte(text)); err == nil {
			t.Errorf("%q is accepted as public", text)
		}
	}
	if _, err := RS256Public(pemOf("", x509.MarshalPKCS1PrivateKey(rsaKey()), nil)); err == nil {
		t.Error("a private key is accepted as a public one")
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	k, err := HS256([]byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	a := Authority{Keys: []Key{k}}
	hidden := struct{ k Key }{k}
	if s := fmt.Sprintf("%v %+v %#v %s %v %+v %v %#v", k, k, k, k, a, a, hidden, hidden); strings.Contains(s, "hunter2") || strings.Contains(s, "104 117") || strings.Contains(s, "0x68, 0x75") {
		t.Error(s)
	}
}

func TestSignWritesWhatAtticWrites(t *testing.T) {
	a := authority(t)
	a.Issuer, a.Audiences = "me", []string{"here"}
	exp, nbf := time.Unix(4102444800, 999), time.Unix(1700000000, 0)
	c := Claims{Subject: `a"b<&>`, ID: "9f", Expires: &exp, NotBefore: &nbf, Pins: []string{"acme/*"}}
	_ = c.Caches.Add("z*", Pull|Push)
	_ = c.Caches.Add("a", DestroyCache)
	_ = c.Caches.Add("none", 0)
	token, err := a.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"exp":4102444800,"nbf":1700000000,"iss":"me","sub":"a\"b<&>","aud":["here"],"jti":"9f","https://jwt.attic.rs/v1":{"caches":{"z*":{"r":1,"w":1},"a":{"cd":1},"none":{}}},"https://github.com/org/attic-action/v1":{"pins":["acme/*"]}}`
	if string(payload) != want {
		t.Errorf("got  %s\nwant %s", payload, want)
	}
	back, err := a.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if back.Caches.For("zz") != Pull|Push || back.ID != "9f" || back.Pins[0] != "acme/*" {
		t.Errorf("came back as %+v", back)
	}
	dump, err := c.Dump()
	if err != nil || strings.Contains(string(dump), "iss") || strings.Contains(string(dump), "aud") || strings.Contains(string(dump), "\n") {
		t.Errorf("dump: %s, %v", dump, err)
	}
}

func manyMembers(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"m%d":"x"`, i))
	}
	return strings.Join(list, ",")
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	if _, err := authority(t).Sign(Claims{Pins: []string{"a b"}}); err == nil {
		t.Error("a pin with a space was signed")
	}
}

func TestExpiredTokenIsTold(t *testing.T) {
	a := authority(t)
	exp := noon.Add(time.Minute)
	token, err := a.Sign(Claims{Expires: &exp})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Verify(token); err != nil {
		t.Fatal(err)
	}
	a.Now = func() time.Time { return noon.Add(time.Minute) }
	if _, err := a.Verify(token); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(vectorToken)
	f.Add("..")
	key, _ := HS256([]byte("x"))
	a := &Authority{Keys: []Key{key}, Now: func() time.Time { return noon }}
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := a.Verify(token); err == nil {
			t.Errorf("%q is accepted", token)
		}
	})
}

// FuzzClaims: what parses must come out of a token again as it went in.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"exp":4102444800,"sub":"x","https://jwt.attic.rs/v1":{"caches":{"a*":{"r":1},"b":{}}}}`))
	f.Add([]byte(`{"aud":["a"],"iss":"b","https://jwt.attic.rs/v1":{"caches":{}},"https://github.com/org/attic-action/v1":{"pins":["a/*"]}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := parseClaims(payload)
		if err != nil {
			return
		}
		once, err := c.encode()
		if err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		again, err := parseClaims(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, _ := again.encode(); string(twice) != string(once) {
			t.Errorf("%s became %s", once, twice)
		}
	})
}
