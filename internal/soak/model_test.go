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

// kept is what roots reach: pins, what was used within the retention, the last
// toplevels where the configuration says so. With sure, it is what must be there; and
// without, what may be: of uses it is not always certain when they were.
func (w *world) kept(s *shelf, sure bool) map[string]bool {
	roots := w.pinned(s)
	own, retention := rule(s.name), w.retentionOf(s)
	if retention == 0 && own.KeepLast > 0 {
		retention = fresh
	}
	roots = append(roots, w.usedWithin(s, retention, sure)...)
	if own.KeepLast > 0 {
		roots = append(roots, w.lastTops(s, own.KeepLast, sure)...)
	}
	keep := w.reach(s, roots)
	if own.Quota > 0 && sure && w.bytes(s) > own.Quota {
		return w.spared(s, true)
	}
	return keep
}

func (w *world) retentionOf(s *shelf) time.Duration {
	if s.retention != nil {
		return time.Duration(*s.retention) * time.Second
	}
	return w.retention
}

func (w *world) pinned(s *shelf) (roots []string) {
	for _, p := range s.pins {
		if p.live(w.now) {
			roots = append(roots, p.revs...)
		}
	}
	return roots
}

// usedWithin lists what was used within a time; 0 is for ever.
func (w *world) usedWithin(s *shelf, d time.Duration, sure bool) (roots []string) {
	from := w.now.Add(-d)
	for hash, h := range s.paths {
		if d == 0 || sure && h.lo.After(from.Add(slack)) || !sure && h.hi.After(from.Add(-slack)) {
			roots = append(roots, hash)
		}
	}
	return roots
}

// spared is what a quota leaves alone: what is pinned, and what was just used.
func (w *world) spared(s *shelf, sure bool) map[string]bool {
	newest := fresh
	if d := w.retentionOf(s); d > 0 {
		newest = min(newest, d)
	}
	return w.reach(s, append(w.pinned(s), w.usedWithin(s, newest, sure)...))
}

// bytes is no less than what a cache's paths have as they are served.
func (w *world) bytes(s *shelf) (n int64) {
	for hash := range s.paths {
		size := int64(len(w.forge.all[hash].nar))
		n += size + size/50 + 2000
	}
	return n
}

// lastTops lists the toplevels that are among the last n, for certain or perhaps: paths
// that no other refers to, by their last use.
func (w *world) lastTops(s *shelf, n int, sure bool) (tops []string) {
	needed, perhaps := map[string]bool{}, map[string]bool{}
	for hash, h := range s.paths {
		for _, ref := range w.forge.all[hash].refs {
			if ref != hash {
				perhaps[ref] = true
				needed[ref] = needed[ref] || !h.doubt
			}
		}
	}
	for hash, h := range s.paths {
		before := 0
		for other, o := range s.paths {
			switch {
			case other == hash:
			case sure && !needed[other] && !o.hi.Before(h.lo.Add(-slack)):
				before++
			case !sure && !perhaps[other] && !o.doubt && o.lo.After(h.hi.Add(slack)):
				before++
			}
		}
		if before < n && (sure && !perhaps[hash] || !sure && !needed[hash]) {
			tops = append(tops, hash)
		}
	}
	return tops
}

// reach is what roots need, as far as the cache has it.
func (w *world) reach(s *shelf, roots []string) map[string]bool {
	keep := map[string]bool{}
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

// suspect marks what a collector may take that runs now. Whoever is amid a push is
// counted as if he had not begun.
func (w *world) suspect() {
	for name, s := range w.m.caches {
		keep := w.kept(s, true)
		var before map[string]bool
		if b := w.before.caches[name]; b != nil && w.deep {
			before = w.kept(b, true)
		}
		for hash, h := range s.paths {
			if !keep[hash] || before != nil && !before[hash] {
				h.doubt = true
				s.paths[hash] = h
			}
		}
		if b := w.before.caches[name]; b != nil {
			for hash, h := range b.paths {
				if before != nil && !before[hash] || before == nil && !keep[hash] {
					h.doubt = true
					b.paths[hash] = h
				}
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
