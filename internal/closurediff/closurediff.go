// Package closurediff says what changed between two closures, package by package, as `nix store diff-closures` does. It
// is pure: names and sizes in, changes out.
//
//	3f8s…-openssl-3.0.13-bin ─► openssl   3.0.13   1.2 MB
//	                            name      version  size of the NAR; outputs of a package are summed up
package closurediff

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// Closure is what a closure consists of: base names of store paths, and bytes of their NARs.
type Closure map[string]uint64

// Size is the size of all of it in bytes.
func (c Closure) Size() int64 {
	var sum int64
	for _, size := range c {
		sum = add(sum, size)
	}
	return sum
}

// Change is a package that is not the same in both.
type Change struct {
	Name          string
	Before, After []string // versions that only the one has, or the other; "" is a path without a version
	Kind          Kind
	Size          int64 // by how many bytes it grew, all versions and outputs together
}

// Kind is in which of the closures a package is.
type Kind int

// The kinds.
const (
	Changed Kind = iota // in both
	Added
	Removed
)

// Diff is what changed between two closures.
type Diff struct {
	Changes []Change // by name
	Rebuilt int      // packages of the same versions and about the same size whose paths are others
	Size    int64    // by how many bytes the closure grew
}

// Same reports that nothing changed, not even a path.
func (d Diff) Same() bool { return len(d.Changes) == 0 && d.Rebuilt == 0 }

// aboutSame is the change of size, in bytes, that is not worth a line, as in Nix.
const aboutSame = 8 << 10

// Compare finds what changed on the way from before to after.
func Compare(before, after Closure) Diff {
	old, now := group(before), group(after)
	names := maps.Clone(old)
	maps.Copy(names, now)
	d := Diff{Size: after.Size() - before.Size()}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, b := old[name], now[name]
		c := Change{Name: name, Before: less(a.versions, b.versions), After: less(b.versions, a.versions), Size: b.size - a.size}
		switch {
		case len(a.paths) == 0:
			c.Kind = Added
		case len(b.paths) == 0:
			c.Kind = Removed
		case len(c.Before)+len(c.After) > 0 || c.Size >= aboutSame || c.Size <= -aboutSame:
		default:
			if !maps.Equal(a.paths, b.paths) {
				d.Rebuilt++
			}
			continue
		}
		d.Changes = append(d.Changes, c)
	}
	return d
}

// packaged is all that a closure has of one package.
type packaged struct {
	versions, paths map[string]bool
	size            int64
}

func group(c Closure) map[string]packaged {
	groups := map[string]packaged{}
	for base, size := range c {
		name, version := Split(base)
		p, ok := groups[name]
		if !ok {
			p.versions, p.paths = map[string]bool{}, map[string]bool{}
		}
		p.versions[version], p.paths[base], p.size = true, true, add(p.size, size)
		groups[name] = p
	}
	return groups
}

// less lists what a has and b has not.
func less(a, b map[string]bool) []string {
	var only []string
	for v := range a {
		if !b[v] {
			only = append(only, v)
		}
	}
	slices.Sort(only)
	return only
}

// add adds a size that somebody claims: a sum that is too large is the largest.
func add(sum int64, size uint64) int64 {
	if size > uint64(math.MaxInt64-sum) {
		return math.MaxInt64
	}
	return sum + int64(size)
}

// outputs are what Nixpkgs calls the parts of a package.
var outputs = []string{"bin", "data", "debug", "dev", "devdoc", "devman", "dist", "doc", "info", "lib", "lib32", "lib64", "libgcc", "man", "out", "static"}

const hashLen = 32

// Split returns the package and the version of a store path's base name. The version begins, as in Nix, behind the first
// dash that no letter follows; an output's name behind a version is left out, for it is the same package.
func Split(base string) (name, version string) {
	if len(base) > hashLen && base[hashLen] == '-' {
		base = base[hashLen+1:]
	}
	for i := 0; i+1 < len(base); i++ {
		if c := base[i+1] | 0x20; base[i] != '-' || 'a' <= c && c <= 'z' {
			continue
		}
		name, version = base[:i], base[i+1:]
		if cut := strings.LastIndexByte(version, '-'); cut > 0 && slices.Contains(outputs, version[cut+1:]) {
			version = version[:cut]
		}
		return name, version
	}
	return base, ""
}
