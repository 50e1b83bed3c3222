package action

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/follow"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// job is one host on its way. Only one goroutine has it at a time. A row without a result is one that has to be built.
type job struct {
	host nixcli.Host
	row  *report.Host
	path nix.StorePath // of what is built, or will be

	upstream bool // it is on another cache, so there is nothing to pin here

	rest follow.Made // what nobody has pushed when the build ended

	// The pusher's, also while it is built.
	sent  Sent        // so far
	again follow.Made // whose push failed
	told  bool        // that one failed
}

// sort says of each host what is known before anything is built. Rows are in the order of hosts.
func (r *run) sort(ctx context.Context, hosts []nixcli.Host, settings nixcli.Settings) ([]*job, error) {
	r.report.Hosts = make([]report.Host, len(hosts))
	jobs := make([]*job, len(hosts))
	for i, h := range hosts {
		row := &r.report.Hosts[i]
		row.Name, row.System = h.Name, h.System
		jobs[i] = &job{host: h, row: row}
		jobs[i].path, _ = nix.ParseStorePath(h.OutPath) // none for a derivation whose output is known only once it is built
		switch {
		case h.Err != nil:
			r.fail(row, h.Err)
		case r.in.Matrix && len(r.in.Runners[h.System]) == 0:
			r.skip(row, fmt.Sprintf("no runner is known for %s; the input runners names one", h.System))
		case !r.in.Matrix && !slices.Contains(settings.Systems, h.System):
			r.skip(row, fmt.Sprintf("it is built on %s, and this machine builds for %s", h.System, named(settings.Systems)))
		}
	}
	return jobs, r.skipCached(ctx, jobs, settings)
}

func (a *Action) skip(row *report.Host, reason string) {
	row.Result, row.Reason = report.Skipped, reason
	a.Runner.Notice(row.Name+" skipped", row.Name+": "+reason)
}

// skipCached finds the hosts whose whole closure is on the cache, or upstream. That a toplevel is there would prove nothing
// about what it refers to, so the server is asked about closures. Nothing of them is built, nor downloaded.
func (r *run) skipCached(ctx context.Context, jobs []*job, settings nixcli.Settings) error {
	if !r.in.SkipCached || !r.asks {
		return nil
	}
	complete, err := r.cache.Complete(ctx, outputs(jobs))
	if err != nil {
		return err
	}
	for _, j := range waiting(jobs) {
		if complete[j.path] {
			r.cached(j, "the cache has all of ")
		}
	}
	others := newUpstream(r.Login.HTTP, settings, r.config.UpstreamCacheKeyNames, r.config.Substituter(r.in.Server, r.in.Cache)).has(ctx, outputs(jobs))
	for _, j := range waiting(jobs) {
		if others[j.path] {
			j.upstream = true
			j.row.Reason = "an upstream cache has it"
			r.cached(j, "an upstream cache has ")
		}
	}
	return nil
}

func (r *run) cached(j *job, because string) {
	j.row.Result, j.row.StorePath = report.Cached, j.path.String()
	r.Runner.Printf("%s: %s%s\n", j.row.Name, because, j.path)
}

// outputs are what the waiting jobs would build, as far as that is known.
func outputs(jobs []*job) []nix.StorePath {
	var paths []nix.StorePath
	for _, j := range waiting(jobs) {
		if j.path != (nix.StorePath{}) {
			paths = append(paths, j.path)
		}
	}
	return paths
}

// waiting are the jobs without a result.
func waiting(jobs []*job) []*job {
	var some []*job
	for _, j := range jobs {
		if j.row.Result == "" {
			some = append(some, j)
		}
	}
	return some
}

// named lists systems without the levels of x86_64 that Nix counts as platforms of their own.
func named(systems []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(systems), func(s string) bool { return strings.HasPrefix(s, "x86_64-v") }), ", ")
}

// dryRun says what would be built.
func (r *run) dryRun(ctx context.Context, jobs []*job) {
	for _, j := range waiting(jobs) {
		plan, err := r.Nix.Plan(ctx, j.host.DrvPath, j.host.Output)
		if err != nil {
			r.fail(j.row, err)
			continue
		}
		j.row.Result, j.row.StorePath = report.Planned, j.host.OutPath
		j.row.Reason = fmt.Sprintf("%d derivations would be built, and %d paths fetched", len(plan.Build), len(plan.Fetch))
		r.Runner.Printf("%s: %s\n", j.row.Name, j.row.Reason)
	}
}
