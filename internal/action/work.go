package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// work builds what waits, one host after the other, and pushes what is made meanwhile.
func (r *run) work(ctx context.Context, jobs []*job) {
	defer r.makeRoots()()
	late, cancel := linger(ctx, pushGrace)
	defer cancel()
	var failed atomic.Bool // a host, in whichever goroutine
	p := &pusher{run: r, early: make(chan early), built: make(chan *job, len(jobs)), failed: &failed}
	var pushing sync.WaitGroup
	pushing.Go(func() { p.all(late) })
	for _, j := range jobs {
		switch {
		case j.row.Result == report.Failed:
			failed.Store(true)
		case j.row.Result == report.Cached && !j.upstream:
			p.built <- j // to be pinned
		case j.row.Result != "":
		case ctx.Err() != nil:
			j.row.Result, j.row.Reason = report.Failed, "stopped before it was built"
		case r.in.FailFast && failed.Load():
			r.skip(j.row, "another host failed, and the input fail-fast says to stop then")
		default:
			if !r.build(ctx, late, j, p.early) {
				failed.Store(true)
			}
			p.built <- j
		}
	}
	close(p.built)
	pushing.Wait()
}

// build builds one host. Its log is folded; what made it fail is not. Late is for what has to be done after ctx has ended.
func (r *run) build(ctx, late context.Context, j *job, to chan<- early) bool {
	start := r.Now()
	r.Runner.Group("Build " + j.row.Name)
	log := r.Runner.Lines(j.row.Name + "> ")
	tap, rest := r.follow(ctx, j, to)
	var count tally
	path, err := r.Nix.Build(ctx, j.host.DrvPath, j.host.Output, r.root(j), io.MultiWriter(log, tap, &count))
	_ = log.Close() // never fails
	j.rest = rest(late)
	j.row.Time, j.row.Made, j.row.Fetched = r.Now().Sub(start), count.made, count.fetched
	if err == nil {
		j.path = path
		j.row.Result, j.row.StorePath = report.Built, path.String()
		r.Runner.Printf("%s: built %s in %s\n", j.row.Name, path, report.Duration(j.row.Time))
	}
	r.Runner.EndGroup()
	if err != nil {
		r.fail(j.row, err)
	}
	return err == nil
}

func (r *run) push(ctx context.Context, j *job) bool {
	start := r.Now()
	sent, err := r.cache.Push(ctx, j.path)
	took := r.Now().Sub(start)
	before := j.sent.Pushed
	j.sent.add(sent)
	j.row.Paths, j.row.Time = sent.Paths, j.row.Time+took
	if err != nil {
		r.fail(j.row, fmt.Errorf("push: %w", err))
		return false
	}
	j.row.Result = report.Pushed
	r.Runner.Printf("%s: pushed %d of %d paths, %s in %s; %d while it was built\n", j.row.Name, sent.Pushed, sent.Paths,
		report.Bytes(sent.Bytes), report.Duration(took.Round(time.Millisecond)), before)
	return true
}

// pin keeps what machines run. A server without pins, and a token without the right, are no failure of the host.
func (r *run) pin(ctx context.Context, host string, path nix.StorePath) {
	name, ok := r.pinName(host)
	if !ok {
		return
	}
	switch err := r.cache.Pin(ctx, name, path, r.in.Keep); {
	case err == nil:
		r.Runner.Printf("%s: pinned as %s\n", host, name)
	case !errors.Is(err, ErrNoPins):
		r.Runner.Warning(host+" not pinned", fmt.Sprintf("%s is on the cache, but not pinned as %s: %v", host, name, err))
	}
}

// pinName is OWNER/REPO/BRANCH/HOST. Only what a branch holds is pinned: a pull request is not what machines run.
func (r *run) pinName(host string) (string, bool) {
	repo := r.Runner.Getenv("GITHUB_REPOSITORY")
	branch, isBranch := strings.CutPrefix(r.Runner.Getenv("GITHUB_REF"), "refs/heads/")
	if !r.in.Pin || !isBranch || repo == "" || branch == "" || strings.HasPrefix(r.event(), "pull_request") {
		return "", false
	}
	return repo + "/" + branch + "/" + host, true
}

// fail marks a host as failed and says so where people look: an annotation, and the last lines of the build's log.
func (r *run) fail(row *report.Host, err error) {
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
	r.Runner.ErrorAt(r.locate(err), row.Name, row.Name+": "+row.Reason)
	if row.Log != "" {
		if err := r.Runner.Verbatim(row.Log); err != nil {
			r.Runner.Print(row.Log)
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
