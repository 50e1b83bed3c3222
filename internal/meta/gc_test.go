package meta

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// A pack may be shown to a cache between the moment at which it was listed for deletion and its turn.
func TestPackThatWasShownSinceIsNotDoomed(t *testing.T) {
	c := &clock{time.Unix(1_700_000_000, 0)}
	db := open(t, Options{Now: c.now, Layouts: plain{}})
	a := newCache(t, db, "a")
	p := newPack(t, db, "p", "x", "y")
	var number int64
	update(t, db, func(tx *Tx) (err error) { number, err = tx.BeginCollection(); return err })
	condemn := func() (done bool) {
		t.Helper()
		update(t, db, func(tx *Tx) (err error) { done, err = tx.Condemn(p, number); return err })
		return done
	}
	doom := func() (done bool) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			list, err := tx.Condemned(c.t, 10)
			for _, d := range list {
				done, err = tx.Doom(d, c.t)
			}
			return err
		})
		return done
	}
	if !condemn() || condemn() {
		t.Fatal("a pack that nothing needs is not condemned, or twice")
	}
	var list []Doomed
	view(t, db, func(tx *Tx) (err error) { list, err = tx.Condemned(c.t, 10); return err })
	if len(list) != 1 || list[0].ID != p || list[0].Key != "p" {
		t.Fatalf("condemned: %+v", list)
	}
	show(t, db, a, p, []int32{0}, time.Time{})
	update(t, db, func(tx *Tx) error {
		done, err := tx.Doom(list[0], c.t)
		if done {
			t.Error("a pack that was shown since is doomed")
		}
		return err
	})
	if condemn() {
		t.Error("a pack is condemned by a survey that began before it was shown")
	}
	update(t, db, func(tx *Tx) (err error) { number, err = tx.BeginCollection(); return err })
	if !condemn() || !doom() {
		t.Error("what a cache sees of a pack that no NAR needs keeps the pack")
	}
	if got := found(t, db, []int64{a.ID}, "x"); got != "0" {
		t.Error("a chunk of a doomed pack is found")
	}
	view(t, db, func(tx *Tx) error {
		list, err := tx.DoomedObjects(10)
		if len(list) != 1 || list[0].Key != "p" {
			t.Errorf("doomed: %+v", list)
		}
		return err
	})
	if doom() {
		t.Error("it is doomed twice")
	}
	update(t, db, func(tx *Tx) error { return tx.Gone("p") })
}

// A pack of a push that goes on is nobody's yet.
func TestPackThatIsShownForATimeIsNotCondemned(t *testing.T) {
	c := &clock{time.Unix(1_700_000_000, 0)}
	db := open(t, Options{Now: c.now, Layouts: plain{}})
	a := newCache(t, db, "a")
	p := newPack(t, db, "p", "x")
	show(t, db, a, p, nil, c.t.Add(time.Hour))
	condemn := func() (done bool) {
		update(t, db, func(tx *Tx) error {
			number, err := tx.BeginCollection()
			if err == nil {
				done, err = tx.Condemn(p, number)
			}
			return err
		})
		return done
	}
	if condemn() {
		t.Error("a pack of a push that has not ended is condemned")
	}
	c.t = c.t.Add(2 * time.Hour)
	if !condemn() {
		t.Error("a pack of a push that ended long ago is not condemned")
	}
}

// Paths are noted only while a collection watches: each that is pushed, used or pinned, once.
func TestWatchNotesWhatIsTouched(t *testing.T) {
	db := open(t, Options{})
	a := newCache(t, db, "a")
	noted := func() (hashes []string) {
		view(t, db, func(tx *Tx) error {
			return tx.Touched(0, func(_, cache int64, hash string) error {
				if cache != a.ID {
					t.Errorf("noted for cache %d", cache)
				}
				hashes = append(hashes, hash)
				return nil
			})
		})
		return hashes
	}
	one, two := "0000000000000000000000000000000a", "0000000000000000000000000000000b"
	touch := func(hash string) {
		update(t, db, func(tx *Tx) error { return tx.TouchPaths(a.ID, []string{hash}, tx.Now()) })
	}
	touch(one)
	if got := noted(); len(got) > 0 {
		t.Errorf("noted, though nobody watches: %v", got)
	}
	update(t, db, func(tx *Tx) error { return tx.Watch(7) })
	touch(two)
	touch(one)
	touch(two)
	if got := noted(); !slices.Equal(got, []string{two, one}) {
		t.Errorf("noted %v", got)
	}
	undone := errors.New("undone")
	err := db.Update(t.Context(), func(tx *Tx) error {
		return errors.Join(tx.TouchPaths(a.ID, []string{"0000000000000000000000000000000c"}, tx.Now()), undone)
	})
	if !errors.Is(err, undone) || len(noted()) != 2 {
		t.Errorf("what was undone is noted: %v", noted())
	}
	update(t, db, func(tx *Tx) error { return tx.Watch(0) })
	touch(one)
	if got := noted(); len(got) > 0 {
		t.Errorf("noted after the watch: %v", got)
	}
}

func TestLeaseIsOnesAtATime(t *testing.T) {
	c := &clock{time.Unix(1_700_000_000, 0)}
	db := open(t, Options{Now: c.now})
	take := func(who string) error {
		return db.Update(t.Context(), func(tx *Tx) error { return tx.TakeLease("x", who, time.Minute) })
	}
	if err := errors.Join(take("a"), take("a")); err != nil {
		t.Fatal(err)
	}
	if err := take("b"); !errors.Is(err, ErrLeased) {
		t.Errorf("b: %v", err)
	}
	c.t = c.t.Add(61 * time.Second)
	if err := take("b"); err != nil {
		t.Errorf("b, when it has run out: %v", err)
	}
	if err := take("a"); !errors.Is(err, ErrLeased) {
		t.Errorf("a: %v", err)
	}
	update(t, db, func(tx *Tx) error { return tx.DropLease("x", "a") })
	if err := take("a"); !errors.Is(err, ErrLeased) {
		t.Errorf("a, who has dropped what he did not have: %v", err)
	}
	update(t, db, func(tx *Tx) error { return tx.DropLease("x", "b") })
	if err := take("a"); err != nil {
		t.Errorf("a, when b has dropped it: %v", err)
	}
}
