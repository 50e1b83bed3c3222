package meta

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/pack"
)

// plain are indexes that lie in the rows as they are.
type plain struct{}

func (plain) Row(*Tx, []ledger.Span) ([]byte, error)   { return nil, errors.ErrUnsupported }
func (plain) Spans(*Tx, []byte) ([]ledger.Span, error) { return nil, errors.ErrUnsupported }
func (plain) Index(row []byte) (*pack.Index, error)    { return pack.DecodeIndex(row) }

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newPack(t testing.TB, db *DB, key string, names ...string) int64 {
	t.Helper()
	all := entries(names...)
	p := &Pack{Key: key, SHA256: sum(key), Index: (&pack.Index{Entries: all}).Encode()}
	update(t, db, func(tx *Tx) error { return tx.InsertPack(p, all) })
	return p.ID
}

func show(t testing.TB, db *DB, c *Cache, pack int64, entries []int32, until time.Time) {
	t.Helper()
	update(t, db, func(tx *Tx) error {
		all, err := tx.PackEntries(pack)
		return errors.Join(err, tx.Show(c.ID, pack, all, entries, until))
	})
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

// Of one cache, the pack that was here first.
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
		if err := db.Update(t.Context(), func(tx *Tx) error { return tx.Show(c.ID, p, entries("x"), []int32{e}, time.Time{}) }); err == nil {
			t.Errorf("entry %d was accepted", e)
		}
	}
	if err := db.Update(t.Context(), func(tx *Tx) error { return tx.Show(c.ID, 999, nil, nil, time.Time{}) }); err == nil {
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

// Whoever may not see a chunk stores it again, and finds it from then on: in the part that it was shown, for as
// long as it was shown, and anew when that has ended.
func TestLocateFindsOnesOwnCopy(t *testing.T) {
	clk := &clock{time.Unix(1000, 0)}
	db := open(t, Options{Now: clk.now})
	a, b, c := newCache(t, db, "a"), newCache(t, db, "b"), newCache(t, db, "c")
	show(t, db, a, newPack(t, db, "of a", "x", "y"), nil, time.Time{})
	day := time.Unix(100_000, 0)
	ofB := newPack(t, db, "of b", "x", "y", "x") // a repeat within a pack is no copy
	show(t, db, b, ofB, nil, day)
	show(t, db, c, ofB, []int32{1}, time.Time{})
	for _, tt := range []struct {
		name   string
		caches []int64
		want   string
	}{{"a", []int64{a.ID}, "11"}, {"b", []int64{b.ID}, "11"}, {"c, of which it sees a part", []int64{c.ID}, "01"}, {"c through b", []int64{c.ID, b.ID}, "11"}} {
		if got := found(t, db, tt.caches, "x", "y"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	clk.t = day
	if got := found(t, db, []int64{b.ID}, "x", "y"); got != "00" {
		t.Errorf("a day later: got %s", got)
	}
	again := newPack(t, db, "of b again", "y")
	show(t, db, b, again, nil, time.Time{})
	view(t, db, func(tx *Tx) error {
		places, err := tx.Locate([]int64{b.ID}, []chunk.ID{sum("x"), sum("y")})
		if places[0].Found || places[1].Pack != again || places[1].Cache != b.ID {
			t.Errorf("got %+v", places)
		}
		return err
	})
	show(t, db, c, ofB, nil, time.Time{}) // the rest
	if got := found(t, db, []int64{c.ID}, "x", "y"); got != "11" {
		t.Errorf("c, after the rest: got %s", got)
	}
}

// Databases of before had a row for each pack that has a chunk.
func TestCopiesOfAnOlderDatabaseAreFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	old, err := sql.Open("sqlite", dataSource(file))
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(migrations, "migration/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	n := slices.Index(names, "migration/0007_copies.sql")
	script := "CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL);"
	for i, name := range names[:n] {
		b, err := migrations.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		script += string(b) + fmt.Sprintf(";INSERT INTO migrations VALUES (%d, 0);", i+1)
	}
	script += `
		INSERT INTO caches (id, name, public_key, sealed_key, public, store_dir, priority, upstream_keys, created_at) VALUES (1, 'a', '', '', 0, '', 0, '', 0), (2, 'b', '', '', 0, '', 0, '', 0), (3, 'c', '', '', 0, '', 0, '', 0);
		INSERT INTO packs (id, key, sha256, size, own, prev, created_at, nar_state, idx) VALUES (1, 'p1', '', 0, 0, 0, 0, '', ''), (2, 'p2', 'sum', 0, 0, 0, 0, '', ''), (3, 'p3', '', 0, 0, 0, 0, '', '');
		INSERT INTO visible (cache_id, pack_id) VALUES (1, 1), (2, 2);
		INSERT INTO visible (cache_id, pack_id, bits) VALUES (3, 2, x'20'), (3, 3, x'5AC3');`
	var numbers []string
	for _, name := range []string{"x", "y"} {
		id := sum(name)
		script += fmt.Sprintf("INSERT INTO chunks VALUES (x'%x', 1, 0, 3, 4), (x'%x', 2, 5, 3, 4);", id[:], id[:])
	}
	for i := range 24 {
		numbers = append(numbers, fmt.Sprint(i))
		id := sum(numbers[i])
		script += fmt.Sprintf("INSERT INTO chunks VALUES (x'%x', 3, %d, 3, 4);", id[:], i)
	}
	if _, err := old.Exec(script); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got, want := found(t, db, []int64{3}, append(numbers, "x", "y")...), "01011010"+"11000011"+"00000000"+"11"; got != want {
		t.Errorf("what a cache sees by a bitmap: %s, want %s", got, want)
	}
	for id := range int64(2) {
		view(t, db, func(tx *Tx) error {
			places, err := tx.Locate([]int64{id + 1}, []chunk.ID{sum("x"), sum("y"), sum("z")})
			want := Place{Pack: id + 1, Entry: int32(5 * id), Cache: id + 1, Found: true}
			if places[0] != want || places[1] != want || places[2].Found {
				t.Errorf("cache %d: got %+v, want %+v", id+1, places, want)
			}
			return err
		})
	}
}
