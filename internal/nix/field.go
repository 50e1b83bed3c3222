package nix

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFieldLen bounds a narinfo value that comes from outside; the longest real ones, content
// addresses with a SHA-512, have some 150 bytes.
const maxFieldLen = 1024

// ValidField says what keeps s from being the value of a narinfo field, if anything: a line end in it would
// forge the lines that follow. The empty string is valid, and means that the field is absent.
func ValidField(s string) error {
	switch {
	case len(s) > maxFieldLen:
		return fmt.Errorf("longer than %d bytes", maxFieldLen)
	case !utf8.ValidString(s):
		return errors.New("not UTF-8")
	case hasLineBreaker(s):
		return errors.New("has a control character")
	case strings.TrimSpace(s) != s:
		return errors.New("begins or ends with white space")
	}
	return nil
}

// ValidDeriver says what is wrong with a deriver: it is a store path or the base name of one, or
// Nix's "unknown-deriver", or "".
func ValidDeriver(s string) error {
	if s == "" || s == unknownDeriver || DeriverName(s) != "" {
		return nil
	}
	return fmt.Errorf("deriver %s: not a store path", quote(s))
}

// ValidSystem says what is wrong with a system such as x86_64-linux. The empty one is valid, and absent.
func ValidSystem(s string) error {
	if len(s) > 64 || strings.ContainsFunc(s, notSystemRune) {
		return fmt.Errorf("system %s: not of the form x86_64-linux", quote(s))
	}
	return nil
}

// ValidSig says what is wrong with a signature, "name:base64 of 64 bytes".
func ValidSig(s string) error {
	if _, _, err := splitKey(s, 64); err != nil {
		return fmt.Errorf("signature %s: %w", quote(s), err)
	}
	return nil
}

// ValidCA says what is wrong with a content address: text:<hash>, fixed:<hash>, fixed:r:<hash> or
// fixed:git:<hash>, the hash with its algorithm. The empty one is valid, and absent.
func ValidCA(s string) error {
	if s == "" {
		return nil
	}
	if err := ValidField(s); err != nil {
		return fmt.Errorf("content address %s: %w", quote(s), err)
	}
	method, rest, _ := strings.Cut(s, ":")
	if method == "fixed" {
		if how, after, ok := strings.Cut(rest, ":"); ok && (how == "r" || how == "git") {
			rest = after
		}
	}
	algorithm, digest, _ := strings.Cut(rest, ":")
	if method != "fixed" && method != "text" || !isHashAlgorithm(algorithm) || digest == "" ||
		strings.ContainsFunc(digest, notDigestRune) {
		return fmt.Errorf("content address %s: not text:<hash> or fixed:[r:|git:]<hash>", quote(s))
	}
	return nil
}

const unknownDeriver = "unknown-deriver"

// DeriverName is the base name of a deriver given as store path or base name: the only form that Nix
// reads in a narinfo. It is "" for what is neither.
func DeriverName(s string) string {
	base := s[strings.LastIndexByte(s, '/')+1:]
	if base == s {
		s = StoreDir + "/" + base
	}
	if p, err := ParseStorePath(s); err == nil {
		return p.Base()
	}
	return ""
}

func hasLineBreaker(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

func notSystemRune(r rune) bool { return r > 0x7f || r == '?' || r == '=' || !isNameByte(byte(r)) }

func notDigestRune(r rune) bool {
	return r > 0x7f || !(isNameByte(byte(r)) || r == '/') || r == '?' || r == '.' || r == '_'
}

func isHashAlgorithm(s string) bool {
	switch s {
	case "md5", "sha1", "sha256", "sha512", "blake3":
		return true
	}
	return false
}
