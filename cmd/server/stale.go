package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/ledger"
)

// A recovery on another machine makes this server's database stale while it runs: what it acknowledges from then on is in
// the epoch that was, which nobody reads. It cannot be told by the other, so it looks at the bucket itself, as long as
// it writes.

// stalePause is the time between two looks, and the longest for which a stale server acknowledges anything.
const stalePause = time.Minute

var errStale = errors.New("another server has recovered from this storage, so this database is stale: what was pushed here since is not in it")

// written is a bucket that knows whether anything was written to it.
type written struct {
	blob.Store
	some atomic.Bool
}

// Put implements blob.Putter.
func (w *written) Put(ctx context.Context, key string, src blob.Source) error {
	w.some.Store(true)
	return w.Store.Put(ctx, key, src)
}

// fence has watchEpoch look after what is written to a bucket.
func (st *stack) fence(bucket blob.Store, epoch uint64) blob.Store {
	w := &written{Store: bucket}
	st.watch = func(ctx context.Context) { st.watchEpoch(ctx, w, epoch, stalePause) }
	return w
}

// watchEpoch ends the server once another has recovered from its bucket. It asks nothing of the bucket while nothing
// is written, and returns when ctx ends.
func (st *stack) watchEpoch(ctx context.Context, w *written, epoch uint64, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		if !w.some.Swap(false) {
			continue
		}
		newer, err := ledger.Newer(ctx, w.Store, epoch)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.some.Store(true) // the next look tells
		case newer:
			st.end(configError{hintError{errStale, "use the other server, and push to it what was pushed here; or run attic-server recover --replace, which makes the other one stale"}})
			return
		}
	}
}
