package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"sync"
)

// Key is a signing key with the name that it is published under.
type Key struct {
	Kid string
	RSA *rsa.PrivateKey   // for RS256
	EC  *ecdsa.PrivateKey // for ES256
}

// sharedRSA is made once a process: 2048 bits take a while, and tests need many issuers.
var sharedRSA = sync.OnceValue(func() *rsa.PrivateKey { return mustRSA(2048) })

// RSAKey returns the process's RSA key under this name.
func RSAKey(kid string) Key { return Key{Kid: kid, RSA: sharedRSA()} }

// FreshRSAKey returns an RSA key that no other issuer has.
func FreshRSAKey(kid string) Key { return Key{Kid: kid, RSA: mustRSA(2048)} }

// ECKey returns a fresh P-256 key.
func ECKey(kid string) Key {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("oidctest: generate key: " + err.Error()) // the system has no randomness
	}
	return Key{Kid: kid, EC: k}
}

func mustRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic("oidctest: generate key: " + err.Error())
	}
	return k
}

// JWK returns the public half as published.
func (k Key) JWK() map[string]any {
	if k.RSA != nil {
		return map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.Kid,
			"n": encode(k.RSA.N.Bytes()), "e": encode(big.NewInt(int64(k.RSA.E)).Bytes()),
		}
	}
	point, err := k.EC.PublicKey.Bytes()
	if err != nil {
		panic("oidctest: encode key: " + err.Error())
	}
	return map[string]any{
		"kty": "EC", "use": "sig", "alg": "ES256", "kid": k.Kid, "crv": "P-256",
		"x": encode(point[1:33]), "y": encode(point[33:]),
	}
}

// JWKS returns the published key set.
func (i *Issuer) JWKS() map[string]any {
	keys := []any{}
	for _, k := range i.Keys() {
		keys = append(keys, k.JWK())
	}
	return map[string]any{"keys": keys}
}

// Forgery says in what a token differs from an honest one.
type Forgery struct {
	Header  map[string]any // replaces members of the header; a nil value removes one
	Payload []byte         // sent in place of the claims, byte for byte
	Key     *Key           // signs in place of the issuer's first key
	HMAC    []byte         // signs with HMAC-SHA-256 of this secret
	NoSig   bool           // leaves the signature empty
}

// Sign returns a token with these claims, signed by the first key.
func (i *Issuer) Sign(claims map[string]any) string { return i.Forge(claims, Forgery{}) }

// Forge returns a token with these claims, made as f says.
func (i *Issuer) Forge(claims map[string]any, f Forgery) string {
	key := i.Keys()[0]
	if f.Key != nil {
		key = *f.Key
	}
	header := map[string]any{"typ": "JWT", "alg": "RS256", "kid": key.Kid, "x5t": "aW52ZW50ZWQ"}
	if key.EC != nil {
		header["alg"] = "ES256"
	}
	maps.Copy(header, f.Header)
	maps.DeleteFunc(header, func(_ string, v any) bool { return v == nil })
	payload := f.Payload
	if payload == nil {
		payload = mustJSON(claims)
	}
	signed := encode(mustJSON(header)) + "." + encode(payload)
	switch {
	case f.NoSig:
		return signed + "."
	case f.HMAC != nil:
		mac := hmac.New(sha256.New, f.HMAC)
		mac.Write([]byte(signed))
		return signed + "." + encode(mac.Sum(nil))
	}
	return signed + "." + encode(key.sign(signed))
}

func (k Key) sign(signed string) []byte {
	sum := sha256.Sum256([]byte(signed))
	if k.RSA != nil {
		sig, err := rsa.SignPKCS1v15(rand.Reader, k.RSA, crypto.SHA256, sum[:])
		if err != nil {
			panic("oidctest: sign: " + err.Error())
		}
		return sig
	}
	r, s, err := ecdsa.Sign(rand.Reader, k.EC, sum[:])
	if err != nil {
		panic("oidctest: sign: " + err.Error())
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("oidctest: encode: " + err.Error())
	}
	return b
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
