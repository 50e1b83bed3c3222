package server

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/org/attic-action/internal/foresight"
	"github.com/org/attic-action/internal/meta"
)

// pullers knows which clients take a closure's NARs a few at a time, as `nix copy` does: one after the other until
// Nix 2.9, and since then as many at once as there are processors. A redirect would give such a client one
// connection to the bucket for each, and nothing comes while it unpacks; the server reads ahead for it over
// several, and begins with what it will ask for next. A Nix that takes many NARs at once has as many connections
// of its own.
//
// Its zero value is ready.
type pullers struct {
	mu    sync.Mutex
	known map[string]*puller
	paths int // of all closures
}

// puller is a Nix at an address that pulls from a cache. pullers.mu guards what it holds.
type puller struct {
	all     *pullers
	closure *foresight.Closure // what it has asked narinfos of
	walk    *foresight.Walk    // how it goes through that
	recent  []string           // the NARs asked for last, fewAfter at most
	begun   map[string]bool    // what was begun ahead of it
	now     int                // NARs that it is getting
	inRow   int                // NARs since it took many at once
	many    time.Time          // when it last did
	seen    time.Time
}

const (
	maxPullers = 1024
	// maxForeseen bounds what is known of closures, of all clients: some 150 bytes a path.
	maxForeseen = 1 << 15
	// fewAtOnce is how many NARs at a time are few.
	fewAtOnce = 3
	// fewAfter is how many NARs show that a client takes few at a time.
	fewAfter = 3
	// forgetAfter is how long a client that is silent, or took many at once, is taken for what it was.
	forgetAfter = time.Minute
	// foreseen is how many NARs ahead are looked at.
	foreseen = 32
)

// find returns the puller that a request is from, nil if it is from no Nix; p.mu is held.
func (p *pullers) find(r *http.Request, cache *meta.Cache, now time.Time) *puller {
	agent := r.UserAgent()
	if !strings.Contains(agent, "Nix/") {
		return nil
	}
	key := strconv.FormatInt(cache.ID, 10) + " " + recordOf(r).address.String() + " " + shorten(agent)
	c := p.known[key]
	if c != nil && c.now == 0 && now.Sub(c.seen) > forgetAfter {
		p.paths -= c.closure.Len()
		c = nil
	}
	if c == nil {
		if p.known == nil || len(p.known) >= maxPullers {
			p.known, p.paths = map[string]*puller{}, 0 // who is at it is learned anew
		}
		c = &puller{all: p, closure: &foresight.Closure{}, begun: map[string]bool{}}
		p.known[key] = c
	}
	c.seen = now
	return c
}

// asked notes that a client reads a path's narinfo.
func (p *pullers) asked(r *http.Request, cache *meta.Cache, path *meta.Path, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.find(r, cache, now)
	if c == nil {
		return
	}
	before := c.closure.Len()
	refs := make([]string, 0, len(path.References))
	for _, base := range path.References {
		hash, _, _ := strings.Cut(base, "-")
		refs = append(refs, hash)
	}
	c.closure.Add(path.Hash, refs)
	if p.paths += c.closure.Len() - before; p.paths > maxForeseen {
		p.known, p.paths = nil, 0
	}
}

// begin notes that a client gets a NAR, until done is called. A client that is no Nix has no puller: nil.
func (p *pullers) begin(r *http.Request, cache *meta.Cache, hash string, now time.Time) (_ *puller, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.find(r, cache, now)
	if c == nil {
		return nil, func() {}
	}
	if c.now++; c.now > fewAtOnce {
		c.inRow, c.many = 0, now
	}
	c.inRow++
	c.follow(hash)
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.now--
	}
}

// follow notes that the client asks for a NAR, and begins to follow it when it has shown what it does, or anew when it
// has read many more narinfos since; pullers.mu is held.
func (c *puller) follow(hash string) {
	if c.inRow > fewAfter && (c.walk == nil || c.closure.Read() > c.walk.Size()+c.walk.Size()/8) {
		c.walk = c.closure.Walk()
		for _, before := range c.recent {
			c.walk.Took(before)
		}
	}
	if c.walk != nil {
		c.walk.Took(hash)
	}
	if c.recent = append(c.recent, hash); len(c.recent) > fewAfter {
		c.recent = c.recent[1:]
	}
}

// few tells whether the client takes few NARs at a time.
func (c *puller) few() bool {
	if c == nil {
		return false
	}
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	return c.takesFew()
}

func (c *puller) takesFew() bool { return c.inRow > fewAfter && c.seen.Sub(c.many) > forgetAfter }

// next lists the hashes of paths that the client will ask for soon, the next one first, without those that were
// begun.
func (c *puller) next() (hashes []string) {
	if c == nil {
		return nil
	}
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.walk == nil || !c.takesFew() {
		return nil
	}
	for _, hash := range c.walk.Next(foreseen) {
		if !c.begun[hash] {
			hashes = append(hashes, hash)
		}
	}
	return hashes
}

// has notes that a path was begun, or needs not to be.
func (c *puller) has(hash string) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.begun[hash] = true
}
