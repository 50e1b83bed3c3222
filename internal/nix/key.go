package nix

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxKeyNameLen = 255

// PublicKey verifies the signatures of one named key. Its text is "name:base64 of 32 bytes".
type PublicKey struct {
	Name string
	Key  ed25519.PublicKey
}

// ParsePublicKey reads "name:base64", as in trusted-public-keys.
func ParsePublicKey(s string) (PublicKey, error) {
	name, key, err := splitKey(s, ed25519.PublicKeySize)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key %s: %w", quote(s), err)
	}
	return PublicKey{Name: name, Key: key}, nil
}

// String is "name:base64".
func (k PublicKey) String() string { return k.Name + ":" + base64.StdEncoding.EncodeToString(k.Key) }

// Verify reports whether sig, a "name:base64", is this key's signature of the fingerprint.
func (k PublicKey) Verify(fingerprint, sig string) bool {
	name, raw, err := splitKey(sig, ed25519.SignatureSize)
	return err == nil && name == k.Name && len(k.Key) == ed25519.PublicKeySize &&
		ed25519.Verify(k.Key, []byte(fingerprint), raw)
}

// Keypair signs fingerprints. Whatever prints it prints [redacted]; only Secret gives its text.
// The zero value signs nothing.
type Keypair struct {
	// A function, since fmt does not ask an unexported field of another struct for its String: it
	// would print the bytes, also those behind a pointer, but of a function the address.
	secret func() secretKey
}

type secretKey struct {
	name string
	key  ed25519.PrivateKey
}

// GenerateKeypair makes a new pair from 32 bytes of rand.
func GenerateKeypair(name string, rand io.Reader) (Keypair, error) {
	if err := checkKeyName(name); err != nil {
		return Keypair{}, fmt.Errorf("generate keypair: %w", err)
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return Keypair{}, fmt.Errorf("generate keypair: read randomness: %w", err)
	}
	return newKeypair(name, ed25519.NewKeyFromSeed(seed)), nil
}

// ParseKeypair reads "name:base64" of 64 bytes, seed and public key, as nix key generate-secret
// writes it. Halves that are no pair are refused: their signatures would never verify. The error
// holds nothing of the text.
func ParseKeypair(s string) (Keypair, error) {
	name, raw, err := splitKey(s, ed25519.PrivateKeySize)
	if err != nil {
		return Keypair{}, fmt.Errorf("keypair: %w", err)
	}
	key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if !bytes.Equal(key, raw) {
		return Keypair{}, errors.New("keypair: the public half does not belong to the secret half")
	}
	return newKeypair(name, key), nil
}

func newKeypair(name string, key ed25519.PrivateKey) Keypair {
	return Keypair{func() secretKey { return secretKey{name, key} }}
}

// Secret is the text that ParseKeypair reads. It must not reach a log.
func (k Keypair) Secret() string {
	if k.IsZero() {
		return ""
	}
	secret := k.secret()
	return secret.name + ":" + base64.StdEncoding.EncodeToString(secret.key)
}

// Public is the key that verifies what k signs.
func (k Keypair) Public() PublicKey {
	if k.IsZero() {
		return PublicKey{}
	}
	secret := k.secret()
	return PublicKey{Name: secret.name, Key: secret.key.Public().(ed25519.PublicKey)}
}

// Sign is the fingerprint's signature, "name:base64", or "" of the zero Keypair.
func (k Keypair) Sign(fingerprint string) string {
	if k.IsZero() {
		return ""
	}
	secret := k.secret()
	return secret.name + ":" + base64.StdEncoding.EncodeToString(ed25519.Sign(secret.key, []byte(fingerprint)))
}

// IsZero reports whether k is the zero value.
func (k Keypair) IsZero() bool { return k.secret == nil }

const redacted = "[redacted]"

// String is "[redacted]".
func (k Keypair) String() string { return redacted }

// Format prints [redacted] for every verb.
func (k Keypair) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is "[redacted]".
func (k Keypair) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is an error: JSON of a Keypair would either leak it or, redacted, lose it.
func (k Keypair) MarshalText() ([]byte, error) {
	return nil, errors.New("a keypair has no text form but Secret")
}

// splitKey reads "name:base64 of exactly n bytes". Its errors tell nothing of the payload.
func splitKey(s string, n int) (name string, payload []byte, err error) {
	name, text, ok := strings.Cut(s, ":")
	if !ok {
		return "", nil, errors.New("no colon between its name and its base64")
	}
	if err := checkKeyName(name); err != nil {
		return "", nil, err
	}
	// Go's decoder passes over line ends, which would be lines of a narinfo.
	if len(text) != base64.StdEncoding.EncodedLen(n) || strings.ContainsAny(text, "\r\n") {
		return "", nil, fmt.Errorf("its payload is not the base64 of %d bytes", n)
	}
	payload, err = base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(payload) != n {
		return "", nil, fmt.Errorf("its payload is not the base64 of %d bytes", n)
	}
	return name, payload, nil
}

func checkKeyName(name string) error {
	switch {
	case name == "":
		return errors.New("the key's name is empty")
	case len(name) > maxKeyNameLen:
		return fmt.Errorf("the key's name is longer than %d bytes", maxKeyNameLen)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, notKeyNameRune):
		return errors.New("the key's name has a colon, white space or a control character")
	}
	return nil
}

func notKeyNameRune(r rune) bool {
	return r == ':' || unicode.IsSpace(r) || !unicode.IsGraphic(r)
}
