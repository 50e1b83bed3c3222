package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Sign returns a token that makes these claims. The authority's own issuer and
// audiences are put in, so that it accepts the token itself; ID is the caller's
// to choose.
func (a *Authority) Sign(c Claims) (string, error) {
	key, err := a.signer()
	if err != nil {
		return "", err
	}
	if a.Issuer != "" {
		c.Issuer = a.Issuer
	}
	if a.Audiences != nil {
		c.Audience = a.Audiences
	}
	payload, err := c.encode()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	header := `{"alg":"` + key.method.Alg() + `","typ":"JWT"}`
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := key.method.Sign(text, key.sign)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func (a *Authority) signer() (*key, error) {
	for _, k := range a.Keys {
		if k.CanSign() {
			return k.k, nil
		}
	}
	return nil, errors.New("sign token: there is no secret to sign with; a public key only verifies")
}

// Dump returns the claims as one line of JSON, as make-token --dump-claims
// prints them: without issuer and audiences, which Sign puts in.
func (c Claims) Dump() ([]byte, error) {
	c.Issuer, c.Audience = "", nil
	return c.encode()
}

// encode writes the payload. It reads its own work, so that no token is made
// that Verify would refuse.
func (c Claims) encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, m := range []struct {
		name  string
		value any
		left  bool // left out
	}{
		{"iat", seconds(c.IssuedAt), c.IssuedAt == nil},
		{"exp", seconds(c.Expires), c.Expires == nil},
		{"nbf", seconds(c.NotBefore), c.NotBefore == nil},
		{"iss", c.Issuer, c.Issuer == ""},
		{"sub", c.Subject, c.Subject == ""},
		{"aud", c.Audience, c.Audience == nil},
		{"jti", c.ID, c.ID == ""},
		{atticClaim, map[string]any{"caches": c.Caches}, false},
		{ourClaim, ours(c), c.Pins == nil && len(c.Origin) == 0},
	} {
		if m.left {
			continue
		}
		if err := writeMember(&b, m.name, m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	if _, err := parseClaims(b.Bytes()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ours is the value of our own claim.
func ours(c Claims) map[string]any {
	members := map[string]any{}
	if c.Pins != nil {
		members["pins"] = c.Pins
	}
	if len(c.Origin) > 0 {
		members["act"] = c.Origin
	}
	return members
}

func seconds(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

// MarshalJSON writes the value of the claim caches, in order and with granted
// permissions only.
func (g Grants) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, e := range g.entries {
		if err := writeMember(&b, e.pattern, e.perm); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// MarshalJSON writes {"r":1,"w":1}.
func (p Perm) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, x := range perms {
		if !p.Has(x.perm) {
			continue
		}
		if err := writeMember(&b, x.key, 1); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// writeMember appends a member to an open object.
func writeMember(b *bytes.Buffer, name string, value any) error {
	if b.Len() > 1 {
		b.WriteByte(',')
	}
	for i, part := range []any{name, value} {
		if i > 0 {
			b.WriteByte(':')
		}
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(false) // Attic writes < > & as they are
		if err := enc.Encode(part); err != nil {
			return err
		}
		b.Truncate(b.Len() - 1) // the line break that Encode appends
	}
	return nil
}
