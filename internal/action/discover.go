package action

import (
	"context"
	"errors"
	"runtime"

	"github.com/org/attic-action/internal/budget"
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
	attrs := make([]nixcli.Attr, len(names))
	for i, name := range names {
		attrs[i] = nixcli.HostAttr(name)
	}
	return evaluate(ctx, n, flake, attrs, 0, func(nixcli.Host) {})
}

// evaluate evaluates outputs side by side, each in a process of its own: one that throws ends a joint evaluation. done is
// told of each, from any goroutine.
func evaluate(ctx context.Context, n Nix, flake string, attrs []nixcli.Attr, jobs int, done func(nixcli.Host)) ([]nixcli.Host, error) {
	hosts := make([]nixcli.Host, len(attrs))
	var g errgroup.Group
	if jobs == 0 {
		memory, _ := budget.Machine()
		jobs = evalJobs(runtime.NumCPU(), memory)
	}
	g.SetLimit(jobs)
	for i, at := range attrs {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			h, err := n.Eval(ctx, flake, at)
			h.Name, h.Attr = at.Name(), at
			if err != nil { // the same as h.Err, if that is set
				h.Err = err
			}
			if h.Err == nil && (h.DrvPath == "" || h.System == "") {
				h.Err = errors.New("it evaluates to no derivation")
			}
			hosts[i] = h
			if ctx.Err() == nil {
				done(h)
			}
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

// evalJobs is how many evaluations go side by side: one of NixOS takes a core and, at its peak, one to two gigabytes.
func evalJobs(cpus int, memory int64) int {
	const each = 2 << 30
	return max(1, min(cpus, int(memory/each), 8))
}
