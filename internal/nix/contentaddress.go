package nix

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Method is how the contents that a content address hashes are made out of a store object.
type Method string

// The methods of Nix, as they stand in a content address.
const (
	Text      Method = "text"      // text:sha256:…, the bytes of one file, which may have references
	Flat      Method = "fixed"     // fixed:sha256:…, the bytes of one file
	Recursive Method = "fixed:r"   // fixed:r:sha256:…, the NAR
	Git       Method = "fixed:git" // fixed:git:sha1:…, Git's tree or blob
)

// ContentAddress is a parsed CA field. Clients trust a path that has one without any signature, if
// its store path follows from it; so a server should not pass on one that does not.
type ContentAddress struct {
	Method    Method
	Algorithm string // md5, sha1, sha256, sha512, blake3
	Digest    []byte
}

var digestLen = map[string]int{"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64, "blake3": 32}

// ParseContentAddress reads a content address, its digest in base 16, 32 or 64.
func ParseContentAddress(s string) (ContentAddress, error) {
	var c ContentAddress
	if err := ValidCA(s); err != nil {
		return c, err
	}
	if s == "" {
		return c, errors.New("content address: empty")
	}
	parts := strings.Split(s, ":")
	n := len(parts)
	if n < 3 {
		return c, fmt.Errorf("content address %s: no digest", quote(s))
	}
	c.Method, c.Algorithm = Method(strings.Join(parts[:n-2], ":")), parts[n-2]
	switch {
	case c.Method == Text && c.Algorithm != "sha256":
		return c, fmt.Errorf("content address %s: text is hashed with sha256 only", quote(s))
	case c.Method == Git && c.Algorithm != "sha1" && c.Algorithm != "sha256":
		return c, fmt.Errorf("content address %s: Git has no such hash", quote(s))
	}
	var err error
	if c.Digest, err = decodeDigest(parts[n-1], digestLen[c.Algorithm]); err != nil {
		return c, fmt.Errorf("content address %s: %w", quote(s), err)
	}
	return c, nil
}

// decodeDigest reads a digest of size bytes; its length tells the base.
func decodeDigest(s string, size int) (b []byte, err error) {
	switch len(s) {
	case hex.EncodedLen(size):
		b, err = hex.DecodeString(s)
	case (size*8-1)/5 + 1:
		b, err = DecodeBase32(s)
	case base64.StdEncoding.EncodedLen(size):
		b, err = base64.StdEncoding.Strict().DecodeString(s)
	default:
		return nil, errors.New("its digest has the wrong length")
	}
	if err == nil && len(b) != size {
		err = errors.New("its digest has the wrong length")
	}
	return b, err
}

// StorePath derives the store path in dir that an object of this name, content address and references
// (base names, its own left out) has; self says that it refers to itself. References that the
// method cannot have are an error.
func (c ContentAddress) StorePath(dir, name string, refs []string, self bool) (StorePath, error) {
	kind, inner := "output:out", sha256.Sum256([]byte(c.fixedOutput()))
	switch {
	case c.Method == Text && self:
		return StorePath{}, errors.New("a text refers to itself")
	case c.Method == Text:
		kind, inner = withReferences("text", dir, refs, false), [32]byte(c.Digest)
	case c.Method == Recursive && c.Algorithm == "sha256":
		kind, inner = withReferences("source", dir, refs, self), [32]byte(c.Digest)
	case len(refs) > 0 || self:
		return StorePath{}, fmt.Errorf("a path addressed by %s:%s has references", c.Method, c.Algorithm)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s:sha256:%x:%s:%s", kind, inner, dir, name))
	return ParseBaseName(dir, EncodeBase32(fold(sum[:], 20))+"-"+name)
}

// fixedOutput is what is hashed into the path of a fixed output that is not a SHA-256 of a NAR.
func (c ContentAddress) fixedOutput() string {
	prefix := map[Method]string{Recursive: "r:", Git: "git:"}[c.Method]
	return fmt.Sprintf("fixed:out:%s%s:%x:", prefix, c.Algorithm, c.Digest)
}

func withReferences(kind, dir string, refs []string, self bool) string {
	refs = slices.Clone(refs)
	slices.Sort(refs)
	for _, ref := range slices.Compact(refs) {
		kind += ":" + dir + "/" + ref
	}
	if self {
		kind += ":self"
	}
	return kind
}

// fold shortens a hash as Nix does, each byte XORed onto the one it wraps around to.
func fold(sum []byte, size int) []byte {
	out := make([]byte, size)
	for i, b := range sum {
		out[i%size] ^= b
	}
	return out
}
