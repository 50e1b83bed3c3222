package token

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// Key signs and verifies tokens with one algorithm: a key can't be talked into
// another one by a token's header. It prints as [redacted].
type Key struct{ k *key }

type key struct {
	method jwt.SigningMethod
	secret []byte // what root keys are wrapped with; nil for a public key
	sign   any    // what method.Sign takes; nil for a public key
	verify any
}

// HS256 returns the key of a shared secret, of any length but 0.
func HS256(secret []byte) (Key, error) {
	if len(secret) == 0 {
		return Key{}, errors.New("the HS256 secret is empty: anybody could sign tokens")
	}
	secret = slices.Clone(secret)
	return Key{&key{jwt.SigningMethodHS256, secret, secret, secret}}, nil
}

// Sizes of RSA keys in bits. Smaller ones can be broken; larger ones make
// verifying a token a way to keep the server busy.
const minRSA, maxRSA = 2048, 8192

// RS256Secret returns the key of an RSA private key in PEM, PKCS#1 or PKCS#8.
func RS256Secret(text []byte) (Key, error) {
	block, err := onePEM(text)
	if err != nil {
		return Key{}, fmt.Errorf("read RSA private key: %w", err)
	}
	private, err := x509.ParsePKCS1PrivateKey(block)
	if err != nil {
		var any any
		if any, err = x509.ParsePKCS8PrivateKey(block); err != nil {
			// The parsers' errors may quote the key.
			return Key{}, errors.New("read RSA private key: the PEM block is neither PKCS#1 nor PKCS#8")
		}
		var ok bool
		if private, ok = any.(*rsa.PrivateKey); !ok {
			return Key{}, errors.New("read RSA private key: the key is not an RSA key")
		}
	}
	if err := checkSize(&private.PublicKey); err != nil {
		return Key{}, err
	}
	// One form for both encodings, so that re-encoding a key keeps the root key open.
	secret := x509.MarshalPKCS1PrivateKey(private)
	return Key{&key{jwt.SigningMethodRS256, secret, private, &private.PublicKey}}, nil
}

// RS256Public returns the key of an RSA public key in PEM, SPKI or PKCS#1. It
// only verifies.
func RS256Public(text []byte) (Key, error) {
	block, err := onePEM(text)
	if err != nil {
		return Key{}, fmt.Errorf("read RSA public key: %w", err)
	}
	public, err := x509.ParsePKCS1PublicKey(block)
	if err != nil {
		var any any
		if any, err = x509.ParsePKIXPublicKey(block); err != nil {
			return Key{}, errors.New("read RSA public key: the PEM block is neither SPKI nor PKCS#1")
		}
		var ok bool
		if public, ok = any.(*rsa.PublicKey); !ok {
			return Key{}, errors.New("read RSA public key: the key is not an RSA key")
		}
	}
	if err := checkSize(public); err != nil {
		return Key{}, err
	}
	return Key{&key{jwt.SigningMethodRS256, nil, nil, public}}, nil
}

func onePEM(text []byte) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is not PEM (a text that begins with -----BEGIN)")
	}
	return block.Bytes, nil
}

func checkSize(k *rsa.PublicKey) error {
	if n := k.N.BitLen(); n < minRSA || n > maxRSA {
		return fmt.Errorf("the RSA key has %d bits: want %d to %d", n, minRSA, maxRSA)
	}
	return nil
}

// CanSign reports whether k signs; public keys do not.
func (k Key) CanSign() bool { return k.k != nil && k.k.sign != nil }

// VerifyOnly returns k as a key that signs nothing. It keeps its secret.
func (k Key) VerifyOnly() Key {
	if k.k == nil {
		return k
	}
	return Key{&key{k.k.method, k.k.secret, nil, k.k.verify}}
}

// Secret returns the secret bytes of k, nil for a public key.
func (k Key) Secret() []byte {
	if k.k == nil {
		return nil
	}
	return slices.Clone(k.k.secret)
}

// String hides the secret.
func (Key) String() string { return "[redacted]" }

// GoString hides the secret.
func (Key) GoString() string { return "[redacted]" }

// MarshalText hides the secret.
func (Key) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }
