package nix

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Hash is a SHA-256. The zero value stands for "none".
type Hash [32]byte

const (
	hashHexLen    = 64
	hashBase32Len = 52
	hashBase64Len = 44
)

// ParseHash reads "sha256:" followed by 64 hexadecimal digits or 52 of Nix's base-32 (the length
// decides), or an SRI "sha256-" followed by padded base64.
func ParseHash(s string) (Hash, error) {
	if sri, ok := strings.CutPrefix(s, "sha256-"); ok {
		// Go's decoder passes over line ends, which would make two spellings of one hash.
		if len(sri) != hashBase64Len || strings.ContainsAny(sri, "\r\n") {
			return Hash{}, fmt.Errorf("hash %s: not %d characters of base64", quote(s), hashBase64Len)
		}
		b, err := base64.StdEncoding.Strict().DecodeString(sri)
		return hashOf(s, b, err)
	}
	digits, ok := strings.CutPrefix(s, "sha256:")
	switch {
	case !ok:
		return Hash{}, fmt.Errorf("hash %s: does not begin with sha256: or sha256-", quote(s))
	case len(digits) == hashHexLen:
		b, err := hex.DecodeString(digits)
		return hashOf(s, b, err)
	case len(digits) == hashBase32Len:
		b, err := DecodeBase32(digits)
		return hashOf(s, b, err)
	}
	return Hash{}, fmt.Errorf("hash %s: neither 64 hexadecimal nor 52 base-32 digits", quote(s))
}

func hashOf(s string, b []byte, err error) (Hash, error) {
	if err != nil {
		return Hash{}, fmt.Errorf("hash %s: %w", quote(s), err)
	}
	if len(b) != len(Hash{}) {
		return Hash{}, fmt.Errorf("hash %s: %d bytes in place of 32", quote(s), len(b))
	}
	return Hash(b), nil
}

// Hex is the hash as 64 lower-case hexadecimal digits, without a prefix.
func (h Hash) Hex() string { return hex.EncodeToString(h[:]) }

// Base32 is the hash as 52 digits of Nix's base-32, without a prefix.
func (h Hash) Base32() string { return EncodeBase32(h[:]) }

// String is "sha256:" and the hexadecimal digits, the form this project writes everywhere but
// in a fingerprint.
func (h Hash) String() string { return "sha256:" + h.Hex() }

// IsZero reports whether h is the zero value, "none".
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText is String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is ParseHash.
func (h *Hash) UnmarshalText(b []byte) error {
	parsed, err := ParseHash(string(b))
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// quote shows a piece of outside text in an error: escaped, and no longer than a line.
func quote(s string) string {
	const limit = 120
	if len(s) > limit {
		return fmt.Sprintf("%q…", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}
