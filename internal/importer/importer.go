// Package importer takes paths from another binary cache into one of ours. The work has two halves, for
// the database belongs to one process and the command that was typed may be another:
//
//	the command                              the process that has the database
//	Run                                      Landing
//	 ├─ Source.List, or the paths named
//	 ├─ walk along references ── Have ─────► which are here, and what these refer to
//	 │    └─ Source.NarInfo of the others
//	 └─ references first, some at a time ──► Take: Source.NarInfo, Source.NAR ► unpack ► depot.Ingest
//
// What is here is not fetched again, and a path comes after all that it refers to. So an import that was
// killed goes on with the next run, and leaves no path without its references.
//
// A source is hostile until what it says was hashed: sizes, times, redirects and memory are bounded.
package importer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/nix"
)

// Cache is the cache that an import fills, on the command's side.
type Cache interface {
	// Have says of each hash that the cache has what the path refers to, as hashes; others are left out.
	Have(ctx context.Context, hashes []string) (map[string][]string, error)
	// Take takes one path. What is wrong with the path or its source is in the result; an error is ours, and
	// ends the import.
	Take(ctx context.Context, o Order) (Taken, error)
}

// Order is one path to take.
type Order struct {
	Hash string // of the path
	// Elsewhere are references, as hashes, that the source does not have. Without being named here a
	// reference must be in the cache.
	Elsewhere []string
	Upstream  []string // those of them that an upstream cache has
}

// Taken is what came of an order.
type Taken struct {
	StorePath string `json:"store_path,omitempty"`
	NARSize   uint64 `json:"nar_size,omitempty"`
	Fetched   int64  `json:"fetched,omitempty"` // bytes that came from the source
	Problem   string `json:"problem,omitempty"` // why it was not taken; empty: it was
	Again     bool   `json:"again,omitempty"`   // the problem may pass
}

// Options are what Run is to take.
type Options struct {
	From      *Source
	Upstreams []*Source       // where references are looked for that the source does not have
	KeyNames  []string        // of keys whose signature makes a path an upstream's
	Tops      []string        // hashes of paths to take with their closures; nil: all that the source lists
	Jobs      int             // paths taken at a time; 0: 4
	Progress  func(r Result)  // now and then; nil: nobody asks
	Pause     []time.Duration // before each further try of what may pass; nil: 1 s, 5 s, 20 s
}

// Result is what came of an import. Bytes are of NARs.
type Result struct {
	Paths     int       `json:"paths"`     // that the import is about
	Present   int       `json:"present"`   // were in the cache
	Imported  int       `json:"imported"`  // came
	Bytes     uint64    `json:"bytes"`     // of those that came
	Fetched   int64     `json:"fetched"`   // bytes that were transferred for them
	Elsewhere int       `json:"elsewhere"` // references that neither the source nor an upstream has
	Upstream  int       `json:"upstream"`  // references that an upstream has
	Failed    []Failure `json:"failed"`    // the first of them
	Failing   int       `json:"failing"`   // how many there are
}

// Failure is a path that did not come.
type Failure struct {
	Path    string `json:"path"` // store path, or hash where no more is known
	Problem string `json:"problem"`
}

const (
	// maxFailures bounds Result.Failed.
	maxFailures = 1000
	// maxElsewhere bounds an Order.
	maxElsewhere = 10_000
)

// Run takes what o says. Paths that fail are in the result and keep back those that need them; an error
// ends the run, and what came before it stays.
func Run(ctx context.Context, to Cache, o Options) (Result, error) {
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.Pause == nil {
		o.Pause = []time.Duration{time.Second, 5 * time.Second, 20 * time.Second}
	}
	r := &run{Options: o, to: to, result: Result{Failed: []Failure{}}}
	w, err := r.walk(ctx)
	if err != nil {
		return r.result, err
	}
	err = r.take(ctx, w)
	return r.result, err
}

type run struct {
	Options
	to   Cache
	tops int // the first so many paths of the walk are the tops

	mu     sync.Mutex
	result Result
}

// note changes the result and tells of it.
func (r *run) note(change func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.result)
	if r.Progress != nil {
		r.Progress(r.result)
	}
}

func (r *run) fail(path, problem string) {
	r.note(func(res *Result) {
		res.Failing++
		if len(res.Failed) < maxFailures {
			res.Failed = append(res.Failed, Failure{path, problem})
		}
	})
}

// take takes what was found, references first.
func (r *run) take(ctx context.Context, w *walk) error {
	q := newQueue(w)
	for _, id := range q.circular {
		r.fail(w.hash(id), "not taken: the source says that paths refer to each other in a circle")
	}
	for _, id := range q.kept {
		r.fail(w.hash(id), keptBack)
	}
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(r.Jobs)
	for id := range q.each(within) {
		g.Go(func() error {
			good, err := r.one(within, w, id)
			for _, back := range q.done(id, good) {
				r.fail(w.hash(back), keptBack)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

const keptBack = "not taken: something that it refers to was not"

// one takes one path, and tries again what may pass.
func (r *run) one(ctx context.Context, w *walk, id int32) (good bool, err error) {
	o := w.orderFor(id)
	if n := len(o.Elsewhere); n > maxElsewhere {
		r.fail(o.Hash, fmt.Sprintf("it refers to %d paths that the source does not have; at most %d can be", n, maxElsewhere))
		return false, nil
	}
	for try := 0; ; try++ {
		t, err := r.to.Take(ctx, o)
		if err != nil {
			return false, err
		}
		if t.Problem == "" {
			r.note(func(res *Result) {
				res.Imported++
				res.Bytes += t.NARSize
				res.Fetched += t.Fetched
			})
			return true, nil
		}
		if t.Again && try < len(r.Pause) {
			if err := sleep(ctx, r.Pause[try]); err != nil {
				return false, err
			}
			continue
		}
		path := t.StorePath
		if path == "" {
			path = o.Hash
		}
		r.fail(path, t.Problem)
		return false, nil
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ErrAbsent says that a source has no such path.
var ErrAbsent = errors.New("the source has no such path")

// Hash is the hash in a store path, its last part, or a hash.
func Hash(s string) (string, error) {
	if len(s) == nix.PathHashLen {
		s += "-x"
	}
	if len(s) > 0 && s[0] == '/' {
		p, err := nix.ParseStorePath(s)
		return p.Hash(), err
	}
	p, err := nix.ParseBaseName(nix.StoreDir, s)
	return p.Hash(), err
}
