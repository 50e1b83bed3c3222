package gc

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/org/attic-action/internal/meta"
)

// Rule says what a cache keeps beside its pins.
type Rule struct {
	// Retention keeps what was pushed or pulled within it, with all that this needs; 0 keeps everything, unless
	// KeepLast says what.
	Retention time.Duration
	// KeepLast keeps the closures of so many toplevels, those that were pushed or pulled last: paths that no other
	// path of the cache refers to. 0: no such rule.
	KeepLast int
	// Quota is how many bytes of NARs, as they are served, the cache may have. If it has more, closures go that no
	// pin holds, those first that were not used for the longest time. 0: no limit.
	Quota int64
}

// reason is why a path stays.
type reason byte

const (
	dead      reason = iota
	forever          // no rule says that anything goes
	used             // it, or what needs it, was used within the retention
	lastOnes         // it belongs to the last toplevels
	pinned           // a pin holds it, or what needs it
	overQuota        // not a reason to stay: it had one, and goes
)

// marks is what a collection has found out about the paths of a graph.
type marks struct {
	g    *graph
	why  []reason
	root []uint32          // through which path it stays: one that is pinned, or the one that was used last
	pins map[uint32]string // of paths that are pinned themselves, the name of one pin
}

// criteria are what a collection goes by, beside the graph.
type criteria struct {
	now   time.Time
	fresh time.Duration
	rule  func(c *meta.Cache) Rule
}

// cutoff is since when a path must have been used to stay; 0: it stays anyway.
func (w *criteria) cutoff(c *meta.Cache) uint32 {
	rule := w.rule(c)
	switch {
	case c.DeletedAt != nil && c.DeletedAt.Before(w.now.Add(-w.fresh)):
		return math.MaxUint32
	case c.DeletedAt != nil:
		return 0
	case rule.Retention > 0:
		return ago(w.now, rule.Retention)
	case rule.KeepLast > 0:
		return ago(w.now, w.fresh) // a push that has not ended has no toplevel
	}
	return 0
}

func ago(now time.Time, d time.Duration) uint32 {
	s := now.Add(-d).Unix()
	return uint32(min(max(s, 1), math.MaxUint32))
}

// mark decides about every path.
func mark(ctx context.Context, g *graph, w *criteria, pins map[uint32]string) (*marks, error) {
	m := &marks{g: g, why: make([]reason, g.len()), root: make([]uint32, g.len()), pins: pins}
	order := m.byUse()
	m.spread(order)
	seen := g.bits()
	m.hold(seen, pins)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("mark: %w", err)
	}
	cutoffs := make([]uint32, len(g.caches))
	for i := range g.caches {
		cutoffs[i] = w.cutoff(&g.caches[i])
	}
	for id := range m.why {
		c := g.cache[id]
		switch {
		case !g.there(uint32(id)):
		case cutoffs[c] == math.MaxUint32:
			m.why[id] = dead // pins of a cache that is deleted hold nothing
		case m.why[id] == pinned:
		case cutoffs[c] == 0:
			m.why[id] = forever
		case m.lastUse(uint32(id)) >= cutoffs[c]:
			m.why[id] = used
		}
	}
	m.keepLast(order, w)
	for i := range g.caches {
		if q := w.rule(&g.caches[i]).Quota; q > 0 && g.caches[i].DeletedAt == nil {
			m.quota(uint16(i), uint64(q), ago(w.now, w.newest(&g.caches[i])))
		}
	}
	return m, nil
}

// newest is how long something stays after its last use whatever the quota says: what was just pushed is about to be
// needed, and a push that goes on must find what it began with.
func (w *criteria) newest(c *meta.Cache) time.Duration {
	if r := w.rule(c).Retention; r > 0 {
		return min(r, w.fresh)
	}
	return w.fresh
}

// byUse lists what is there, what was used last first.
func (m *marks) byUse() []uint32 {
	order := make([]uint32, 0, m.g.len())
	for id := range m.g.used {
		if m.g.there(uint32(id)) {
			order = append(order, uint32(id))
		}
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Or(cmp.Compare(m.g.used[b], m.g.used[a]), cmp.Compare(a, b)) })
	return order
}

// spread finds for each path when it, or anything that needs it, was last used: whoever comes by first was.
func (m *marks) spread(order []uint32) {
	seen := m.g.bits()
	var queue []uint32
	for _, from := range order {
		queue = m.g.reach(seen, queue, from, func(id uint32) { m.root[id] = from })
	}
}

// hold keeps the closures of what is pinned.
func (m *marks) hold(seen bits, pins map[uint32]string) {
	ids := make([]uint32, 0, len(pins))
	for id := range pins {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var queue []uint32
	for _, from := range ids {
		queue = m.g.reach(seen, queue, from, func(id uint32) { m.why[id], m.root[id] = pinned, from })
	}
}

// keepLast keeps the closures of the last toplevels.
func (m *marks) keepLast(order []uint32, w *criteria) {
	left, some := make([]int, len(m.g.caches)), false
	for i := range m.g.caches {
		if m.g.caches[i].DeletedAt == nil {
			left[i] = w.rule(&m.g.caches[i]).KeepLast
			some = some || left[i] > 0
		}
	}
	if !some {
		return
	}
	needed := m.g.bits()
	for _, id := range order {
		for _, ref := range m.g.refs(id) {
			needed.add(ref)
		}
	}
	seen := m.g.bits()
	var queue []uint32
	for _, from := range order {
		if c := m.g.cache[from]; needed.has(from) || left[c] == 0 {
			continue
		}
		left[m.g.cache[from]]--
		queue = m.g.reach(seen, queue, from, func(id uint32) {
			if m.why[id] == dead {
				m.why[id] = lastOnes
			}
		})
	}
}

// quota lets closures of a cache go until what is left fits. Closures that were used in the same second go together,
// or stay: a path is used whenever what needs it is, so none goes before what needs it.
func (m *marks) quota(c uint16, most uint64, newest uint32) {
	var total uint64
	var ids []uint32
	for id := range m.why {
		if m.g.cache[id] != c || !m.stays(uint32(id)) {
			continue
		}
		total += m.g.size[id]
		if m.why[id] != pinned && m.lastUse(uint32(id)) < newest {
			ids = append(ids, uint32(id))
		}
	}
	slices.SortFunc(ids, func(a, b uint32) int { return cmp.Compare(m.lastUse(a), m.lastUse(b)) })
	for len(ids) > 0 && total > most {
		n := 1
		for n < len(ids) && m.lastUse(ids[n]) == m.lastUse(ids[0]) {
			n++
		}
		for _, id := range ids[:n] {
			m.why[id] = overQuota
			total -= m.g.size[id]
		}
		ids = ids[n:]
	}
}

// lastUse is when a path, or anything that needs it, was last used; of what no pin holds.
func (m *marks) lastUse(id uint32) uint32 { return m.g.used[m.root[id]] }

// stays tells whether a path is there and kept.
func (m *marks) stays(id uint32) bool {
	return m.g.there(id) && m.why[id] != dead && m.why[id] != overQuota
}

// goes tells whether it is there and not kept.
func (m *marks) goes(id uint32) bool {
	return m.g.there(id) && (m.why[id] == dead || m.why[id] == overQuota)
}

// revive keeps a path after all, and what it needs.
func (m *marks) revive(id uint32) {
	if !m.goes(id) {
		return // then it keeps what it needs
	}
	m.why[id] = used
	queue := []uint32{id}
	see := func(id uint32) {
		if m.goes(id) {
			m.why[id] = used
			queue = append(queue, id)
		}
	}
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, ref := range m.g.refs(id) {
			see(ref)
		}
	}
}

// leaving lists what goes, so that nothing comes before what refers to it: however many of them are gone, what is left
// has its closure. Circles, which there are in what clients claim alone, are cut somewhere.
func (m *marks) leaving() []uint32 {
	g := m.g
	seen := g.bits()
	n := 0
	for id := range m.why {
		if m.goes(uint32(id)) {
			n++
		}
	}
	list := make([]uint32, 0, n)
	type visit struct{ id, next uint32 }
	var stack []visit
	for id := range m.why {
		if !m.goes(uint32(id)) || seen.has(uint32(id)) {
			continue
		}
		seen.add(uint32(id))
		stack = append(stack, visit{id: uint32(id)})
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			refs := g.refs(top.id)
			if int(top.next) == len(refs) {
				list = append(list, top.id)
				stack = stack[:len(stack)-1]
				continue
			}
			ref := refs[top.next]
			top.next++
			if m.goes(ref) && !seen.has(ref) {
				seen.add(ref)
				stack = append(stack, visit{id: ref})
			}
		}
	}
	slices.Reverse(list) // it was what is referred to first
	return list
}
