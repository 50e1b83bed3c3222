package server

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A gate lets only so many requests do heavy work at a time, and keeps a few clients
// from holding all of it:
//
//   - A holder who has places gets another one only while at least as many stay free as
//     he has then: alone he comes to half of them, and the next one finds room at once.
//   - Among those who wait, who has the fewest goes first, then who came first.
//   - A request whose client is slow keeps its place while nobody needs it. When
//     somebody who has none waits (or the same holder does), the slowest is cut off.
//
// A holder is a token's subject, or an address.
type gate struct {
	patience time.Duration // of a wait for the next meterStep bytes of a body; then the request is slow

	mu      sync.Mutex
	free    int64
	held    map[string]int64
	places  map[*place]struct{}
	waiting []*place // in order of arrival
}

// A place is what a request has, or waits for, behind a gate.
type place struct {
	holder string
	n      int64
	meter  *meter        // of its body; nil when there is none
	ready  chan struct{} // closed when it is held
}

func newGate(places int64, patience time.Duration) *gate {
	return &gate{patience: patience, free: places, held: map[string]int64{}, places: map[*place]struct{}{}}
}

// acquire waits for a place of n until ctx ends. n must not be more than the gate has.
func (g *gate) acquire(ctx context.Context, holder string, n int64, m *meter) (leave func(), err error) {
	p := &place{holder: holder, n: n, meter: m, ready: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	g.admit()
	g.mu.Unlock()

	// Nobody tells when a holder becomes slow, so who waits looks.
	look := time.NewTicker(max(g.patience/10, time.Millisecond))
	defer look.Stop()
	var cut *place
	for {
		select {
		case <-p.ready:
			return func() { g.leave(p) }, nil
		case <-ctx.Done():
			g.abandon(p)
			return nil, ctx.Err()
		case <-look.C:
			cut = g.displace(p, cut)
		}
	}
}

// admit gives out what is free; g.mu is held.
func (g *gate) admit() {
	for {
		next := -1
		for i, p := range g.waiting {
			has := g.held[p.holder]
			if has > 0 && has+p.n > g.free {
				continue // he waits for himself, and holds up nobody
			}
			if next < 0 || has < g.held[g.waiting[next].holder] {
				next = i
			}
		}
		// One who has nothing and does not fit holds up the others, or it would never fit.
		if next < 0 || g.waiting[next].n > g.free {
			return
		}
		p := g.waiting[next]
		g.waiting = slices.Delete(g.waiting, next, next+1)
		g.free -= p.n
		g.held[p.holder] += p.n
		g.places[p] = struct{}{}
		close(p.ready)
	}
}

func (g *gate) leave(p *place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.places, p)
	g.free += p.n
	if g.held[p.holder] -= p.n; g.held[p.holder] == 0 {
		delete(g.held, p.holder)
	}
	g.admit()
}

// abandon takes p out of the queue, or gives back what it was given meanwhile.
func (g *gate) abandon(p *place) {
	g.mu.Lock()
	i := slices.Index(g.waiting, p)
	if i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		g.admit() // p may have held up others
	}
	g.mu.Unlock()
	if i < 0 {
		g.leave(p)
	}
}

// displace cuts off the slowest request that has to make room for p, and returns it. It
// does nothing while the one that it cut before is still on its way out. Who has a
// place may displace only himself: or a holder could drive others out by queueing.
func (g *gate) displace(p, before *place) *place {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, there := g.places[before]; there {
		return before
	}
	var slowest *place
	longest := g.patience
	for q := range g.places {
		if q.meter == nil || q.holder != p.holder && g.held[p.holder] > 0 {
			continue
		}
		if waited, cut := q.meter.waiting(g.patience); !cut && waited >= longest {
			slowest, longest = q, waited
		}
	}
	if slowest != nil {
		slowest.meter.cutOff() // g.mu is held: it has not left, so its request is not over
	}
	return slowest
}
