package roots

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// Look is what is known of a path in a cache.
type Look struct {
	Path      meta.Path
	NAR       meta.NAR // without its Layout
	Layout    []byte
	Absent    []string // references that are neither here nor upstream's, base names
	Referrers []string // store paths that refer to it, the first of them
	Referring int      // how many there are
	Pins      []string // that hold it, itself or by what needs it
	// Kept is until when the last use of the path itself keeps it; the zero time is
	// for ever.
	Kept time.Time
	// PinsUnknown is why Pins may lack some: the pins of the cache have too many paths.
	PinsUnknown bool
}

// maxReferrers bounds Look.Referrers.
const maxReferrers = 50

// Path looks at a path of a cache; meta.ErrNotFound if there is none of that hash.
// It reads all paths of the cache, to find its referrers.
func (k *Keeper) Path(ctx context.Context, cache meta.Cache, hash32 string) (*Look, error) {
	out := &Look{}
	err := k.looking(ctx, func(tx *meta.Tx) error {
		path, nar, err := tx.Path(cache.ID, hash32)
		if err != nil {
			return err
		}
		out.Path, out.NAR, out.Kept = *path, *nar, k.keptUntil(cache, path.LastUsed)
		if out.Layout, err = tx.NARLayout(nar.ID); err != nil {
			return err
		}
		if out.Absent, err = absentRefs(tx, path); err != nil {
			return err
		}
		found, err := referrers(ctx, tx, cache.ID, map[hash]bool{key(hash32): true})
		if err != nil {
			return err
		}
		out.Referring = len(found)
		for _, r := range found[:min(len(found), maxReferrers)] {
			out.Referrers = append(out.Referrers, r.path)
		}
		ways, err := fromPins(ctx, tx, cache.ID, hash32)
		if out.PinsUnknown = errors.Is(err, ErrTooLarge); out.PinsUnknown {
			out.Pins, err = tx.PinsOf(cache.ID, hash32)
			return err
		}
		if err == nil {
			out.Pins = ways.pins
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", hash32, err)
	}
	return out, nil
}

func absentRefs(tx *meta.Tx, p *meta.Path) (absent []string, err error) {
	var hashes []string
	for _, ref := range p.References {
		if !slices.Contains(p.Upstream, ref) {
			hashes = append(hashes, ref[:nix.PathHashLen])
		}
	}
	missing, err := tx.MissingPaths(p.CacheID, hashes)
	for _, ref := range p.References {
		if slices.Contains(missing, ref[:nix.PathHashLen]) {
			absent = append(absent, ref)
		}
	}
	return absent, err
}

// retention is how long a cache keeps what was used; 0 is for ever.
func (k *Keeper) retention(cache meta.Cache) time.Duration {
	if cache.Retention != nil {
		return time.Duration(*cache.Retention) * time.Second
	}
	return k.Retention
}

func (k *Keeper) keptUntil(cache meta.Cache, used time.Time) time.Time {
	if r := k.retention(cache); r > 0 {
		return used.Add(r)
	}
	return time.Time{}
}

// referrer is a path that refers to one of several.
type referrer struct {
	hash, to hash
	path     string
	used     time.Time
}

// referrers reads all paths of a cache for those that refer to one of a set, itself
// left out. There is no index of it: it would be as large as all the rest.
func referrers(ctx context.Context, tx *meta.Tx, cacheID int64, of map[hash]bool) (found []referrer, err error) {
	n := 0
	look := func(hash32, path, refs string, used time.Time) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for base := range strings.SplitSeq(refs, "\n") {
			if to := key(base); of[to] && base[:nix.PathHashLen] != hash32 {
				found = append(found, referrer{key(hash32), to, path, used})
			}
		}
		if len(found) > maxNodes {
			return ErrTooLarge
		}
		return nil
	}
	if len(of) == 1 {
		for h := range of {
			err = tx.EachReferrer(cacheID, string(h[:]), look)
		}
	} else {
		err = tx.EachPath(cacheID, look)
	}
	slices.SortFunc(found, func(a, b referrer) int { return strings.Compare(a.path, b.path) })
	return found, err
}

// ways are the ways from pins to a path.
type ways struct {
	pins     []string // that hold it, by name
	shortest []string // from the path that a pin holds to the path, by hash
	pin      string   // that the shortest way begins at
}

// fromPins walks from all pins of a cache, and from a path back to them.
func fromPins(ctx context.Context, tx *meta.Tx, cacheID int64, hash32 string) (*ways, error) {
	var names, tops []string
	err := tx.PinnedPaths(cacheID, func(pin, hash string) error {
		names, tops = append(names, pin), append(tops, hash)
		return nil
	})
	if err != nil {
		return nil, err
	}
	g, err := load(ctx, tx, cacheID, tops, maxNodes)
	if err != nil {
		return nil, err
	}
	out := &ways{}
	to, known := g.ids[key(hash32)]
	if !known {
		return out, nil
	}
	back := g.reversed()
	way := back.nearest(to, g.idsOf(tops))
	for i, id := range way {
		if i == 0 {
			out.pin = names[slices.Index(tops, string(g.nodes[id].hash[:]))]
		}
		out.shortest = append(out.shortest, string(g.nodes[id].hash[:]))
	}
	m := back.marks()
	back.reach(m, []int32{to}, func(int32) {})
	for i, top := range g.idsOf(tops) {
		if m.saw(top) {
			out.pins = append(out.pins, names[i])
		}
	}
	out.pins = slices.Compact(out.pins) // they came by name
	return out, nil
}

// Why is the way from a root to a path.
type Why struct {
	Pin   string      // that holds the first path of the way; empty: it was used of late
	Pins  int         // how many pins hold the path in all
	Used  time.Time   // when the first path of the way was last used
	Until time.Time   // until when that keeps it; zero: for ever
	Way   []meta.Path // store paths along references, the path itself last; empty: nothing keeps it
}

// Why finds the way from a root to a path: from a pin if there is one, else from
// something that was used within the cache's retention. Without a way nothing keeps
// the path.
func (k *Keeper) Why(ctx context.Context, cache meta.Cache, hash32 string) (*Why, error) {
	out := &Why{}
	err := k.looking(ctx, func(tx *meta.Tx) error {
		if _, _, err := tx.Path(cache.ID, hash32); err != nil {
			return err
		}
		found, err := fromPins(ctx, tx, cache.ID, hash32)
		if err != nil && !errors.Is(err, ErrTooLarge) {
			return err
		}
		var way []string
		if err == nil {
			out.Pin, out.Pins, way = found.pin, len(found.pins), found.shortest
		}
		if len(way) == 0 {
			if way, err = k.fromUse(ctx, tx, cache, hash32); err != nil {
				return err
			}
		}
		for _, h := range way {
			p, _, err := tx.Path(cache.ID, h)
			if err != nil {
				return err
			}
			out.Way = append(out.Way, *p)
		}
		if len(out.Way) > 0 {
			out.Used = out.Way[0].LastUsed
			out.Until = k.keptUntil(cache, out.Used)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for what keeps %s: %w", hash32, err)
	}
	return out, nil
}

// fromUse goes back from a path, level by level, until something was used of late.
// Each level reads all paths of the cache.
func (k *Keeper) fromUse(ctx context.Context, tx *meta.Tx, cache meta.Cache, hash32 string) ([]string, error) {
	target, _, err := tx.Path(cache.ID, hash32)
	if err != nil {
		return nil, err
	}
	kept := func(used time.Time) bool {
		until := k.keptUntil(cache, used)
		return until.IsZero() || tx.Now().Before(until)
	}
	if kept(target.LastUsed) {
		return []string{hash32}, nil
	}
	next := map[hash]hash{key(hash32): key(hash32)} // one step on, towards the path
	level := map[hash]bool{key(hash32): true}
	for len(level) > 0 && len(next) < maxNodes {
		found, err := referrers(ctx, tx, cache.ID, level)
		if err != nil {
			return nil, err
		}
		clear(level)
		for _, r := range found {
			if _, seen := next[r.hash]; seen {
				continue
			}
			next[r.hash], level[r.hash] = r.to, true
			if kept(r.used) {
				way := []string{string(r.hash[:])}
				for h := r.hash; h != key(hash32); {
					h = next[h]
					way = append(way, string(h[:]))
				}
				return way, nil
			}
		}
	}
	return nil, nil
}
