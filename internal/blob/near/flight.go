package near

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// flight is one range of the bucket on its way into a file. It belongs to no reader: whoever asked for it may
// go away, for the neighbours are wanted next. Cache.mu guards what changes.
type flight struct {
	from, to int // slices
	at       int // the next slice to come
	err      error
	progress chan struct{} // closed, and made anew, when a slice has come or the flight has ended
}

// How far a miss reaches: the more of a pack was asked for, the more of it will be. Slices. A miss soon after
// others, in whatever packs, is part of the pull of a closure, and reaches as far as it can: a client that takes
// one NAR after the other would wait three times for each pack.
const (
	firstReach  = 1 << 20 / slice
	secondReach = 4 << 20 / slice
	lastReach   = 16 << 20 / slice
	// longest is what one connection fetches; what is longer is fetched by several at once.
	longest = 4 << 20 / slice

	rushAfter  = 4               // misses
	rushWithin = 5 * time.Second // between one and the next
)

// rush counts misses that follow one another closely. Cache.mu guards it.
type rush struct {
	misses int
	last   time.Time
}

// miss notes one, and tells whether it is part of a pull of many NARs.
func (r *rush) miss(now time.Time) bool {
	if now.Sub(r.last) > rushWithin {
		r.misses = 0
	}
	r.misses++
	r.last = now
	return r.misses > rushAfter
}

// errStore marks errors of the volume, as opposed to the bucket's.
type errStore struct{ error }

func (e errStore) Unwrap() error { return e.error }

// want sees to it that slices first to last of e are there or on their way, as far as there is room for them;
// c.mu is held.
func (c *Cache) want(e *entry, first, last int) {
	for i := first; i <= last; i++ {
		if !e.missing(i) {
			continue
		}
		rush := c.rush.miss(c.now()) && !e.object.Sparse
		from, to := c.stretch(e, i, last, rush)
		if !c.launch(e, from, to) && !c.launch(e, i, e.gapEnd(i, last+1)) {
			return
		}
		if rush {
			c.rest(e, from)
		}
	}
}

// missing tells whether slice i is neither there nor on its way.
func (e *entry) missing(i int) bool { return !e.have[i] && e.flight(i) == nil }

// flight is the one that will bring slice i.
func (e *entry) flight(i int) *flight {
	for _, f := range e.flights {
		if f.at <= i && i < f.to {
			return f
		}
	}
	return nil
}

// rest fetches what is missing of e before slice end, as far as a miss may reach; c.mu is held.
func (c *Cache) rest(e *entry, end int) {
	for i := max(0, end-lastReach); i < end; i++ {
		if e.missing(i) && !c.launch(e, i, e.gapEnd(i, end)) {
			return
		}
	}
}

// stretch is what to fetch when slice i is missing and those up to last are wanted: from a MiB's beginning on,
// as far as nothing of it is there.
func (c *Cache) stretch(e *entry, i, last int, rush bool) (from, to int) {
	held := 0
	for k := range e.have {
		if !e.missing(k) {
			held++
		}
	}
	reach := firstReach
	switch {
	case e.object.Sparse:
	case rush, held >= secondReach:
		reach = lastReach
	case held > 0:
		reach = secondReach
	}
	from = i
	for from%firstReach != 0 && e.missing(from-1) {
		from--
	}
	return from, e.gapEnd(i, max(from+reach, last+1))
}

// gapEnd is the first slice from i on that is not missing, and at most most.
func (e *entry) gapEnd(i, most int) int {
	most = min(most, len(e.have))
	for i < most && e.missing(i) {
		i++
	}
	return i
}

// launch begins to fetch slices from up to to, if there is room for them; c.mu is held.
func (c *Cache) launch(e *entry, from, to int) bool {
	if !c.room(e.cost(from, to)) || c.entries[e.name] != e { // what a forgotten entry has, nobody would find
		return false
	}
	for ; from < to; from += longest {
		f := &flight{from: from, to: min(from+longest, to), at: from, progress: make(chan struct{})}
		e.flights = append(e.flights, f)
		cost := e.cost(f.from, f.to)
		e.bytes += cost
		c.total += cost
		c.flights.Go(func() { c.land(e, f, c.fly(c.ctx, e, f)) })
	}
	return true
}

// cost is what slices take of the volume.
func (e *entry) cost(from, to int) (n int64) {
	for i := from; i < to; i++ {
		n += e.object.length(i) + sumSize
	}
	return n
}

var buffers = sync.Pool{New: func() any { b := make([]byte, slice); return &b }}

// fly fetches the slices of f one after the other.
func (c *Cache) fly(ctx context.Context, e *entry, f *flight) error {
	o, off := e.object, int64(f.from)*slice
	file, err := create(c.path(e))
	if err != nil {
		return errStore{err}
	}
	defer file.Close() // a sum tells what was not written
	r, err := c.Blobs.Get(ctx, o.Key, off, min(int64(f.to)*slice, o.Size)-off)
	if err != nil {
		return err
	}
	defer r.Close()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for i := f.from; i < f.to; i++ {
		b := (*buf)[:o.length(i)]
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("get %s: %w", o.Key, unexpected(err))
		}
		if err := writeSlice(file, o, i, b); err != nil {
			return errStore{err}
		}
		c.mu.Lock()
		e.have[i] = true
		f.at = i + 1
		f.tell()
		c.mu.Unlock()
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF // bytes were promised
	}
	return err
}

// tell wakes the readers that wait; c.mu is held.
func (f *flight) tell() {
	close(f.progress)
	f.progress = make(chan struct{})
}

// land ends a flight.
func (c *Cache) land(e *entry, f *flight, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(e.flights, f); i >= 0 {
		e.flights = slices.Delete(e.flights, i, i+1)
	}
	if err == nil {
		return
	}
	f.err = err
	cost := e.cost(f.at, f.to) // was not written
	e.bytes -= cost
	c.total -= cost
	if _, ours := err.(errStore); ours {
		if !c.now().Before(c.shunned) {
			c.Log.Warn("the cache of packs on the volume takes nothing for now", "dir", c.Dir, "error", err)
		}
		c.shunned = c.now().Add(shun)
	}
	f.tell()
}
