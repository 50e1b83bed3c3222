package action

import (
	"context"
	"errors"
	"runtime"

	"github.com/org/attic-action/internal/nixcli"
	"golang.org/x/sync/errgroup"
)

// Discover evaluates every nixosConfigurations.* of a flake and builds nothing. A host that does not evaluate has its error in Err;
// the others are not touched by it. The order is the flake's, which is the alphabet's. The error is nixcli.ErrNoHosts
// for a flake without hosts.
func Discover(ctx context.Context, n Nix, flake string) ([]nixcli.Host, error) {
	names, err := n.Hosts(ctx, flake)
	if err != nil {
		return nil, err
	}
	return evaluate(ctx, n, flake, names)
}

// evaluate evaluates hosts side by side, each in a process of its own: one host that throws ends a joint evaluation.
func evaluate(ctx context.Context, n Nix, flake string, names []string) ([]nixcli.Host, error) {
	hosts := make([]nixcli.Host, len(names))
	var g errgroup.Group
	g.SetLimit(min(4, max(1, runtime.NumCPU()/2))) // an evaluation of NixOS takes a core and up to a gigabyte
	for i, name := range names {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			h, err := n.EvalHost(ctx, flake, name)
			h.Name = name
			if err != nil { // the same as h.Err, if that is set
				h.Err = err
			}
			if h.Err == nil && (h.DrvPath == "" || h.System == "") {
				h.Err = errors.New("it evaluates to no derivation")
			}
			hosts[i] = h
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // what failed, failed because it was stopped
		return nil, context.Cause(ctx)
	}
	return hosts, nil
}
