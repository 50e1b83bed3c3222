package meta

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// withExtras is a database that has one of each: a path with a listing, a log, and a realisation that names
// the path.
func withExtras(t *testing.T, o Options) (*DB, *Cache) {
	db := open(t, o)
	c := newCache(t, db, "a")
	update(t, db, func(tx *Tx) error {
		nar, err := insertNAR(tx, "n", true)
		if err != nil {
			return err
		}
		p := &Path{CacheID: c.ID, Hash: hash32(1), StorePath: "/nix/store/" + hash32(1) + "-x", NAR: nar.ID, Deriver: hash32(7) + "-x.drv"}
		if err := tx.PutPath(p, ledger.Path{Cache: c.Name, StorePath: p.StorePath, Deriver: p.Deriver}); err != nil {
			return err
		}
		if err := tx.PutListing(nar, []byte("skeleton"), []string{"abcdef0123456789"}); err != nil {
			return err
		}
		if err := tx.PutBuildLog(&BuildLog{CacheID: c.ID, Name: hash32(7) + "-x.drv", Size: 3, Data: []byte("log")}); err != nil {
			return err
		}
		return tx.PutRealisation(&Realisation{CacheID: c.ID, Name: "sha256:0!out", OutPath: hash32(1) + "-x", Text: "{}"})
	})
	return db, c
}

// extras are what of all that is there, a line each.
func extras(t *testing.T, db *DB, cache int64) (have []string) {
	note := func(what string, err error) error {
		if err == nil {
			have = append(have, what)
		} else if !isNotFound(err) {
			return err
		}
		return nil
	}
	view(t, db, func(tx *Tx) error {
		_, err := tx.BuildLog(cache, hash32(7)+"-x.drv")
		if err := note("log", err); err != nil {
			return err
		}
		_, err = tx.Realisation(cache, "sha256:0!out")
		if err := note("realisation", err); err != nil {
			return err
		}
		_, err = tx.DebugPath(cache, "abcdef0123456789")
		if err := note("build ID", err); err != nil {
			return err
		}
		_, nar, err := tx.Path(cache, hash32(1))
		if err == nil {
			_, err = tx.Listing(nar.ID)
		}
		return note("listing", err)
	})
	return have
}

func TestRealisationGoesWithItsPathAndListingWithItsNAR(t *testing.T) {
	db, c := withExtras(t, Options{})
	if got := extras(t, db, c.ID); len(got) != 4 {
		t.Fatalf("got %q", got)
	}
	update(t, db, func(tx *Tx) error { return tx.DeletePath(c.ID, hash32(1)) })
	if got := extras(t, db, c.ID); !slices.Equal(got, []string{"log"}) {
		t.Errorf("got %q", got)
	}
	var left int
	update(t, db, func(tx *Tx) error {
		if _, _, err := tx.Prune(); err != nil {
			return err
		}
		return tx.one("SELECT (SELECT count(*) FROM listings) + (SELECT count(*) FROM build_ids) + (SELECT count(*) FROM realisations)", nil, &left)
	})
	if left != 0 {
		t.Errorf("%d rows are left", left)
	}
}

func TestLogIsLoneWhenNothingOfItsDerivationIsLeft(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	db, c := withExtras(t, Options{Now: func() time.Time { return now }})
	lone := func(before time.Time) (names []string) {
		view(t, db, func(tx *Tx) (err error) { names, err = tx.LoneLogs(c.ID, before); return err })
		return names
	}
	later := now.Add(time.Hour)
	if got := lone(later); len(got) != 0 {
		t.Errorf("the log of a path that is there is lone: %q", got)
	}
	update(t, db, func(tx *Tx) error { return tx.DeletePath(c.ID, hash32(1)) })
	if got := lone(now); len(got) != 0 {
		t.Errorf("a young log is lone: %q", got)
	}
	want := []string{hash32(7) + "-x.drv"}
	if got := lone(later); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	update(t, db, func(tx *Tx) error { return addPath(tx, c, hash32(7), 1) }) // the derivation itself
	if got := lone(later); len(got) != 0 {
		t.Errorf("the log of a derivation that is there is lone: %q", got)
	}
	update(t, db, func(tx *Tx) error { return tx.DeletePath(c.ID, hash32(7)) })
	update(t, db, func(tx *Tx) error { // the stock client sends whole paths
		p := &Path{CacheID: c.ID, Hash: hash32(2), StorePath: "/nix/store/" + hash32(2) + "-x", NAR: 1, Deriver: "/nix/store/" + want[0]}
		return tx.PutPath(p, ledger.Path{Cache: c.Name, StorePath: p.StorePath})
	})
	if got := lone(later); len(got) != 0 {
		t.Errorf("the log of a whole deriver is lone: %q", got)
	}
	update(t, db, func(tx *Tx) error { return tx.DeleteBuildLog(c.ID, want[0]) })
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.DeleteBuildLog(c.ID, want[0]) }), ErrNotFound)
}

func TestRealisationNeedsItsPath(t *testing.T) {
	db, c := withExtras(t, Options{})
	err := db.Update(t.Context(), func(tx *Tx) error {
		return tx.PutRealisation(&Realisation{CacheID: c.ID, Name: "sha256:1!out", OutPath: hash32(5) + "-x", Text: "{}"})
	})
	wantErr(t, err, ErrNotFound)
}

func TestExtrasGoWithTheirCache(t *testing.T) {
	db, c := withExtras(t, Options{})
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("a", false) })
	if got := extras(t, db, c.ID); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

// From the log, from a checkpoint, and from one twice: the same rows.
func TestExtrasComeBackFromTheirRecords(t *testing.T) {
	j := &journal{}
	db, c := withExtras(t, Options{Journal: j})
	update(t, db, func(tx *Tx) error {
		if err := tx.PutBuildLog(&BuildLog{CacheID: c.ID, Name: hash32(8) + "-y.drv"}); err != nil {
			return err
		}
		return tx.DeleteBuildLog(c.ID, hash32(8)+"-y.drv")
	})
	snapshot := func(db *DB) (recs []ledger.Record) {
		view(t, db, func(tx *Tx) error {
			for _, table := range []func(*Tx, Cursor) ([]snapshotRow, error){(*Tx).snapshotListings, (*Tx).snapshotBuildLogs, (*Tx).snapshotRealisations} {
				rows, err := table(tx, Cursor{})
				if err != nil {
					return err
				}
				for _, row := range rows {
					r, err := row.record()
					if err != nil {
						return err
					}
					recs = append(recs, r)
				}
			}
			return nil
		})
		return recs
	}
	want := fmt.Sprint(len(snapshot(db)), extras(t, db, c.ID))
	checkpoint := slices.DeleteFunc(j.all(), func(r ledger.Record) bool { return r.Cache == nil && r.NAR == nil && r.Path == nil })
	checkpoint = append(checkpoint, snapshot(db)...)
	for name, recs := range map[string][]ledger.Record{"log": j.all(), "checkpoint": checkpoint, "twice": append(j.all(), j.all()...)} {
		again := open(t, Options{})
		for _, r := range recs {
			update(t, again, func(tx *Tx) error {
				if n := r.NAR; n != nil { // nobody makes layouts here
					_, err := tx.exec(`INSERT INTO nars (uid, form, hash, size, file_size, verified, created_at, layout)
						VALUES ($1, $2, $3, 1, 1, 1, 0, '') ON CONFLICT (uid) DO NOTHING`, n.ID, n.Form[:], n.Hash[:])
					return err
				}
				return tx.Apply(ledger.Pos{}, r)
			})
		}
		if got := fmt.Sprint(len(snapshot(again)), extras(t, again, 1)); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
