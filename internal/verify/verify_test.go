package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/gc"
	"github.com/org/attic-action/internal/gc/rewrite"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// packOf is the pack that holds the first chunk of a path.
func (w *world) packOf(s depot.Scope, n *thing) (key string, id int64) {
	w.t.Helper()
	err := w.db.View(w.t.Context(), func(tx *meta.Tx) error {
		_, nar, err := tx.Path(s.Cache.ID, n.path.Hash())
		if err != nil {
			return err
		}
		row, err := tx.NARLayout(nar.ID)
		if err != nil {
			return err
		}
		err = new(depot.Layouts).Uses(row, func(pack int64, _, _ int) {
			if id == 0 {
				id = pack
			}
		})
		if err == nil {
			key, err = tx.PackKey(id)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return key, id
}

func (w *world) there(s depot.Scope, n *thing) bool {
	w.t.Helper()
	_, err := w.read(s, n)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		w.t.Errorf("%s: %v", n.path, err)
	}
	return err == nil
}

// A bucket that is away, or that fails for each object once, has lost nothing: the run ends with an error, or goes
// on, and no path is hidden.
func TestTransientErrorsAreNoDamage(t *testing.T) {
	w := small(t)
	w.bucket.fail = func(string) error { return fmt.Errorf("%w: down", blob.ErrUnavailable) }
	for range 3 {
		if _, err := w.v.Step(t.Context(), Options{Deep: true}, false); !errors.Is(err, blob.ErrUnavailable) {
			t.Fatalf("a bucket that is down: %v", err)
		}
	}
	_, id := w.packOf(w.scope, w.things[0])
	if err := w.v.look(t.Context(), id); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("a suspect of a bucket that is down: %v", err)
	}
	once := map[string]bool{}
	w.bucket.fail = func(key string) error {
		if first := !once[key]; first && strings.HasPrefix(key, "packs/") {
			once[key] = true
			return fmt.Errorf("get %s: %w", key, blob.ErrNotFound) // as some stores say while they are being repaired
		}
		return nil
	}
	w.clean("after")
}

// An object that the store cannot read, though it answers, is named, hides nothing, and does not end the run.
func TestUnreadableObjectIsNamed(t *testing.T) {
	w := small(t)
	bad, _ := w.packOf(w.scope, w.things[0])
	w.bucket.fail = func(key string) error {
		if key == bad {
			return errors.New("input/output error")
		}
		return nil
	}
	res := w.run(Options{Deep: true})
	if res.Damage == 0 || res.Findings[0].What != "unreadable" || res.Waiting > 0 {
		t.Errorf("%+v", res)
	}
	w.bucket.fail = nil
	w.clean("after")
}

// Stopped between any two steps, and with the process that made them, a run goes on where it was.
func TestRunGoesOnWhereItStopped(t *testing.T) {
	w := small(t)
	key, _ := w.packOf(w.scope, w.things[len(w.things)-1])
	w.bucket.flip(t, key, 30)
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	w.bucket.fail = func(string) error {
		if reads++; reads == 9 {
			cancel()
		}
		return ctx.Err()
	}
	if _, err := w.v.Step(ctx, Options{Deep: true}, false); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.bucket.fail = nil
	clear(w.bucket.gets)
	again := &Verifier{DB: w.db, Depot: w.depot, Blobs: w.bucket, Again: 1}
	first, err := again.Step(t.Context(), Options{Deep: true}, false)
	if err != nil || !first.Resumed || first.Stage == "storage" {
		t.Fatalf("%+v, %v", first, err)
	}
	w.v = again
	found := len(first.Findings)
	if first.Result == nil {
		found = w.run(Options{Deep: true}).Damage
	}
	if found != 1 {
		t.Errorf("%d were found", found)
	}
	if anew, err := again.Step(t.Context(), Options{Deep: true}, true); err != nil || anew.Resumed {
		t.Errorf("anew: %+v, %v", anew, err)
	}
}

// A pack that was read in part is collected before the next step. The one behind it is read from its own beginning:
// what is healthy must not be hidden because of how far another one was.
func TestPositionIsOfOnePackOnly(t *testing.T) {
	w := small(t)
	late := true
	check := &depot.Check{Depot: w.depot, Late: func() bool { return late }, Again: 1}
	pos := &depot.PackPosition{}
	half := int64(0)
	for id := int64(1); id < 100; id++ {
		late = half == 0
		rep, err := check.Pack(t.Context(), id, pos, true)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case rep.Damaged():
			t.Fatalf("pack %d, after pack %d was read in part: %s", id, half, rep.Gone+rep.Why)
		case rep.Next > 0:
			half = id
		case half > 0 && rep.Key != "":
			if want := w.entries(id); rep.Chunks != want {
				t.Errorf("%d entries of %d were read", rep.Chunks, want)
			}
			return
		}
	}
	t.Fatal("there are not two packs of more than one entry")
}

// A collection takes a pack, or a NAR with its packs, between any two requests of a reader. There is nothing to tell of it.
func TestWhatIsCollectedWhileItIsReadIsNoDamage(t *testing.T) {
	for n := 1; ; n++ {
		w := small(t)
		last := w.things[len(w.things)-1]
		key, id := w.packOf(w.scope, last)
		gone := false
		w.bucket.fail = func(asked string) error {
			if asked == key && w.bucket.gets[key] == n {
				gone = true
				w.collected(last, id, key)
			}
			return nil
		}
		if res := w.run(Options{Deep: true}); res.Damage > 0 {
			t.Errorf("collected before request %d: %v", n, res.Findings)
		}
		if !gone {
			if n < 4 {
				t.Errorf("the pack was asked for %d times", n-1)
			}
			return
		}
	}
}

// collected takes the only path of a pack away, and the pack.
func (w *world) collected(n *thing, id int64, key string) {
	w.t.Helper()
	err := w.db.Update(w.t.Context(), func(tx *meta.Tx) error {
		newest, err := tx.LastNAR()
		if err == nil {
			err = tx.DeletePath(w.scope.Cache.ID, n.path.Hash())
		}
		if err == nil {
			_, err = tx.CollectNARs(0, newest)
		}
		if err == nil {
			err = tx.DropPack(id)
		}
		return err
	})
	if err := errors.Join(err, w.bucket.Delete(w.t.Context(), key)); err != nil {
		w.t.Fatal(err)
	}
}

// A server that is killed between the objects of the log that a checkpoint replaces and their rows has not lost
// anything. Objects behind the checkpoint are missed.
func TestLogThatACheckpointReplacedIsNotMissed(t *testing.T) {
	w := small(t)
	replaced := w.bucket.keys(t, ledger.LogPrefix)
	if err := w.v.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := w.bucket.keys(t, ledger.LogPrefix); len(replaced) == 0 || len(left) != 0 {
		t.Fatalf("%d objects of the log were replaced, and %d are there", len(replaced), len(left))
	}
	if err := w.db.Update(t.Context(), func(tx *meta.Tx) error { return tx.AddLogObjects(replaced) }); err != nil {
		t.Fatal(err)
	}
	if res := w.run(Options{Deep: true}); res.Damage != 0 {
		t.Errorf("%d were found: %v", res.Damage, res.Findings)
	}
	w.stock(w.scope, newThing(t, "later", 5000, nil))
	later := w.bucket.keys(t, ledger.LogPrefix)
	last := later[len(later)-1]
	if err := w.bucket.Delete(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if res := w.run(Options{}); res.Damage == 0 || res.Findings[0].Where != last {
		t.Errorf("an object of the log is gone, and this was found: %v", res.Findings)
	}
}

// What was put together from chunks is hashed, and then it is verified, after a recovery as well.
func TestUnverifiedNARsAreHashedFirst(t *testing.T) {
	w := small(t)
	verified := func(n *thing) (is bool) {
		t.Helper()
		if err := w.db.View(t.Context(), func(tx *meta.Tx) error {
			_, nar, err := tx.Path(w.scope.Cache.ID, n.path.Hash())
			is = err == nil && nar.Verified
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return is
	}
	ours := w.things[3]
	if verified(ours) {
		t.Fatal("a NAR of chunks is verified")
	}
	if res := w.run(Options{}); res.Verified == 0 || res.Damage > 0 || !verified(ours) {
		t.Errorf("%+v", res)
	}
	if res := w.run(Options{}); res.Verified > 0 {
		t.Errorf("the second time %+v", res)
	}
}

// Who pushes chunks and claims another hash for what they are together is found out: his path is hidden, and
// who pushes the real one replaces it.
func TestWrongClaimIsHiddenAndReplaced(t *testing.T) {
	w := small(t)
	lie := newThing(t, "lie", 6000, nil)
	w.push(w.scope, 0, lie)
	truth := &thing{path: newThing(t, "claimed", 6000, nil).path, data: newThing(t, "x", 6000, nil).data}
	_, item := w.pieces(&thing{path: truth.path, data: lie.data})
	item.Header.NARHash = truth.hash().String()
	commit := func() error {
		_, err := w.depot.CommitPaths(t.Context(), w.scope, func(yield func(api.PathItem, error) bool) { yield(item, nil) })
		return err
	}
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	w.things = append(w.things, lie)
	res := w.run(Options{})
	if res.Damage != 1 || res.Findings[0].What != "wrong" || res.Waiting != 1 || w.there(w.scope, truth) {
		t.Fatalf("%+v", res)
	}
	w.stock(w.scope, truth)
	w.things = append(w.things, truth)
	w.clean("replaced")
}

// The push that brings a chunk back for one path brings it back for those that nobody pushes, in that cache; in
// another one it would tell who has pushed.
func TestOnePushHealsAllPathsOfItsCache(t *testing.T) {
	w := small(t)
	a, b := w.things[0], w.things[1] // b has half of a
	other := w.cache("other")
	w.stock(other, a)
	key, _ := w.packOf(w.scope, a)
	otherKey, _ := w.packOf(other, a)
	if key == otherKey {
		t.Fatal("two caches that cannot see each other have one pack")
	}
	w.bucket.set(t, key, nil)
	w.bucket.set(t, otherKey, nil)
	if res := w.run(Options{}); res.Damage != 2 || w.there(w.scope, a) || w.there(w.scope, b) || w.there(other, a) {
		t.Fatalf("%+v", res)
	}
	w.stock(w.scope, a)
	for heal, more := w.v.Heal(), true; more; {
		var err error
		if more, err = heal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !w.there(w.scope, a) || !w.there(w.scope, b) {
		t.Error("a path of the cache is not healed")
	}
	if w.there(other, a) {
		t.Error("a path of another cache is healed by a push that it knows nothing of")
	}
	w.stock(other, a)
	w.clean("in the end")
}

// Of a path that is healed all that was known stays: when it came, from whom, its signatures.
func TestHealedPathKeepsWhatWasKnownOfIt(t *testing.T) {
	w := small(t)
	n := w.things[0]
	look := func() (p *meta.Path) {
		t.Helper()
		if err := w.db.View(t.Context(), func(tx *meta.Tx) (err error) { p, _, err = tx.Path(w.scope.Cache.ID, n.path.Hash()); return err }); err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := look()
	key, _ := w.packOf(w.scope, n)
	w.bucket.set(t, key, nil)
	w.run(Options{})
	s := w.scope
	s.User = "somebody else"
	w.stock(s, n)
	if after := look(); after.CreatedBy != before.CreatedBy || !after.CreatedAt.Equal(before.CreatedAt) || !slices.Equal(after.References, before.References) {
		t.Errorf("%+v, was %+v", after, before)
	}
}

// An object that somebody has put back ends the quarantine.
func TestObjectThatIsBackIsUsedAgain(t *testing.T) {
	w := small(t)
	key, _ := w.packOf(w.scope, w.things[0])
	data := w.bucket.object(t, key)
	w.bucket.set(t, key, nil)
	if res := w.run(Options{}); res.Waiting == 0 {
		t.Fatalf("%+v", res)
	}
	w.bucket.set(t, key, data)
	if res := w.run(Options{Deep: true}); res.Released != 1 || res.Waiting > 0 {
		t.Errorf("%+v", res)
	}
	w.clean("back")
	w.recovered("back")
}

// Reading notices that an object is gone; a flood of readers costs one look each at most.
func TestReaderIsSuspicious(t *testing.T) {
	w := small(t)
	w.depot.Suspect = w.v.Suspect
	key, _ := w.packOf(w.scope, w.things[0])
	w.bucket.set(t, key, w.bucket.object(t, key)[:100])
	for range 3 * maxSuspects {
		if _, err := w.read(w.scope, w.things[0]); err == nil || errors.Is(err, errHash) {
			t.Fatalf("a pack that was cut off: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.v.Watch(ctx) }()
	for w.db.View(t.Context(), func(tx *meta.Tx) error {
		any, err := tx.AnyDamaged()
		if err == nil && !any {
			err = errors.New("not yet")
		}
		return err
	}) != nil {
	}
	for len(w.v.suspects) > 0 {
	}
	cancel()
	<-done
	if absent := w.served(); len(absent) == 0 {
		t.Error("nothing is absent")
	}
	w.heal(0)
}

// A recovery knows what is in quarantine, from the log and from a checkpoint: what was hidden is not served again.
func TestRecoveryKnowsTheQuarantine(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		w := small(t)
		key, _ := w.packOf(w.scope, w.things[0])
		w.bucket.flip(t, key, 40)
		if res := w.run(Options{Deep: true}); res.Waiting == 0 {
			t.Fatalf("%+v", res)
		}
		if checkpoint {
			if err := w.v.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		absent := w.served()
		r := w.rebuilt(fmt.Sprint("q", checkpoint))
		if got := r.served(); len(got) != len(absent) {
			t.Errorf("checkpoint %v: %d are absent after a recovery, %d were", checkpoint, len(got), len(absent))
		}
		r.close()
	}
}

// By the clock a budget is read, and the next time what comes behind it, until all was.
func TestClockGoesRoundThePacks(t *testing.T) {
	w := small(t)
	w.bucket.flip(t, w.bucket.keys(t, "packs/")[2], 20)
	found, runs := 0, 0
	for ; found == 0 && runs < 20; runs++ {
		for more := true; more; {
			var err error
			if more, err = w.v.Clock(t.Context(), Options{Deep: true, Budget: 3000}); err != nil {
				t.Fatal(err)
			}
		}
		last, err := w.v.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last.Bytes > 60_000 {
			t.Errorf("a run has read %d bytes", last.Bytes)
		}
		found += last.Damage
	}
	if found != 1 || runs < 2 {
		t.Errorf("%d found by %d runs", found, runs)
	}
}

// A sample is a part.
func TestSampleIsAPart(t *testing.T) {
	r := &run{Verifier: &Verifier{}}
	r.Sample, r.Seed = 0.1, 7
	n := 0
	for id := range int64(10_000) {
		if r.sampled(id) {
			n++
		}
	}
	if n < 800 || n > 1200 {
		t.Errorf("%d of 10,000", n)
	}
}

// A literal in an own pack lies nowhere else, and a push that sends no chunk puts its NAR on the literal that it
// brings.
func TestDamagedLiteralOfAnOwnPackIsHealed(t *testing.T) {
	w := small(t)
	own := w.things[2]
	_, id := w.packOf(w.scope, own)
	var entry int32 = -1
	if err := w.db.View(t.Context(), func(tx *meta.Tx) error {
		entries, err := tx.PackEntries(id)
		for i, e := range entries {
			if e.Kind == chunk.Literal && entry < 0 {
				entry = int32(i)
			}
		}
		return err
	}); err != nil || entry < 0 {
		t.Fatalf("entry %d, %v", entry, err)
	}
	if _, err := w.depot.Quarantine(t.Context(), id, []int32{entry}, "a test says so"); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = w.depot.Spread(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if w.there(w.scope, own) {
		t.Fatal("it is served")
	}
	w.push(w.scope, 0, own)
	if !w.there(w.scope, own) {
		t.Error("it is not healed")
	}
}

// Packs are rewritten and collected while something is in quarantine: what is damaged is not copied, what waits can
// still be healed, and once it is, the damaged pack goes and its quarantine with it.
func TestCollectionAndRewritingLeaveHealingRight(t *testing.T) {
	w := small(t)
	key, _ := w.packOf(w.scope, w.things[0])
	w.bucket.set(t, key, w.bucket.object(t, key)[:1000])
	if res := w.run(Options{Deep: true}); res.Waiting == 0 {
		t.Fatalf("%+v", res)
	}
	absent := w.served()
	later := time.Now()
	layouts := &depot.Layouts{}
	collect := func() {
		t.Helper()
		later = later.Add(72 * time.Hour)
		c := &gc.Collector{DB: w.db, Layouts: layouts, Blobs: w.bucket, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return later },
			Rewrite: &rewrite.Rewriter{DB: w.db, Layouts: layouts, Blobs: w.bucket, Spool: w.depot.Spool}}
		if _, err := c.Run(t.Context(), gc.Options{AtOnce: true}); err != nil {
			t.Fatal(err)
		}
	}
	collect()
	if got := w.served(); len(got) != len(absent) {
		t.Fatalf("%d are absent after a collection, %d were", len(got), len(absent))
	}
	w.heal(0)
	collect()
	collect()
	w.clean("collected")
	if err := w.db.View(t.Context(), func(tx *meta.Tx) error {
		left, err := tx.InQuarantine(0, 10)
		if len(left) > 0 {
			t.Errorf("in quarantine still: %+v", left)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(w.bucket.keys(t, "packs/"), key) {
		t.Error("the damaged pack is still there")
	}
	w.recovered("collected")
}
