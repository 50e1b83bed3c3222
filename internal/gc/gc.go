// Package gc is the only code that deletes. It keeps what somebody holds or uses, with all that this needs, and has
// the rest go, from the paths down to the objects.
//
//	read ──── all paths and what they refer to, a page at a time, into numbers            graph.go
//	mark ──── pins, what was used of late, the last toplevels, the quota                   mark.go
//	paths ─── what is not kept, a record for each; what refers to others goes before them  paths.go
//	NARs ──── that are no path's
//	rewrite ─ packs of which little is needed go into new ones, which are shown            (rewrite)
//	survey ── which packs no layout needs                                                  packs.go
//	condemn ─ those, for a time that is longer than a redirect lives
//	reap ──── their rows, then their objects
//	sweep ─── objects of the bucket that nothing knows of, once they are a day old         sweep.go
//
// What it has read is old when it acts on it, since everything goes on meanwhile: so it asks again in the transaction
// that deletes. Of paths, the database notes which were pushed, used or pinned since the reading began; they and what
// they need stay. Of NARs, whether a path has them. Of packs, whether any of their chunks was shown to a cache since
// the survey began; whatever puts a chunk into a layout shows it in the same transaction.
//
//	       nothing needs it         the time is up           the bucket has said so
//	live ───────────────► condemned ───────────────► deleting ───────────────► gone
//	 ▲                        │                   (its chunks are unknown)
//	 └── shown to a cache ◄───┘
//
// A process that ends anywhere leaves a database from which the next one goes on. How far it is lies in memory: what is
// lost with it is a reading of the database.
package gc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
)

// Blobs is what a collection needs of a bucket.
type Blobs interface {
	blob.Deleter
	blob.Lister
}

// Collector collects. Fill in the fields, then use it from any number of goroutines: it does one thing at a time.
type Collector struct {
	DB      *meta.DB
	Layouts *depot.Layouts
	Blobs   Blobs

	Retention time.Duration          // of caches that have none of their own; 0: for ever
	Rules     func(cache string) Own // what the configuration says of a cache; nil: nothing

	// Uses writes the last uses that are still to be written; nil: there are none.
	Uses func(ctx context.Context) error

	// Rewrite moves what is alive out of packs of which little is. It shows new packs and repoints NARs, and never
	// deletes: it leaves old packs with nothing that a layout needs, and the stages behind it condemn and drop them.
	// Nil: packs stay as they are.
	Rewrite interface {
		Step(ctx context.Context) (more bool, err error)
	}

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil means slog.Default()

	Grace  time.Duration // between condemning a pack and deleting it; 0 means 20 minutes: a redirect lives for 10
	Fresh  time.Duration // how long what was pushed or pulled stays, where only KeepLast or Quota say what does; 0 means a day
	Orphan time.Duration // how old an object must be that nothing knows of; 0 means a day
	Lease  time.Duration // how long it is away before another may collect; 0 means 5 minutes

	mu     sync.Mutex
	run    *run
	holder string
}

// Own is what a configuration says of one cache.
type Own struct {
	KeepLast int
	Quota    int64 // bytes
}

const (
	leaseName = "collection"
	// dropBatch paths are deleted in one transaction, which is a record in the bucket, and others wait for it.
	dropBatch = 500
	// narPage is how many ids of NARs are looked at in one transaction. SQLite keeps what a statement changes in memory.
	narPage = 1000
	// packBatch packs are condemned in one transaction.
	packBatch = 256
)

// Result is what a collection did. Sizes are in bytes.
type Result struct {
	Began   time.Time     `json:"began"`
	Ended   time.Time     `json:"ended"`
	Took    time.Duration `json:"-"`
	Paths   int           `json:"paths"`     // that went
	Revived int           `json:"revived"`   // that were to go and were used or pinned meanwhile
	NARs    int64         `json:"nars"`      // that went
	Doomed  int           `json:"condemned"` // packs that nothing needs any more
	Packs   int           `json:"packs"`     // that were deleted
	Freed   int64         `json:"freed"`     // bytes of these
	Orphans int           `json:"orphans"`   // objects that nothing knew of, and that were deleted
	Strays  int64         `json:"orphan_bytes"`

	Waiting      int64     `json:"waiting"` // packs that are condemned, and whose time has not come
	WaitingBytes int64     `json:"waiting_bytes"`
	WaitUntil    time.Time `json:"wait_until,omitzero"` // for the first of them
}

// Options say how a collection differs from the one by the clock.
type Options struct {
	Cache  string // only paths of this cache go; empty: of all
	AtOnce bool   // packs are deleted without the wait; downloads that are under way may break off
}

// run is a collection that is under way.
type run struct {
	Options
	stage  int
	number int64
	result Result

	reader  reader
	paths   *leave
	nar     int64
	survey  *survey
	sweeper *sweeper

	superseded bool // see meta.Tx.Supersede
}

// The stages. Each is a function that does a part and says whether it is done.
var stages = []func(*Collector, context.Context, *run) (done bool, err error){
	(*Collector).begin, (*Collector).read, (*Collector).dropPaths, (*Collector).dropNARs, (*Collector).rewrite,
	(*Collector).look, (*Collector).condemn, (*Collector).reap, (*Collector).sweep, (*Collector).dropLogs, (*Collector).end,
}

// Step does a part of a collection, and begins one if none is under way. It ends soon after ctx does, and goes on when
// it is called again; more says that there is something left. After an error the collection is given up, and the next
// one begins anew. While somebody else collects it is meta.ErrLeased.
func (c *Collector) Step(ctx context.Context) (more bool, err error) {
	if !c.mu.TryLock() {
		return false, nil // a command is at it
	}
	defer c.mu.Unlock()
	if c.run == nil {
		c.run = &run{}
	}
	done, err := c.advance(ctx, c.run)
	if done || err != nil {
		c.forget()
	}
	return !done && err == nil, err
}

// Run makes a whole collection, from the beginning.
func (c *Collector) Run(ctx context.Context, o Options) (*Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	r := &run{Options: o}
	c.run = r
	defer c.forget()
	for {
		done, err := c.advance(ctx, r)
		if err == nil && !done {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if done {
			return &r.result, nil
		}
	}
}

// Reap deletes the packs whose time has come, without a collection: it looks at a table that is nearly always empty.
func (c *Collector) Reap(ctx context.Context) (more bool, err error) {
	if !c.mu.TryLock() {
		return false, nil
	}
	defer c.mu.Unlock()
	if c.run != nil {
		return false, nil // it comes to that itself
	}
	done, err := c.reap(ctx, &run{})
	if err != nil {
		return false, fmt.Errorf("delete packs: %w", err)
	}
	return !done, nil
}

// Close gives up what is under way.
func (c *Collector) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
}

func (c *Collector) advance(ctx context.Context, r *run) (done bool, err error) {
	for r.stage < len(stages) {
		ready, err := stages[r.stage](c, ctx, r)
		if err != nil {
			return false, fmt.Errorf("collect garbage: %w", err)
		}
		if ready {
			r.stage++
		}
		if ctx.Err() != nil {
			break
		}
	}
	return r.stage == len(stages), nil
}

// forget ends a run. That the database goes on noting what is used does no harm; the next run ends it.
func (c *Collector) forget() { c.run = nil }

// begin takes the lease.
func (c *Collector) begin(ctx context.Context, r *run) (bool, error) {
	r.result.Began = c.now()
	if err := c.uses(ctx); err != nil {
		return false, err
	}
	err := c.update(ctx, func(tx *meta.Tx) (err error) {
		if r.number, err = tx.BeginCollection(); err == nil {
			err = tx.Watch(r.number)
		}
		return err
	})
	return err == nil, err
}

// dropNARs looks at a stretch of NARs in each transaction, and at whether they have paths in the same.
func (c *Collector) dropNARs(ctx context.Context, r *run) (done bool, err error) {
	for {
		var last int64
		err := c.update(ctx, func(tx *meta.Tx) (err error) {
			if last, err = tx.LastNAR(); err != nil || last <= r.nar {
				return err
			}
			gone, err := tx.CollectNARs(r.nar, min(last, r.nar+narPage))
			r.result.NARs += gone
			return err
		})
		if err != nil {
			return false, err
		}
		if r.nar = min(last, r.nar+narPage); r.nar >= last {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, nil
		}
	}
}

// rewrite goes on without it when it fails: what it could not move stays where it is.
func (c *Collector) rewrite(ctx context.Context, r *run) (done bool, err error) {
	if c.Rewrite == nil || r.Cache != "" {
		return true, nil
	}
	for {
		// It takes its time, and the lease must not run out.
		if err := c.update(ctx, func(*meta.Tx) error { return nil }); err != nil {
			return false, err
		}
		more, err := c.Rewrite.Step(ctx)
		if err != nil && ctx.Err() == nil {
			c.log().Error("packs are not rewritten", "error", err)
			return true, nil
		}
		if !more && err == nil || ctx.Err() != nil {
			return !more && err == nil, nil
		}
	}
}

// end says what was done, and keeps it.
func (c *Collector) end(ctx context.Context, r *run) (bool, error) {
	res := &r.result
	res.Ended = c.now()
	res.Took = res.Ended.Sub(res.Began)
	err := c.DB.Update(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
		var next time.Time
		if res.Waiting, res.WaitingBytes, next, err = tx.CountCondemned(); err != nil {
			return err
		}
		if res.Waiting > 0 {
			res.WaitUntil = next.Add(c.grace(r))
		}
		if err := keepResult(tx, res); err != nil {
			return err
		}
		return tx.DropLease(leaseName, c.holder)
	})
	if err != nil {
		return false, err
	}
	if res.Paths+res.Packs+res.Doomed+res.Orphans > 0 || res.NARs > 0 {
		c.log().Info("collected garbage", "paths", res.Paths, "nars", res.NARs, "condemned", res.Doomed,
			"packs", res.Packs, "freed", res.Freed, "orphans", res.Orphans, "took", res.Took.Round(time.Millisecond))
	}
	return true, nil
}

// update changes the database as the one who collects. It is not broken off for a request: what it does is short.
func (c *Collector) update(ctx context.Context, fn func(*meta.Tx) error) error {
	if c.holder == "" {
		c.holder = rand.Text()
	}
	return c.DB.Update(context.WithoutCancel(ctx), func(tx *meta.Tx) error {
		if err := tx.TakeLease(leaseName, c.holder, orElse(c.Lease, 5*time.Minute)); err != nil {
			return err
		}
		return fn(tx)
	})
}

// uses has the database know what was used until now.
func (c *Collector) uses(ctx context.Context) error {
	if c.Uses == nil {
		return nil
	}
	if err := c.Uses(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("write last uses: %w", err)
	}
	return nil
}

// rule is what holds for a cache.
func (c *Collector) rule(cache *meta.Cache) Rule {
	r := Rule{Retention: c.Retention}
	if cache.Retention != nil {
		r.Retention = time.Duration(*cache.Retention) * time.Second
	}
	if c.Rules != nil {
		own := c.Rules(cache.Name)
		r.KeepLast, r.Quota = own.KeepLast, own.Quota
	}
	return r
}

func (c *Collector) grace(r *run) time.Duration {
	if r.AtOnce {
		return 0
	}
	return orElse(c.Grace, 20*time.Minute)
}

func (c *Collector) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c *Collector) log() *slog.Logger {
	if c.Log == nil {
		return slog.Default()
	}
	return c.Log
}

func orElse(d, standard time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return standard
}

var errLost = errors.New("another collection has begun meanwhile")
