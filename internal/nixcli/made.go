package nixcli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// Requisites are the derivations that building drv may build: itself, and all that it needs.
func (n *Nix) Requisites(ctx context.Context, drv nix.StorePath) ([]nix.StorePath, error) {
	paths, err := n.storePaths(ctx, []string{"--query", "--requisites"}, []nix.StorePath{drv})
	if err != nil {
		return nil, fmt.Errorf("read what %s needs: %w", drv, err)
	}
	return slices.DeleteFunc(paths, func(p nix.StorePath) bool { return !strings.HasSuffix(p.Base(), ".drv") }), nil
}

// Outputs are the paths that derivations make, whether or not they are there. One that is known only once it is built is
// an error.
func (n *Nix) Outputs(ctx context.Context, drvs []nix.StorePath) ([]nix.StorePath, error) {
	paths, err := n.storePaths(ctx, []string{"--query", "--outputs"}, drvs)
	if err != nil {
		return nil, fmt.Errorf("read outputs of derivations: %w", err)
	}
	return paths, nil
}

// Valid are those of the paths that the store has whole. Being there in the file system is not enough: a build may be
// writing them.
func (n *Nix) Valid(ctx context.Context, paths []nix.StorePath) ([]nix.StorePath, error) {
	invalid, err := n.storePaths(ctx, []string{"--check-validity", "--print-invalid"}, paths)
	if err != nil {
		return nil, fmt.Errorf("check store paths: %w", err)
	}
	not := map[nix.StorePath]bool{}
	for _, p := range invalid {
		not[p] = true
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p nix.StorePath) bool { return not[p] }), nil
}

// Root keeps valid paths from being collected: it makes symlinks link, link-2, link-3 and so on. Whoever names them removes
// them.
func (n *Nix) Root(ctx context.Context, link string, paths []nix.StorePath) error {
	for i, some := range slices.Collect(slices.Chunk(paths, maxPathsPerRun)) {
		at := link
		if i > 0 {
			at = fmt.Sprintf("%s-more%d", link, i)
		}
		args := []string{"--realise", "--add-root", at}
		for _, p := range some {
			args = append(args, p.String())
		}
		if _, err := n.run(ctx, command{store: true, args: args}); err != nil {
			return fmt.Errorf("make roots of store paths: %w", err)
		}
	}
	return nil
}

// storePaths runs nix-store on paths, and reads the paths that it prints.
func (n *Nix) storePaths(ctx context.Context, args []string, paths []nix.StorePath) ([]nix.StorePath, error) {
	var all []nix.StorePath
	for some := range slices.Chunk(paths, maxPathsPerRun) {
		args := slices.Clone(args)
		for _, p := range some {
			args = append(args, p.String())
		}
		out, err := n.run(ctx, command{store: true, args: args})
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(out)) {
			p, err := nix.ParseStorePath(strings.TrimSpace(line))
			if err != nil {
				return nil, fmt.Errorf("understand nix-store %s: %w", args[1], err)
			}
			all = append(all, p)
		}
	}
	return all, nil
}
