package meta

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/pack"
)

// The attack: push sixty thousand chunks that one has guessed, and see by the time that it takes whether
// somebody has them. What the database does for it is counted here, for a clock would not be a test: the
// statements, and the rows that each table gets.
func TestPushDoesTheSameWorkWhateverOthersHave(t *testing.T) {
	const n = 3*batchKeys + 5
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("chunk ", i)
	}
	push := func(others int) (work []string) {
		var mu sync.Mutex
		listening := false
		db := open(t, Options{Trace: func(query string) {
			mu.Lock()
			defer mu.Unlock()
			if listening {
				work = append(work, query)
			}
		}})
		pusher := newCache(t, db, "pusher")
		for i := range others {
			show(t, db, newCache(t, db, fmt.Sprint("other-", i)), newPack(t, db, fmt.Sprint(i), names...), nil, time.Time{})
		}
		before := rowsOf(t, db)
		listening = true
		p := &Pack{Key: "mine", SHA256: sum("0")} // the very file that the first of the others has
		all := entries(names...)
		update(t, db, func(tx *Tx) error {
			_, err := tx.FindPack(p.SHA256, pusher.ID)
			wantErr(t, err, ErrNotFound)
			return errors.Join(tx.InsertPack(p, all), tx.Show(pusher.ID, p.ID, all, nil, tx.Now().Add(time.Hour)))
		})
		update(t, db, func(tx *Tx) error { return tx.Show(pusher.ID, p.ID, all, []int32{0, 7, n - 1}, time.Time{}) })
		listening = false
		for table, rows := range rowsOf(t, db) {
			work = append(work, fmt.Sprint(table, " +", rows-before[table]))
		}
		slices.Sort(work)
		return work
	}
	want := push(0)
	for _, others := range []int{1, 3} {
		if got := push(others); !slices.Equal(got, want) {
			t.Errorf("with %d others who have it:\n%q\nwith none:\n%q", others, got, want)
		}
	}
}

func rowsOf(t *testing.T, db *DB) map[string]int64 {
	t.Helper()
	rows := map[string]int64{}
	view(t, db, func(tx *Tx) error {
		for _, table := range []string{"packs", "places", "visible"} {
			var n int64
			if err := tx.one("SELECT count(*) FROM "+table, nil, &n); err != nil {
				return err
			}
			rows[table] = n
		}
		return nil
	})
	return rows
}

// The attack: one chunk in a thousand packs, so that asking for it reads a thousand rows.
func TestChunkInManyPacksIsOneRow(t *testing.T) {
	db := open(t, Options{})
	c := newCache(t, db, "c")
	for i := range 50 {
		show(t, db, c, newPack(t, db, fmt.Sprint(i), "x"), nil, time.Time{})
	}
	id := sum("x")
	var rows int
	view(t, db, func(tx *Tx) error {
		return tx.each(locate, []any{id[:], 1, idList([]int64{c.ID}), stamp(tx.now)}, func(func(...any) error) error { rows++; return nil })
	})
	if rows != 1 {
		t.Errorf("%d rows", rows)
	}
}

func TestDroppedPackLeavesItsChunksToTheOthers(t *testing.T) {
	db := open(t, Options{})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	first, second := newPack(t, db, "1", "x", "y", "y"), newPack(t, db, "2", "x", "z")
	day := time.Now().Add(time.Hour)
	show(t, db, a, first, nil, time.Time{})
	show(t, db, a, second, nil, time.Time{})
	show(t, db, b, first, []int32{0, 1}, day)
	update(t, db, func(tx *Tx) error { return tx.DropPack(first) })
	if got := found(t, db, []int64{a.ID}, "x", "y", "z"); got != "101" {
		t.Errorf("a: %s", got)
	}
	if got := found(t, db, []int64{b.ID}, "x", "y", "z"); got != "000" {
		t.Errorf("b: %s", got)
	}
	view(t, db, func(tx *Tx) error {
		places, err := tx.Locate([]int64{a.ID}, []chunk.ID{sum("x")})
		if places[0].Pack != second {
			t.Errorf("got %+v", places)
		}
		_, e := tx.Pack(first)
		wantErr(t, e, ErrNotFound)
		return err
	})
	if got := rowsOf(t, db); got["packs"] != 1 || got["visible"] != 1 || got["places"] != 2 {
		t.Errorf("rows that are left: %v", got)
	}
	wantErr(t, db.Update(t.Context(), func(tx *Tx) error { return tx.DropPack(first) }), ErrNotFound)
	update(t, db, func(tx *Tx) error { return tx.DropPack(second) })
	if got := rowsOf(t, db); got["packs"]+got["visible"]+got["places"] != 0 {
		t.Errorf("rows that are left: %v", got)
	}
}

// Shown as a whole for a day and then in part for good: the rest is not found, and no longer in the way of the
// same chunk elsewhere in the pack.
func TestExpiredPlacesAreNotLeftBehind(t *testing.T) {
	clk := &clock{time.Unix(1000, 0)}
	db := open(t, Options{Now: clk.now})
	c := newCache(t, db, "c")
	p := newPack(t, db, "p", "x", "y", "x")
	show(t, db, c, p, nil, time.Unix(2000, 0))
	clk.t = time.Unix(2000, 0)
	show(t, db, c, p, []int32{2}, time.Time{})
	view(t, db, func(tx *Tx) error {
		places, err := tx.Locate([]int64{c.ID}, []chunk.ID{sum("x"), sum("y")})
		if !places[0].Found || places[0].Entry != 2 || places[1].Found {
			t.Errorf("got %+v", places)
		}
		return err
	})
	if got := rowsOf(t, db); got["places"] != 1 {
		t.Errorf("%d places", got["places"])
	}
}

func benchEntries(first, n int) []pack.Entry {
	list := make([]pack.Entry, n)
	for i := range list {
		list[i] = pack.Entry{Kind: chunk.Chunk, ID: benchID(first + i), Size: 20_000, Raw: 65_000}
	}
	return list
}

// A pack of chunks that nobody has, and one of those that somebody else has, in a database of a million.
func BenchmarkPutPack(b *testing.B) {
	for _, n := range []int{512, 60_000} {
		for name, first := range map[string]int{"fresh": 10_000_000, "invisible elsewhere": 0} {
			b.Run(fmt.Sprint(n, " ", name), func(b *testing.B) {
				db, _ := benchDB(b, 0, 1_000_000)
				me := newCache(b, db, "me")
				for i := 0; b.Loop(); i++ {
					p := &Pack{Key: fmt.Sprint("bench-", i)}
					all := benchEntries(first+i*n, n)
					update(b, db, func(tx *Tx) error {
						return errors.Join(tx.InsertPack(p, all), tx.Show(me.ID, p.ID, all, nil, time.Now().Add(time.Hour)))
					})
				}
			})
		}
	}
}
