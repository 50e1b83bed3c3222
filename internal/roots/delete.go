package roots

import (
	"context"
	"fmt"
	"slices"

	"github.com/org/attic-action/internal/meta"
)

// NeededError says why a path stays that was to be deleted.
type NeededError struct {
	Path      string
	Pins      []string // that hold it itself
	Referrers []string // store paths, the first of them
	Referring int      // how many there are
}

func (e *NeededError) Error() string {
	if len(e.Pins) > 0 {
		return fmt.Sprintf("%s is pinned as %s", e.Path, e.Pins[0]) + more(len(e.Pins))
	}
	return fmt.Sprintf("%s is needed by %s", e.Path, e.Referrers[0]) + more(e.Referring)
}

func more(n int) string {
	if n > 1 {
		return fmt.Sprintf(" and %d more", n-1)
	}
	return ""
}

// Delete takes a path out of a cache, and with closure all that it needs and
// nothing else does; it returns what went, as store paths. A path that a pin holds
// or another one refers to is a *NeededError. Only rows go: contents stay until a
// collection finds that nothing needs them. dry deletes nothing.
//
// All is done in one transaction, the search for referrers too: a push that came
// between would refer to what is gone. Others wait meanwhile, a second or two where
// there are a million paths.
func (k *Keeper) Delete(ctx context.Context, cache meta.Cache, hash32 string, closure, dry bool) (gone []string, err error) {
	work := func(tx *meta.Tx) error {
		d := &deletion{tx: tx, cache: cache.ID, top: key(hash32), paths: map[hash]string{}}
		if err := d.gather(ctx, closure); err != nil {
			return err
		}
		if err := d.spare(ctx); err != nil {
			return err
		}
		for h, path := range d.paths {
			gone = append(gone, path)
			if dry {
				continue
			}
			if err := tx.DeletePath(cache.ID, string(h[:])); err != nil {
				return err
			}
		}
		return nil
	}
	if dry {
		err = k.looking(ctx, work)
	} else {
		err = k.DB.Update(ctx, work)
	}
	if err != nil {
		return nil, fmt.Errorf("delete %s: %w", hash32, err)
	}
	slices.Sort(gone)
	return gone, nil
}

// deletion is a set of paths that are to go, and what is found to need some.
type deletion struct {
	tx    *meta.Tx
	cache int64
	top   hash
	graph *graph
	paths map[hash]string // that go, with their store paths
}

func (d *deletion) gather(ctx context.Context, closure bool) (err error) {
	path, _, err := d.tx.Path(d.cache, string(d.top[:]))
	if err != nil {
		return err
	}
	d.paths[d.top] = path.StorePath
	if d.graph, err = load(ctx, d.tx, d.cache, []string{string(d.top[:])}, maxNodes); err != nil || !closure {
		return err
	}
	d.graph.reach(d.graph.marks(), []int32{0}, func(id int32) {
		if err != nil || id == 0 {
			return
		}
		h := d.graph.nodes[id].hash
		if path, _, err = d.tx.Path(d.cache, string(h[:])); err == nil {
			d.paths[h] = path.StorePath
		}
	})
	return err
}

// spare takes out of the set what a pin holds, what a path beyond the set refers
// to, and all that these need. If that is the path itself, it is a *NeededError.
func (d *deletion) spare(ctx context.Context) error {
	set := map[hash]bool{}
	var stay []int32
	for h, path := range d.paths {
		set[h] = true
		pins, err := d.tx.PinsOf(d.cache, string(h[:]))
		if err != nil {
			return err
		}
		if len(pins) == 0 {
			continue
		}
		if h == d.top {
			return &NeededError{Path: path, Pins: pins}
		}
		stay = append(stay, d.graph.ids[h])
	}
	found, err := referrers(ctx, d.tx, d.cache, set)
	if err != nil {
		return err
	}
	needed := &NeededError{Path: d.paths[d.top]}
	for _, r := range found {
		if set[r.hash] {
			continue
		}
		if r.to == d.top {
			if needed.Referring++; len(needed.Referrers) < maxReferrers {
				needed.Referrers = append(needed.Referrers, r.path)
			}
		}
		stay = append(stay, d.graph.ids[r.to])
	}
	if needed.Referring > 0 {
		return needed
	}
	d.graph.reach(d.graph.marks(), stay, func(id int32) { delete(d.paths, d.graph.nodes[id].hash) })
	if _, goes := d.paths[d.top]; !goes { // what clients claim may have circles
		return fmt.Errorf("%s is needed by what it needs", needed.Path)
	}
	return nil
}
