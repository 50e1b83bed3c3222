package meta

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/org/attic-action/internal/nix"
)

func TestStagedPiecesJoin(t *testing.T) {
	clk := &clock{time.Unix(1_000_000, 0)}
	db := open(t, Options{Now: clk.now})
	a, b := newCache(t, db, "a"), newCache(t, db, "b")
	nar := nix.Hash(sum("n"))
	stage := func(c *Cache, nar nix.Hash, offset int64, data string) (total int64, err error) {
		err = db.Update(t.Context(), func(tx *Tx) (err error) {
			total, err = tx.StagePieces(c.ID, hash32(1), nar, offset, []byte(data))
			return err
		})
		return total, err
	}
	staged := func(c *Cache, nar nix.Hash) (s string) {
		view(t, db, func(tx *Tx) error {
			b, err := tx.StagedPieces(c.ID, hash32(1), nar)
			if isNotFound(err) {
				s, err = "none", nil
			} else {
				s = string(b)
			}
			return err
		})
		return s
	}
	step := func(offset int64, data string, want int64, all string) {
		t.Helper()
		if total, err := stage(a, nar, offset, data); err != nil || total != want {
			t.Errorf("stage %q at %d: got %d, %v, want %d", data, offset, total, err, want)
		}
		if got := staged(a, nar); got != all {
			t.Errorf("stage %q at %d: got %q, want %q", data, offset, got, all)
		}
	}
	step(0, "hello ", 6, "hello ")
	step(6, "world", 11, "hello world")
	step(6, "world", 11, "hello world") // the answer was lost, the client repeats
	step(8, "man", 11, "hello woman")   // it cut otherwise this time
	step(3, "p", 4, "help")
	if total, err := stage(a, nar, 9, "x"); !errors.Is(err, ErrGap) || total != 4 {
		t.Errorf("gap: got %d, %v", total, err)
	}
	step(0, "anew", 4, "anew")
	for _, offset := range []int64{-1, MaxStaged, 1 << 62} {
		if _, err := stage(a, nar, offset, "xy"); !errors.Is(err, ErrTooLarge) {
			t.Errorf("offset %d: got %v", offset, err)
		}
	}
	// Another cache's parts must not mix with these, nor another NAR's.
	if got := staged(b, nar) + staged(a, nix.Hash(sum("other"))); got != "nonenone" {
		t.Errorf("got %q of others", got)
	}

	clk.t = clk.t.Add(20 * time.Hour)
	step(4, "!", 5, "anew!")
	clk.t = clk.t.Add(5 * time.Hour) // the first part is a day old, the second is not
	if got := staged(a, nar); got != "none" {
		t.Errorf("got %q after a day", got)
	}
	if total, err := stage(a, nar, 5, "x"); !errors.Is(err, ErrGap) || total != 0 {
		t.Errorf("after a day: got %d, %v", total, err)
	}
	step(0, "x", 1, "x")
	update(t, db, func(tx *Tx) error { return tx.DropStaged(a.ID, hash32(1), nar) })
	if got := staged(a, nar); got != "none" {
		t.Errorf("got %q after a drop", got)
	}
}

// An ID token that leaked into a build log must be worth nothing.
func TestTokenIsSeenOnce(t *testing.T) {
	clk := &clock{time.Unix(1000, 0)}
	db := open(t, Options{Now: clk.now})
	seen := func(issuer, jti string, until time.Time) error {
		return db.Update(t.Context(), func(tx *Tx) error { return tx.SeenToken(issuer, jti, until) })
	}
	if err := errors.Join(seen("i", "1", time.Unix(2000, 0)), seen("i", "2", time.Unix(2000, 0)), seen("k", "1", time.Unix(3000, 0))); err != nil {
		t.Fatal(err)
	}
	wantErr(t, seen("i", "1", time.Unix(2000, 0)), ErrExists)
	if err := seen("i", "3", time.Unix(1000, 0)); err == nil {
		t.Error("an expired token was noted")
	}
	clk.t = time.Unix(2500, 0)
	if err := seen("x", "x", time.Unix(4000, 0)); err != nil {
		t.Fatal(err)
	}
	view(t, db, func(tx *Tx) error {
		var n int
		err := tx.one("SELECT count(*) FROM seen_tokens", nil, &n)
		if n != 2 {
			t.Errorf("%d rows, want the two that have not expired", n)
		}
		return err
	})
}

// Unfinished lists lie in the database: who only ever begins them must not fill the volume.
func TestUnfinishedListsAreBounded(t *testing.T) {
	db := open(t, Options{})
	c, other := newCache(t, db, "c"), newCache(t, db, "other")
	var staged int
	err := db.Update(t.Context(), func(tx *Tx) error {
		for ; staged <= maxStagedParts; staged++ {
			if _, err := tx.StagePieces(c.ID, fmt.Sprintf("%032d", staged), sum("nar"), 0, []byte{1}); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, ErrTooMany) || staged != maxStagedParts {
		t.Errorf("after %d parts: %v", staged, err)
	}
	update(t, db, func(tx *Tx) error {
		if _, err := tx.StagePieces(c.ID, fmt.Sprintf("%032d", 0), sum("nar"), 0, []byte{1}); err != nil {
			return err
		}
		// The length alone: a quarter of a gigabyte takes the race detector minutes.
		if _, err := tx.exec("UPDATE staged SET length = $1 WHERE cache_id = $2", maxStagedBytes, c.ID); err != nil {
			return err
		}
		if _, err := tx.StagePieces(c.ID, fmt.Sprintf("%032d", 99), sum("nar"), 0, []byte{1}); !errors.Is(err, ErrTooMany) {
			t.Errorf("after %d bytes: %v", maxStagedBytes, err)
		}
		_, err := tx.StagePieces(other.ID, fmt.Sprintf("%032d", 0), sum("nar"), 0, []byte{1})
		return err // another cache is not held up
	})
}
