package oidc

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func TestParseKeysLeavesOutKeysThatAreNotFit(t *testing.T) {
	strong := b64(append([]byte{0x80}, append(make([]byte, 254), 1)...)) // odd, 2048 bits
	weak := b64(append([]byte{0x80}, append(make([]byte, 126), 1)...))   // 1024 bits
	huge := b64(append([]byte{0x80}, append(make([]byte, 2046), 1)...))  // 16384 bits
	e := func(n int64) string { return b64(big.NewInt(n).Bytes()) }
	for name, jwk := range map[string]string{
		"1024 bits":                    fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q}`, weak, e(65537)),
		"16384 bits, slow to check":    fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q}`, huge, e(65537)),
		"exponent 1":                   fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q}`, strong, e(1)),
		"even exponent":                fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q}`, strong, e(65536)),
		"huge exponent":                fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q}`, strong, e(1<<40+1)),
		"no kid":                       fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q}`, strong, e(65537)),
		"for encryption":               fmt.Sprintf(`{"kty":"RSA","use":"enc","kid":"k","n":%q,"e":%q}`, strong, e(65537)),
		"for other operations":         fmt.Sprintf(`{"kty":"RSA","key_ops":["encrypt"],"kid":"k","n":%q,"e":%q}`, strong, e(65537)),
		"for another algorithm":        fmt.Sprintf(`{"kty":"RSA","alg":"RS512","kid":"k","n":%q,"e":%q}`, strong, e(65537)),
		"symmetric":                    `{"kty":"oct","kid":"k","k":"c2VjcmV0"}`,
		"symmetric, as if for RS256":   `{"kty":"oct","alg":"RS256","kid":"k","k":"c2VjcmV0"}`,
		"point not on the curve":       fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"k","x":%q,"y":%q}`, b64(make([]byte, 32)), b64(make([]byte, 32))),
		"another curve":                fmt.Sprintf(`{"kty":"EC","crv":"P-384","kid":"k","x":%q,"y":%q}`, b64(make([]byte, 48)), b64(make([]byte, 48))),
		"modulus in standard alphabet": fmt.Sprintf(`{"kty":"RSA","kid":"k","n":"%s==","e":%q}`, strong, e(65537)),
	} {
		if keys, err := parseKeys([]byte(`{"keys":[` + jwk + `]}`)); err == nil {
			t.Errorf("%s: accepted %v", name, keys)
		}
	}
	good := fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q}`, strong, e(65537))
	if _, err := parseKeys([]byte(strings.Replace(`{"keys":[`+good+`]}`, `"kid"`, `"key_ops":["sign","verify"],"kid"`, 1))); err != nil {
		t.Errorf("a key to verify with: %v", err)
	}
	if keys, err := parseKeys([]byte(`{"keys":[{"kty":"new","kid":"x"},` + good + `]}`)); err != nil || len(keys) != 1 {
		t.Errorf("a good key beside an unknown one: got %v, %v", keys, err)
	}
	if _, err := parseKeys([]byte(`{"keys":[` + good + `,` + good + `]}`)); err == nil {
		t.Error("two keys of one kid were accepted")
	}
	if _, err := parseKeys([]byte(`{"keys":[` + strings.Repeat(`{},`, maxKeys) + good + `]}`)); err == nil {
		t.Error("a set of too many keys was accepted")
	}
}

func FuzzParseObject(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[{"c":null}],"d":"\u0061"}`))
	f.Add([]byte(`{"a":1,"\u0061":2}`))
	f.Add([]byte(`{"a":[[[[[[[[[1]]]]]]]]]}`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"a":"\ud83d\ude00","b":"\\ud800"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		obj, err := parseObject(b)
		if err != nil {
			return
		}
		// What is accepted is what the standard library reads as well, and survives a
		// round trip: there is one meaning.
		var std map[string]any
		if err := json.Unmarshal(b, &std); err != nil || len(std) != len(obj) {
			if err == nil || !strings.Contains(err.Error(), "cannot unmarshal number") {
				t.Fatalf("accepted %q, which encoding/json reads as %v, %v", b, std, err)
			}
		}
		again, err := json.Marshal(obj)
		if err != nil {
			t.Fatalf("encode %v: %v", obj, err)
		}
		if _, err := parseObject(again); err != nil {
			t.Fatalf("%q is encoded as %q, which is refused: %v", b, again, err)
		}
	})
}

func FuzzParseCompact(f *testing.F) {
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJhIn0.c2ln")
	f.Add("e30.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := parseCompact(raw)
		if err != nil {
			return
		}
		if c.signed+"."+b64(c.signature) != raw {
			t.Errorf("%q is accepted as another spelling of %q", raw, c.signed+"."+b64(c.signature))
		}
		_, _, _ = c.algAndKid()
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AA","y":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if err == nil && (len(keys) == 0 || len(keys) > maxKeys) {
			t.Errorf("got %d keys without an error", len(keys))
		}
	})
}
