package nix

import (
	"errors"
	"fmt"
)

// PathHashAlphabet is Nix's base-32 alphabet: digits and lower-case letters without e, o, u and t.
const PathHashAlphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// notBase32 marks the bytes outside the alphabet in base32Value.
const notBase32 = 0xff

var base32Value = func() (t [256]byte) {
	for i := range t {
		t[i] = notBase32
	}
	for i := range len(PathHashAlphabet) {
		t[PathHashAlphabet[i]] = byte(i)
	}
	return t
}()

// EncodeBase32 writes b in Nix's base-32: least significant digit last, no padding,
// ⌈8·len(b)/5⌉ characters.
func EncodeBase32(b []byte) string {
	n := base32Len(len(b))
	out := make([]byte, n)
	for i := range n {
		bit := (n - 1 - i) * 5
		j, shift := bit/8, bit%8
		v := uint16(b[j])
		if j+1 < len(b) {
			v |= uint16(b[j+1]) << 8
		}
		out[i] = PathHashAlphabet[v>>shift&0x1f]
	}
	return string(out)
}

// DecodeBase32 reads what EncodeBase32 wrote. Each value has one spelling: a length that no
// value has, and bits beyond the last byte, are errors.
func DecodeBase32(s string) ([]byte, error) {
	out := make([]byte, len(s)*5/8)
	if base32Len(len(out)) != len(s) {
		return nil, fmt.Errorf("base-32 text of %d characters: no value has that length", len(s))
	}
	for i := range len(s) {
		v := base32Value[s[i]]
		if v == notBase32 {
			return nil, fmt.Errorf("base-32 text has the character %q", s[i])
		}
		bit := (len(s) - 1 - i) * 5
		j, wide := bit/8, uint16(v)<<(bit%8)
		out[j] |= byte(wide)
		switch rest := byte(wide >> 8); {
		case j+1 < len(out):
			out[j+1] |= rest
		case rest != 0:
			return nil, errors.New("base-32 text has bits beyond its last byte")
		}
	}
	return out, nil
}

func base32Len(bytes int) int { return (bytes*8 + 4) / 5 }
