package soak

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"math/rand/v2"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/recovery"
)

// reconcile reads what became of a step that was broken off. For each thing that it
// was to change, both answers are right: as it was before, and as it was to be. All
// else must be as it was.
func (w *world) reconcile() {
	before, after := w.before, w.m
	w.m = &model{caches: map[string]*shelf{}}
	w.must(w.p.db.View(context.Background(), func(tx *meta.Tx) error {
		rows, err := tx.Caches()
		if err != nil {
			return err
		}
		found := map[string]bool{}
		for _, c := range rows {
			found[c.Name] = true
			w.m.caches[c.Name] = w.found(tx, c, before.caches[c.Name], after.caches[c.Name])
		}
		for name := range before.caches {
			if !found[name] && after.caches[name] != nil {
				w.wrong("cache %s is gone", name)
			}
		}
		return nil
	}))
}

func (w *world) found(tx *meta.Tx, c meta.Cache, before, after *shelf) *shelf {
	switch {
	case before == nil && after == nil:
		w.wrong("cache %s was destroyed, and is there", c.Name)
	case before == nil:
		before = after
	case after == nil:
		after = before
	}
	s := newShelf(c.Name, c.Public)
	s.key, s.retention, s.sent = c.PublicKey, c.Retention, after.sent
	if before.key != "" && s.key != before.key {
		w.wrong("cache %s has another key", s.name)
	}
	if s.public != before.public && s.public != after.public || !same(s.retention, before.retention) && !same(s.retention, after.retention) {
		w.wrong("the settings of cache %s are neither the old nor the new ones", s.name)
	}
	w.foundPaths(tx, c.ID, s, before, after)
	w.foundPins(tx, c.ID, s, before, after)
	return s
}

func same(a, b *uint32) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

func (w *world) foundPaths(tx *meta.Tx, id int64, s, before, after *shelf) {
	for _, hash := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(before.hashes(), after.hashes())))) {
		a, wasThere := before.paths[hash]
		b, toBe := after.paths[hash]
		p, _, err := tx.Path(id, hash)
		if errors.Is(err, meta.ErrNotFound) {
			if wasThere && toBe && !a.doubt && !b.doubt {
				w.wrong("%s of cache %s is gone", w.forge.all[hash].path, s.name)
			}
			continue
		}
		w.must(err)
		if !wasThere {
			a = b
		}
		if !toBe {
			b = a
		}
		lo, hi := a.lo, b.hi
		if b.lo.Before(lo) {
			lo = b.lo
		}
		if a.hi.After(hi) {
			hi = a.hi
		}
		if p.LastUsed.Before(lo.Add(-time.Millisecond)) || p.LastUsed.After(hi.Add(time.Millisecond)) {
			w.wrong("%s of cache %s was last used at %v, want %v to %v", w.forge.all[hash].path, s.name, p.LastUsed, lo, hi)
		}
		s.paths[hash] = held{lo: p.LastUsed, hi: p.LastUsed, doubt: w.p.collecting && (a.doubt || b.doubt)}
	}
}

func (w *world) foundPins(tx *meta.Tx, id int64, s, before, after *shelf) {
	list, err := tx.Pins(id, "", 1000)
	w.must(err)
	for _, row := range list {
		p := pin{keep: row.Keep, expires: row.Expires}
		for _, rev := range row.Revisions {
			p.revs = append(p.revs, rev.Hash)
		}
		s.pins[row.Name] = p
	}
	for i := range pinNames {
		name := pinName(i)
		got, is := s.pins[name]
		a, was := before.pins[name]
		b, toBe := after.pins[name]
		was, toBe = was && a.live(w.now), toBe && b.live(w.now)
		if !(is == was && (!is || got.equal(a))) && !(is == toBe && (!is || got.equal(b))) {
			w.wrong("pin %s of cache %s is %+v, want %+v or %+v", name, s.name, got, a, b)
		}
	}
}

// doRecover loses the volume: all that is left is the bucket.
func (w *world) doRecover(r *rand.Rand) {
	w.disturb = disturbance{}
	ctx := context.Background()
	old := w.p
	w.end()
	dir := w.newDir()
	layouts := &depot.Layouts{}
	db, err := meta.Open(ctx, filepath.Join(dir, "server.db"), meta.Options{Layouts: layouts, Rebuilt: true, Now: func() time.Time { return w.now }})
	w.must(err)
	rec := &recovery.Recovery{Blobs: w.bucket, DB: db, Layouts: layouts, Now: func() time.Time { return w.now }}
	res, err := rec.Run(ctx)
	w.must(errors.Join(err, db.Close()))
	if res.LostCount > 0 {
		w.wrong("a recovery lost %q", res.Lost)
	}
	w.epoch = res.Epoch
	w.start(dir)
	w.pending = nil
	_ = os.RemoveAll(old.dir) // only room is lost
	if w.ghost != nil {
		w.m = w.ghost
	}
	for _, m := range []*model{w.before, w.m} {
		for _, s := range m.caches {
			for hash, h := range s.paths { // a recovery counts as a use
				h.hi = w.now
				s.paths[hash] = h
			}
		}
	}
	w.unsure = true
}
