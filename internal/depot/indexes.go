package depot

import (
	"fmt"
	"sync"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
)

// packInfo is a pack's row with its index decoded and the place of every entry known.
type packInfo struct {
	meta.Pack
	index   *pack.Index
	offsets []int64 // of each entry in the pack file; one more, for where the index frame begins
}

// run is a span of count entries from first on.
func (p *packInfo) run(first, count int) span {
	return span{kind: runSpan, pack: p.ID, first: first, count: count,
		off: p.offsets[first], size: p.offsets[first+count] - p.offsets[first]}
}

// trailer is the span of the pack's index frame.
func (p *packInfo) trailer() span {
	end := p.offsets[len(p.offsets)-1]
	return span{kind: trailerSpan, pack: p.ID, off: end, size: p.Size - end}
}

// indexCache keeps the decoded indexes of the packs that commits used last: a push commits many paths
// out of few packs. It is bounded by the number of entries it holds.
type indexCache struct {
	mu      sync.Mutex
	packs   map[int64]*packInfo
	order   []int64 // oldest first
	entries int
}

// maxCachedEntries is about 4 MiB of indexes (48 bytes an entry).
const maxCachedEntries = 80_000

func (c *indexCache) get(id int64) *packInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.packs[id]
}

func (c *indexCache) put(p *packInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.packs == nil {
		c.packs = map[int64]*packInfo{}
	}
	if c.packs[p.ID] != nil {
		return
	}
	c.packs[p.ID] = p
	c.order = append(c.order, p.ID)
	c.entries += len(p.index.Entries)
	for c.entries > maxCachedEntries && len(c.order) > 1 {
		old := c.packs[c.order[0]]
		delete(c.packs, old.ID)
		c.order = c.order[1:]
		c.entries -= len(old.index.Entries)
	}
}

// packInfo returns a pack with its index, out of the cache or the database.
func (d *Depot) packInfo(tx *meta.Tx, id int64) (*packInfo, error) {
	return loadPack(tx, id, &d.indexes, d.rows)
}

func loadPack(tx *meta.Tx, id int64, cache *indexCache, rows rowCodec) (*packInfo, error) {
	if p := cache.get(id); p != nil {
		return p, nil
	}
	row, err := tx.Pack(id)
	if err != nil {
		return nil, fmt.Errorf("find pack %d: %w", id, err)
	}
	frame, err := rows.decode(row.Index)
	if err != nil {
		return nil, fmt.Errorf("read index of pack %d: %w", id, err)
	}
	ix, err := pack.DecodeIndex(frame)
	if err != nil {
		return nil, fmt.Errorf("read index of pack %d: %w", id, err)
	}
	p := &packInfo{Pack: *row, index: ix, offsets: append(ix.Offsets(), ix.DataSize())}
	p.Index = nil // decoded now; not kept twice
	cache.put(p)
	return p, nil
}
