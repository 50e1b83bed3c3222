package soak

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/org/attic-action/internal/chunk"
)

// model says what must be there. It knows what the clients did and were told, and
// nothing of how the server works.
type model struct {
	caches map[string]*shelf
}

// shelf is a cache.
type shelf struct {
	name      string
	public    bool
	retention *uint32 // seconds; nil: the server's
	key       string  // public
	paths     map[string]held
	pins      map[string]pin

	// sent is every chunk that a push to this cache ever brought, or found in a cache
	// that it may see. What is not among them, the cache must not know.
	sent map[chunk.ID]bool
}

// held is a path of a cache. When it was last used is known to lie between two
// times: the server may forget a use when it is killed, and a question may refresh
// one or not.
type held struct {
	lo, hi time.Time
	doubt  bool // a collection may have taken it: nothing kept it at the time
}

// pin is a name that holds revisions, the newest first.
type pin struct {
	revs    []string
	keep    int
	expires time.Time // zero: never
}

func (p pin) live(now time.Time) bool { return p.expires.IsZero() || p.expires.After(now) }

func (p pin) equal(o pin) bool {
	return p.keep == o.keep && p.expires.Equal(o.expires) && slices.Equal(p.revs, o.revs)
}

func (m *model) clone() *model {
	out := &model{caches: map[string]*shelf{}}
	for name, s := range m.caches {
		c := *s
		c.paths, c.pins, c.sent = maps.Clone(s.paths), maps.Clone(s.pins), maps.Clone(s.sent)
		for name, p := range c.pins {
			p.revs = slices.Clone(p.revs)
			c.pins[name] = p
		}
		out.caches[name] = &c
	}
	return out
}

func (m *model) names() []string { return slices.Sorted(maps.Keys(m.caches)) }

func (s *shelf) hashes() []string { return slices.Sorted(maps.Keys(s.paths)) }

// slack is how exactly the end of a retention is tested: at the very moment either
// answer is right.
const slack = time.Second

// kept is what roots reach: pins, and what was used within the retention. With sure,
// uses count that are certain; without, those that are possible, too.
func (w *world) kept(s *shelf, sure bool) map[string]bool {
	keep := map[string]bool{}
	var roots []string
	for _, p := range s.pins {
		if p.live(w.now) {
			roots = append(roots, p.revs...)
		}
	}
	retention := w.retention
	if s.retention != nil {
		retention = time.Duration(*s.retention) * time.Second
	}
	from := w.now.Add(-retention)
	for hash, h := range s.paths {
		switch {
		case retention == 0, sure && h.lo.After(from.Add(slack)), !sure && h.hi.After(from.Add(-slack)):
			roots = append(roots, hash)
		}
	}
	for len(roots) > 0 {
		hash := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if _, there := s.paths[hash]; !there || keep[hash] {
			continue
		}
		keep[hash] = true
		roots = append(roots, w.forge.all[hash].refs...)
	}
	return keep
}

// complete says whether a cache has all that a path needs. With a doubt in it, the
// answer may be either.
func (w *world) complete(s *shelf, hash string) (whole, doubt bool) {
	whole = true
	for _, p := range w.forge.closure(hash) {
		h, there := s.paths[p.path.Hash()]
		whole = whole && there
		doubt = doubt || h.doubt
	}
	return whole, doubt
}

// use notes that a path was used now, for certain.
func (w *world) use(s *shelf, hash string) {
	s.paths[hash] = held{lo: w.now, hi: w.now}
}

// suspect marks what a collector may take that runs now.
func (w *world) suspect() {
	for _, s := range w.m.caches {
		keep := w.kept(s, true)
		for hash, h := range s.paths {
			if !keep[hash] {
				h.doubt = true
				s.paths[hash] = h
			}
		}
	}
}

// settled says that something is there that was in doubt, and so is all that it needs.
func (w *world) settled(s *shelf, hash string) {
	for _, p := range w.forge.closure(hash) {
		if h, there := s.paths[p.path.Hash()]; there && h.doubt {
			h.doubt = false
			s.paths[p.path.Hash()] = h
		}
	}
}

// pinNames is how many names are pinned by, in each cache.
const pinNames = 6

func pinName(i int) string { return fmt.Sprintf("acme/infra/host-%d", i) }
