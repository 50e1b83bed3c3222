package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/meta"
)

// reader reads the graph, a page at a time.
type reader struct {
	graph *graph
}

// step goes on until all is read, which it says, or ctx ends.
func (r *reader) step(ctx context.Context, db *meta.DB) (done bool, err error) {
	background := context.WithoutCancel(ctx)
	if r.graph == nil {
		err := db.View(background, func(tx *meta.Tx) error {
			caches, err := tx.AllCaches()
			if err != nil {
				return err
			}
			n, err := tx.PathCount()
			if err != nil {
				return err
			}
			r.graph, err = newGraph(caches, n)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	for !done {
		err := db.View(background, func(tx *meta.Tx) (err error) { done, err = r.graph.read(tx); return err })
		if err != nil {
			return false, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return done, nil
}

// mark decides, by the pins that there are now.
func (c *Collector) mark(ctx context.Context, g *graph, now time.Time) (*marks, error) {
	pins := map[uint32]string{}
	err := c.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) error {
		for _, cache := range g.caches {
			err := tx.PinnedPaths(cache.ID, func(pin, hash string) error {
				if id, found := g.lookUp(cache.ID, hash); found && pins[id] == "" {
					pins[id] = pin
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return mark(ctx, g, &criteria{now: now, fresh: orElse(c.Fresh, 24*time.Hour), rule: c.rule}, pins)
}

// read reads all paths and decides which go.
func (c *Collector) read(ctx context.Context, r *run) (done bool, err error) {
	if done, err := r.reader.step(ctx, c.DB); err != nil || !done {
		return false, err
	}
	m, err := c.mark(context.WithoutCancel(ctx), r.reader.graph, c.now())
	if err != nil {
		return false, err
	}
	r.reader = reader{}
	r.paths = &leave{marks: m, list: m.leaving()}
	if r.Cache != "" {
		r.paths.list = slices.DeleteFunc(r.paths.list, func(id uint32) bool { return m.g.caches[m.g.cache[id]].Name != r.Cache })
	}
	return true, nil
}

// leave is the paths that are to go, those first that refer to others.
type leave struct {
	*marks
	list []uint32
	seen int64 // number of the last note of what was used
}

// dropPaths deletes them, a batch in each transaction.
func (c *Collector) dropPaths(ctx context.Context, r *run) (done bool, err error) {
	l := r.paths
	for len(l.list) > 0 {
		if err := c.uses(ctx); err != nil {
			return false, err
		}
		batch := l.list[:min(len(l.list), dropBatch)]
		gone, seen := 0, int64(0)
		err := c.update(ctx, func(tx *meta.Tx) (err error) {
			gone, seen, err = l.drop(tx, r.number, batch)
			return err
		})
		if errors.Is(err, errChanged) {
			c.again(r)
			return false, nil
		}
		if err != nil {
			return false, err
		}
		l.seen, l.list = seen, l.list[len(batch):]
		r.result.Paths += gone
		r.result.Revived += len(batch) - gone
		if ctx.Err() != nil {
			return false, nil
		}
	}
	r.paths = nil
	return true, c.update(ctx, func(tx *meta.Tx) error { return tx.Watch(0) })
}

// again reads everything once more.
func (c *Collector) again(r *run) {
	r.paths = nil
	r.stage = 0
	r.reader = reader{}
}

// errChanged says that a cache keeps something else than it did.
var errChanged = errors.New("what a cache keeps was changed meanwhile")

// drop deletes those of a batch that still go. Everything that was used since the paths were read, it keeps first,
// with what it needs, as the database says now.
func (l *leave) drop(tx *meta.Tx, number int64, batch []uint32) (gone int, seen int64, err error) {
	if watching, err := tx.Watching(); err != nil || watching != number {
		return 0, 0, errors.Join(err, errLost)
	}
	if err := l.unchanged(tx); err != nil {
		return 0, 0, err
	}
	if seen, err = l.keepUsed(tx); err != nil {
		return 0, 0, err
	}
	for _, id := range batch {
		if !l.goes(id) {
			continue
		}
		cache := &l.g.caches[l.g.cache[id]]
		ok, err := tx.CollectPath(cache, l.g.hash[id].String(), int64(l.g.used[id])*1e6)
		if err != nil {
			return 0, 0, err
		}
		if ok {
			gone++
		} else {
			l.revive(id) // it was used, or is gone: what it needs is for the next collection to see
		}
	}
	return gone, seen, nil
}

// unchanged sees to it that caches are as they were: one that is to keep more must.
func (l *leave) unchanged(tx *meta.Tx) error {
	caches, err := tx.AllCaches()
	if err != nil {
		return err
	}
	now := map[int64]*meta.Cache{}
	for i := range caches {
		now[caches[i].ID] = &caches[i]
	}
	for i := range l.g.caches {
		was := &l.g.caches[i]
		is := now[was.ID]
		if is != nil && (!equal(is.Retention, was.Retention) || (is.DeletedAt == nil) != (was.DeletedAt == nil)) {
			return errChanged
		}
	}
	return nil
}

func equal(a, b *uint32) bool { return a == b || a != nil && b != nil && *a == *b }

// keepUsed keeps what was pushed, used or pinned since the paths were read.
func (l *leave) keepUsed(tx *meta.Tx) (seen int64, err error) {
	seen = l.seen
	byCache := map[int64][]string{}
	err = tx.Touched(l.seen, func(seq, cache int64, hash string) error {
		seen = seq
		byCache[cache] = append(byCache[cache], hash)
		if id, found := l.g.lookUp(cache, hash); found {
			l.revive(id)
		}
		return nil
	})
	for cache, hashes := range byCache {
		if err != nil {
			break
		}
		// It may be new, or have other references than when it was read.
		err = tx.Nodes(cache, hashes, func(_ int, n meta.Node) error {
			for base := range strings.SplitSeq(n.Refs, "\n") {
				if id, found := l.g.lookUp(cache, base); found {
					l.revive(id)
				}
			}
			return nil
		})
	}
	if err != nil {
		return 0, fmt.Errorf("keep what was used: %w", err)
	}
	return seen, nil
}
