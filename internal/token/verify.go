package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/jsonscan"
)

// Limits of what is read of a token, in bytes. Attic has the first.
const (
	maxHeader = 8192
	maxToken  = 1 << 20
)

// maxDepth is the nesting that Attic's JSON reader takes.
const maxDepth = 127

// ErrExpired means that the token was good once.
var ErrExpired = errors.New("token has expired")

// Authority signs and verifies tokens.
type Authority struct {
	Keys      []Key    // a token may be verified by any; the first that can sign signs
	Issuer    string   // if set, tokens must have it as iss
	Audiences []string // if not nil, a token's aud must have one of them
	Now       func() time.Time
}

// Verify returns the claims of a token. The error says what is wrong with it,
// without quoting it.
func (a *Authority) Verify(jwt string) (*Claims, error) {
	if len(jwt) > maxToken {
		return nil, fmt.Errorf("verify token: longer than %d bytes", maxToken)
	}
	parts := strings.SplitN(jwt, ".", 4)
	if len(parts) != 3 {
		return nil, errors.New("verify token: not three parts with dots between")
	}
	alg, err := readHeader(parts[0])
	if err != nil {
		return nil, fmt.Errorf("verify token: header: %w", err)
	}
	signature, err := decode(parts[2])
	if err != nil {
		return nil, fmt.Errorf("verify token: signature: %w", err)
	}
	if !a.signed(alg, jwt[:len(parts[0])+1+len(parts[1])], signature) {
		return nil, errors.New("verify token: no key of this server made the signature")
	}
	payload, err := decode(parts[1])
	if err != nil {
		return nil, fmt.Errorf("verify token: claims: %w", err)
	}
	c, err := parseClaims(payload)
	if err != nil {
		return nil, fmt.Errorf("verify token: claims: %w", err)
	}
	if err := a.check(c); err != nil {
		return nil, fmt.Errorf("verify token: %w", err)
	}
	return c, nil
}

// signed reports whether one of the keys that are made for alg signed text.
func (a *Authority) signed(alg, text string, signature []byte) bool {
	return slices.ContainsFunc(a.Keys, func(k Key) bool {
		return k.k != nil && k.k.method.Alg() == alg && k.k.method.Verify(text, signature, k.k.verify) == nil
	})
}

// check holds what needs the clock and the configuration. There is no leeway:
// the tokens are our own, and Attic has none.
func (a *Authority) check(c *Claims) error {
	now := a.Now()
	switch {
	case c.Expires != nil && !now.Before(*c.Expires):
		return ErrExpired
	case c.NotBefore != nil && now.Before(*c.NotBefore):
		return errors.New("token is not valid yet (nbf)")
	case c.IssuedAt != nil && now.Before(*c.IssuedAt):
		return errors.New("token was issued in the future (iat)")
	case a.Issuer != "" && c.Issuer != a.Issuer:
		return errors.New("token has another issuer (iss) than token-bound-issuer")
	case a.Audiences != nil && !slices.ContainsFunc(c.Audience, func(s string) bool { return slices.Contains(a.Audiences, s) }):
		return errors.New("token has no audience (aud) of token-bound-audiences")
	}
	return nil
}

// decode reads base64url in its one canonical form. The decoder alone would
// read over line breaks.
func decode(part string) ([]byte, error) {
	if strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("not base64url")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	return b, nil
}

// readHeader returns the algorithm that a header names. Everything else in it
// that could name a key (kid, jwk, x5u, …) is not even looked at.
func readHeader(part string) (alg string, err error) {
	if len(part) > maxHeader {
		return "", fmt.Errorf("longer than %d characters", maxHeader)
	}
	text, err := decode(part)
	if err != nil {
		return "", err
	}
	s := jsonscan.New(text, maxDepth)
	err = s.Members([]jsonscan.Field{
		{Name: "alg", Read: func() (err error) { alg, err = s.Text(); return }},
		{Name: "typ", Optional: true, Read: func() error {
			typ, err := nullable(s)
			if up := strings.ToUpper(typ); err == nil && typ != "" && up != "JWT" && !strings.HasSuffix(up, "+JWT") {
				err = s.Wrong("not a JWT")
			}
			return err
		}},
		// Extensions that the reader must understand (RFC 7515 §4.1.11): we know none.
		{Name: "crit", Optional: true, Read: func() error { return s.Wrong("unknown extensions") }},
	})
	if err != nil {
		return "", err
	}
	return alg, s.End()
}

// nullable reads a string or null, which is "".
func nullable(s *jsonscan.Scanner) (string, error) {
	if null, err := s.Null(); null {
		return "", err
	}
	return s.Text()
}
