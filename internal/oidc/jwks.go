package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
)

// Bounds on a key set.
const (
	maxDocument = 1 << 20 // bytes of a discovery document or key set
	maxKeys     = 100
	maxKid      = 256
	minRSABits  = 2048
	maxRSABits  = 8192
)

// keyName is what a key is looked up by. The algorithm is part of it, so that a key is
// never used with another one than it was made for.
type keyName struct{ kid, alg string }

type keySet map[keyName]crypto.PublicKey

// parseKeys reads a JWK Set. Keys that we have no use for (other types, encryption, no
// kid, too weak) are left out; a set that is broken, or two keys of one name, refuse.
func parseKeys(b []byte) (keySet, error) {
	doc, err := parseObject(b)
	if err != nil {
		return nil, fmt.Errorf("key set %w", err)
	}
	list, ok := doc["keys"].([]any)
	if !ok {
		return nil, errors.New("key set has no list of keys")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("key set has %d keys, at most %d are accepted", len(list), maxKeys)
	}
	keys := make(keySet)
	for _, e := range list {
		jwk, ok := e.(map[string]any)
		if !ok {
			return nil, errors.New("key set holds what is not a key")
		}
		name, key := parseKey(jwk)
		if key == nil {
			continue
		}
		if keys[name] != nil {
			return nil, fmt.Errorf("key set has two keys with kid %s", quote(name.kid))
		}
		keys[name] = key
	}
	if len(keys) == 0 {
		return nil, errors.New("key set has no key that can be used")
	}
	return keys, nil
}

// parseKey returns a nil key for one that is of no use.
func parseKey(jwk map[string]any) (keyName, crypto.PublicKey) {
	kid, _ := jwk["kid"].(string)
	if kid == "" || len(kid) > maxKid {
		return keyName{}, nil
	}
	if use, ok := jwk["use"]; ok && use != "sig" {
		return keyName{}, nil
	}
	if ops, ok := jwk["key_ops"]; ok {
		if list, _ := ops.([]any); !slices.Contains(list, any("verify")) {
			return keyName{}, nil
		}
	}
	name := keyName{kid: kid}
	var key crypto.PublicKey
	switch jwk["kty"] {
	case "RSA":
		name.alg, key = "RS256", rsaKey(jwk)
	case "EC":
		name.alg, key = "ES256", ecKey(jwk)
	}
	if alg, ok := jwk["alg"]; ok && alg != name.alg {
		return keyName{}, nil
	}
	return name, key
}

func rsaKey(jwk map[string]any) crypto.PublicKey {
	n, e := number(jwk["n"]), number(jwk["e"])
	if n == nil || e == nil || n.BitLen() < minRSABits || n.BitLen() > maxRSABits || n.Bit(0) == 0 {
		return nil
	}
	// e = 1 would make every message its own signature.
	if e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
		return nil
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}
}

func ecKey(jwk map[string]any) crypto.PublicKey {
	x, y := octets(jwk["x"]), octets(jwk["y"])
	if jwk["crv"] != "P-256" || len(x) != 32 || len(y) != 32 {
		return nil
	}
	// Checks that the point is on the curve.
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		return nil
	}
	return key
}

func octets(v any) []byte {
	s, _ := v.(string)
	b, err := decodeBase64(s)
	if err != nil {
		return nil
	}
	return b
}

func number(v any) *big.Int {
	b := octets(v)
	if len(b) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

func readKeyFile(file string) (keySet, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read jwks-file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read jwks-file: %w", err)
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("jwks-file %s is larger than %d bytes", file, maxDocument)
	}
	keys, err := parseKeys(b)
	if err != nil {
		return nil, fmt.Errorf("jwks-file %s: %w", file, err)
	}
	return keys, nil
}
