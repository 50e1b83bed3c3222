package oidc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// maxToken is the size of a token at most. GitHub's are about 2 KiB.
const maxToken = 8 << 10

// methods are the only ways of signing there are here: with "none" and HS256 not in the
// table, no header can ask for them.
var methods = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256,
	"ES256": jwt.SigningMethodES256,
}

// compact is a JWS in compact form, taken apart and not yet believed.
type compact struct {
	header, claims map[string]any
	signed         string // what the signature is over
	signature      []byte
}

func parseCompact(raw string) (*compact, error) {
	if len(raw) > maxToken {
		return nil, fmt.Errorf("token has %d bytes, at most %d are accepted", len(raw), maxToken)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("token has %d parts, a compact JWS has 3", len(parts))
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		b, err := decodeBase64(parts[i])
		if err != nil {
			return nil, fmt.Errorf("token %s: %w", name, err)
		}
		decoded[i] = b
	}
	header, err := parseObject(decoded[0])
	if err != nil {
		return nil, fmt.Errorf("token header: %w", err)
	}
	claims, err := parseObject(decoded[1])
	if err != nil {
		return nil, fmt.Errorf("token payload: %w", err)
	}
	return &compact{header: header, claims: claims, signed: parts[0] + "." + parts[1], signature: decoded[2]}, nil
}

// decodeBase64 takes base64url without padding in its one canonical spelling, so that a
// token cannot be respelled. The package's decoder skips line breaks, hence the look
// at the characters first.
func decodeBase64(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("is empty")
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("is not base64url")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("is not base64url without padding")
	}
	return b, nil
}

// algAndKid reads the header. Members that point to keys (jku, jwk, x5u, x5c) are never
// looked at: keys come from the issuer alone.
func (c *compact) algAndKid() (alg, kid string, err error) {
	for _, member := range []string{"crit", "b64"} {
		if _, ok := c.header[member]; ok {
			return "", "", fmt.Errorf("header has %s, which is not supported", member)
		}
	}
	if typ, ok := c.header["typ"]; ok {
		// Another type ("at+jwt", "logout+jwt") is not an ID token, though the same
		// issuer signs it with the same key.
		if s, _ := typ.(string); !strings.EqualFold(s, "JWT") {
			return "", "", errors.New("header typ is not JWT")
		}
	}
	alg, ok := c.header["alg"].(string)
	if !ok {
		return "", "", errors.New("header has no alg, or it is not a string")
	}
	kid, ok = c.header["kid"].(string)
	if !ok || kid == "" || len(kid) > maxKid {
		return "", "", errors.New("header has no kid, or it is not a string of 1 to 256 bytes")
	}
	return alg, kid, nil
}

// quote makes outside text fit for a log line: escaped and bounded.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
