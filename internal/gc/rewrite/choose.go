package rewrite

import (
	"slices"

	"github.com/org/attic-action/internal/pack"
)

const (
	// sparse: a pack of which less than one in so many bytes is alive is rewritten.
	sparse = 3
	// manySmall are so many that they are merged even if that makes another small one. Else a small pack a day
	// would have yesterday's bytes written again every day.
	manySmall = 32
	// maxSources bounds a group, for what is remembered of each of its packs.
	maxSources = 256
)

// Plan is what a run would do, as far as a survey tells.
type Plan struct {
	Packs int   `json:"packs"`     // to be rewritten
	New   int   `json:"new_packs"` // that they go into
	Moved int64 `json:"bytes_moved"`
	Freed int64 `json:"bytes_freed"` // once the old ones are gone
}

// Plan tells what a run would do.
func (r *Rewriter) Plan(u *Usage) (p Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.choose(u) {
		p.New++
		for _, s := range g.sources {
			p.Packs++
			p.Moved += s.Alive
			p.Freed += s.Size - s.Alive
		}
	}
	return p
}

// group is packs that go into one new pack together.
type group struct {
	sources []*source
	nars    []int64 // by row, that need any of them; ascending
}

// source is one of them.
type source struct {
	usedPack
	group *group
}

// choose picks packs within the budget: what is alive in them is read, and written.
func (r *Rewriter) choose(u *Usage) []*group {
	c := &choice{target: r.target(), left: r.budget() / 2}
	var few, small []*usedPack
	for i := range u.packs {
		p := &u.packs[i]
		switch {
		case p.Entries == 0 || p.Whole || p.Busy || r.damaged[p.ID]:
		case p.Alive < p.Size/sparse:
			few = append(few, p)
		case p.Size < r.small():
			small = append(small, p)
		}
	}
	byAge := func(a, b *usedPack) int { return oldest(a.PackUsage, b.PackUsage) }
	slices.SortFunc(few, byAge)
	slices.SortFunc(small, byAge)
	for _, p := range few {
		c.add(p)
	}
	// The last of them may have room for small ones, if that makes something that is not small.
	if !c.grows(small, r.small()) {
		c.cut()
	}
	mixed := len(c.groups)
	for _, p := range small {
		c.add(p)
	}
	c.cut()
	groups := c.groups[:min(mixed, len(c.groups))]
	for _, g := range c.groups[len(groups):] {
		if len(g.sources) > 1 && (g.alive() >= r.small() || len(g.sources) >= manySmall) || g.any(sparse) {
			groups = append(groups, g)
		}
	}
	return groups
}

func (g *group) alive() (n int64) {
	for _, s := range g.sources {
		n += s.Alive
	}
	return n
}

// any tells whether a pack of the group is to be rewritten even by itself.
func (g *group) any(part int64) bool {
	return slices.ContainsFunc(g.sources, func(s *source) bool { return s.Alive < s.Size/part })
}

// choice fills groups one after the other.
type choice struct {
	target, left int64
	open         *group // the one that is being filled; nil: none
	bytes        int64  // of it
	entries      int
	groups       []*group
}

// add takes a pack if the budget allows, or if nothing was taken yet: else a pack that is larger than the budget
// would never have its turn.
func (c *choice) add(p *usedPack) {
	if p.Alive > c.left && (len(c.groups) > 0 || c.open != nil) {
		return
	}
	if c.open != nil && (c.bytes+p.Alive > c.target || c.entries+p.Entries > pack.MaxEntries || len(c.open.sources) == maxSources) {
		c.cut()
	}
	if c.open == nil {
		c.open = &group{}
	}
	c.open.sources = append(c.open.sources, &source{usedPack: usedPack{PackUsage: p.PackUsage}, group: c.open})
	c.bytes += p.Alive
	c.entries += p.Entries
	c.left -= p.Alive
}

// cut ends the open group.
func (c *choice) cut() {
	if c.open != nil {
		c.groups = append(c.groups, c.open)
	}
	c.open, c.bytes, c.entries = nil, 0, 0
}

// grows tells whether the open group comes to least bytes with these.
func (c *choice) grows(small []*usedPack, least int64) bool {
	n := c.bytes
	for _, p := range small {
		n += p.Alive
	}
	return c.open != nil && n >= least
}
