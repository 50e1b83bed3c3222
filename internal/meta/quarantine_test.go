package meta

import (
	"errors"
	"slices"
	"testing"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/pack"
)

func chunksOf(texts ...string) (entries []pack.Entry, ids []chunk.ID) {
	for _, text := range texts {
		id := chunk.Sum([]byte(text))
		entries = append(entries, pack.Entry{Kind: chunk.Chunk, ID: id, Size: 20, Raw: 5})
		ids = append(ids, id)
	}
	return entries, ids
}

func founds(t *testing.T, db *DB, cache int64, ids []chunk.ID) (list []bool) {
	t.Helper()
	if err := db.View(t.Context(), func(tx *Tx) error {
		places, err := tx.Locate([]int64{cache}, ids)
		for _, p := range places {
			list = append(list, p.Found)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func quarantined(t *testing.T) (db *DB, cache *Cache, p *Pack, entries []pack.Entry, ids []chunk.ID) {
	t.Helper()
	db = open(t, Options{})
	cache = &Cache{Name: "c", PublicKey: "c:k", StoreDir: "/nix/store"}
	entries, ids = chunksOf("a", "b", "a", "d")
	p = &Pack{Key: "packs/aa/x", SHA256: [32]byte{1}, Size: 100}
	update(t, db, func(tx *Tx) error {
		err := tx.CreateCache(cache)
		if err == nil {
			err = tx.InsertPack(p, entries)
		}
		return errors.Join(err, tx.Show(cache.ID, p.ID, entries, nil, tx.Now().Add(1e12)))
	})
	return db, cache, p, entries, ids
}

// Nobody finds what is in quarantine, however the pack is shown again; of a chunk that is in the pack twice
// the other one is found.
func TestQuarantinedChunksAreNotFound(t *testing.T) {
	db, cache, p, entries, ids := quarantined(t)
	update(t, db, func(tx *Tx) error {
		news, err := tx.Quarantine(p.ID, entries, []int32{0, 1}, "flipped")
		if !news {
			t.Error("no news")
		}
		return errors.Join(err, tx.Show(cache.ID, p.ID, entries, nil, tx.Now().Add(1e12)))
	})
	if got := founds(t, db, cache.ID, ids); !slices.Equal(got, []bool{true, false, true, true}) {
		t.Errorf("found %v", got)
	}
	update(t, db, func(tx *Tx) error {
		if news, err := tx.Quarantine(p.ID, entries, []int32{1}, "flipped"); news || err != nil {
			t.Errorf("the same again: %v, %v", news, err)
		}
		if _, err := tx.FindPack(p.SHA256, cache.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("a pack in quarantine is found: %v", err)
		}
		_, err := tx.Quarantine(p.ID, entries, nil, "gone")
		return err
	})
	if got := founds(t, db, cache.ID, ids); slices.Contains(got, true) {
		t.Errorf("of a pack that is gone found %v", got)
	}
	update(t, db, func(tx *Tx) error { return tx.Release(p.ID, entries) })
	if got := founds(t, db, cache.ID, ids); slices.Contains(got, false) {
		t.Errorf("once it is back, found %v", got)
	}
}

// A cache that was shown a part of a pack sees no more of it when the quarantine ends.
func TestReleaseShowsNobodyMore(t *testing.T) {
	db, _, p, entries, ids := quarantined(t)
	other := &Cache{Name: "o", PublicKey: "o:k", StoreDir: "/nix/store"}
	update(t, db, func(tx *Tx) error {
		err := tx.CreateCache(other)
		if err == nil {
			err = tx.Show(other.ID, p.ID, entries, []int32{1}, tx.Now().Add(1e12))
		}
		if err == nil {
			_, err = tx.Quarantine(p.ID, entries, nil, "gone")
		}
		return errors.Join(err, tx.Release(p.ID, entries))
	})
	if got := founds(t, db, other.ID, ids); !slices.Equal(got, []bool{false, true, false, false}) {
		t.Errorf("found %v", got)
	}
}

// A collection drops the row of a pack; its quarantine goes with it.
func TestQuarantineGoesWithItsPack(t *testing.T) {
	db, _, p, entries, _ := quarantined(t)
	update(t, db, func(tx *Tx) error {
		_, err := tx.Quarantine(p.ID, entries, nil, "gone")
		for _, q := range []string{"DELETE FROM places", "DELETE FROM visible", "DELETE FROM packs"} {
			if err == nil {
				_, err = tx.exec(q)
			}
		}
		if err != nil {
			return err
		}
		if left, err := tx.InQuarantine(0, 10); len(left) > 0 || err != nil {
			t.Errorf("left: %v, %v", left, err)
		}
		return nil
	})
}

// A path of a damaged NAR counts as missing, and is there for whoever looks after it.
func TestDamagedPathsAreMissing(t *testing.T) {
	db := open(t, Options{})
	cache := &Cache{Name: "c", PublicKey: "c:k", StoreDir: "/nix/store"}
	hash := "00000000000000000000000000000000"
	n := &NAR{Hash: [32]byte{1}, Size: 1, Layout: []byte{7}}
	update(t, db, func(tx *Tx) error {
		err := tx.CreateCache(cache)
		if err == nil {
			err = tx.InsertNAR(n, ledger.NAR{Hash: n.Hash})
		}
		if err == nil {
			path := "/nix/store/" + hash + "-x"
			err = tx.PutPath(&Path{CacheID: cache.ID, Hash: hash, StorePath: path, NAR: n.ID}, ledger.Path{Cache: "c", StorePath: path})
		}
		return err
	})
	look := func(damaged bool) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			missing, err := tx.MissingPaths(cache.ID, []string{hash})
			if err != nil || (len(missing) == 1) != damaged {
				t.Errorf("missing: %v, %v", missing, err)
			}
			_, nar, err := tx.Path(cache.ID, hash)
			if err != nil || nar.Damaged != damaged {
				t.Errorf("path: %+v, %v", nar, err)
			}
			found, err := tx.FindNARs(n.Hash, []int64{cache.ID})
			if err != nil || (len(found) == 0) != damaged {
				t.Errorf("NARs: %v, %v", found, err)
			}
			waiting, count, err := tx.WaitingPaths(10)
			if err != nil || (count == 1) != damaged || len(waiting) != int(count) {
				t.Errorf("waiting: %v, %v", waiting, err)
			}
			return tx.Nodes(cache.ID, []string{hash}, func(_ int, n Node) error {
				if n.Damaged != damaged {
					t.Errorf("node: %+v", n)
				}
				return nil
			})
		})
	}
	look(false)
	entries, _ := chunksOf("a")
	p := &Pack{Key: "packs/aa/x", Size: 100}
	update(t, db, func(tx *Tx) error {
		err := tx.InsertPack(p, entries)
		if err == nil {
			_, err = tx.Quarantine(p.ID, entries, nil, "gone")
		}
		for more := true; more && err == nil; {
			more, err = tx.Spread(func(layout []byte, each func(int64, int, int)) error { each(p.ID, 0, 1); return nil })
		}
		return err
	})
	look(true)
	update(t, db, func(tx *Tx) error { return tx.Undamage(n.ID) })
	look(false)
	update(t, db, func(tx *Tx) error { _, err := tx.MarkWrong(n.ID, "another hash"); return err })
	update(t, db, func(tx *Tx) error { return tx.Undamage(n.ID) }) // what is wrong in itself stays so
	look(true)
}
