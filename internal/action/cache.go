package action

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/push"
	"github.com/org/attic-action/internal/report"
)

// Sent is what a push came to.
type Sent struct {
	Paths    int   // store paths of the closure that the cache must have
	Pushed   int   // of them, those that were sent now
	Raw      int64 // bytes of these, as NARs
	Bytes    int64 // of request bodies
	Requests int
}

// add counts what another push for the same host sent.
func (s *Sent) add(o Sent) {
	s.Pushed += o.Pushed
	s.Raw += o.Raw
	s.Bytes += o.Bytes
	s.Requests += o.Requests
}

// Pusher sends the closure of store paths to the cache. An error may come with what was sent before it.
type Pusher interface {
	Push(ctx context.Context, paths ...nix.StorePath) (Sent, error)
}

// Pinner keeps the closure of a store path under a name, and the last keep revisions of that name (0: as many as the
// server likes). ErrNoPins is a server without pins, or a token without the right to this one.
type Pinner interface {
	Pin(ctx context.Context, name string, path nix.StorePath, keep int) error
}

// ErrNoPins says that there is nobody to ask for a pin.
var ErrNoPins = errors.New("this server pins nothing for this token")

// Cache is the cache of the inputs.
type Cache interface {
	Pusher
	Pinner
	Reader
	// Config is the cache's configuration. It needs no right in a public cache.
	Config(ctx context.Context) (*client.Config, error)
	// Complete reports which paths the cache has with all they refer to, and refreshes their last use.
	Complete(ctx context.Context, paths []nix.StorePath) (map[nix.StorePath]bool, error)
}

// Remote is a cache on a server. It says every few seconds how far a push is.
type Remote struct {
	Client *client.Client
	Pusher *push.Pusher   // with its Progress
	Name   string         // of the cache
	Filter *regexp.Regexp // of names of store paths that are not pushed; nil filters nothing
	Runner *github.Runner
	Every  time.Duration // between two lines of progress
}

// Config asks for the cache's configuration.
func (c *Remote) Config(ctx context.Context) (*client.Config, error) {
	return c.Client.CacheConfig(ctx, c.Name)
}

// closureMax is how many paths are asked about at once. A server may say that they are too many together; then half of
// them are.
const closureMax = 500

// Complete asks about whole closures. Where a server can't tell, because it is a stock one, or because the token may
// neither pull nor push, nothing is complete.
func (c *Remote) Complete(ctx context.Context, paths []nix.StorePath) (map[nix.StorePath]bool, error) {
	complete := map[nix.StorePath]bool{}
	for some := range slices.Chunk(paths, closureMax) {
		if err := c.complete(ctx, some, complete); err != nil {
			return nil, err
		}
	}
	return complete, nil
}

func (c *Remote) complete(ctx context.Context, paths []nix.StorePath, complete map[nix.StorePath]bool) error {
	hashes := make([]string, len(paths))
	byHash := map[string]nix.StorePath{}
	for i, path := range paths {
		hashes[i] = path.Hash()
		byHash[path.Hash()] = path
	}
	answer, err := c.Client.Closure(ctx, c.Name, hashes)
	switch status := client.Status(err); {
	case status == 401, status == 403, status == 404, status == 405:
		return nil
	case status == 400 && len(paths) > 1:
		half := len(paths) / 2
		if err := c.complete(ctx, paths[:half], complete); err != nil {
			return err
		}
		return c.complete(ctx, paths[half:], complete)
	case status == 400: // it is too large even alone
		return nil
	case err != nil:
		return err
	}
	for _, hash := range answer.Complete {
		if path, ok := byHash[hash]; ok {
			complete[path] = true
		}
	}
	return nil
}

// Pin makes a path, all of which was just pushed or found on the cache, the newest revision of a pin. What the cache lacks
// of it must have an upstream's signature in the local store: anything else may have been collected meanwhile.
func (c *Remote) Pin(ctx context.Context, name string, path nix.StorePath, keep int) error {
	_, err := c.Pusher.Pin(ctx, push.Pin{Cache: c.Name, Name: name, Path: path, Keep: keep})
	if errors.Is(err, push.ErrNoPins) {
		return ErrNoPins
	}
	switch client.Status(err) {
	case 401, 403, 404, 405: // no right to it
		return ErrNoPins
	}
	return err
}

// failuresShown is how many paths that were not pushed are named in the log.
const failuresShown = 10

// Push pushes the closure of paths. A closure of which paths failed is an error that names the first of them.
func (c *Remote) Push(ctx context.Context, paths ...nix.StorePath) (Sent, error) {
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = path.String()
	}
	stop := c.tick(paths)
	res, err := c.Pusher.Push(ctx, push.Request{Cache: c.Name, Paths: names, LeaveOut: c.leaveOut()})
	stop()
	var sent Sent
	if res != nil {
		sent = Sent{Paths: res.Paths - res.Upstream, Pushed: res.Pushed, Raw: res.NARBytes, Bytes: res.BytesSent, Requests: int(res.Requests)}
		c.tellFailures(ctx, res.Failed)
		if len(res.Failed) > 0 && err == nil {
			err = fmt.Errorf("%s: %s (%w)", res.Failed[0].Path, res.Failed[0].Reason, res.Err())
		}
	}
	return sent, err
}

func (c *Remote) tellFailures(ctx context.Context, failures []push.Failure) {
	if ctx.Err() != nil {
		return // each would be a line that says so
	}
	for i, f := range failures {
		if i == failuresShown {
			c.Runner.Printf("not pushed: %d more paths\n", len(failures)-i)
			return
		}
		c.Runner.Printf("not pushed: %s: %s\n", f.Path, f.Reason)
	}
}

// leaveOut is the filter as a push wants it.
func (c *Remote) leaveOut() func(nix.StorePath) bool {
	if c.Filter == nil {
		return nil
	}
	return func(p nix.StorePath) bool { return c.Filter.MatchString(p.Name()) }
}

// tick prints lines of progress until it is stopped.
func (c *Remote) tick(paths []nix.StorePath) (stop func()) {
	what := paths[0].Name()
	if len(paths) > 1 {
		what = fmt.Sprintf("%s and %d more", what, len(paths)-1)
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(c.Every)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				g := c.Pusher.Progress
				if g.Paths.Load() == g.PathsDone.Load() { // still asking what is missing, or done
					continue
				}
				c.Runner.Printf("push %s: %d of %d paths, %s of %s sent\n", what, g.PathsDone.Load(), g.Paths.Load(),
					report.Bytes(g.Sent.Load()), report.Bytes(g.Packed.Load()))
			}
		}
	}()
	return func() { close(done); <-gone }
}
