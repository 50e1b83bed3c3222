// Package rewrite gathers what is alive in packs that are mostly dead, and in small ones, into new packs.
//
//	survey ── all layouts once: which entries of which packs they need
//	choose ── less than a third alive, oldest first; small ones, when together they are one that is not
//	gather ── all layouts again: which NARs need the chosen packs
//	copy ──── frames as they are, each one decoded and hashed on its way ──► spool ──► packs/…
//	settle ── one transaction, or a few when much hangs on it:
//	            the new pack's row
//	            whoever sees an entry for good in an old pack sees it in the new one, and nobody else
//	            NARs get their spans from the new pack, each with its record
//	            the entries are found in the new pack alone
//
// Nothing is deleted here. The old packs are left with nothing that a layout needs, and package gc drops them
// after its grace; until then whoever reads from them goes on. A process that ends anywhere leaves a NAR in its
// old place or in its new one, and at most an object that nobody needs. A NAR's stream stays as it was, byte for
// byte, and so does its form.
//
// How far it is lies in memory alone: what is lost with it is the work of minutes, and what is settled, stays.
package rewrite

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/budget"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// Rewriter rewrites packs. Fill in the fields, then call Step until it says that no more is to be done. It is for
// whoever holds the lease of the collection: one at a time for a database.
type Rewriter struct {
	DB      *meta.DB
	Layouts *depot.Layouts
	Blobs   interface {
		blob.Getter
		blob.Putter
	}
	Spool  *spool.Dir
	Memory *budget.Bytes // of bytes in flight; nil: no limit
	Log    *slog.Logger  // nil means slog.Default()

	Budget int64 // bytes that a run may read and write together, about, 4 KiB for each NAR that moves; 0 means 1 GiB
	Target int64 // bytes of a new pack, about; 0 means 16 MiB
	Small  int64 // a pack of less bytes is merged with others; 0 means 4 MiB

	// Damaged is told of a pack that cannot be read as its index says, twice. It is left as it is. Nil: it is logged.
	Damaged func(ctx context.Context, pack int64, key string, err error)

	mu      sync.Mutex
	run     *run
	last    Result
	damaged map[int64]bool // not to be tried again by this process
	decoder *pack.Decoder
	heavy   int // weight of a transaction; 0: txWeight
}

// Result is what a run did.
type Result struct {
	Packs   int   `json:"packs"`     // that were rewritten
	Bytes   int64 `json:"bytes"`     // of them
	New     int   `json:"new_packs"` // that they went into
	Read    int64 `json:"bytes_read"`
	Written int64 `json:"bytes_written"`
	NARs    int   `json:"nars"`    // that were moved
	Damaged int   `json:"damaged"` // packs that were left for it
}

// stepCost is what a step holds in memory: an index as large as there may be, a frame, what it decodes to.
const stepCost = 8 << 20

// run is one time through all packs.
type run struct {
	survey *Survey
	users  *users // nil: the survey is not done
	next   int    // of the users' groups
	copy   *copying
	settle *settling
	result Result
}

// Step does a part of a run, and begins one if none is under way. It ends soon after ctx does, and goes on there
// when it is called again; more says that there is something left. After an error the run is given up, and the
// next one begins anew.
func (r *Rewriter) Step(ctx context.Context) (more bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	release, err := r.Memory.Acquire(ctx, stepCost)
	if err != nil {
		return true, err
	}
	defer release()
	if r.run == nil {
		r.run = &run{survey: &Survey{DB: r.DB, Layouts: r.Layouts}}
	}
	done, err := r.advance(ctx)
	if err != nil || done {
		r.end()
	}
	if err != nil {
		return false, fmt.Errorf("rewrite packs: %w", err)
	}
	return !done, nil
}

// Last is what the last run did that has ended, be it by an error.
func (r *Rewriter) Last() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// Close gives up a run that is under way.
func (r *Rewriter) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.run != nil {
		r.end()
	}
}

func (r *Rewriter) end() {
	if r.run.copy != nil {
		r.run.copy.close()
	}
	r.last, r.run = r.run.result, nil
	if l := r.last; l.Packs > 0 {
		r.log().Info("rewrote packs", "packs", l.Packs, "bytes", l.Bytes, "new_packs", l.New, "read", l.Read, "written", l.Written, "nars", l.NARs)
	}
}

func (r *Rewriter) advance(ctx context.Context) (done bool, err error) {
	run := r.run
	if run.users == nil {
		if done, err := run.survey.Step(ctx); err != nil || !done {
			return false, err
		}
		groups := r.choose(run.survey.Usage())
		run.survey.usage = Usage{} // it is not needed any more, and large
		if len(groups) == 0 {
			return true, nil
		}
		run.users = newUsers(r.DB, r.Layouts, groups)
	}
	if done, err := run.users.step(ctx); err != nil || !done {
		return false, err
	}
	for run.next < len(run.users.groups) {
		if run.next > 0 && run.copy == nil && run.settle == nil && r.spent()+r.cost(run.users.groups[run.next]) > r.budget() {
			return true, nil
		}
		ready, err := r.group(ctx, run)
		if err != nil {
			return false, err
		}
		if ready {
			run.copy, run.settle = nil, nil
			run.next++
		}
		if ctx.Err() != nil {
			break
		}
	}
	return run.next == len(run.users.groups), nil
}

// group goes on with the present group.
func (r *Rewriter) group(ctx context.Context, run *run) (done bool, err error) {
	if run.settle != nil {
		return r.settle(ctx, run.settle)
	}
	if run.copy == nil {
		if run.copy, err = r.newCopying(ctx, run.users.groups[run.next]); err != nil {
			if ctx.Err() != nil {
				return false, nil // it waited for the spool
			}
			return false, err
		}
	}
	if copied, err := r.step(ctx, run.copy); err != nil || !copied {
		return false, err
	}
	if len(run.copy.done) == 0 {
		run.copy.close()
		return true, nil
	}
	if run.settle, err = r.store(ctx, run.copy); err != nil {
		return false, err
	}
	return r.settle(ctx, run.settle)
}

// narBytes is what moving a NAR counts: its record, its row, and what both are written to again later.
const narBytes = 4 << 10

func (r *Rewriter) spent() int64 {
	res := &r.run.result
	return res.Read + res.Written + int64(res.NARs)*narBytes
}

// cost is about what a group will have cost.
func (r *Rewriter) cost(g *group) int64 { return 2*g.alive() + int64(len(g.nars))*narBytes }

func (r *Rewriter) log() *slog.Logger {
	if r.Log == nil {
		return slog.Default()
	}
	return r.Log
}

func (r *Rewriter) budget() int64 { return orElse(r.Budget, 1<<30) }
func (r *Rewriter) target() int64 { return orElse(r.Target, 16<<20) }
func (r *Rewriter) small() int64  { return orElse(r.Small, 4<<20) }

func orElse(n, standard int64) int64 {
	if n > 0 {
		return n
	}
	return standard
}
