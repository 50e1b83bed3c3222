package action

import (
	"context"
	"fmt"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/report"
)

// aggregate is the last job: it says what became of all hosts. Nothing is handed over but the first job's plan. What a
// job built is on the cache, whole, or it did not do what it should, so the cache is asked.
func (r *run) aggregate(ctx context.Context) error {
	var plan []planned
	var bad []string
	for _, n := range r.in.Needs {
		plan = append(plan, n.Plan...)
		if n.Result == "failure" || n.Result == "cancelled" {
			bad = append(bad, n.Name+": "+n.Result)
		}
	}
	complete, err := r.completeOf(ctx, plan)
	if err != nil {
		return err
	}
	for _, p := range plan {
		row := report.Host{Name: p.Name, System: p.System, Result: report.Result(p.Result), Reason: p.Reason, StorePath: p.Path}
		path, err := nix.ParseStorePath(p.Path)
		if err != nil {
			row.StorePath = "" // it did not evaluate, or another job says what it likes
		}
		switch {
		case p.Result == string(report.Cached), p.Result == string(report.Skipped), p.Result == string(report.Failed):
		case complete[path] && r.pushes:
			row.Result = report.Pushed
		case complete[path]:
			row.Result = report.Cached
		case r.pushes:
			row.Result, row.Reason = report.Failed, "its closure is not on the cache; its own job says why"
		default:
			row.Result, row.Reason = report.Planned, "nothing was pushed, so only its own job knows"
		}
		if before, err := nix.ParseStorePath(p.Before); err == nil {
			r.before[p.Name] = before
		}
		r.report.Hosts = append(r.report.Hosts, row)
	}
	if len(bad) > 0 && len(r.report.Failed()) == 0 {
		return fmt.Errorf("jobs that this one needs did not succeed: %q", bad)
	}
	return nil
}

func (r *run) completeOf(ctx context.Context, plan []planned) (map[nix.StorePath]bool, error) {
	var paths []nix.StorePath
	for _, p := range plan {
		if path, err := nix.ParseStorePath(p.Path); err == nil && p.Result == queued {
			paths = append(paths, path)
		}
	}
	if !r.asks || len(paths) == 0 {
		return nil, nil
	}
	return r.cache.Complete(ctx, paths)
}
