package action

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/nixcli"
)

// Attrs choose outputs of a flake beside its hosts: patterns of attribute paths, one a line, the last that matches decides.
//
//	packages.*                   of the machine's system, as packages.x86_64-linux.* is of that one, and packages.*.* of all
//	darwinConfigurations.*       or darwinConfigurations alone
//	devShells                    every one of the machine's system
//	hydraJobs.tests.login        a path to a derivation
//	!packages.*.huge
type Attrs struct{ lines []attrLine }

type attrLine struct {
	text string
	out  bool
	path nixcli.Attr // each name a glob, but for the first
}

// The outputs of which people mean the members when they name them alone, with systems in between or not.
var (
	perSystem = []string{"packages", "devShells", "checks", "legacyPackages", "bundlers"}
	plainSets = []string{"nixosConfigurations", "darwinConfigurations", "homeConfigurations"}
)

// ParseAttrs reads the lines.
func ParseAttrs(text string) (Attrs, error) {
	var a Attrs
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		rest, out := strings.CutPrefix(line, "!")
		at, err := nixcli.ParseAttr(strings.TrimSpace(rest))
		if err != nil {
			return Attrs{}, err
		}
		if isGlob(at[0]) {
			return Attrs{}, fmt.Errorf("%q begins with a pattern; the first name is that of an output, such as packages", line)
		}
		if i := slices.IndexFunc(at[1:], func(glob string) bool { return !validGlob(glob) }); i >= 0 {
			return Attrs{}, fmt.Errorf("%q: %q is not a pattern", line, at[i+1])
		}
		a.lines = append(a.lines, attrLine{line, out, at})
	}
	return a, nil
}

// full is a line's path with what may be left out: the system, and the star behind the name of a set.
func (l attrLine) full(system string) nixcli.Attr {
	at := slices.Clone(l.path)
	switch {
	case len(at) == 1 && at[0] == "formatter":
		return append(at, system)
	case len(at) == 1 && slices.Contains(plainSets, at[0]):
		return append(at, "*")
	case len(at) == 1 && slices.Contains(perSystem, at[0]):
		return append(at, system, "*")
	case len(at) == 2 && slices.Contains(perSystem, at[0]):
		return nixcli.Attr{at[0], system, at[1]}
	}
	return at
}

func (l attrLine) matches(at nixcli.Attr, system string) bool {
	return slices.EqualFunc(l.full(system), at, match)
}

// Expand finds what of the flake is meant, in the order of the lines. A line that means nothing is an error: it is
// mistyped.
func (a Attrs) Expand(ctx context.Context, n Nix, flake, system string) ([]nixcli.Attr, error) {
	w := walk{nix: n, flake: flake, names: map[string][]string{}}
	var all []nixcli.Attr
	for _, line := range a.lines {
		if line.out {
			continue
		}
		before := len(w.found)
		if err := w.down(ctx, nil, line.full(system)); err != nil {
			return nil, fmt.Errorf("input attrs: %s: %w", line.text, err)
		}
		if len(w.found) == before {
			return nil, fmt.Errorf("input attrs: the flake has nothing that %s means", line.text)
		}
	}
	for _, at := range w.found {
		in := false
		for _, line := range a.lines {
			if line.matches(at, system) {
				in = !line.out
			}
		}
		if in && !slices.ContainsFunc(all, func(b nixcli.Attr) bool { return slices.Equal(at, b) }) {
			all = append(all, at)
		}
	}
	return all, nil
}

// walk goes down a flake's outputs along patterns.
type walk struct {
	nix   Nix
	flake string
	names map[string][]string // by path; asked for once
	found []nixcli.Attr
}

// foundMax bounds what a pattern may mean: legacyPackages.* would be all of nixpkgs.
const foundMax = 2000

func (w *walk) down(ctx context.Context, at, globs nixcli.Attr) error {
	if len(globs) == 0 {
		w.found = append(w.found, at)
		if len(w.found) > foundMax {
			return fmt.Errorf("more than %d outputs", foundMax)
		}
		return nil
	}
	if !isGlob(globs[0]) {
		return w.down(ctx, append(slices.Clone(at), unescape(globs[0])), globs[1:])
	}
	names, err := w.list(ctx, at)
	if err != nil {
		return err
	}
	for _, name := range names {
		if match(globs[0], name) {
			if err := w.down(ctx, append(slices.Clone(at), name), globs[1:]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) list(ctx context.Context, at nixcli.Attr) ([]string, error) {
	if names, ok := w.names[at.String()]; ok {
		return names, nil
	}
	names, err := w.nix.Names(ctx, w.flake, at)
	if err != nil && !errors.Is(err, nixcli.ErrNoOutput) { // nothing there is nothing that matches
		return nil, err
	}
	w.names[at.String()] = names
	return names, nil
}

// unescape is the name that a glob without stars means.
func unescape(glob string) string {
	var b strings.Builder
	for i := 0; i < len(glob); i++ {
		if glob[i] == '\\' && i+1 < len(glob) {
			i++
		}
		b.WriteByte(glob[i])
	}
	return b.String()
}
