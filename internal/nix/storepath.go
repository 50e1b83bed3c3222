// Package nix holds Nix's own values: store paths, hashes, signing keys and narinfo files. Each is
// parsed at the edge into a type that cannot be wrong, so that nothing behind it checks again.
//
//	/nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10
//	└─ Dir ──┘ └──────────── Hash ────────────┘ └─ Name ─┘
//	           └────────────────── Base ─────────────────┘
//
// What a cache signs is the fingerprint of a path, not the text of its narinfo:
//
//	1;<store path>;sha256:<NAR hash, base 32>;<NAR size>;<references, full, sorted, by commas>
package nix

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// StoreDir is where nearly every store is.
	StoreDir = "/nix/store"
	// PathHashLen is the length of the hash in a store path.
	PathHashLen = 32

	maxNameLen = 211  // Nix's limit: hash, dash and name fit a file name with ".lock" and the like behind it
	maxPathLen = 4096 // PATH_MAX
)

// ValidPathHash reports whether s is the hash part of a store path: 32 characters of
// PathHashAlphabet.
func ValidPathHash(s string) bool {
	if len(s) != PathHashLen {
		return false
	}
	for i := range len(s) {
		if base32Value[s[i]] == notBase32 {
			return false
		}
	}
	return true
}

// StorePath is the full path of a store object. It is a value: comparable, and fit for a map's key.
// One that was parsed is valid; the zero value is not and prints as "".
type StorePath struct{ path string }

// ParseStorePath reads a full store path. The store may be in any directory; a path inside a
// store object is an error.
func ParseStorePath(s string) (StorePath, error) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return StorePath{}, fmt.Errorf("store path %s: not an absolute path", quote(s))
	}
	return ParseBaseName(s[:i], s[i+1:])
}

// ParseBaseName reads the <hash>-<name> of a store object that is in the store dir.
func ParseBaseName(dir, base string) (StorePath, error) {
	if err := checkDir(dir); err != nil {
		return StorePath{}, fmt.Errorf("store path %s: %w", quote(dir+"/"+base), err)
	}
	if err := checkBase(base); err != nil {
		return StorePath{}, fmt.Errorf("store path %s: %w", quote(dir+"/"+base), err)
	}
	if len(dir)+1+len(base) > maxPathLen {
		return StorePath{}, fmt.Errorf("store path %s: longer than %d bytes", quote(dir+"/"+base), maxPathLen)
	}
	return StorePath{dir + "/" + base}, nil
}

// ValidStoreDir says what is wrong with a store directory, if anything.
func ValidStoreDir(dir string) error {
	if err := checkDir(dir); err != nil {
		return fmt.Errorf("store directory %s: %w", quote(dir), err)
	}
	return nil
}

func checkDir(dir string) error {
	switch {
	case !strings.HasPrefix(dir, "/"):
		return errors.New("not an absolute path")
	case dir == "/" || path.Clean(dir) != dir:
		return errors.New("the store's directory is not a clean path below /")
	case !utf8.ValidString(dir):
		return errors.New("not UTF-8")
	case strings.ContainsFunc(dir, unicode.IsControl):
		return errors.New("a control character") // a newline would add a line to a narinfo
	case strings.ContainsAny(dir, ";,"):
		return errors.New("the store's directory has a ; or a ,") // they separate the parts of a fingerprint
	}
	return nil
}

func checkBase(base string) error {
	if len(base) < PathHashLen+1 || base[PathHashLen] != '-' {
		return errors.New("no <32 character hash>-<name> at its end")
	}
	if !ValidPathHash(base[:PathHashLen]) {
		return errors.New("its hash has characters other than " + PathHashAlphabet)
	}
	return checkName(base[PathHashLen+1:])
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("its name is empty")
	case len(name) > maxNameLen:
		return fmt.Errorf("its name is longer than %d characters", maxNameLen)
	}
	// Nix refuses these since a name may also stand alone as a file name, or before a dash.
	if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
		return errors.New("its name is . or .., or begins with one and a dash")
	}
	for i := range len(name) {
		if !isNameByte(name[i]) {
			return fmt.Errorf("its name has the character %q", name[i])
		}
	}
	return nil
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("+-._?=", c) >= 0
}

// String is the full path.
func (p StorePath) String() string { return p.path }

// Dir is the store's directory, without a slash at its end.
func (p StorePath) Dir() string { return p.path[:max(0, strings.LastIndexByte(p.path, '/'))] }

// Base is <hash>-<name>.
func (p StorePath) Base() string { return p.path[strings.LastIndexByte(p.path, '/')+1:] }

// Hash is the 32 characters by which a cache knows the path.
func (p StorePath) Hash() string {
	base := p.Base()
	return base[:min(PathHashLen, len(base))]
}

// Name is what follows the hash and its dash.
func (p StorePath) Name() string {
	base := p.Base()
	return base[min(PathHashLen+1, len(base)):]
}

// IsZero reports whether p is the zero value, no path at all.
func (p StorePath) IsZero() bool { return p.path == "" }

// MarshalText is String.
func (p StorePath) MarshalText() ([]byte, error) { return []byte(p.path), nil }

// UnmarshalText is ParseStorePath.
func (p *StorePath) UnmarshalText(b []byte) error {
	parsed, err := ParseStorePath(string(b))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}
