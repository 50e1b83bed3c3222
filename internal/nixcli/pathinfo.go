package nixcli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// PathInfo is what the store knows of a valid path.
type PathInfo struct {
	Path       nix.StorePath
	NarHash    nix.Hash
	NarSize    uint64          // bytes
	References []nix.StorePath // sorted; Path itself may be one
	Deriver    string          // full path of a .drv, which need not exist; "" if not known
	CA         string          // content address, "fixed:r:sha256:…"; "" if none
	Sigs       []string        // "name:base64"
}

// maxPathsPerRun keeps the arguments of one process well below what the system takes.
const maxPathsPerRun = 4000

// Closure is what the store knows of paths and of all that they refer to, directly or not: each path once,
// dependencies before what depends on them, always in the same order.
func (n *Nix) Closure(ctx context.Context, paths []nix.StorePath) ([]PathInfo, error) {
	infos, err := n.query(ctx, paths, "--recursive")
	if err != nil {
		return nil, fmt.Errorf("read closure: %w", err)
	}
	for _, info := range infos {
		for _, ref := range info.References {
			if _, ok := infos[ref]; !ok {
				return nil, fmt.Errorf("read closure: the store has no %s, to which %s refers", ref, info.Path)
			}
		}
	}
	return dependenciesFirst(infos), nil
}

// Infos is what the store knows of paths themselves: each once, dependencies first.
func (n *Nix) Infos(ctx context.Context, paths []nix.StorePath) ([]PathInfo, error) {
	infos, err := n.query(ctx, paths)
	if err != nil {
		return nil, fmt.Errorf("read path information: %w", err)
	}
	return dependenciesFirst(infos), nil
}

// query runs path-info: once, unless there are thousands of paths or derivations among them.
func (n *Nix) query(ctx context.Context, paths []nix.StorePath, options ...string) (map[nix.StorePath]PathInfo, error) {
	infos := make(map[nix.StorePath]PathInfo)
	drvs, others := split(paths)
	// Old versions take a .drv for what it builds unless told otherwise.
	for _, group := range []struct {
		paths   []string
		options []string
	}{{others, options}, {drvs, append([]string{"--derivation"}, options...)}} {
		for batch := range slices.Chunk(group.paths, maxPathsPerRun) {
			if err := n.pathInfo(ctx, infos, batch, group.options); err != nil {
				return nil, err
			}
		}
	}
	for _, path := range paths {
		if _, ok := infos[path]; !ok {
			return nil, fmt.Errorf("the store has no valid path %s", path)
		}
	}
	return infos, nil
}

func split(paths []nix.StorePath) (drvs, others []string) {
	for _, path := range paths {
		if strings.HasSuffix(path.Base(), ".drv") {
			drvs = append(drvs, path.String())
		} else {
			others = append(others, path.String())
		}
	}
	return drvs, others
}

func (n *Nix) pathInfo(ctx context.Context, infos map[nix.StorePath]PathInfo, paths, options []string) error {
	// Offline: nix would ask each substituter for a path that is not valid, and try again for seconds.
	args := append([]string{"path-info", "--json", "--offline"}, options...)
	out, err := n.run(ctx, command{args: args, last: paths})
	// The newest versions warn that --json alone will become an error; the older ones have no --json-format.
	// So it comes second: all versions that there are answer the first time.
	if failed, ok := errors.AsType[*CommandError](err); ok && failed.mentions("--json-format") {
		out, err = n.run(ctx, command{args: append(args, "--json-format", "1"), last: paths})
	}
	if err != nil {
		return err
	}
	return parsePathInfos(out, infos)
}

func (e *CommandError) mentions(words string) bool {
	return slices.ContainsFunc(lastError(e.Stderr), func(line string) bool { return strings.Contains(line, words) })
}

// dependenciesFirst orders paths so that each comes after those it refers to; where that leaves a choice, by name.
func dependenciesFirst(infos map[nix.StorePath]PathInfo) []PathInfo {
	roots := make([]nix.StorePath, 0, len(infos))
	for path := range infos {
		roots = append(roots, path)
	}
	slices.SortFunc(roots, comparePaths)
	ordered := make([]PathInfo, 0, len(infos))
	seen := make(map[nix.StorePath]bool, len(infos))
	var visit func(path nix.StorePath)
	visit = func(path nix.StorePath) {
		info, known := infos[path]
		if !known || seen[path] {
			return
		}
		seen[path] = true // before its references: a path may refer to itself
		for _, ref := range info.References {
			visit(ref)
		}
		ordered = append(ordered, info)
	}
	for _, path := range roots {
		visit(path)
	}
	return ordered
}

func comparePaths(a, b nix.StorePath) int { return strings.Compare(a.String(), b.String()) }
