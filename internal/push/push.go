// Package push brings the closure of store paths into a cache.
//
//	closure ─ upstream filter ─ get-missing-paths
//	   │ missing paths, dependencies first
//	 scan      NAR hash, cut, chunk hashes        a worker per CPU
//	   │
//	 ask       chunks/missing                     one request at a time; the next batch gathers meanwhile
//	   │
//	 feed      missing chunks in order, from memory or read again
//	   │
//	 compress  a worker per CPU, order kept
//	   │
//	 write     own packs and the shared pack, in unnamed temporary files
//	   │
//	 upload    Jobs packs side by side
//	   │
//	 commit    one request at a time, references before what refers to them
//
// Whatever is stored stays: a push that was interrupted is repeated, and the
// server's answers to get-missing-paths and chunks/missing say what is left.
// Bytes in flight are bounded at each arrow, so memory does not grow with the
// closure. A server without our extension gets whole NARs by upload-path.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
)

// Store is what a push asks Nix. *nixcli.Nix is one.
type Store interface {
	Resolve(ctx context.Context, paths []string) ([]nix.StorePath, error)
	Closure(ctx context.Context, paths []nix.StorePath) ([]nixcli.PathInfo, error) // dependencies first
	Infos(ctx context.Context, paths []nix.StorePath) ([]nixcli.PathInfo, error)
}

// Pusher pushes to one server. Several pushes by one Pusher share what they
// learned of the server's chunks; to one cache they run one after another.
type Pusher struct {
	Client   *client.Client
	Nix      Store
	Log      *slog.Logger // nil discards
	Progress *Progress    // nil keeps none
	Jobs     int          // uploads side by side; zero means 8
	Workers  int          // scanning and compressing; zero means one per CPU, at most 16
	Memory   int64        // bytes of NARs held at once; zero means 48 MiB
	TempDir  string       // of packs on their way; empty means os.TempDir()
	Now      func() time.Time

	mu    sync.Mutex
	books map[string]*book // by cache
}

// Request names what is pushed where.
type Request struct {
	Cache          string
	Paths          []string // store paths, paths in them, or symlinks to them
	NoClosure      bool     // the paths alone
	IgnoreUpstream bool     // push what upstream caches signed, too
	DryRun         bool     // only find out what is missing

	// LeaveOut names paths that are not pushed. What refers to them says to the server that they are elsewhere. Nil leaves out
	// nothing.
	LeaveOut func(nix.StorePath) bool
}

// Failure is a path that was not pushed.
type Failure struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Result is what a push did. It is filled, as far as things went, beside an
// error too.
type Result struct {
	Paths     int       `json:"paths"`      // looked at: the closure
	Upstream  int       `json:"upstream"`   // of these, left out because an upstream cache signed them
	Present   int       `json:"present"`    // were in the cache
	Missing   int       `json:"missing"`    // were not
	Pushed    int       `json:"pushed"`     // are now
	Kept      int       `json:"kept"`       // somebody else pushed them meanwhile, with other contents, which stay
	NARBytes  int64     `json:"nar_bytes"`  // of the pushed paths; of the missing ones in a dry run
	BytesSent int64     `json:"bytes_sent"` // request bodies, repeated ones too
	NewChunks int       `json:"new_chunks"` // stored for the first time
	Packs     int       `json:"packs"`      // stored
	Requests  int64     `json:"requests"`   // repeated ones too
	Seconds   float64   `json:"seconds"`
	DryRun    bool      `json:"dry_run,omitempty"`
	Failed    []Failure `json:"failed"` // never nil

	WouldPush []string `json:"would_push,omitempty"` // of a dry run
}

// Err returns an error if any path failed.
func (r *Result) Err() error {
	if len(r.Failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d paths were not pushed", len(r.Failed), r.Missing)
}

// Push pushes the paths. A path that fails by itself is in Result.Failed and
// the others go on; the error is what stopped the whole push.
func (p *Pusher) Push(ctx context.Context, req Request) (*Result, error) {
	start, before := p.now(), p.Client.Stats()
	res := &Result{Failed: []Failure{}, DryRun: req.DryRun}
	err := p.push(ctx, req, res)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	after := p.Client.Stats()
	res.BytesSent, res.Requests = after.Sent-before.Sent, after.Requests-before.Requests
	res.Seconds = p.now().Sub(start).Seconds()
	return res, err
}

func (p *Pusher) push(ctx context.Context, req Request, res *Result) error {
	plan, err := p.plan(ctx, req, res)
	if err != nil {
		return err
	}
	if req.DryRun || len(plan.items) == 0 {
		for _, it := range plan.items {
			res.WouldPush = append(res.WouldPush, it.info.Path.String())
			res.NARBytes += int64(it.info.NarSize)
		}
		return nil
	}
	if plan.pack == nil {
		return p.pushStock(ctx, plan, res)
	}
	return p.pushPacks(ctx, plan, res)
}

// look asks the server and Nix at the same time: a push that finds nothing to
// do consists of little else.
func (p *Pusher) look(ctx context.Context, req Request) (*client.Config, []nixcli.PathInfo, error) {
	var cfg *client.Config
	var infos []nixcli.PathInfo
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		cfg, err = p.Client.CacheConfig(gctx, req.Cache)
		return err
	})
	g.Go(func() error {
		paths, err := p.Nix.Resolve(gctx, req.Paths)
		if err != nil {
			return err
		}
		if req.NoClosure {
			infos, err = p.Nix.Infos(gctx, paths)
		} else {
			infos, err = p.Nix.Closure(gctx, paths)
		}
		return err
	})
	err := g.Wait()
	return cfg, infos, err
}

func (p *Pusher) book(cache string) *book {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.books == nil {
		p.books = map[string]*book{}
	}
	if p.books[cache] == nil {
		p.books[cache] = newBook()
	}
	return p.books[cache]
}

func (p *Pusher) now() time.Time {
	if p.Now == nil {
		return time.Now()
	}
	return p.Now()
}

func (p *Pusher) log() *slog.Logger {
	if p.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Log
}

func (p *Pusher) progress() *Progress {
	if p.Progress == nil {
		return new(Progress)
	}
	return p.Progress
}

func (p *Pusher) jobs() int {
	if p.Jobs <= 0 {
		return 8
	}
	return p.Jobs
}

func (p *Pusher) workers() int {
	if p.Workers > 0 {
		return p.Workers
	}
	return min(runtime.GOMAXPROCS(0), 16)
}

func (p *Pusher) memory() int64 {
	if p.Memory > 0 {
		return p.Memory
	}
	return 48 << 20
}

// ErrNothing is a request without paths.
var ErrNothing = errors.New("no path is given")

// Add adds another push to r, as if both had been one.
func (r *Result) Add(o *Result) {
	r.Paths += o.Paths
	r.Upstream += o.Upstream
	r.Present += o.Present
	r.Missing += o.Missing
	r.Pushed += o.Pushed
	r.Kept += o.Kept
	r.NARBytes += o.NARBytes
	r.BytesSent += o.BytesSent
	r.NewChunks += o.NewChunks
	r.Packs += o.Packs
	r.Requests += o.Requests
	r.Seconds += o.Seconds
	r.Failed = append(r.Failed, o.Failed...)
	r.WouldPush = append(r.WouldPush, o.WouldPush...)
}
