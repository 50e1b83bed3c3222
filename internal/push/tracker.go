package push

import (
	"fmt"
	"slices"
	"sync"
)

// state is how far an item is.
type state uint8

const (
	pending   state = iota // being scanned, or its chunks packed
	waiting                // for packs to be stored
	stored                 // all of its chunks are at the server
	committed              // the cache has the path
	failed
)

// tracked is the part of an item that the tracker guards.
type tracked struct {
	state  state
	packs  int // still to be stored
	rounds int // how often its chunks were sent again
}

// tracker knows the state of every item and wakes the committer.
type tracker struct {
	mu      sync.Mutex
	items   []*item // those not committed or failed, dependencies first
	moving  int     // items that are pending or waiting
	waiters map[*packFile][]*item
	wake    chan struct{} // holds one token when something changed
	done    func(n int)   // told how many items came to an end
	failed  []Failure
}

func newTracker(items []*item, done func(int)) *tracker {
	return &tracker{
		items: append([]*item(nil), items...), moving: len(items),
		waiters: map[*packFile][]*item{}, wake: make(chan struct{}, 1), done: done,
	}
}

func (t *tracker) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// setState moves an item; t.mu is held.
func (t *tracker) setState(it *item, s state) {
	was, is := it.track.state <= waiting, s <= waiting
	it.track.state = s
	switch {
	case was && !is:
		t.moving--
	case !was && is:
		t.moving++
	}
	if s == committed || s == failed {
		t.done(1)
	}
	t.signal()
}

// over reports whether the item has failed already.
func (t *tracker) over(it *item) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return it.track.state == failed
}

// fail ends an item, and all that depend on it.
func (t *tracker) fail(it *item, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failLocked(it, reason)
}

func (t *tracker) failLocked(it *item, reason string) {
	if !t.end(it, reason) {
		return
	}
	because := fmt.Sprintf("depends on %s, which was not pushed", it)
	for stack := slices.Clone(it.users); len(stack) > 0; {
		user := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if t.end(user, because) {
			stack = append(stack, user.users...)
		}
	}
}

// end fails one item; it is false for one that was at its end before.
func (t *tracker) end(it *item, reason string) bool {
	if it.track.state == failed || it.track.state == committed {
		return false
	}
	t.setState(it, failed)
	t.failed = append(t.failed, Failure{it.info.Path.String(), reason})
	return true
}

// packed notes that all chunks of an item are in packs; those that are not at
// the server yet are waited for. It is false when one of them was refused
// meanwhile.
func (t *tracker) packed(it *item, packs map[*packFile]bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if it.track.state != pending {
		return true
	}
	for p := range packs {
		if p.gone {
			return false
		}
	}
	it.track.packs = 0
	for p := range packs {
		if !p.atServer {
			t.waiters[p] = append(t.waiters[p], it)
			it.track.packs++
		}
	}
	if it.track.packs == 0 {
		t.setState(it, stored)
	} else {
		t.setState(it, waiting)
	}
	return true
}

// packStored notes that p is at the server.
func (t *tracker) packStored(p *packFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.atServer = true
	for _, it := range t.waiters[p] {
		if it.track.packs--; it.track.packs == 0 && it.track.state == waiting {
			t.setState(it, stored)
		}
	}
	delete(t.waiters, p)
}

// again takes an item back to pending so that its chunks are sent once more. It
// is false, and the item has failed, when that was tried often enough.
func (t *tracker) again(it *item, reason string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if it.track.state == failed || it.track.state == committed {
		return false
	}
	if it.track.rounds++; it.track.rounds > maxRounds {
		t.failLocked(it, reason)
		return false
	}
	for p, items := range t.waiters { // it waits for nothing now
		t.waiters[p] = slices.DeleteFunc(items, func(other *item) bool { return other == it })
	}
	it.track.packs = 0
	t.setState(it, pending)
	return true
}

// maxRounds is how often a path's chunks are sent again after the server said
// that it does not have them.
const maxRounds = 3

// packRefused notes that p will never be at the server, and returns the items
// that waited for it, without the one it belongs to.
func (t *tracker) packRefused(p *packFile) []*item {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.gone = true
	waited := slices.DeleteFunc(t.waiters[p], func(it *item) bool { return it == p.own })
	delete(t.waiters, p)
	return waited
}

// ready returns up to max items that can be committed in one go, dependencies
// first: every reference is in the cache or earlier in the list.
func (t *tracker) ready(max int) []*item {
	t.mu.Lock()
	defer t.mu.Unlock()
	var batch []*item
	in := map[*item]bool{}
	left := t.items[:0]
	for _, it := range t.items {
		if it.track.state == committed || it.track.state == failed {
			continue
		}
		left = append(left, it)
		if it.track.state != stored || len(batch) == max {
			continue
		}
		if t.depsIn(it, in) {
			in[it] = true
			batch = append(batch, it)
		}
	}
	clear(t.items[len(left):]) // lets go of the items' memory
	t.items = left
	return batch
}

func (t *tracker) depsIn(it *item, in map[*item]bool) bool {
	for _, dep := range it.deps {
		if dep.track.state != committed && !in[dep] {
			return false
		}
	}
	return true
}

// commit notes that the cache has the item.
func (t *tracker) commit(it *item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setState(it, committed)
	it.pieces, it.sizes = nil, nil
}

// left says how many items are not at their end, and how many of these move.
func (t *tracker) left() (open, moving int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, it := range t.items {
		if it.track.state != committed && it.track.state != failed {
			open++
		}
	}
	return open, t.moving
}
