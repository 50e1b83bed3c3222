package soak

import (
	"context"

	"github.com/org/attic-action/internal/meta"
)

// audit compares the whole database with the model: no path may be there that was
// deleted or never pushed, and the sums that are kept beside the rows must be theirs.
func (w *world) audit() {
	quiet := w.p.quiet
	w.p.quiet = true
	defer func() { w.p.quiet = quiet }()
	w.must(w.p.db.CountPaths(context.Background()))
	w.must(w.p.db.View(context.Background(), func(tx *meta.Tx) error {
		rows, err := tx.Caches()
		if err != nil {
			return err
		}
		there := map[string]map[string]bool{}
		ids := map[string]int64{}
		for _, c := range rows {
			there[c.Name], ids[c.Name] = map[string]bool{}, c.ID
		}
		for after := int64(0); ; {
			page, err := tx.LaidOutPaths(after)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			for _, p := range page {
				if there[p.Cache] != nil { // not a hidden one's
					there[p.Cache][p.Hash] = true
				}
			}
			after = page[len(page)-1].ID
		}
		for name, hashes := range there {
			w.auditShelf(tx, name, ids[name], hashes)
		}
		return nil
	}))
}

func (w *world) auditShelf(tx *meta.Tx, name string, id int64, there map[string]bool) {
	s := w.m.caches[name]
	if s == nil {
		w.wrong("cache %s is there, and was destroyed", name)
	}
	for hash := range there {
		if _, known := s.paths[hash]; !known {
			w.wrong("%s is in the rows of cache %s, and it was deleted or never pushed", w.forge.all[hash].path, name)
		}
	}
	for hash, h := range s.paths {
		if !h.doubt && !there[hash] {
			w.wrong("%s is not in the rows of cache %s", w.forge.all[hash].path, name)
		}
	}
	days, err := tx.PathDays(id)
	w.must(err)
	var paths, size int64
	for _, d := range days {
		paths, size = paths+d.Paths, size+int64(d.Size)
	}
	want := int64(0)
	for hash := range there {
		want += int64(len(w.forge.all[hash].nar))
	}
	if paths != int64(len(there)) || size != want {
		w.wrong("the sums of cache %s are %d paths and %d bytes, and it has %d and %d", name, paths, size, len(there), want)
	}
}
