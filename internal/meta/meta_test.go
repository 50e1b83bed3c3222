package meta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
)

// journal keeps records in memory, or fails.
type journal struct {
	mu   sync.Mutex
	seqs []uint64
	recs [][]ledger.Record
	err  error
}

func (j *journal) Append(_ context.Context, seq uint64, _ *ledger.Pos, recs []ledger.Record) ([]string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil, j.err
	}
	j.seqs, j.recs = append(j.seqs, seq), append(j.recs, recs)
	return nil, nil
}

func (j *journal) all() (all []ledger.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.recs {
		all = append(all, r...)
	}
	return all
}

func open(t testing.TB, o Options) *DB {
	t.Helper()
	o.Layouts = plain{}
	db, err := Open(t.Context(), ":memory:", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func update(t testing.TB, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func newCache(t testing.TB, db *DB, name string) *Cache {
	t.Helper()
	c := &Cache{Name: name, PublicKey: name + ":AAAA", SealedKey: []byte{1}, StoreDir: "/nix/store", Priority: 41}
	update(t, db, func(tx *Tx) error { return tx.CreateCache(c) })
	return c
}

// hash32 is a made-up store path hash.
func hash32(i int) string { return fmt.Sprintf("%032d", i) }

func sum(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func insertNAR(tx *Tx, name string, verified bool) (*NAR, error) {
	n := &NAR{Form: sum("form " + name), Hash: nix.Hash(sum("nar")), Size: 10, FileSize: 8, Verified: verified, Layout: []byte("layout " + name)}
	return n, tx.InsertNAR(n, ledger.NAR{Form: n.Form, Hash: n.Hash})
}

func addPath(tx *Tx, c *Cache, hash string, nar int64) error {
	p := &Path{CacheID: c.ID, Hash: hash, StorePath: "/nix/store/" + hash + "-x", NAR: nar, References: []string{"a", "b"}}
	return tx.PutPath(p, ledger.Path{Cache: c.Name, StorePath: p.StorePath})
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestCacheComesBackAsItWasCreated(t *testing.T) {
	db := open(t, Options{})
	days := uint32(86400)
	c := &Cache{Name: "a", PublicKey: "a:AA", SealedKey: []byte("sealed"), Public: true, StoreDir: "/nix/store", Priority: -3,
		UpstreamKeys: []string{"one", "two"}, Retention: &days, CreatedAt: time.Unix(1000, 5000).UTC()}
	update(t, db, func(tx *Tx) error { return tx.CreateCache(c) })
	view(t, db, func(tx *Tx) error {
		got, err := tx.Cache("a")
		if err != nil {
			return err
		}
		if fmt.Sprint(*got.Retention, got.UpstreamKeys, got.CreatedAt, string(got.SealedKey), got.Public, got.Priority, got.ID) !=
			fmt.Sprint(*c.Retention, c.UpstreamKeys, c.CreatedAt, "sealed", true, -3, c.ID) {
			t.Errorf("got %+v, want %+v", got, c)
		}
		_, err = tx.Cache("b")
		wantErr(t, err, ErrNotFound)
		return nil
	})
}

func TestNameOfSoftDeletedCacheStaysTaken(t *testing.T) {
	j := &journal{}
	db := open(t, Options{Journal: j})
	newCache(t, db, "a")
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("a", true) })
	view(t, db, func(tx *Tx) error {
		_, err := tx.Cache("a")
		wantErr(t, err, ErrNotFound)
		list, err := tx.Caches()
		if len(list) != 0 {
			t.Errorf("soft-deleted cache is listed: %v", list)
		}
		return err
	})
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.CreateCache(&Cache{Name: "a"}) }), ErrExists)
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.DeleteCache("a", true) }), ErrNotFound)
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("a", false) })
	newCache(t, db, "a")
	recs := j.all()
	if len(recs) != 4 || recs[1].Cache.DeletedAt == nil || recs[2].CacheDeleted.Name != "a" || recs[3].Cache == nil {
		t.Errorf("got records %+v, want created, soft-deleted, deleted, created", recs)
	}
}

// A request that holds a Scope of a deleted cache must not write into the cache
// that got the name afterwards.
func TestDeletedCacheTakesNothingAndItsIDIsNotReused(t *testing.T) {
	db := open(t, Options{})
	old := newCache(t, db, "a")
	update(t, db, func(tx *Tx) error {
		n, err := insertNAR(tx, "1", true)
		if err != nil {
			return err
		}
		return errors.Join(addPath(tx, old, hash32(1), n.ID), tx.InsertPack(&Pack{Key: "k"}, nil), tx.Show(old.ID, 1, nil, nil, time.Time{}))
	})
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("a", false) })
	fresh := newCache(t, db, "a")
	if fresh.ID == old.ID {
		t.Errorf("id %d was given out twice", old.ID)
	}
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return addPath(tx, old, hash32(2), 1) }), ErrNotFound)
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.Show(old.ID, 1, nil, nil, time.Time{}) }), ErrNotFound)
	view(t, db, func(tx *Tx) error {
		missing, err := tx.MissingPaths(old.ID, []string{hash32(1)})
		if len(missing) != 1 {
			t.Error("a path outlived its cache")
		}
		return err
	})
}

func TestUpdateCacheLogsTheRow(t *testing.T) {
	j := &journal{}
	db := open(t, Options{Journal: j})
	c := newCache(t, db, "a")
	update(t, db, func(tx *Tx) error { return tx.UpdateCache(&Cache{ID: c.ID, Name: "other", Public: true}) })
	recs := j.all()
	if got := recs[len(recs)-1].Cache; got.Name != "a" || !got.Public || got.CreatedAt.IsZero() {
		t.Errorf("logged %+v", got)
	}
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.UpdateCache(&Cache{ID: 99}) }), ErrNotFound)
}

func TestPathComesBackWithItsNARAndWithoutLayout(t *testing.T) {
	j := &journal{}
	db := open(t, Options{Journal: j})
	c := newCache(t, db, "a")
	var nar *NAR
	p := &Path{CacheID: c.ID, Hash: hash32(1), StorePath: "/nix/store/" + hash32(1) + "-x", References: []string{"r1", "r2"},
		Upstream: []string{"r2"}, Deriver: "d", System: "s", CA: "ca", Sigs: []string{"k:s"}, CreatedBy: "me", Incomplete: true}
	update(t, db, func(tx *Tx) (err error) {
		nar, err = insertNAR(tx, "1", true)
		p.NAR = nar.ID
		return errors.Join(err, tx.PutPath(p, ledger.Path{Cache: "a", StorePath: p.StorePath}))
	})
	view(t, db, func(tx *Tx) error {
		gotP, gotN, err := tx.Path(c.ID, p.Hash)
		if err != nil {
			return err
		}
		p.CreatedAt, p.LastUsed = gotP.CreatedAt, gotP.LastUsed
		if fmt.Sprintf("%+v", *gotP) != fmt.Sprintf("%+v", *p) {
			t.Errorf("got path %+v, want %+v", *gotP, *p)
		}
		if gotN.Form != nar.Form || gotN.Hash != nar.Hash || gotN.Size != 10 || gotN.FileSize != 8 || !gotN.Verified || gotN.Layout != nil {
			t.Errorf("got NAR %+v, want %+v without layout", gotN, nar)
		}
		layout, err := tx.NARLayout(nar.ID)
		if string(layout) != "layout 1" {
			t.Errorf("got layout %q", layout)
		}
		_, _, e := tx.Path(c.ID, hash32(2))
		wantErr(t, e, ErrNotFound)
		return err
	})
	if recs := j.all(); len(recs) != 3 || recs[1].NAR == nil || recs[2].Path == nil {
		t.Errorf("got records %+v, want cache, nar, path", recs)
	}
}

func TestMutatorsRefuseForeignRecordsAndBrokenLists(t *testing.T) {
	j := &journal{}
	db := open(t, Options{Journal: j})
	c := newCache(t, db, "a")
	for name, fn := range map[string]func(*Tx) error{
		"NAR's record": func(tx *Tx) error { return tx.InsertNAR(&NAR{Form: sum("x")}, ledger.NAR{Form: sum("y")}) },
		"path's record": func(tx *Tx) error {
			return tx.PutPath(&Path{CacheID: c.ID, Hash: hash32(1), StorePath: "p"}, ledger.Path{Cache: "b", StorePath: "p"})
		},
		"line break": func(tx *Tx) error {
			return tx.PutPath(&Path{CacheID: c.ID, Hash: hash32(1), StorePath: "p", Sigs: []string{"a\nb"}}, ledger.Path{Cache: "a", StorePath: "p"})
		},
		"NAR that is not there": func(tx *Tx) error { return addPath(tx, c, hash32(1), 77) },
		"size":                  func(tx *Tx) error { return tx.InsertNAR(&NAR{Size: 1 << 63}, ledger.NAR{}) },
	} {
		if err := db.Update(t.Context(), fn); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if n := len(j.all()); n != 1 {
		t.Errorf("%d records, want the cache's alone", n)
	}
}

// Two caches that may not see each other's packs have NARs of one form in different packs.
func TestOneFormMayBeTwoNARs(t *testing.T) {
	db := open(t, Options{})
	var first, second *NAR
	update(t, db, func(tx *Tx) (err error) {
		if first, err = insertNAR(tx, "1", true); err != nil {
			return err
		}
		second, err = insertNAR(tx, "1", true)
		return err
	})
	if first.ID == second.ID || first.UID == second.UID || len(first.UID) != 32 {
		t.Errorf("NARs %d %s and %d %s, want two with names of their own", first.ID, first.UID, second.ID, second.UID)
	}
}

func TestFindNARsSeesOnlyWhatTheCachesHave(t *testing.T) {
	db := open(t, Options{})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	update(t, db, func(tx *Tx) error {
		n1, err1 := insertNAR(tx, "1", false)
		n2, err2 := insertNAR(tx, "2", true)
		_, err3 := insertNAR(tx, "nobody's", true)
		return errors.Join(err1, err2, err3, addPath(tx, a, hash32(1), n1.ID), addPath(tx, b, hash32(1), n2.ID))
	})
	view(t, db, func(tx *Tx) error {
		for _, tt := range []struct {
			caches []int64
			want   string
		}{{nil, ""}, {[]int64{a.ID}, "layout 1"}, {[]int64{b.ID}, "layout 2"}, {[]int64{a.ID, b.ID}, "layout 2 layout 1"}} {
			list, err := tx.FindNARs(nix.Hash(sum("nar")), tt.caches)
			if err != nil {
				return err
			}
			var got []string
			for _, n := range list {
				got = append(got, string(n.Layout))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("caches %v: got %q, want %q", tt.caches, got, tt.want)
			}
		}
		return nil
	})
}

func TestMissingPathsKeepsOrderAndRepeats(t *testing.T) {
	db := open(t, Options{})
	c := newCache(t, db, "a")
	var ask, want []string
	update(t, db, func(tx *Tx) error {
		n, err := insertNAR(tx, "1", true)
		for i := range 3000 { // several batches
			ask = append(ask, hash32(i))
			if i%3 == 0 {
				err = errors.Join(err, addPath(tx, c, hash32(i), n.ID))
			} else {
				want = append(want, hash32(i))
			}
		}
		return err
	})
	odd := []string{"", "short", strings.Repeat("é", 16), strings.Repeat("x", 33), "'; DROP TABLE paths; -----------", hash32(1)}
	ask, want = append(ask, odd...), append(want, odd...)
	view(t, db, func(tx *Tx) error {
		got, err := tx.MissingPaths(c.ID, ask)
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %d missing, want %d", len(got), len(want))
		}
		return err
	})
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("a", true) })
	view(t, db, func(tx *Tx) error {
		got, err := tx.MissingPaths(c.ID, ask)
		if len(got) != len(ask) {
			t.Errorf("a soft-deleted cache has %d paths", len(ask)-len(got))
		}
		return err
	})
}

func TestTouchNeverGoesBackAndWritesNoRecord(t *testing.T) {
	j := &journal{}
	db := open(t, Options{Journal: j, Now: func() time.Time { return time.Unix(1000, 0) }})
	c := newCache(t, db, "a")
	update(t, db, func(tx *Tx) error {
		n, err := insertNAR(tx, "1", true)
		return errors.Join(err, addPath(tx, c, hash32(1), n.ID), addPath(tx, c, hash32(2), n.ID))
	})
	before := len(j.all())
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.TouchPaths(c.ID, []string{hash32(1), hash32(9)}, time.Unix(2000, 0)),
			tx.TouchPaths(c.ID, []string{hash32(1)}, time.Unix(1500, 0)),
			tx.TouchPaths(c.ID, []string{hash32(2)}, time.Unix(500, 0)))
	})
	view(t, db, func(tx *Tx) error {
		for i, want := range map[int]int64{1: 2000, 2: 1000} {
			p, _, err := tx.Path(c.ID, hash32(i))
			if err != nil {
				return err
			}
			if p.LastUsed.Unix() != want {
				t.Errorf("path %d: last used %d, want %d", i, p.LastUsed.Unix(), want)
			}
		}
		return nil
	})
	if n := len(j.all()); n != before {
		t.Errorf("touching wrote %d records", n-before)
	}
}

func TestSetCompleteAndDeletePath(t *testing.T) {
	j := &journal{}
	db := open(t, Options{Journal: j})
	c := newCache(t, db, "a")
	p := &Path{CacheID: c.ID, Hash: hash32(1), StorePath: "p", Incomplete: true}
	update(t, db, func(tx *Tx) error {
		n, err := insertNAR(tx, "1", true)
		p.NAR = n.ID
		return errors.Join(err, tx.PutPath(p, ledger.Path{Cache: "a", StorePath: "p"}))
	})
	update(t, db, func(tx *Tx) error { return tx.SetComplete(c.ID, []string{p.Hash}) })
	view(t, db, func(tx *Tx) error {
		got, _, err := tx.Path(c.ID, p.Hash)
		if err == nil && got.Incomplete {
			t.Error("still incomplete")
		}
		return err
	})
	update(t, db, func(tx *Tx) error { return tx.DeletePath(c.ID, p.Hash) })
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.DeletePath(c.ID, p.Hash) }), ErrNotFound)
	recs := j.all()
	if d := recs[len(recs)-1].PathDeleted; d == nil || d.Cache != "a" || d.Hash != p.Hash {
		t.Errorf("last record %+v, want path_deleted", recs[len(recs)-1])
	}
}

func entries(names ...string) []pack.Entry {
	var list []pack.Entry
	for i, n := range names {
		list = append(list, pack.Entry{Kind: chunk.Chunk, ID: sum(n), Size: uint32(i + 10), Raw: uint32(10 * (i + 1))})
	}
	return list
}

func TestPackComesBack(t *testing.T) {
	db := open(t, Options{})
	c := newCache(t, db, "a")
	p := &Pack{Key: "packs/aa/x", SHA256: sum("pack"), Size: 9, Own: true, Prev: 4, NARState: []byte("state"), Index: []byte("index")}
	update(t, db, func(tx *Tx) error { return tx.InsertPack(p, entries("x", "y", "x")) })
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.InsertPack(&Pack{Key: p.Key}, nil) }), ErrExists)
	find := func() (got *Pack, err error) {
		view(t, db, func(tx *Tx) error { got, err = tx.FindPack(p.SHA256, c.ID); return nil })
		return got, err
	}
	_, err := find()
	wantErr(t, err, ErrNotFound)
	update(t, db, func(tx *Tx) error { return tx.Show(c.ID, p.ID, entries("x", "y", "x"), []int32{0, 1, 2}, time.Time{}) })
	_, err = find()
	wantErr(t, err, ErrNotFound) // a bitmap is not the whole
	update(t, db, func(tx *Tx) error { return tx.Show(c.ID, p.ID, entries("x", "y", "x"), nil, time.Time{}) })
	got, err := find()
	if err != nil {
		t.Fatal(err)
	}
	got.CreatedAt = p.CreatedAt
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *p) {
		t.Errorf("got %+v, want %+v", *got, *p)
	}
	view(t, db, func(tx *Tx) error {
		files, err := tx.PackFiles([]int64{p.ID, p.ID})
		if want := (PackFile{p.Key, p.Size, p.Own}); len(files) != 1 || files[p.ID] != want {
			t.Errorf("files %+v, want %+v", files, want)
		}
		_, e := tx.PackFiles([]int64{99})
		wantErr(t, e, ErrNotFound)
		places, e := tx.Locate([]int64{c.ID}, []chunk.ID{sum("x"), sum("y")})
		if want := (Place{Pack: p.ID, Entry: 0, Cache: c.ID, Found: true}); places[0] != want || places[1].Entry != 1 {
			t.Errorf("got %+v, want the first of the repeats %+v", places, want)
		}
		return errors.Join(err, e)
	})
}
