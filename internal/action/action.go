// Package action is the main job of the GitHub Action: it finds the hosts of a flake, builds each, and pushes each
// closure as soon as it is built.
//
//	inputs ── Login ──────────── ID token → cache token, renewed before it ends
//	   │
//	Discover ── every nixosConfigurations.*, each evaluated on its own
//	   │
//	build ─► build ─► build      one after the other: Nix uses all cores by itself
//	   └► push ─► push ─► push   each while the next host builds
//	   │
//	outputs, summary, table      also when a host failed
//
// One host's failure stops no other host. It fails the job at the end, by its name.
package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// Nix is the part of a nixcli.Nix that the action uses.
type Nix interface {
	Hosts(ctx context.Context, flake string) ([]string, error)
	EvalHost(ctx context.Context, flake, name string) (nixcli.Host, error)
	Build(ctx context.Context, drvPath string, log io.Writer) (nix.StorePath, error)
	CurrentSystem(ctx context.Context) (string, error)
	ExtraPlatforms(ctx context.Context) ([]string, error)
}

// Sent is what a push came to.
type Sent struct {
	Paths    int   // store paths of the closure that the cache must have
	Pushed   int   // of them, those that were sent now
	Bytes    int64 // of request bodies
	Requests int
}

// Pusher sends the closure of a store path to the cache. An error may come with what was sent before it.
type Pusher interface {
	Push(ctx context.Context, path nix.StorePath) (Sent, error)
}

// TokenSource returns the token for the next request.
type TokenSource func(ctx context.Context) (string, error)

// Action runs once. All fields are required.
type Action struct {
	Runner *github.Runner
	Nix    Nix
	Login  *Login
	// Connect returns the pusher to the cache of the inputs. It fails on what would make every push fail: an unknown
	// cache, a token without the right.
	Connect func(ctx context.Context, in Inputs, token TokenSource) (Pusher, error)
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

// Run does all of it. Its error is nil when every host that this machine can build is built and, unless there is no
// token to be had, pushed. Outputs and summary are written in any case that got as far as knowing the hosts.
func (a *Action) Run(ctx context.Context, in Inputs) error {
	start := a.Now()
	pusher, notes, err := a.connect(ctx, in)
	if err != nil {
		return a.refused(err)
	}
	defer a.Login.Logout(ctx)
	hosts, err := a.choose(ctx, in)
	if err != nil {
		return err
	}
	r := report.Report{Server: in.Server, Cache: in.Cache, Notes: notes}
	if r.Hosts, r.Requests, err = a.work(ctx, hosts, pusher); err != nil {
		return err
	}
	r.Time = a.Now().Sub(start)
	if err := a.tell(r); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failed := r.Failed(); len(failed) > 0 {
		return &HostsError{failed}
	}
	return nil
}

// connect returns the pusher, or nil and what the reader can do about it where this job can't get a token.
func (a *Action) connect(ctx context.Context, in Inputs) (Pusher, []string, error) {
	_, err := a.Login.Token(ctx)
	if errors.Is(err, github.ErrNoIDToken) {
		note := a.withoutToken()
		a.Runner.Warning("nothing is pushed", note)
		return nil, []string{note}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	p, err := a.Connect(ctx, in, a.Login.Token)
	return p, nil, err
}

// withoutToken says why there is no ID token and what would change that.
func (a *Action) withoutToken() string {
	if a.fromFork() {
		return "Nothing was pushed: this run belongs to a pull request from a fork, and GitHub gives those no ID token."
	}
	return "Nothing was pushed: GitHub gave this job no ID token. These lines in the workflow change that:\n" +
		"    permissions:\n      id-token: write\n      contents: read\n"
}

func (a *Action) fromFork() bool {
	c, err := a.Runner.Context()
	if err != nil || c.EventName != "pull_request" {
		return false
	}
	pull, _ := c.Event["pull_request"].(map[string]any)
	head, _ := pull["head"].(map[string]any)
	repo, _ := head["repo"].(map[string]any)
	fork, _ := repo["fork"].(bool)
	return fork
}

// refused shows, where a server refused this workflow, which workflow it was: the server tells only its operator why.
func (a *Action) refused(err error) error {
	var r *RefusedError
	if !errors.As(err, &r) {
		return err
	}
	text := r.Block()
	a.Runner.Print(text)
	summary := "### attic-action: the cache server refused this workflow\n\n" + report.Fence(text)
	return errors.Join(err, a.Runner.AddSummary(summary))
}

// choose finds the flake's hosts and keeps those that the inputs ask for.
func (a *Action) choose(ctx context.Context, in Inputs) ([]nixcli.Host, error) {
	names, err := a.Nix.Hosts(ctx, in.Flake)
	if err != nil {
		return nil, err
	}
	chosen := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !in.Hosts.Match(n) })
	if len(chosen) == 0 {
		return nil, fmt.Errorf("input hosts: no pattern matches one of the flake's hosts, which are %s", strings.Join(names, ", "))
	}
	a.Runner.Group(fmt.Sprintf("Evaluate %d of %d hosts of %s", len(chosen), len(names), in.Flake))
	defer a.Runner.EndGroup()
	hosts, err := evaluate(ctx, a.Nix, in.Flake, chosen)
	for _, h := range hosts {
		if h.Err == nil {
			a.Runner.Printf("%s (%s): %s\n", h.Name, h.System, h.DrvPath)
		}
	}
	return hosts, err
}
