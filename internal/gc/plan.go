package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/gc/rewrite"
	"github.com/org/attic-action/internal/meta"
)

// Plan is what a collection would do, and why it would not do more. Sizes are in bytes.
type Plan struct {
	At     time.Time   `json:"at"`
	Caches []CachePlan `json:"caches"`

	Paths  int   `json:"paths"`  // that go
	Size   int64 `json:"size"`   // of their NARs, as they are served
	NARs   int64 `json:"nars"`   // that go; some were no path's before
	Packs  int   `json:"packs"`  // that nothing needs then, those included that wait for their end already
	Chunks int   `json:"chunks"` // in these
	Freed  int64 `json:"freed"`  // of these

	Waiting      int64 `json:"waiting"` // packs that are condemned already
	WaitingBytes int64 `json:"waiting_bytes"`

	Rewrite  rewrite.Plan `json:"rewrite"`
	Requests Requests     `json:"requests"`
	Largest  []Held       `json:"largest"` // what keeps the most
}

// CachePlan is what a collection would do to one cache.
type CachePlan struct {
	Name     string         `json:"name"`
	Deleted  bool           `json:"deleted,omitempty"` // softly
	Rule     Rule           `json:"-"`
	Keeps    string         `json:"keeps"` // the rule in words
	Paths    int            `json:"paths"` // that go
	Size     int64          `json:"size"`
	Over     int            `json:"over_quota"` // of the paths that go, those that go for the quota
	Stay     int            `json:"stay"`
	StaySize int64          `json:"stay_size"`
	Why      map[string]int `json:"why"` // paths that stay, by reason
}

// Held is what stays for one reason: a pin, or a path that was used. What several would keep counts for one of them:
// for the pin before the use, and for the later use before the earlier one.
type Held struct {
	Cache     string    `json:"cache"`
	Why       string    `json:"why"`
	Pin       string    `json:"pin,omitempty"`
	StorePath string    `json:"store_path"`
	Used      time.Time `json:"used"`
	Paths     int       `json:"paths"`
	Size      int64     `json:"size"`
}

// Requests to the bucket, about.
type Requests struct {
	Put    int `json:"put"`
	Get    int `json:"get"`
	List   int `json:"list"`
	Delete int `json:"delete"`
}

// mostHeld is how many reasons a plan names.
const mostHeld = 10

// Plan says what a collection would do at a time. It changes nothing, but the last uses that were to be written anyway.
func (c *Collector) Plan(ctx context.Context, now time.Time) (*Plan, error) {
	return c.PlanFor(ctx, now, "")
}

// PlanFor is Plan of a collection in which only paths of one cache go; empty: of all.
func (c *Collector) PlanFor(ctx context.Context, now time.Time, cache string) (*Plan, error) {
	p, err := c.plan(ctx, now, cache)
	if err != nil {
		return nil, fmt.Errorf("plan collection: %w", err)
	}
	return p, nil
}

func (c *Collector) plan(ctx context.Context, now time.Time, only string) (*Plan, error) {
	if err := c.uses(ctx); err != nil {
		return nil, err
	}
	p := &Plan{At: now.UTC().Truncate(time.Second)}
	alive, err := c.planPaths(ctx, p, now, only)
	if err != nil {
		return nil, err
	}
	err = c.DB.View(ctx, func(tx *meta.Tx) error {
		n, err := tx.Count()
		p.NARs = max(0, n.NARs-int64(alive.len()))
		if err == nil {
			p.Waiting, p.WaitingBytes, _, err = tx.CountCondemned()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	u, err := rewrite.Alive(ctx, c.DB, c.Layouts, alive.has)
	if err == nil {
		err = c.planPacks(ctx, p, u)
	}
	return p, err
}

// rows is a set of rows' ids.
type rows []uint64

func (r *rows) add(id uint32) {
	if missing := int(id/64) + 1 - len(*r); missing > 0 {
		*r = append(*r, make([]uint64, missing)...)
	}
	(*r)[id/64] |= 1 << (id % 64)
}

func (r rows) has(id int64) bool { return int(id/64) < len(r) && r[id/64]&(1<<(id%64)) != 0 }

func (r rows) len() (n int) {
	for id := range int64(len(r) * 64) {
		if r.has(id) {
			n++
		}
	}
	return n
}

// planPaths reads and marks, and gives the NARs that stay. What was read can be forgotten then.
func (c *Collector) planPaths(ctx context.Context, p *Plan, now time.Time, only string) (rows, error) {
	var r reader
	for done := false; !done; {
		var err error
		if done, err = r.step(ctx, c.DB); err == nil && !done {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
	}
	m, err := c.mark(ctx, r.graph, now)
	if err != nil {
		return nil, err
	}
	var alive rows
	p.Caches = make([]CachePlan, len(m.g.caches))
	for i := range p.Caches {
		cache := &m.g.caches[i]
		rule := c.rule(cache)
		p.Caches[i] = CachePlan{Name: cache.Name, Deleted: cache.DeletedAt != nil, Rule: rule, Keeps: rule.String(), Why: map[string]int{}}
	}
	spared := func(id uint32) bool { return only != "" && m.g.caches[m.g.cache[id]].Name != only }
	for i := range m.why {
		id := uint32(i)
		if !m.g.there(id) {
			continue
		}
		cache, size := &p.Caches[m.g.cache[id]], int64(m.g.size[id])
		if m.goes(id) && !spared(id) {
			p.Paths++
			p.Size += size
			cache.Paths++
			cache.Size += size
			if m.why[id] == overQuota {
				cache.Over++
			}
			continue
		}
		alive.add(m.g.nar[id])
		cache.Stay++
		cache.StaySize += size
		cache.Why[m.why[id].String()]++
	}
	p.Largest, err = c.largest(ctx, m)
	return alive, err
}

func (r reason) String() string {
	return [...]string{dead: "not looked at", forever: "kept for ever", used: "used", lastOnes: "among the last", pinned: "pinned", overQuota: "not looked at"}[r]
}

func (r Rule) String() string {
	s := "everything"
	switch {
	case r.Retention > 0 && r.KeepLast > 0:
		s = fmt.Sprintf("what was used within %s, and the last %d toplevels", days(r.Retention), r.KeepLast)
	case r.Retention > 0:
		s = "what was used within " + days(r.Retention)
	case r.KeepLast > 0:
		s = fmt.Sprintf("the last %d toplevels", r.KeepLast)
	}
	if r.Quota > 0 {
		s += fmt.Sprintf(", up to %d bytes", r.Quota)
	}
	return s
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

// largest sums up by what keeps it. What stays is sorted for it: a map could have as many entries as there are paths.
func (c *Collector) largest(ctx context.Context, m *marks) ([]Held, error) {
	ids := make([]uint32, 0, m.g.len())
	for i := range m.why {
		if m.stays(uint32(i)) {
			ids = append(ids, uint32(i))
		}
	}
	slices.SortFunc(ids, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(m.root[a], m.root[b]), cmp.Compare(m.why[a], m.why[b]))
	})
	type sum struct {
		first uint32
		paths int
		size  int64
	}
	var most []sum
	for len(ids) > 0 {
		s := sum{first: ids[0]}
		for s.paths < len(ids) && m.root[ids[s.paths]] == m.root[s.first] && m.why[ids[s.paths]] == m.why[s.first] {
			s.size += int64(m.g.size[ids[s.paths]])
			s.paths++
		}
		ids = ids[s.paths:]
		at, _ := slices.BinarySearchFunc(most, s, func(a, b sum) int { return cmp.Compare(b.size, a.size) })
		if at < mostHeld {
			most = slices.Insert(most, at, s)
			most = most[:min(len(most), mostHeld)]
		}
	}
	held := []Held{}
	err := c.DB.View(ctx, func(tx *meta.Tx) error {
		for _, s := range most {
			root, why := m.root[s.first], m.why[s.first]
			cache := &m.g.caches[m.g.cache[root]]
			h := Held{Cache: cache.Name, Why: why.String(), Used: time.Unix(int64(m.g.used[root]), 0).UTC(), Paths: s.paths, Size: s.size}
			if why == pinned {
				h.Pin = m.pins[root]
			}
			path, _, err := tx.Path(cache.ID, m.g.hash[root].String())
			if err == nil {
				h.StorePath = path.StorePath
			} else if !errors.Is(err, meta.ErrNotFound) {
				return err
			}
			held = append(held, h)
		}
		return nil
	})
	return held, err
}

// planPacks sums up the packs that nothing needs.
func (c *Collector) planPacks(ctx context.Context, p *Plan, u *rewrite.Usage) error {
	var idle []int64
	all := 0
	u.Each(func(pack rewrite.PackUsage) {
		all++
		if pack.Entries == 0 && !pack.Whole && !pack.Busy {
			idle = append(idle, pack.ID)
			p.Packs++
			p.Freed += pack.Size
		}
	})
	if planner, ok := c.Rewrite.(interface {
		Plan(*rewrite.Usage) rewrite.Plan
	}); ok {
		p.Rewrite = planner.Plan(u)
	}
	p.Requests = Requests{
		Put:    parts(p.Paths, dropBatch) + p.Rewrite.New,
		Get:    p.Rewrite.Packs + int(p.Rewrite.Moved>>23),
		List:   2*(parts(p.Packs, reapBatch)+parts(p.Packs, 4*deletes)) + 17 + parts(all, 1000),
		Delete: p.Packs + p.Rewrite.Packs,
	}
	if p.Rewrite.New > 0 {
		p.Requests.Put += p.Rewrite.New // records
	}
	for batch := range slices.Chunk(idle, packBatch) {
		err := c.DB.View(ctx, func(tx *meta.Tx) error {
			for _, id := range batch {
				entries, err := tx.PackEntries(id)
				if err != nil && !errors.Is(err, meta.ErrNotFound) {
					return err
				}
				for _, e := range entries {
					if e.Kind == chunk.Chunk {
						p.Chunks++
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// parts is how many it takes of n, each at most so many.
func parts(n, each int) int { return (n + each - 1) / each }
