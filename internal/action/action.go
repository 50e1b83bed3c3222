// Package action is what the steps of the GitHub Action do: find the hosts of a flake, build each, and push each closure
// as soon as it is built.
//
//	inputs ── connect ────────── ID token → cache token, renewed before it ends      connect.go, login.go, refusal.go
//	   │
//	substitute ── nix.conf, netrc   what the cache holds is not built again          substitute.go
//	   │
//	choose ── nixosConfigurations.* and other outputs, each evaluated on its own      attrs.go, discover.go
//	   │
//	sort ──── broken · for another machine · whole on the cache · to be built         sort.go
//	   │
//	build ─► build ─► build      one after the other: Nix uses all cores by itself    work.go
//	   └► push ─► push ─► push   what is made while it builds, the whole at its end,  early.go, cache.go
//	   │                         then pinned
//	   │
//	compare ─ sizes, and what changed since the last pinned revision                  compare.go
//	   │
//	outputs, summary, table      also when a host failed, or nothing began            tell.go, comment.go
//
// With matrix, the first job stops where building would begin and prints who builds what (matrix.go); the last job
// asks the cache what became of it (aggregate.go). The post step takes back what later steps were given (post.go), and pushes
// what a cancelled job had no time for (left.go).
//
// One host's failure stops no other host. It fails the job at the end, by its name.
package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/follow"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/github/comment"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// Nix is the part of a nixcli.Nix that the action uses.
type Nix interface {
	Version(ctx context.Context) (nixcli.Version, error)
	Settings(ctx context.Context) (nixcli.Settings, error)
	Ignored(ctx context.Context) ([]string, error)
	Hosts(ctx context.Context, flake string) ([]string, error)
	Names(ctx context.Context, flake string, at nixcli.Attr) ([]string, error)
	Eval(ctx context.Context, flake string, at nixcli.Attr) (nixcli.Host, error)
	Plan(ctx context.Context, drvPath, output string) (nixcli.Plan, error)
	Build(ctx context.Context, drvPath, output, root string, log io.Writer) (nix.StorePath, error)
	Closure(ctx context.Context, paths []nix.StorePath) ([]nixcli.PathInfo, error)
	follow.Store
}

// TokenSource returns the token for the next request.
type TokenSource func(ctx context.Context) (string, error)

// Action runs once. All fields but Told are required.
type Action struct {
	Runner *github.Runner
	Nix    Nix
	Login  *Login
	// Connect returns the cache of the inputs, without asking it anything. A nil token is for somebody who has none.
	Connect func(in Inputs, token TokenSource) (Cache, error)
	// Comment puts a comment on a pull request.
	Comment func(ctx context.Context, api string, token github.Secret, c comment.Comment) error
	Told    func(report.Report)      // gets the report at the end; nil: nobody wants it
	Setenv  func(name, value string) // for Nix, from now on
	Home    string                   // the user's folder, as Nix sees it
	Now     func() time.Time
}

// HostsError is a run in which hosts failed; everything else was built and pushed.
type HostsError struct{ Names []string }

func (e *HostsError) Error() string {
	if len(e.Names) == 1 {
		return "1 host failed: " + e.Names[0]
	}
	return fmt.Sprintf("%d hosts failed: %s", len(e.Names), strings.Join(e.Names, ", "))
}

// run is one run on its way.
type run struct {
	*Action
	in     Inputs
	cache  Cache          // nil: it can't even be asked
	config *client.Config // nil likewise
	asks   bool           // there is a token, so the cache tells what it has
	pushes bool           // there is a token that may push
	report report.Report
	roots  string                   // folder of symlinks that keep what was built from a garbage collection; empty: none could be made
	matrix any                      // value of the output; nil sets none
	plan   []planned                // likewise
	before map[string]nix.StorePath // by host: what was pinned last when this run began
	lost   []string                 // hosts that failed and have no job of the matrix to say so
}

// Run does all of it. Its error is nil when every host that this machine can build is built and, unless there is no
// token to be had, pushed. Outputs and summary are written in any case.
func (a *Action) Run(ctx context.Context, in Inputs) error {
	r := &run{Action: a, in: in, report: report.Report{Server: in.Server, Cache: in.Cache}, before: map[string]nix.StorePath{}}
	start := a.Now()
	err := r.all(ctx)
	r.report.Time = a.Now().Sub(start)
	if told := r.tell(); told != nil {
		err = errors.Join(err, told)
	}
	if a.Told != nil {
		a.Told(r.report)
	}
	r.comment(ctx, err)
	if err != nil {
		return r.located(a.refused(err))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	failed := r.report.Failed()
	if in.Matrix { // each fails in a job of its own
		failed = r.lost
	}
	if len(failed) > 0 {
		return &HostsError{failed}
	}
	return nil
}

func (r *run) all(ctx context.Context) error {
	if r.in.Needs == nil {
		if err := r.checkNix(ctx); err != nil {
			return err
		}
	}
	if err := r.connect(ctx); err != nil {
		return err
	}
	defer r.Login.Logout(ctx)
	if r.in.Needs != nil {
		err := r.aggregate(ctx)
		r.compare(ctx, nixcli.Settings{})
		return err
	}
	if r.in.Substitute && r.config != nil && r.Runner.InActions() { // elsewhere no post step would take it back
		defer r.substituteFrom(ctx, r.in, r.config).keep(ctx)()
	}
	settings, err := r.Nix.Settings(ctx)
	if err != nil {
		return err
	}
	hosts, err := r.choose(ctx, settings.System)
	if err != nil {
		return err
	}
	jobs, err := r.sort(ctx, hosts, settings)
	if err != nil {
		return err
	}
	r.remember(ctx, jobs)
	switch {
	case r.in.Matrix:
		r.toMatrix(ctx, jobs, settings.System)
	case r.in.DryRun:
		r.dryRun(ctx, jobs)
	default:
		r.work(ctx, jobs)
		r.compare(ctx, settings)
	}
	return nil
}

// oldest is the first Nix with flakes.
var oldest = nixcli.Version{Major: 2, Minor: 4}

// checkNix says in one line what is missing.
func (a *Action) checkNix(ctx context.Context) error {
	const add = "put a step before this one that installs a present Nix, such as: - uses: DeterminateSystems/nix-installer-action@main"
	v, err := a.Nix.Version(ctx)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("there is no nix on the PATH; " + add)
	case err != nil:
		return err
	case v.Major < oldest.Major || v.Major == oldest.Major && v.Minor < oldest.Minor:
		return fmt.Errorf("%s is too old for flakes, which came with 2.4; %s", v, add)
	}
	return nil
}

// choose finds what the inputs ask for, and evaluates it.
func (r *run) choose(ctx context.Context, system string) ([]nixcli.Host, error) {
	var attrs []nixcli.Attr
	if others := len(r.in.Attrs.lines) > 0; !others || !r.in.Hosts.none() {
		names, err := r.Nix.Hosts(ctx, r.in.Flake)
		if err != nil && !(others && errors.Is(err, nixcli.ErrNoHosts)) {
			return nil, err
		}
		for _, name := range names {
			if r.in.Hosts.Match(name) {
				attrs = append(attrs, nixcli.HostAttr(name))
			}
		}
		if len(attrs) == 0 && !others {
			return nil, fmt.Errorf("input hosts: no pattern matches one of the flake's hosts, which are %s", strings.Join(names, ", "))
		}
	}
	more, err := r.in.Attrs.Expand(ctx, r.Nix, r.in.Flake, system)
	if err != nil {
		return nil, err
	}
	for _, at := range more {
		if !slices.ContainsFunc(attrs, func(b nixcli.Attr) bool { return slices.Equal(at, b) }) {
			attrs = append(attrs, at)
		}
	}
	r.Runner.Group(fmt.Sprintf("Evaluate %s (%d to be built)", r.in.Flake, len(attrs)))
	defer r.Runner.EndGroup()
	return evaluate(ctx, r.Nix, r.in.Flake, attrs, r.in.EvalJobs, func(h nixcli.Host) {
		if h.Err != nil {
			r.Runner.Printf("%s does not evaluate\n", h.Name) // why is told once, when all others are known
			return
		}
		r.Runner.Printf("%s (%s): %s\n", h.Name, h.System, h.DrvPath)
	})
}
