// Package budget says how much memory the process may use, and shares it out.
//
//	Machine ── GOMEMLIMIT, cgroups up the tree, physical memory: the least of them
//	   │
//	Plan ───── what of it is the Go heap's, SQLite's, and for bytes in flight
//	   │
//	Bytes ──── Acquire(n) waits its turn ── work ── release
//
// Bytes in flight are those that a request makes the process hold: bodies, buffers of compression and
// verification, read-ahead. Each is acquired before it is allocated. A task that holds bytes must not wait
// for more of the same budget, or two such tasks could wait for each other for ever: acquire all at once, or
// TryAcquire the rest and do without.
package budget

import (
	"context"
	"math"
	"slices"
	"sync"
)

// Bytes is a number of bytes to share. First come, first served: a large request that had to let small ones
// pass would never start. A nil *Bytes has no limit.
type Bytes struct {
	total int64

	mu      sync.Mutex
	used    int64
	waiting []*waiter // in order of arrival
}

// waiter is an Acquire that waits. ready is closed when it has its bytes.
type waiter struct {
	n     int64
	ready chan struct{}
}

// New makes a budget of total bytes, at least one.
func New(total int64) *Bytes { return &Bytes{total: max(total, 1)} }

// Total is the whole budget in bytes, taken or not; of a nil budget, the largest number there is.
func (b *Bytes) Total() int64 {
	if b == nil {
		return math.MaxInt64
	}
	return b.total
}

// Used is how many bytes are taken now.
func (b *Bytes) Used() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Waiting is how many tasks wait now.
func (b *Bytes) Waiting() int {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

// Acquire takes n bytes. It waits while they are taken, until ctx ends, and returns ctx's error then. More
// than Total is Total: such a request runs alone. release gives the bytes back; calling it twice is harmless.
func (b *Bytes) Acquire(ctx context.Context, n int64) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b == nil || n <= 0 {
		return func() {}, nil
	}
	n = min(n, b.total)
	b.mu.Lock()
	if b.free(n) {
		b.used += n
		b.mu.Unlock()
		return b.releaser(n), nil
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()

	select {
	case <-w.ready:
		return b.releaser(n), nil
	case <-ctx.Done():
		b.abandon(w)
		return nil, ctx.Err()
	}
}

// TryAcquire takes n bytes if that needs no waiting.
func (b *Bytes) TryAcquire(n int64) (release func(), ok bool) {
	if b == nil || n <= 0 {
		return func() {}, true
	}
	n = min(n, b.total)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.free(n) {
		return nil, false
	}
	b.used += n
	return b.releaser(n), true
}

// free tells whether n bytes can be had now, past nobody; b.mu is held.
func (b *Bytes) free(n int64) bool { return len(b.waiting) == 0 && b.used+n <= b.total }

func (b *Bytes) releaser(n int64) func() {
	var once sync.Once
	return func() { once.Do(func() { b.give(n) }) }
}

func (b *Bytes) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.wake()
}

// wake serves the head of the queue; b.mu is held.
func (b *Bytes) wake() {
	for len(b.waiting) > 0 && b.used+b.waiting[0].n <= b.total {
		w := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.used += w.n
		close(w.ready)
	}
}

// abandon takes w out of the queue, or gives back what it got while its context ended.
func (b *Bytes) abandon(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, w); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	} else {
		b.used -= w.n
	}
	b.wake() // w may have held up the others
}
