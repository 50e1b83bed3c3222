package recovery

import (
	"context"
	"maps"
	"slices"

	"github.com/org/attic-action/internal/meta"
)

// settle makes what follows from the records and has none of its own: what is lost,
// what each cache sees, which paths lack references.
func (j *job) settle(ctx context.Context) error {
	gone, err := j.gonePacks(ctx)
	if err != nil {
		return err
	}
	if err := j.DB.Update(ctx, (*meta.Tx).HideAll); err != nil {
		return err
	}
	v := &views{db: j.DB, bits: map[[2]int64][]byte{}}
	if err := j.eachPage(ctx, "paths", func(page []meta.LaidOut) error { return j.place(ctx, v, gone, page) }); err != nil {
		return err
	}
	if err := v.flush(ctx); err != nil {
		return err
	}
	for _, line := range j.unread {
		if j.needsIt {
			j.lost("%s", line)
		}
	}
	if err := j.eachPage(ctx, "references", func(page []meta.LaidOut) error { return j.complete(ctx, page) }); err != nil {
		return err
	}
	if err := j.waiting(ctx); err != nil {
		return err
	}
	if err := j.hideDamaged(ctx); err != nil {
		return err
	}
	return j.DB.Update(ctx, func(tx *meta.Tx) error {
		_, _, err := tx.Prune()
		if err == nil {
			err = tx.ForgetOldKeys()
		}
		if err == nil {
			j.result.StrayPacks, j.result.StrayBytes, err = tx.StrayPacks(0, func(string, int64) {})
		}
		return err
	})
}

// gonePacks are packs whose objects are not there as they were.
func (j *job) gonePacks(ctx context.Context) (map[int64]bool, error) {
	gone := map[int64]bool{}
	err := j.DB.View(ctx, func(tx *meta.Tx) error {
		return tx.LostPacks(func(id int64, _ string) error { gone[id] = true; return nil })
	})
	return gone, err
}

func (j *job) eachPage(ctx context.Context, stage string, each func([]meta.LaidOut) error) error {
	for after, total := int64(0), 0; ; {
		var page []meta.LaidOut
		err := j.DB.View(ctx, func(tx *meta.Tx) (err error) {
			page, err = tx.LaidOutPaths(after)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		if err := each(page); err != nil {
			return err
		}
		after, total = page[len(page)-1].ID, total+len(page)
		j.progress(stage, total, 0)
	}
}

// place shows the caches of paths the runs that they are made of, and takes away
// those that have lost some.
func (j *job) place(ctx context.Context, v *views, gone map[int64]bool, page []meta.LaidOut) error {
	var lost []int64
	for _, p := range page {
		why := ""
		if len(p.Layout) == 0 {
			j.needsIt = true
			why = "a pack that it needs is not in the bucket"
		} else if err := j.Layouts.Uses(p.Layout, func(pack int64, _, _ int) {
			if gone[pack] {
				why = "a pack that it needs is not in the bucket, or was cut off"
			}
		}); err != nil {
			why = err.Error()
		}
		if why != "" {
			j.lost("%s in cache %s: %s; push it again", p.StorePath, p.Cache, why)
			lost = append(lost, p.ID)
			continue
		}
		if err := j.Layouts.Uses(p.Layout, func(pack int64, first, count int) { v.show(p.CacheID, pack, first, count) }); err != nil {
			return err
		}
	}
	if len(lost) > 0 {
		err := j.DB.Update(ctx, func(tx *meta.Tx) error {
			for _, id := range lost {
				if err := tx.LosePath(id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if v.size > maxViews {
		return v.flush(ctx)
	}
	return nil
}

// complete marks paths whose references are not there. Few have any that are not.
func (j *job) complete(ctx context.Context, page []meta.LaidOut) error {
	byCache := map[int64][]meta.LaidOut{}
	for _, p := range page {
		byCache[p.CacheID] = append(byCache[p.CacheID], p)
	}
	return j.DB.Update(ctx, func(tx *meta.Tx) error {
		for cache, paths := range byCache {
			if err := tx.MarkIncomplete(cache, paths); err != nil {
				return err
			}
		}
		return nil
	})
}

// hideDamaged marks what needs packs that are in quarantine.
func (j *job) hideDamaged(ctx context.Context) (err error) {
	for more := true; more && err == nil; {
		err = j.DB.Update(ctx, func(tx *meta.Tx) (err error) { more, err = tx.Spread(j.Layouts.Uses); return err })
	}
	return err
}

// waiting names the paths that never found what they need.
func (j *job) waiting(ctx context.Context) error {
	return j.DB.View(ctx, func(tx *meta.Tx) error {
		return tx.Waiting(func(cache, path, why string) error {
			j.lost("%s in cache %s: %s; push it again", path, cache, why)
			return nil
		})
	})
}

// maxViews bounds the bitmaps in memory, in bytes, and maxPlaced about how many entries
// of packs a transaction shows.
const (
	maxViews  = 16 << 20
	maxPlaced = 100_000
)

// views gathers what caches see, so that a pack's row is written once and not once
// for each of its paths.
type views struct {
	db   *meta.DB
	bits map[[2]int64][]byte // by cache and pack
	size int
}

func (v *views) show(cache, pack int64, first, count int) {
	key := [2]int64{cache, pack}
	bits, known := v.bits[key]
	if !known {
		v.size += 100
	}
	if missing := (first+count+7)/8 - len(bits); missing > 0 {
		bits = append(bits, make([]byte, missing)...)
		v.size += missing
	}
	for i := first; i < first+count; i++ {
		bits[i>>3] |= 1 << (i & 7)
	}
	v.bits[key] = bits
}

// flush writes the bitmaps and the places that follow from them, by cache and pack: a
// transaction that changed all of a large table would be in the WAL many times over.
func (v *views) flush(ctx context.Context) error {
	keys := slices.SortedFunc(maps.Keys(v.bits), func(a, b [2]int64) int { return slices.Compare(a[:], b[:]) })
	for len(keys) > 0 {
		err := v.db.Update(ctx, func(tx *meta.Tx) error {
			for placed := 0; len(keys) > 0 && placed < maxPlaced; keys = keys[1:] {
				key := keys[0]
				entries, err := tx.PackEntries(key[1])
				if err == nil {
					err = tx.ShowBits(key[0], key[1], v.bits[key], entries)
				}
				if err != nil {
					return err
				}
				placed += len(entries)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	v.bits, v.size = map[[2]int64][]byte{}, 0
	return nil
}
