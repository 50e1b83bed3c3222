package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// doSettle lets days pass in which nothing happens but collections. Then the bucket
// holds what is needed, and little else.
func (w *world) doSettle(r *rand.Rand) {
	w.disturb, w.faults = disturbance{}, 0
	w.checkpoint()
	for range 3 {
		w.now = w.now.Add(26 * time.Hour) // longer than a pack waits for its commit, and an orphan for its deletion
		w.doUses(r)
		if !w.collect(false) {
			w.wrong("a collection that nothing disturbs does not come to its end")
		}
	}
	for range 3 { // what was rewritten and condemned last
		w.now = w.now.Add(time.Hour)
		if !w.collect(false) {
			w.wrong("a collection that nothing disturbs does not come to its end")
		}
	}
	w.checkpoint()
	w.count["settled"]++
	w.audit()
	w.auditBucket()
}

// checkpoint ends the one that is under way, and makes one of now.
func (w *world) checkpoint() {
	for range 2 {
		w.must(w.p.keeper.Make(context.Background()))
	}
}

// auditBucket compares the bucket with the database.
func (w *world) auditBucket() {
	packs, size := w.bucket.objects("packs/")
	var alive int64
	w.must(w.p.db.View(context.Background(), func(tx *meta.Tx) error {
		var rows int64
		for key, bytes := range packs {
			id, err := tx.PackID(key)
			if errors.Is(err, meta.ErrNotFound) {
				w.wrong("%s is in the bucket, and nothing knows of it", key)
			}
			w.must(err)
			row, err := tx.Pack(id)
			w.must(err)
			if row.Size != bytes {
				w.wrong("%s has %d bytes, its row says %d", key, bytes, row.Size)
			}
			rows += row.Size
		}
		sum, err := tx.AllPacks()
		w.must(err)
		if sum.Packs != int64(len(packs)) || int64(sum.Size) != rows {
			w.wrong("the sums say %d packs with %d bytes, and there are %d with %d", sum.Packs, sum.Size, len(packs), rows)
		}
		alive = w.alive(tx)
		return nil
	}))
	w.count["bytes stored"] += int(size)
	w.count["bytes alive"] += int(alive)
	// A pack of which a third is alive stays, as do some small ones.
	if most := 3*alive + 96<<10; size > most {
		w.wrong("%d bytes of packs are in the bucket after collections, and %d are needed", size, alive)
	}
	logs, _ := w.bucket.objects(ledger.LogPrefix)
	manifests, _ := w.bucket.objects(ledger.ManifestPrefix)
	if len(logs) > 3 || len(manifests) > 1 {
		w.wrong("%d objects of the log and %d checkpoints are left behind a checkpoint", len(logs), len(manifests))
	}
}

// alive sums up the entries that some path needs, each once.
func (w *world) alive(tx *meta.Tx) (bytes int64) {
	layouts := &depot.Layouts{}
	type entry struct {
		pack int64
		n    int
	}
	seen := map[entry]bool{}
	for after := int64(0); ; {
		page, err := tx.LaidOutPaths(after)
		w.must(err)
		if len(page) == 0 {
			return bytes
		}
		for _, p := range page {
			after = p.ID
			w.must(layouts.Uses(p.Layout, func(id int64, first, count int) {
				row, err := tx.Pack(id)
				w.must(err)
				ix, err := layouts.Index(row.Index)
				w.must(err)
				for n := first; n < first+count; n++ {
					if !seen[entry{id, n}] {
						seen[entry{id, n}] = true
						bytes += int64(ix.Entries[n].Size) + 41
					}
				}
			}))
		}
	}
}
