package action

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/org/attic-action/internal/follow"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/report"
)

// pushGrace is how long a push goes on after a job was cancelled. A runner sends SIGINT, and SIGTERM seven and a half seconds
// later; outputs and summary have to be written before that.
const pushGrace = 5 * time.Second

// linger is ctx with its end put off.
func linger(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx)) // what was built just now would be built again
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-t.C:
			cancel(context.Cause(ctx))
		case <-late.Done():
		}
	})
	return late, func() { stop(); cancel(nil) }
}

// early is what a job's build has made so far.
type early struct {
	job *job
	follow.Made
}

// follow has what a job's build makes pushed while it goes on. Rest ends that.
func (r *run) follow(ctx context.Context, j *job, to chan<- early) (tap io.Writer, rest func(context.Context) follow.Made) {
	drv, err := nix.ParseStorePath(j.host.DrvPath)
	if !r.pushes || err != nil { // of a path that is none, the build tells
		return io.Discard, func(context.Context) follow.Made { return follow.Made{} }
	}
	log := slog.New(slog.NewTextHandler(r.Runner.Lines(""), &slog.HandlerOptions{Level: slog.LevelWarn}))
	b := &follow.Build{Store: r.Nix, Drv: drv, Roots: r.roots, Log: log, Offer: func(m follow.Made) bool {
		select {
		case to <- early{j, m}:
			return true
		default: // it pushes something else
			return false
		}
	}}
	if filter := r.in.PushFilter; filter != nil {
		b.Skip = func(p nix.StorePath) bool { return filter.MatchString(p.Name()) }
	}
	return b, b.Start(ctx)
}

// rootsPrefix begins the name of the folder of roots.
const rootsPrefix = dirPrefix + "roots-"

// makeRoots makes the folder of roots. What is built stays until the job's post step, for its later steps may want it.
func (r *run) makeRoots() (remove func()) {
	dir, err := os.MkdirTemp(r.Runner.Getenv("RUNNER_TEMP"), rootsPrefix+"*")
	if err == nil && r.Runner.InActions() {
		err = r.Runner.SaveState(rootsState, dir)
	}
	if err != nil {
		r.Runner.Printf("what is built is not kept from a garbage collection: %v\n", err)
		return func() {}
	}
	r.roots = dir
	return func() {
		if !r.Runner.InActions() {
			_ = os.RemoveAll(dir) // symlinks in the system's folder for temporary files
		}
	}
}

// root is where a job's own root will be. The name comes from no flake.
func (r *run) root(j *job) string {
	drv, err := nix.ParseStorePath(j.host.DrvPath)
	if r.roots == "" || err != nil {
		return ""
	}
	return filepath.Join(r.roots, drv.Hash())
}

// pusher pushes what builds make, one thing after the other, for a push is parallel in itself.
type pusher struct {
	*run
	early  chan early // without room: what is not taken gathers
	built  chan *job  // with room for all: a slow push must not hold up a build
	failed *atomic.Bool
	left   []nix.StorePath // of jobs that ended, not pushed
}

func (p *pusher) all(ctx context.Context) {
	for {
		select {
		case e := <-p.early:
			p.pushEarly(ctx, e)
		case j, ok := <-p.built:
			if !ok {
				if ctx.Err() != nil {
					p.leave(p.left)
				}
				return
			}
			if p.pushes {
				p.end(ctx, j)
			}
		}
	}
}

// pushEarly pushes what was made so far. What fails is tried again at the end, and fails nothing.
func (p *pusher) pushEarly(ctx context.Context, e early) {
	sent, err := p.cache.Push(ctx, e.Paths...)
	e.job.sent.add(sent)
	if err == nil {
		_ = e.Release() // its folder is emptied anyhow
		return
	}
	e.job.again.Add(e.Made)
	if !e.job.told {
		e.job.told = true
		p.Runner.Printf("%s: pushing while it is built: %v; it is tried again at the end\n", e.job.row.Name, firstLine(err.Error()))
	}
}

// end pushes what a host is at its end, or what a failed one came to: whoever builds it again finds that.
func (p *pusher) end(ctx context.Context, j *job) {
	switch {
	case j.row.Result == report.Failed:
		p.pushRest(ctx, j)
	case j.row.Result == report.Built && !p.push(ctx, j): // which tried most of the rest, too
		p.failed.Store(true)
		p.left = append(append(p.left, j.path), append(j.again.Paths, j.rest.Paths...)...)
	default:
		p.pin(ctx, j.row.Name, j.path)
		p.pushRest(ctx, j)
	}
	p.report.Requests += j.sent.Requests
	j.row.Pushed, j.row.Raw, j.row.Bytes = j.sent.Pushed, j.sent.Raw, j.sent.Bytes
}

// pushRest pushes what a build has made and what a host does not consist of, or not yet.
func (p *pusher) pushRest(ctx context.Context, j *job) {
	j.again.Add(j.rest)
	if j.row.Result == report.Pushed {
		j.again.Paths = slices.DeleteFunc(j.again.Paths, func(path nix.StorePath) bool { return path == j.path })
	}
	if len(j.again.Paths) > 0 {
		p.tryAgain(ctx, j)
	}
	if j.row.Result == report.Failed && j.sent.Pushed > 0 {
		p.Runner.Printf("%s: %d paths that were built for it are on the cache\n", j.row.Name, j.sent.Pushed)
	}
}

func (p *pusher) tryAgain(ctx context.Context, j *job) {
	sent, err := p.cache.Push(ctx, j.again.Paths...)
	j.sent.add(sent)
	switch {
	case err == nil:
		_ = j.again.Release()
	case ctx.Err() != nil:
		p.left = append(p.left, j.again.Paths...)
	default:
		p.Runner.Warning(j.row.Name+" not wholly pushed", j.row.Name+": some of what was built for it is not on the cache, and will be built again: "+firstLine(err.Error()))
	}
}
