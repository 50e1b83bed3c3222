package action

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// job is one host on its way. Only one goroutine has it at a time.
type job struct {
	row  *report.Host
	path nix.StorePath
}

// work builds hosts one after the other and pushes each while the next one builds. Rows are in the order of hosts. A
// nil pusher pushes nothing.
func (a *Action) work(ctx context.Context, hosts []nixcli.Host, pusher Pusher) ([]report.Host, int, error) {
	systems, err := a.systems(ctx)
	if err != nil {
		return nil, 0, err
	}
	rows := make([]report.Host, len(hosts))
	built := make(chan job, len(hosts)) // never blocks: a slow push must not hold up a build
	requests := make(chan int)
	go func() { requests <- a.pushAll(ctx, pusher, built) }()
	for i, h := range hosts {
		row := &rows[i]
		row.Name, row.System = h.Name, h.System
		switch {
		case h.Err != nil:
			a.fail(row, h.Err)
		case !slices.Contains(systems, h.System):
			row.Result, row.Reason = report.Skipped, fmt.Sprintf("it is built on %s, and this machine builds for %s", h.System, named(systems))
			a.Runner.Notice(h.Name+" skipped", h.Name+": "+row.Reason)
		case ctx.Err() != nil:
			row.Result, row.Reason = report.Failed, "stopped before it was built"
		default:
			if path, ok := a.build(ctx, h, row); ok {
				built <- job{row, path}
			}
		}
	}
	close(built)
	return rows, <-requests, nil
}

// systems are what this machine can build for.
func (a *Action) systems(ctx context.Context) ([]string, error) {
	own, err := a.Nix.CurrentSystem(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask Nix for this machine's system: %w", err)
	}
	extra, err := a.Nix.ExtraPlatforms(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask Nix for extra-platforms: %w", err)
	}
	return append([]string{own}, slices.DeleteFunc(extra, func(s string) bool { return s == own })...), nil
}

// named lists systems without the levels of x86_64 that Nix counts as platforms of their own.
func named(systems []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(systems), func(s string) bool { return strings.HasPrefix(s, "x86_64-v") }), ", ")
}

// build builds one host. Its log is folded; what made it fail is not.
func (a *Action) build(ctx context.Context, h nixcli.Host, row *report.Host) (nix.StorePath, bool) {
	start := a.Now()
	a.Runner.Group("Build " + h.Name)
	log := a.Runner.Lines(h.Name + "> ")
	path, err := a.Nix.Build(ctx, h.DrvPath, log)
	_ = log.Close() // never fails
	row.Time = a.Now().Sub(start)
	if err == nil {
		row.Result, row.StorePath = report.Built, path.String()
		a.Runner.Printf("%s: built %s in %s\n", h.Name, path, report.Duration(row.Time))
	}
	a.Runner.EndGroup()
	if err != nil {
		a.fail(row, err)
		return nix.StorePath{}, false
	}
	return path, true
}

// pushAll pushes what arrives, one host after the other, for a push is parallel in itself. It returns the requests made.
func (a *Action) pushAll(ctx context.Context, pusher Pusher, built <-chan job) int {
	requests := 0
	for j := range built {
		if pusher == nil {
			continue
		}
		start := a.Now()
		sent, err := pusher.Push(ctx, j.path)
		took := a.Now().Sub(start)
		requests += sent.Requests
		j.row.Paths, j.row.Pushed, j.row.Bytes, j.row.Time = sent.Paths, sent.Pushed, sent.Bytes, j.row.Time+took
		if err != nil {
			a.fail(j.row, fmt.Errorf("push: %w", err))
			continue
		}
		j.row.Result = report.Pushed
		a.Runner.Printf("%s: pushed %d of %d paths, %s in %s\n", j.row.Name, sent.Pushed, sent.Paths, report.Bytes(sent.Bytes), report.Duration(took.Round(time.Millisecond)))
	}
	return requests
}

// fail marks a host as failed and says so where people look: an annotation, and the last lines of the build's log.
func (a *Action) fail(row *report.Host, err error) {
	row.Result, row.Reason = report.Failed, firstLine(err.Error())
	var b *nixcli.BuildError
	if errors.As(err, &b) {
		row.Log = strings.Join(b.Log, "\n")
		if b.Command != "" {
			row.Reason += "; the whole log: " + b.Command
		}
	} else if text := err.Error(); text != firstLine(text) {
		row.Log = text
	}
	a.Runner.Error(row.Name, row.Name+": "+row.Reason)
	if row.Log != "" {
		if err := a.Runner.Verbatim(row.Log); err != nil {
			a.Runner.Print(row.Log)
		}
	}
}

// firstLine returns the first line of s that says anything, not longer than a summary's cell should be.
func firstLine(s string) string {
	const most = 300
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
