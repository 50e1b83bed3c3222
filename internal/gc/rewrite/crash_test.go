package rewrite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// copied is the same world at another place, as if it had been there when the process ended.
func (w *world) copied(t *testing.T, left int) *world {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	store, err := disk.New(filepath.Join(dir, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	c := &world{t: t, dir: dir, now: w.now, store: &flaky{Store: store, left: -1}, caches: maps.Clone(w.caches), paths: map[string]map[string]thing{}, chunks: maps.Clone(w.chunks)}
	for name := range w.paths {
		c.paths[name] = maps.Clone(w.paths[name])
	}
	c.open("server.db", 1)
	c.store.left = left
	return c
}

// reopened is the world after its process was started again.
func (w *world) reopened() {
	w.t.Helper()
	w.rewrite.Close()
	if err := w.db.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.store.left = -1
	w.open("server.db", 1)
}

// Whatever operation is the last one of a process: what is there is all there, each cache finds what it found
// before, and the next process comes to the same end.
func TestProcessThatEndsAnywhereLosesNothing(t *testing.T) {
	w, d := newWorld(t), dice(10)
	w.sparsePack(d, "a", 12)
	w.sparsePack(d, "b", 12)
	shared := text(d, 5<<10)
	for _, cache := range []string{"a", "b"} {
		for range 2 {
			w.ingest(cache, hashOf(d), text(d, 6<<10))
		}
		w.ingest(cache, hashOf(d), shared)
	}
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, heavy := range []int{0, 1} { // all in one transaction, and each change in its own
		t.Run(fmt.Sprint("weight ", heavy), func(t *testing.T) {
			for n := 0; ; n++ {
				c := w.copied(t, n)
				c.rewrite.heavy = heavy
				more, err := true, error(nil)
				for more && err == nil {
					more, err = c.rewrite.Step(context.Background())
				}
				if err == nil {
					t.Logf("%d operations", n)
					if n < 10 {
						t.Errorf("a run has %d operations", n)
					}
					return
				}
				killed := false
				if killed = errors.Is(err, errKilled) || c.store.left == 0; !killed {
					t.Fatal(err)
				}
				c.reopened()
				views := w.seen(c)
				c.sameViews(views)
				c.served()
				c.run()
				c.sameViews(views)
				c.collect()
				c.served()
				c.findsItsOwn()
				if n%7 == 0 {
					c.recovered("again.db")
					c.served()
					c.findsItsOwn()
				}
				if _, packs := c.stored(); packs > 4 { // of ten, some of which are too few to be merged
					t.Errorf("killed after %d operations, it has %d packs in the end", n, packs)
				}
				if err := c.db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A process that ends between a record and its transaction has logged that NARs are in a pack that has no row. When
// that pack is swept away, no recovery may look for them there.
func TestSweptPackIsNoNARsPlaceAfterARecovery(t *testing.T) {
	w, d := newWorld(t), dice(12)
	w.sparsePack(d, "a", 12)
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	ended := 0 // of them, between the two
	for n := 0; ; n++ {
		c := w.copied(t, n)
		if _, err := stepAll(c); err == nil {
			break
		}
		logged := c.logged()
		c.reopened()
		c.view(func(tx *meta.Tx) error {
			for _, key := range logged {
				if known, err := tx.HasLogObject(key); err != nil || !known {
					ended++
					return err
				}
			}
			return nil
		})
		c.update((*meta.Tx).Supersede)
		c.sweepPacks()
		c.served()
		c.recovered("again.db")
		c.served()
	}
	if ended == 0 {
		t.Error("no process has ended between a record and its transaction")
	}
}

// logged is the objects of the log.
func (w *world) logged() (keys []string) {
	w.t.Helper()
	err := w.store.List(context.Background(), ledger.LogPrefix, func(o blob.Info) error { keys = append(keys, o.Key); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}

// sweepPacks does what package gc does of objects that have no row.
func (w *world) sweepPacks() {
	w.t.Helper()
	err := w.store.List(context.Background(), "packs/", func(o blob.Info) error {
		known := true
		w.view(func(tx *meta.Tx) error {
			_, err := tx.PackID(o.Key)
			if errors.Is(err, meta.ErrNotFound) {
				known, err = false, nil
			}
			return err
		})
		if known {
			return nil
		}
		return w.store.Delete(context.Background(), o.Key)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// seen is what the caches of a world that is closed saw: c is a copy of it.
func (w *world) seen(c *world) map[string]bool {
	w.t.Helper()
	if w.before == nil {
		fresh := w.copied(c.t.(*testing.T), -1)
		w.before = fresh.views()
		_ = fresh.db.Close()
	}
	return w.before
}

// A database that lost its last transaction has the NAR in its old place, one that is rebuilt from the log in its
// new one. Both packs are there.
func TestRecoveryFindsMovedNARs(t *testing.T) {
	w, d := newWorld(t), dice(11)
	w.sparsePack(d, "a", 20)
	for range 4 {
		w.ingest("b", hashOf(d), text(d, 6<<10))
	}
	if res := w.run(); res.New == 0 || res.NARs != 8 {
		t.Fatalf("the run did %+v", res)
	}
	w.recovered("first.db")
	w.served()
	w.findsItsOwn()
	w.collect() // what was rewritten is gone, and comes back with no recovery
	w.recovered("second.db")
	w.served()
	w.findsItsOwn()
	if res := w.run(); res.Packs != 0 {
		t.Errorf("the next run did %+v", res)
	}
}
