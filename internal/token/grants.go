package token

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// maxName is the longest cache name and pattern, in bytes.
const maxName = 50

// ValidCacheName reports whether s can be the name of a cache: 1 to 50 ASCII
// letters, digits, '-', '_' and '+', the first a letter or digit.
func ValidCacheName(s string) bool { return inAlphabet(s, "") }

// ParsePattern checks a cache name pattern: a cache name in which '*', which
// stands for any run of characters, may stand too.
func ParsePattern(s string) error {
	if !inAlphabet(s, "*") {
		return fmt.Errorf("%q is not a cache name pattern: want 1 to %d letters, digits, '-', '_', '+' and '*', a letter, digit or '*' first", s, maxName)
	}
	return nil
}

func inAlphabet(s, also string) bool {
	if s == "" || len(s) > maxName || strings.IndexByte("-_+", s[0]) >= 0 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("-_+"+also, c) < 0 {
			return false
		}
	}
	return true
}

// match reports whether pattern matches all of name.
func match(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, head)
	if !ok {
		return false
	}
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		// The leftmost place leaves most to what follows.
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], after
	}
}

// Grants are permissions by cache name pattern, in the order of the token. The
// zero value grants nothing.
type Grants struct{ entries []grant }

type grant struct {
	pattern string
	perm    Perm
}

// For returns the permissions on a cache: those of the pattern that is the name
// itself, or else those of the first pattern that matches it. Nothing is
// merged, for that would grant more than Attic does.
func (g Grants) For(cache string) Perm {
	if i := g.index(cache); i >= 0 {
		return g.entries[i].perm
	}
	for _, e := range g.entries {
		if match(e.pattern, cache) {
			return e.perm
		}
	}
	return 0
}

// Add grants p on what pattern matches. A pattern that is there already gets p
// in addition, in its place.
func (g *Grants) Add(pattern string, p Perm) error {
	if err := ParsePattern(pattern); err != nil {
		return err
	}
	if i := g.index(pattern); i >= 0 {
		// Grants are copied by value: never write into a shared array.
		g.entries = slices.Clone(g.entries)
		g.entries[i].perm |= p
		return nil
	}
	g.entries = append(slices.Clip(g.entries), grant{pattern, p})
	return nil
}

// Len returns the number of patterns.
func (g Grants) Len() int { return len(g.entries) }

// All lists patterns and permissions in order.
func (g Grants) All() iter.Seq2[string, Perm] {
	return func(yield func(string, Perm) bool) {
		for _, e := range g.entries {
			if !yield(e.pattern, e.perm) {
				return
			}
		}
	}
}

func (g Grants) index(pattern string) int {
	return slices.IndexFunc(g.entries, func(e grant) bool { return e.pattern == pattern })
}

// Flags are the patterns that a make-token command line gives for each
// permission.
type Flags struct {
	Pull, Push, Delete, CreateCache, ConfigureCache, ConfigureCacheRetention, DestroyCache []string
}

// GrantsFromFlags returns grants in the order of Attic's make-token: by kind of
// flag, not by place on the command line.
func GrantsFromFlags(f Flags) (Grants, error) {
	var g Grants
	for i, patterns := range [][]string{f.Pull, f.Push, f.Delete, f.CreateCache,
		f.ConfigureCache, f.ConfigureCacheRetention, f.DestroyCache} {
		for _, pattern := range patterns {
			if err := g.Add(pattern, perms[i].perm); err != nil {
				return Grants{}, fmt.Errorf("--%s: %w", perms[i].name, err)
			}
		}
	}
	return g, nil
}
