package action

import (
	"context"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/push"
	"github.com/org/attic-action/internal/report"
)

// CachePusher pushes closures to one cache, and says every few seconds how far it is.
type CachePusher struct {
	Pusher *push.Pusher // with its Progress
	Cache  string
	Runner *github.Runner
	Every  time.Duration // between two lines of progress
}

// Push pushes the closure of a path. A closure of which paths failed is an error that names the first of them.
func (p *CachePusher) Push(ctx context.Context, path nix.StorePath) (Sent, error) {
	stop := p.tick(path)
	res, err := p.Pusher.Push(ctx, push.Request{Cache: p.Cache, Paths: []string{path.String()}})
	stop()
	var sent Sent
	if res != nil {
		sent = Sent{Paths: res.Paths - res.Upstream, Pushed: res.Pushed, Bytes: res.BytesSent, Requests: int(res.Requests)}
		for _, f := range res.Failed {
			p.Runner.Printf("not pushed: %s: %s\n", f.Path, f.Reason)
		}
		if len(res.Failed) > 0 && err == nil {
			err = fmt.Errorf("%s: %s (%w)", res.Failed[0].Path, res.Failed[0].Reason, res.Err())
		}
	}
	return sent, err
}

// tick prints lines of progress until it is stopped.
func (p *CachePusher) tick(path nix.StorePath) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(p.Every)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				g := p.Pusher.Progress
				if g.Paths.Load() == g.PathsDone.Load() { // still asking what is missing, or done
					continue
				}
				p.Runner.Printf("push %s: %d of %d paths, %s of %s sent\n", path.Name(), g.PathsDone.Load(), g.Paths.Load(),
					report.Bytes(g.Sent.Load()), report.Bytes(g.Packed.Load()))
			}
		}
	}()
	return func() { close(done); <-gone }
}
