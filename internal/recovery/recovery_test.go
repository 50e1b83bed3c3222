package recovery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// seeded runs a test with a seed that is told when it fails.
func seeded(t *testing.T, fn func(t *testing.T, seed uint64)) {
	seed := rand.Uint64()
	t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { fn(t, seed) })
}

// Whatever has happened, with checkpoints in between that are made a step at a time
// while more happens: the bucket alone gives all that was promised and nothing that
// was taken back.
func TestRecoveredIsWhatTheDatabaseHad(t *testing.T) {
	for range 4 {
		seeded(t, func(t *testing.T, seed uint64) {
			w := newWorld(t, seed)
			for i := range 90 {
				w.step()
				if w.dice.IntN(6) == 0 {
					if _, err := w.keeper.Step(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if w.dice.IntN(40) == 0 { // the process ends and begins
					if err := w.db.Close(); err != nil {
						t.Fatal(err)
					}
					w.open("first")
				}
				if i%45 == 44 {
					want := w.promises(w.db)
					db, d, res := w.recovered(fmt.Sprint("again", i), w.bucket.copy(t))
					if res.LostCount > 0 {
						t.Errorf("lost: %s", short(res.Lost))
					}
					same(t, w.promises(db), want)
					w.served(db, d)
				}
			}
		})
	}
}

// A checkpoint that is killed between any two of its writes and deletions leaves a
// bucket that gives the same database, and the next run goes on.
func TestCheckpointKilledAnywhereLosesNothing(t *testing.T) {
	seeded(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		for range 15 {
			w.step()
		}
		if err := w.keeper.Make(t.Context()); err != nil { // so that there is an older one to sweep
			t.Fatal(err)
		}
		for range 6 {
			w.step()
		}
		want := w.promises(w.db)
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		before := w.bucket.copy(t)
		for n := 0; ; n++ {
			if n > 500 {
				t.Fatal("a checkpoint never ends")
			}
			b := before.copy(t)
			b.left = n
			file := copyFile(t, w.dir+"/first.db", fmt.Sprintf("%s/at-%d.db", w.dir, n))
			db, _, k := w.stack(file, b, &ledger.Log{Blobs: b, Epoch: 1})
			err := k.Make(t.Context())
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			b.left = -1
			rec, _, res := w.recovered(fmt.Sprint("killed", n), b.copy(t))
			same(t, w.promises(rec), want)
			if res.LostCount > 0 {
				t.Fatalf("killed at %d: lost %s", n, short(res.Lost))
			}
			// The next run, and one more, which finds nothing to do.
			db, d, k := w.stack(file, b, &ledger.Log{Blobs: b, Epoch: 1})
			if err := k.Make(t.Context()); err != nil {
				t.Fatalf("killed at %d, and then: %v", n, err)
			}
			if got := len(b.keys(t, ledger.ManifestPrefix)); got != 1 {
				t.Errorf("killed at %d: %d manifests after the next run", n, got)
			}
			key, m, _, err2 := ledger.NewestCheckpoint(t.Context(), b)
			if err2 != nil || m == nil || len(m.Shards) != len(b.keys(t, ledger.ShardPrefix)) || len(b.keys(t, ledger.LogPrefix)) != 0 {
				t.Errorf("killed at %d: checkpoint %s, %v; %d shards and %d objects of the log are left", n, key, err2, len(b.keys(t, ledger.ShardPrefix)), len(b.keys(t, ledger.LogPrefix)))
			}
			w.served(db, d)
			rec, _, _ = w.recovered(fmt.Sprint("after", n), b)
			same(t, w.promises(rec), want)
			if t.Failed() {
				return
			}
			if err == nil {
				t.Logf("a checkpoint of %d writes and deletions", n)
				return
			}
		}
	})
}

// What a recovery does is in the bucket at its end alone: broken off anywhere, it
// goes on, or begins anew, and comes to the same.
func TestRecoveryBrokenOffGoesOn(t *testing.T) {
	seeded(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		for range 40 {
			w.step()
		}
		if err := w.keeper.Make(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			w.step()
		}
		want := w.promises(w.db)
		for n := 1; ; n += 1 + w.dice.IntN(n) {
			b := w.bucket.copy(t)
			name := fmt.Sprint("broken", n)
			ctx := &countdown{Context: t.Context(), left: n}
			db, _, _, err := w.recover(ctx, name, b)
			if err == nil {
				if n < 5 {
					t.Errorf("it was never broken off")
				}
				return
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db, d, res, err := w.recover(t.Context(), name, b)
			if err != nil || res.LostCount > 0 {
				t.Fatalf("broken off at %d, and then: %v, %+v", n, err, res)
			}
			same(t, w.promises(db), want)
			w.served(db, d)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// countdown is a context that ends after it was asked some times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left <= 0 {
		return context.Canceled
	}
	return c.Context.Err()
}

func (c *countdown) Done() <-chan struct{} { return nil }

// A server that goes on after a recovery from its bucket writes for nothing, and a
// second recovery begins an epoch of its own.
func TestOldServerLosesAgainstRecoveredOne(t *testing.T) {
	seeded(t, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		for range 20 {
			w.step()
		}
		db, _, res := w.recovered("second", w.bucket)
		if res.Epoch != 2 {
			t.Errorf("epoch %d, want 2", res.Epoch)
		}
		for range 10 { // the old one
			w.step()
		}
		want := w.promises(db) // after that, since keys come to their end by the clock
		if err := w.keeper.Make(t.Context()); err == nil {
			t.Error("a server made a checkpoint of a bucket that another has recovered from")
		}
		again, _, res := w.recovered("third", w.bucket)
		if res.Epoch != 3 || res.LostCount > 0 {
			t.Errorf("epoch %d, want 3; lost %s", res.Epoch, short(res.Lost))
		}
		same(t, w.promises(again), want)
		var at time.Time
		if err := again.View(t.Context(), func(tx *meta.Tx) (err error) { at, err = tx.RecoveredAt(); return err }); err != nil || !at.Equal(w.now) {
			t.Errorf("recovered at %v, %v, want %v", at, err, w.now)
		}
	})
}
