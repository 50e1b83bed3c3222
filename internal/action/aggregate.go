package action

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// queued is the result in a plan of a host that a job of the matrix is to build.
const queued = "queued"

// toMatrix ends the first job of a matrix: each host that waits gets a job. So does one that does not evaluate, on this
// machine's kind of runner, for there the red mark belongs.
func (r *run) toMatrix(ctx context.Context, jobs []*job, system string) {
	var some []nixcli.Host
	for _, j := range jobs {
		row := j.row
		evaluated := row.Result == ""
		if row.Result == report.Failed {
			j.host.System = system
		}
		switch {
		case row.Result == report.Cached && !j.upstream:
			r.pin(ctx, row.Name, j.path) // nobody else will
		case row.Result != "" && row.Result != report.Failed:
		case !oneLineName(row.Name):
			r.fail(row, errors.New("a name with a line break can't be handed to another job"))
			r.lost = append(r.lost, row.Name)
		case len(r.in.Runners[j.host.System]) == 0: // a machine that has no runner's label
			r.lost = append(r.lost, row.Name)
		default:
			some = append(some, j.host)
			if evaluated {
				row.Result, row.StorePath = report.Planned, j.host.OutPath
			}
		}
		p := planned{Name: row.Name, System: row.System, Path: row.StorePath, Result: string(row.Result), Reason: row.Reason}
		if row.Result == report.Planned {
			p.Result, p.Reason = queued, ""
		}
		r.plan = append(r.plan, p)
	}
	r.matrix = matrix(some, r.in.Runners)
}

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
		case complete[path]:
			row.Result = report.Pushed
		case r.pushes:
			row.Result, row.Reason = report.Failed, "its closure is not on the cache; its own job says why"
		default:
			row.Result, row.Reason = report.Planned, "nothing was pushed, so only its own job knows"
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
	if !r.pushes || r.cache == nil || len(paths) == 0 {
		return nil, nil
	}
	return r.cache.Complete(ctx, paths)
}
