package meta

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

func setPin(t *testing.T, db *DB, c *Cache, name string, keep, path int, expires time.Time) Pin {
	t.Helper()
	p := Pin{CacheID: c.ID, Name: name, Keep: keep, Expires: expires}
	update(t, db, func(tx *Tx) error {
		return tx.SetPin(&p, Revision{Hash: hash32(path), StorePath: fmt.Sprintf("/nix/store/%s-x", hash32(path)), By: "me", Policies: []string{"infra"}, Paths: 3, Size: 7})
	})
	return p
}

func held(p Pin) (hashes []string) {
	for _, r := range p.Revisions {
		hashes = append(hashes, strings.TrimLeft(r.Hash, "0"))
	}
	return hashes
}

func TestPinHoldsItsLastRevisions(t *testing.T) {
	now := time.Unix(1_000_000, 0).UTC()
	j := &journal{}
	db := open(t, Options{Journal: j, Now: func() time.Time { return now }})
	c := newCache(t, db, "a")
	for i := 1; i <= 7; i++ {
		now = now.Add(time.Minute)
		setPin(t, db, c, "acme/infra/main/web", 0, i, time.Time{})
	}
	want := func(what string, hashes ...string) Pin {
		t.Helper()
		var p *Pin
		view(t, db, func(tx *Tx) (err error) { p, err = tx.Pin(c.ID, "acme/infra/main/web"); return err })
		if got := held(*p); !slices.Equal(got, hashes) {
			t.Errorf("%s: it holds %v, want %v", what, got, hashes)
		}
		last := j.all()[len(j.all())-1].Pin
		if last == nil || last.Cache != "a" || last.Name != p.Name || last.Keep != p.Keep || len(last.Revisions) != len(p.Revisions) {
			t.Errorf("%s: the last record is %+v", what, last)
		}
		return *p
	}
	want("five are kept", "7", "6", "5", "4", "3")
	now = now.Add(time.Hour)
	setPin(t, db, c, "acme/infra/main/web", 0, 7, time.Time{})
	if p := want("the same again", "7", "6", "5", "4", "3"); !p.Revisions[0].At.Equal(now) || p.Revisions[1].At.Equal(now) {
		t.Errorf("set at %v and %v, want the first to be %v", p.Revisions[0].At, p.Revisions[1].At, now)
	}
	setPin(t, db, c, "acme/infra/main/web", 0, 5, time.Time{})
	want("back to an old one", "5", "7", "6", "4", "3")
	setPin(t, db, c, "acme/infra/main/web", 2, 8, time.Time{})
	want("fewer", "8", "5")
	setPin(t, db, c, "acme/infra/main/web", 0, 9, time.Time{})
	if p := want("as few as before", "9", "8"); p.Revisions[0].By != "me" || p.Revisions[0].Policies[0] != "infra" || p.Revisions[0].Paths != 3 || p.Revisions[0].Size != 7 {
		t.Errorf("got %+v", p.Revisions[0])
	}
	update(t, db, func(tx *Tx) error { return tx.DeletePin(c.ID, "acme/infra/main/web") })
	if d := j.all()[len(j.all())-1].PinDeleted; d == nil || d.Cache != "a" || d.Name != "acme/infra/main/web" {
		t.Errorf("deletion is recorded as %+v", d)
	}
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.DeletePin(c.ID, "acme/infra/main/web") }), ErrNotFound)
}

func TestExpiredPinHoldsNothing(t *testing.T) {
	now := time.Unix(1_000_000, 0).UTC()
	db := open(t, Options{Now: func() time.Time { return now }})
	c := newCache(t, db, "a")
	setPin(t, db, c, "pr", 0, 1, now.Add(time.Hour))
	setPin(t, db, c, "main", 0, 2, time.Time{})
	pinned := func() (list []string) {
		view(t, db, func(tx *Tx) error {
			return tx.PinnedPaths(c.ID, func(pin, hash string) error { list = append(list, pin); return nil })
		})
		return list
	}
	if got := pinned(); !slices.Equal(got, []string{"main", "pr"}) {
		t.Errorf("before: %v", got)
	}
	now = now.Add(time.Hour)
	if got := pinned(); !slices.Equal(got, []string{"main"}) {
		t.Errorf("after: %v", got)
	}
	err := db.View(t.Context(), func(tx *Tx) error { _, err := tx.Pin(c.ID, "pr"); return err })
	wantErr(t, err, ErrNotFound)
	// What it held before may be gone by now: it begins anew.
	if got := held(setPin(t, db, c, "pr", 0, 3, time.Time{})); !slices.Equal(got, []string{"3"}) {
		t.Errorf("set again: %v", got)
	}
	// Without an expiry, after one with: for ever.
	setPin(t, db, c, "x", 0, 1, now.Add(time.Minute))
	setPin(t, db, c, "x", 0, 1, time.Time{})
	now = now.Add(365 * 24 * time.Hour)
	if got := pinned(); !slices.Equal(got, []string{"main", "pr", "x"}) {
		t.Errorf("a year later: %v", got)
	}
}

func TestPinsAreListedByNameInPages(t *testing.T) {
	db := open(t, Options{})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	for i := range 5 {
		setPin(t, db, a, fmt.Sprintf("p%d", i), 0, i, time.Time{})
		setPin(t, db, a, fmt.Sprintf("p%d", i), 0, i+10, time.Time{})
	}
	setPin(t, db, b, "p2", 0, 99, time.Time{})
	var got []string
	view(t, db, func(tx *Tx) error {
		for after := ""; ; {
			page, err := tx.Pins(a.ID, after, 2)
			if err != nil || len(page) == 0 {
				return err
			}
			for _, p := range page {
				got = append(got, p.Name+" "+strings.Join(held(p), ","))
			}
			after = page[len(page)-1].Name
		}
	})
	if want := []string{"p0 10,", "p1 11,1", "p2 12,2", "p3 13,3", "p4 14,4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPinsGoWithTheirCache(t *testing.T) {
	db := open(t, Options{})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	setPin(t, db, a, "x", 0, 1, time.Time{})
	setPin(t, db, b, "x", 0, 1, time.Time{})
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("a", false) })
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error {
		return tx.SetPin(&Pin{CacheID: a.ID, Name: "y"}, Revision{Hash: hash32(1)})
	}), ErrNotFound)
	view(t, db, func(tx *Tx) error {
		var pins, revisions int
		err := errors.Join(tx.one("SELECT count(*) FROM pins", nil, &pins), tx.one("SELECT count(*) FROM pin_revisions", nil, &revisions))
		if pins != 1 || revisions != 1 {
			t.Errorf("%d pins with %d revisions are left, want b's", pins, revisions)
		}
		return err
	})
}

func TestPinsOfACacheAreBounded(t *testing.T) {
	db := open(t, Options{})
	c := newCache(t, db, "a")
	update(t, db, func(tx *Tx) error {
		_, err := tx.exec("INSERT INTO pins (cache_id, name, keep) SELECT $1, 'p' || a.i || '/' || b.i, 1 FROM ordinals a, ordinals b LIMIT $2", c.ID, MaxPins-1)
		return err
	})
	setPin(t, db, c, "last", 0, 1, time.Time{})
	err := db.Update(t.Context(), func(tx *Tx) error { return tx.SetPin(&Pin{CacheID: c.ID, Name: "more"}, Revision{Hash: hash32(1)}) })
	wantErr(t, err, ErrTooMany)
	setPin(t, db, c, "last", 0, 2, time.Time{}) // one that is there may still move on
	for _, keep := range []int{-1, MaxKeep + 1} {
		if err := db.Update(t.Context(), func(tx *Tx) error {
			return tx.SetPin(&Pin{CacheID: c.ID, Name: "last", Keep: keep}, Revision{Hash: hash32(1)})
		}); err == nil {
			t.Errorf("keep %d was taken", keep)
		}
	}
}

// A name goes into URLs, logs, terminals and patterns.
func TestPinNames(t *testing.T) {
	for _, name := range []string{"x", "acme/infra/main/web", "acme/infra/feature/ü-1/web", "a.b/..c/@x+1", strings.Repeat("a", MaxPinName), "...", "%2e%2e"} {
		if err := ValidPinName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a b", "a\nb", "a\x00", "a\x1b[2Jb", "a\u202eb", "a\u200bb",
		"\xff", "a*", `a\b`, strings.Repeat("a", MaxPinName+1), "a\u00a0b", "a\u2028b", "\ufffd"} {
		if err := ValidPinName(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

// Sums that drift are worse than none: after any change they are what a count of the rows says.
func TestSumsFollowTheRows(t *testing.T) {
	now := time.Unix(1_000_000, 0).UTC()
	db := open(t, Options{Now: func() time.Time { return now }})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	check := func(what string) {
		t.Helper()
		view(t, db, func(tx *Tx) error {
			for _, c := range []*Cache{a, b} {
				var paths, size, fileSize int64
				err := tx.one("SELECT count(*), coalesce(sum(n.size), 0), coalesce(sum(n.file_size), 0) FROM paths p JOIN nars n ON n.id = p.nar_id WHERE p.cache_id = $1",
					[]any{c.ID}, &paths, &size, &fileSize)
				if err != nil {
					return err
				}
				days, err := tx.PathDays(c.ID)
				if err != nil {
					return err
				}
				var sum DaySum
				for _, d := range days {
					sum.Paths, sum.Size, sum.FileSize = sum.Paths+d.Paths, sum.Size+d.Size, sum.FileSize+d.FileSize
				}
				if sum.Paths != paths || sum.Size != uint64(size) || sum.FileSize != uint64(fileSize) {
					t.Errorf("%s: cache %s has %d paths of %d and %d bytes, and its sums say %+v", what, c.Name, paths, size, fileSize, days)
				}
			}
			return nil
		})
	}
	var small, large *NAR
	update(t, db, func(tx *Tx) (err error) {
		if small, err = insertNAR(tx, "small", true); err != nil {
			return err
		}
		large = &NAR{Form: sum("large"), Hash: sum("large"), Size: 1000, FileSize: 500}
		return tx.InsertNAR(large, ledger.NAR{Form: large.Form, Hash: large.Hash})
	})
	put := func(c *Cache, path int, nar *NAR, at time.Time) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			p := &Path{CacheID: c.ID, Hash: hash32(path), StorePath: hash32(path), NAR: nar.ID, CreatedAt: at}
			return tx.PutPath(p, ledger.Path{Cache: c.Name, StorePath: p.StorePath})
		})
	}
	put(a, 1, small, now)
	put(a, 2, large, now.Add(50*time.Hour))
	put(b, 1, small, now)
	check("put")
	view(t, db, func(tx *Tx) error {
		days, err := tx.PathDays(a.ID)
		if err == nil && (len(days) != 2 || days[0].Paths != 1 || days[0].Size != 10 || days[0].FileSize != 8 || !days[1].Day.Equal(now.Add(50*time.Hour).Truncate(day))) {
			t.Errorf("got %+v", days)
		}
		return err
	})
	put(a, 1, small, now)
	check("the same again")
	put(a, 1, large, now.Add(24*time.Hour))
	check("another NAR, another day")
	update(t, db, func(tx *Tx) error { return tx.DeletePath(a.ID, hash32(1)) })
	check("deleted")
	put(a, 3, small, now)
	update(t, db, func(tx *Tx) error { return tx.DeletePath(a.ID, hash32(3)) })
	put(a, 4, large, now) // has the id of the one that went
	check("an id that is given again")
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("b", false) })
	check("with a cache")
	update(t, db, func(tx *Tx) error {
		_, err := tx.exec("DELETE FROM path_days")
		_, err2 := tx.exec("UPDATE counters SET value = 0 WHERE name = 'paths_counted'")
		return errors.Join(err, err2)
	})
	if err := db.CountPaths(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("of a database that was rebuilt")

	p := &Pack{Key: "k", SHA256: sum("p"), Size: 9}
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.InsertPack(p, entries("x", "y")), tx.Show(a.ID, p.ID, entries("x", "y"), nil, time.Time{}),
			tx.InsertPack(&Pack{Key: "unseen", SHA256: sum("q"), Size: 100}, entries("z")))
	})
	view(t, db, func(tx *Tx) error {
		all, err := tx.AllPacks()
		of, err2 := tx.PacksOf(a.ID)
		if all != (PackSum{2, 109, 40}) || of != (PackSum{1, 9, 30}) {
			t.Errorf("packs: all %+v, those of a %+v", all, of)
		}
		return errors.Join(err, err2)
	})
	update(t, db, func(tx *Tx) error {
		_, err := tx.exec("DELETE FROM visible")
		_, err2 := tx.exec("DELETE FROM packs")
		return errors.Join(err, err2)
	})
	view(t, db, func(tx *Tx) error {
		all, err := tx.AllPacks()
		if all != (PackSum{}) {
			t.Errorf("without packs: %+v", all)
		}
		return err
	})
}

func TestNodesAreReadInBatches(t *testing.T) {
	db := open(t, Options{})
	c, other := newCache(t, db, "a"), newCache(t, db, "b")
	const paths = batchKeys + 10
	update(t, db, func(tx *Tx) error {
		n, err := insertNAR(tx, "x", true)
		for i := range paths {
			err = errors.Join(err, addPath(tx, c, hash32(i), n.ID))
		}
		return errors.Join(err, addPath(tx, other, hash32(paths), n.ID))
	})
	var hashes []string
	for i := range paths + 1 {
		hashes = append(hashes, hash32(paths-i))
	}
	seen := map[int]Node{}
	view(t, db, func(tx *Tx) error {
		return tx.Nodes(c.ID, append(hashes, "short", ""), func(i int, n Node) error { seen[i] = n; return nil })
	})
	if len(seen) != paths || seen[0].Refs != "" {
		t.Errorf("%d paths were found, want %d", len(seen), paths)
	}
	if n := seen[1]; n.Refs != "a\nb" || n.Size != 10 || n.FileSize != 8 || n.LastUsed.IsZero() {
		t.Errorf("got %+v", n)
	}
	var all int
	view(t, db, func(tx *Tx) error {
		return tx.EachPath(c.ID, func(hash, path, refs string, used time.Time) error {
			if all++; path != "/nix/store/"+hash+"-x" || refs != "a\nb" || used.IsZero() {
				t.Errorf("got %q %q %q %v", hash, path, refs, used)
			}
			return nil
		})
	})
	if all != paths {
		t.Errorf("%d of %d paths", all, paths)
	}
}

func TestPinsComeBackFromTheirRecords(t *testing.T) {
	now := time.Unix(1_000_000, 0).UTC()
	j := &journal{}
	db := open(t, Options{Journal: j, Now: func() time.Time { return now }})
	c := newCache(t, db, "a")
	for i := range 7 {
		setPin(t, db, c, "x", 3, i, time.Time{})
	}
	setPin(t, db, c, "y", 0, 1, now.Add(time.Hour))
	setPin(t, db, c, "gone", 0, 1, time.Time{})
	update(t, db, func(tx *Tx) error { return tx.DeletePin(c.ID, "gone") })
	records := func(db *DB) (all []string) {
		view(t, db, func(tx *Tx) error {
			rows, err := tx.snapshotPins(Cursor{})
			for _, row := range rows {
				r, err := row.record()
				if err != nil {
					return err
				}
				all = append(all, fmt.Sprintf("%+v", *r.Pin))
			}
			return err
		})
		return all
	}
	again := open(t, Options{Now: func() time.Time { return now }})
	apply := func(r ledger.Record) error {
		return again.Update(t.Context(), func(tx *Tx) error {
			switch {
			case r.Pin != nil:
				return tx.applyPin(r.Pin)
			case r.PinDeleted != nil:
				return tx.applyPinDeleted(r.PinDeleted)
			}
			return nil
		})
	}
	for round := range 3 { // without the cache; with it; and once more
		for _, r := range j.all() {
			if err := apply(r); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := records(again), records(db); round > 0 && (len(want) != 2 || !slices.Equal(got, want)) {
			t.Errorf("round %d: got %q, want %q", round, got, want)
		}
		if round == 0 {
			newCache(t, again, "a")
		}
	}
	if err := apply(ledger.Record{Pin: &ledger.Pin{Cache: "a", Name: "x", Revisions: []ledger.Revision{{StorePath: "/nix/store/short"}}}}); err == nil {
		t.Error("a record with a broken path was applied")
	}
}
