package meta

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/org/attic-action/internal/chunk"
)

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newPack(t testing.TB, db *DB, key string, names ...string) int64 {
	t.Helper()
	p := &Pack{Key: key, SHA256: sum(key)}
	update(t, db, func(tx *Tx) error { return tx.InsertPack(p, entries(names...)) })
	return p.ID
}

func show(t testing.TB, db *DB, c *Cache, pack int64, entries []int32, until time.Time) {
	t.Helper()
	update(t, db, func(tx *Tx) error { return tx.Show(c.ID, pack, entries, until) })
}

// found lists which of the names can be located, as 1 and 0.
func found(t testing.TB, db *DB, caches []int64, names ...string) (s string) {
	t.Helper()
	var ids []chunk.ID
	for _, n := range names {
		ids = append(ids, sum(n))
	}
	view(t, db, func(tx *Tx) error {
		places, err := tx.Locate(caches, ids)
		for _, p := range places {
			if p.Found {
				s += "1"
			} else {
				s += "0"
				if p != (Place{}) {
					t.Errorf("a place that is not found says %+v", p)
				}
			}
		}
		return err
	})
	return s
}

// Whoever can ask for chunks of others' caches learns what they hold.
func TestLocateFindsOnlyWhatTheCachesSee(t *testing.T) {
	db := open(t, Options{})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	p := newPack(t, db, "p", "x", "y", "z")
	names := []string{"unknown", "x", "y", "z", "x"}
	if got := found(t, db, []int64{a.ID, b.ID}, names...); got != "00000" {
		t.Errorf("before Show: %s", got)
	}
	show(t, db, a, p, []int32{1}, time.Time{})
	for _, tt := range []struct {
		caches []int64
		want   string
	}{{nil, "00000"}, {[]int64{b.ID}, "00000"}, {[]int64{a.ID}, "00100"}, {[]int64{b.ID, a.ID}, "00100"}} {
		if got := found(t, db, tt.caches, names...); got != tt.want {
			t.Errorf("caches %v: got %s, want %s", tt.caches, got, tt.want)
		}
	}
	show(t, db, b, p, nil, time.Time{})
	if got := found(t, db, []int64{b.ID}, names...); got != "01111" {
		t.Errorf("whole pack: got %s", got)
	}
	if got := found(t, db, []int64{a.ID}, names...); got != "00100" {
		t.Errorf("another cache's Show widened this one's: %s", got)
	}
}

func TestLocatePrefersCachesInTheirOrder(t *testing.T) {
	db := open(t, Options{})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	p1, p2, p3 := newPack(t, db, "1", "x"), newPack(t, db, "2", "x"), newPack(t, db, "3", "x")
	show(t, db, a, p1, nil, time.Time{})
	show(t, db, b, p3, nil, time.Time{})
	show(t, db, b, p2, nil, time.Time{})
	view(t, db, func(tx *Tx) error {
		ab, err1 := tx.Locate([]int64{a.ID, b.ID}, []chunk.ID{sum("x")})
		ba, err2 := tx.Locate([]int64{b.ID, a.ID}, []chunk.ID{sum("x")})
		if ab[0].Pack != p1 || ab[0].Cache != a.ID || ba[0].Pack != p2 || ba[0].Cache != b.ID {
			t.Errorf("got %+v and %+v", ab, ba)
		}
		return errors.Join(err1, err2)
	})
}

func TestLocateAnswersManyInOrder(t *testing.T) {
	db := open(t, Options{})
	c := newCache(t, db, "a")
	var have []string
	var ask []chunk.ID
	for i := range 2500 {
		ask = append(ask, sum(fmt.Sprint(i)))
		if i%2 == 0 {
			have = append(have, fmt.Sprint(i))
		}
	}
	show(t, db, c, newPack(t, db, "p", have...), nil, time.Time{})
	view(t, db, func(tx *Tx) error {
		places, err := tx.Locate([]int64{c.ID}, ask)
		for i, p := range places {
			if p.Found != (i%2 == 0) || p.Found && p.Entry != int32(i/2) {
				t.Fatalf("id %d: got %+v", i, p)
			}
		}
		return err
	})
}

func TestVisibilityExpires(t *testing.T) {
	clk := &clock{time.Unix(1000, 0)}
	db := open(t, Options{Now: clk.now})
	c := newCache(t, db, "a")
	p := newPack(t, db, "p", "x", "y")
	show(t, db, c, p, nil, time.Unix(2000, 0))
	if got := found(t, db, []int64{c.ID}, "x", "y"); got != "11" {
		t.Errorf("before: %s", got)
	}
	clk.t = time.Unix(2000, 0)
	if got := found(t, db, []int64{c.ID}, "x", "y"); got != "00" {
		t.Errorf("after: %s", got)
	}
	// An expired whole does not make a committed part whole for good.
	show(t, db, c, p, []int32{1}, time.Time{})
	if got := found(t, db, []int64{c.ID}, "x", "y"); got != "01" {
		t.Errorf("after a commit of y: %s", got)
	}
}

func TestShowNeverNarrows(t *testing.T) {
	day := time.Unix(100_000, 0)
	steps := []struct {
		name    string
		entries []int32
		until   time.Time
	}{
		{"part, one day", []int32{0}, day},
		{"none for good", []int32{}, time.Time{}},
		{"part for good", []int32{9}, time.Time{}},
		{"whole, one day", nil, day},
	}
	for i, first := range steps {
		for k, second := range steps {
			t.Run(first.name+" then "+second.name, func(t *testing.T) {
				clk := &clock{time.Unix(1000, 0)}
				db := open(t, Options{Now: clk.now})
				c := newCache(t, db, "a")
				p := newPack(t, db, "p", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
				show(t, db, c, p, first.entries, first.until)
				show(t, db, c, p, second.entries, second.until)
				want := map[bool]string{true: "11", false: ""}[i == 3 || k == 3]
				if want == "" {
					want = map[bool]string{true: "1", false: "0"}[i == 0 || k == 0] + map[bool]string{true: "1", false: "0"}[i == 2 || k == 2]
				}
				if got := found(t, db, []int64{c.ID}, "0", "9"); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				clk.t = day
				if i != 2 && k != 2 { // to show nothing for good makes nothing last
					want = "00"
				}
				if got := found(t, db, []int64{c.ID}, "0", "9"); got != want {
					t.Errorf("a day later: got %s, want %s", got, want)
				}
			})
		}
	}
}

func TestShowRefusesWildEntries(t *testing.T) {
	db := open(t, Options{})
	c := newCache(t, db, "a")
	p := newPack(t, db, "p", "x")
	for _, e := range []int32{-1, maxEntry} {
		if err := db.Update(t.Context(), func(tx *Tx) error { return tx.Show(c.ID, p, []int32{e}, time.Time{}) }); err == nil {
			t.Errorf("entry %d was accepted", e)
		}
	}
	if err := db.Update(t.Context(), func(tx *Tx) error { return tx.Show(c.ID, 999, nil, time.Time{}) }); err == nil {
		t.Error("a pack that is not there was shown")
	}
}

// One unknown chunk asked for ten thousand times takes the work of one: a difference of a microsecond
// between unknown and invisible stays one.
func TestLocateAsksOnceForWhatIsRepeated(t *testing.T) {
	var statements int
	db := open(t, Options{Trace: func(query string) {
		if query == locate {
			statements++
		}
	}})
	c := newCache(t, db, "c")
	p := newPack(t, db, "p", "x", "y")
	show(t, db, c, p, nil, time.Time{})
	names := make([]string, 10*batchKeys)
	for i := range names {
		names[i] = []string{"x", "unknown", "y"}[i%3]
	}
	got := found(t, db, []int64{c.ID}, names...)
	if statements != 1 {
		t.Errorf("%d statements for three chunks", statements)
	}
	for i := range names {
		if want := "101"[i%3]; got[i] != want {
			t.Fatalf("chunk %d: %c, want %c", i, got[i], want)
		}
	}
}
