package soak

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/gc"
	"github.com/org/attic-action/internal/gc/rewrite"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/spool"
)

// fresh is how long a path stays after its last use that only a number of toplevels, or
// a quota, would keep.
const fresh = 24 * time.Hour

// rule is what the configuration says of a cache, by its name.
func rule(cache string) gc.Own {
	switch {
	case strings.HasSuffix(cache, "-last"):
		return gc.Own{KeepLast: 3}
	case strings.HasSuffix(cache, "-quota"):
		return gc.Own{Quota: 200 << 10}
	}
	return gc.Own{}
}

// rewriter takes packs of a few kilobytes for large ones.
func (w *world) rewriter(p *process, layouts *depot.Layouts, sp *spool.Dir, log *slog.Logger) *rewrite.Rewriter {
	return &rewrite.Rewriter{DB: p.db, Layouts: layouts, Blobs: p.store, Spool: sp, Log: log, Target: 96 << 10, Small: 24 << 10, Budget: 1 << 20,
		Damaged: func(_ context.Context, _ int64, key string, err error) {
			if !p.dead.Load() && w.faults == 0 {
				w.wrong("pack %s is damaged: %v", key, err)
			}
		}}
}

func (w *world) collector(p *process, layouts *depot.Layouts, log *slog.Logger) *gc.Collector {
	return &gc.Collector{DB: p.db, Layouts: layouts, Blobs: p.store, Retention: w.retention, Rules: rule, Uses: p.server.WriteUses,
		Rewrite: p.rewriter, Now: func() time.Time { return w.now }, Log: log, Fresh: fresh}
}

// doRewrite moves what is alive, at times to the end.
func (w *world) doRewrite(r *rand.Rand) {
	before := w.p.rewriter.Last()
	for range 1 + r.IntN(20) {
		more, err := w.p.rewriter.Step(context.Background())
		if !w.maintained("rewrite", err) || !more {
			break
		}
	}
	if after := w.p.rewriter.Last(); after != before {
		w.count["packs rewritten"] += after.Packs
	}
}

// doCollectStep does a part of a collection, or the rest of it.
func (w *world) doCollectStep(r *rand.Rand) {
	w.usesWritten(false)
	w.suspect()
	more, err := w.p.gc.Step(&countdown{Context: context.Background(), left: 1 + r.IntN(40)})
	w.suspect()
	switch {
	case w.leased(err):
	case w.maintained("collect", err):
		w.p.collecting = more
		w.count["collection steps"]++
		w.checkKept(nil)
	default:
		w.p.collecting = false
	}
	w.mayBeWritten()
}

// mayBeWritten says that the uses that are pending may have been written down, and will
// not be again.
func (w *world) mayBeWritten() {
	for i := range w.pending {
		w.pending[i].sure = false
	}
}

// leased says that a process that was killed has the lease still.
func (w *world) leased(err error) bool {
	if err != nil && errors.Is(err, meta.ErrLeased) {
		w.count["leased"]++
		return true
	}
	return false
}

// doCollect makes a whole collection. What nothing keeps is gone then.
func (w *world) doCollect(r *rand.Rand) { w.collect(r.IntN(5) == 0) }

func (w *world) collect(atOnce bool) (whole bool) {
	n, amid := len(w.pending), w.others
	w.usesWritten(false)
	w.suspect()
	may := map[string]map[string]bool{}
	for name, s := range w.m.caches {
		may[name] = w.kept(s, false)
	}
	res, err := w.p.gc.Run(context.Background(), gc.Options{AtOnce: atOnce})
	w.p.collecting = false
	w.suspect()
	if w.leased(err) || !w.maintained("collect", err) {
		w.mayBeWritten()
		return false
	}
	w.count["collections"]++
	w.count["packs deleted"] += res.Packs
	w.count["paths collected"] += res.Paths
	w.count["orphans"] += res.Orphans
	written := w.pending[:min(n, len(w.pending))]
	rest := slices.Clone(w.pending[len(written):])
	w.pending = written
	if amid == w.others {
		w.usesWritten(true)
	}
	w.pending = rest
	w.mayBeWritten()
	if amid != w.others || w.deep {
		may = nil
	}
	w.checkKept(may)
	return true
}

// checkKept asks the database whether all is there that must be. After a whole
// collection that nothing disturbed, no more is there than may.
func (w *world) checkKept(may map[string]map[string]bool) {
	quiet := w.p.quiet
	w.p.quiet = true
	defer func() { w.p.quiet = quiet }()
	w.must(w.p.db.View(context.Background(), func(tx *meta.Tx) error {
		rows, err := tx.Caches()
		for _, c := range rows {
			if s := w.m.caches[c.Name]; s != nil {
				w.checkShelf(tx, c.ID, s, may[s.name])
			}
		}
		return err
	}))
}

func (w *world) checkShelf(tx *meta.Tx, id int64, s *shelf, may map[string]bool) {
	missing, err := tx.MissingPaths(id, s.hashes())
	w.must(err)
	gone := map[string]bool{}
	for _, hash := range missing {
		h := s.paths[hash]
		if w.pushing[hash] { // it may not have come yet, or go and come again
			b := w.before.caches[s.name]
			if b == nil {
				continue
			}
			var there bool
			if h, there = b.paths[hash]; !there {
				continue
			}
			delete(b.paths, hash)
		} else {
			delete(s.paths, hash)
		}
		gone[hash] = true
		if !h.doubt {
			w.wrong("a collection took %s from cache %s, and a root keeps it", w.forge.all[hash].path, s.name)
		}
	}
	for hash := range s.paths {
		if w.pushing[hash] && !w.committed[hash] {
			continue
		}
		for _, ref := range w.forge.all[hash].refs {
			// A stock push that took longer than its cache keeps may end with a path that lacks what was there when
			// it began: it is taken as it comes, and noted as incomplete.
			if gone[ref] && !gone[hash] && !incomplete(tx, id, hash) {
				w.wrong("a collection took %s from cache %s, which %s needs", w.forge.all[ref].path, s.name, w.forge.all[hash].path)
			}
		}
	}
	if may == nil {
		return
	}
	for hash, h := range s.paths {
		if !may[hash] {
			w.wrong("%s is in cache %s after a collection, and nothing keeps it", w.forge.all[hash].path, s.name)
		}
		h.doubt = false
		s.paths[hash] = h
	}
	w.checkQuota(tx, id, s)
}

// incomplete tells whether a path came without all its references.
func incomplete(tx *meta.Tx, cache int64, hash string) bool {
	p, _, err := tx.Path(cache, hash)
	return err == nil && p.Incomplete
}

// checkQuota sees that what a cache has fits, unless it is pinned or was just used.
func (w *world) checkQuota(tx *meta.Tx, id int64, s *shelf) {
	quota := rule(s.name).Quota
	if quota == 0 {
		return
	}
	days, err := tx.PathDays(id)
	w.must(err)
	var size int64
	for _, d := range days {
		size += int64(d.FileSize)
	}
	if size <= quota {
		return
	}
	stays := w.spared(s, false)
	for hash := range s.paths {
		if !stays[hash] {
			w.wrong("cache %s has %d bytes after a collection, its quota is %d, and nothing holds %s", s.name, size, quota, w.forge.all[hash].path)
		}
	}
}

// countdown is a context that ends after it was asked some times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left <= 0 {
		return context.Canceled
	}
	return c.Context.Err()
}
