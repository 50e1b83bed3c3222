package push

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// run is one push on its way to a server that takes packs.
type run struct {
	p        *Pusher
	api      *client.Client
	cache    string
	road     *packRoad
	items    []*item
	book     *book
	track    *tracker
	progress *Progress

	memory  *semaphore.Weighted // bytes of NARs held
	uploads *semaphore.Weighted // packs on the network
	spool   *spool.Dir
	asks    *queue // scanned, chunks unknown
	feeds   *queue // chunks to be packed
	order   chan *job
	work    chan *job
	free    chan *job
	group   *errgroup.Group
	done    chan struct{} // closed when every item is at its end and through
	encoder *pack.Encoder

	active    atomic.Int64 // items whose chunks are not all in packs; at 0 the shared pack is closed
	newChunks atomic.Int64
	packs     atomic.Int64
	kept      atomic.Int64
}

// spoolBudget bounds the packs that are written and not yet stored. It holds
// four own packs and a shared one.
const spoolBudget = 5 * (ownTarget + 4<<20)

func (p *Pusher) pushPacks(ctx context.Context, plan *plan, res *Result) error {
	book := p.book(plan.cache)
	select {
	case book.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		book.reset()
		<-book.turn
	}()
	g, gctx := errgroup.WithContext(ctx)
	r := &run{
		p: p, api: plan.api, cache: plan.cache, road: plan.pack, items: plan.items,
		book: book, progress: p.progress(),
		memory:  semaphore.NewWeighted(p.memory()),
		uploads: semaphore.NewWeighted(int64(p.jobs())),
		spool:   &spool.Dir{Path: p.TempDir, Budget: spoolBudget},
		asks:    newQueue(), feeds: newQueue(),
		group: g, done: make(chan struct{}), encoder: pack.NewEncoder(),
	}
	r.track = newTracker(plan.items, func(n int) { r.progress.PathsDone.Add(int64(n)) })
	r.active.Store(int64(len(plan.items)))
	r.makeJobs()
	g.Go(func() error { return r.scanAll(gctx) })
	g.Go(func() error { return r.askAll(gctx) })
	g.Go(func() error { return r.feedAll(gctx) })
	for range p.workers() {
		g.Go(func() error { return r.compressAll(gctx) })
	}
	g.Go(func() error { return r.writeAll(gctx) })
	g.Go(func() error { return r.commitAll(gctx) })
	err := g.Wait()
	r.report(ctx, err, res)
	return err
}

// report fills the result.
func (r *run) report(ctx context.Context, err error, res *Result) {
	reason := "not reached"
	switch {
	case ctx.Err() != nil:
		reason = "interrupted"
	case err != nil:
		reason = err.Error()
	}
	for _, it := range r.items {
		switch it.track.state {
		case committed:
			res.NARBytes += int64(it.info.NarSize)
			res.Pushed++
		case failed:
		default:
			res.Failed = append(res.Failed, Failure{it.info.Path.String(), reason})
		}
	}
	res.Failed = append(res.Failed, r.track.failed...)
	res.Kept = int(r.kept.Load())
	res.Pushed -= res.Kept
	res.NewChunks, res.Packs = int(r.newChunks.Load()), int(r.packs.Load())
}

// through notes that one item needs nothing more of the packer. The last one
// has the shared pack closed, for nobody will fill it.
func (r *run) through(ctx context.Context) error {
	if !r.last() {
		return nil
	}
	return r.send(ctx, &job{what: jobFlush})
}

func (r *run) last() bool {
	if r.active.Add(-1) > 0 {
		return false
	}
	r.track.signal() // all may be done
	return true
}

// askEvery is how long what has been scanned gathers when a question has just been
// asked: a server next door answers in less than a millisecond, and would be asked
// for each file by itself.
const askEvery = 25 * time.Millisecond

// askAll finds out which chunks the cache lacks. While one question is on its
// way, the next gathers what has been scanned.
func (r *run) askAll(ctx context.Context) error {
	var last time.Time
	for {
		if err := sleep(ctx, askEvery-time.Since(last)); err != nil {
			return err
		}
		batch := r.asks.take(ctx, nil)
		last = time.Now()
		if len(batch) == 0 {
			return ctx.Err()
		}
		for ids := range slices.Chunk(r.book.unknown(batch), r.road.missingChunks) {
			missing, err := r.api.MissingChunks(ctx, r.cache, ids)
			if err != nil {
				return err
			}
			r.book.answer(ids, missing)
		}
		r.feeds.put(batch...)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refused reports whether err is the server's verdict on these bytes, rather
// than on the user, the cache or the connection.
func refused(err error) bool {
	var se *client.StatusError
	if !errors.As(err, &se) {
		return false
	}
	switch se.Status {
	case 400, 409, 413, 422:
		return true
	}
	return false
}

// reasonOf is the text for people of a refusal.
func reasonOf(err error) string {
	if e := client.APIError(err); e != nil && e.Name != api.RequestError {
		return "the server refused it: " + client.Clean(e.Name+": "+e.Message, 300)
	} else if e != nil {
		return "the server refused it: " + client.Clean(e.Message, 300)
	}
	return err.Error()
}
