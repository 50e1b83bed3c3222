package gc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/checkpoint"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// What a pin holds, and all that this needs, is what machines run.
func TestPinnedStaysWithItsWholeClosure(t *testing.T) {
	w := newWorld(t)
	w.push("a", "libc")
	w.push("a", "tool", "libc")
	w.push("a", "system", "tool")
	w.push("a", "old")
	w.pin("a", "host", "system", 0)
	w.now = w.now.Add(365 * day)
	r := w.collect()
	w.wants("a", "libc", "tool", "system")
	if r.Paths != 1 || r.NARs != 1 {
		t.Errorf("%d paths and %d NARs went, want one", r.Paths, r.NARs)
	}
	w.recovered()
	w.wants("a", "libc", "tool", "system")
}

// With retention 0, as Attic has it, everything stays.
func TestForEverKeepsEverything(t *testing.T) {
	w := newWorld(t)
	w.retention("a", 0)
	w.push("a", "old")
	w.now = w.now.Add(3650 * day)
	w.collect()
	w.wants("a", "old")
	if _, objects := w.packs(); objects != 1 {
		t.Errorf("%d packs", objects)
	}
}

func TestWhatIsUsedWithinTheRetentionStaysAndTheRestGoes(t *testing.T) {
	w := newWorld(t)
	for _, word := range []string{"libc", "used", "pulled", "old"} {
		w.push("a", word)
	}
	w.push("a", "new", "used") // uses nothing: a reference is no use
	w.now = w.now.Add(20 * day)
	w.push("a", "top", "libc")
	w.use("a", "pulled")
	w.use("a", "new")
	w.now = w.now.Add(20 * day)
	w.collect()
	w.wants("a", "libc", "used", "new", "top", "pulled")
	rows, objects := w.packs()
	if rows != 5 || objects != 5 {
		t.Errorf("%d packs have a row and %d are in the bucket, want 5", rows, objects)
	}
	w.recovered()
	w.wants("a", "libc", "used", "new", "top", "pulled")
}

// A pin that has expired, or was taken away, holds nothing; one of several revisions holds all of them.
func TestExpiredAndRemovedPinsHoldNothing(t *testing.T) {
	w := newWorld(t)
	for _, word := range []string{"old", "new", "gone", "expired"} {
		w.push("a", word)
	}
	w.pin("a", "host", "old", 0)
	w.pin("a", "host", "new", 0)
	w.pin("a", "branch", "expired", 40*day)
	w.pin("a", "other", "gone", 0)
	w.now = w.now.Add(35 * day)
	w.unpin("a", "other")
	w.collect()
	w.wants("a", "old", "new", "expired")
	w.now = w.now.Add(10 * day)
	w.collect()
	w.wants("a", "old", "new")
	w.recovered()
	w.wants("a", "old", "new")
}

// A push that has not ended has no toplevel yet: what came within a day is not counted.
func TestKeepLastKeepsTheLastToplevels(t *testing.T) {
	w := newWorld(t)
	w.retention("a", 0)
	w.rules["a"] = Own{KeepLast: 2}
	w.push("a", "libc")
	for _, top := range []string{"one", "two", "three"} {
		w.now = w.now.Add(2 * day)
		w.push("a", "lib"+top)
		w.push("a", top, "libc", "lib"+top)
	}
	w.now = w.now.Add(23 * time.Hour)
	for _, word := range []string{"begun", "alone"} {
		w.push("a", word)
	}
	w.collect()
	w.wants("a", "three", "libthree", "libc", "begun", "alone")
	w.push("a", "top", "begun", "alone")
	w.now = w.now.Add(2 * day)
	w.collect()
	w.wants("a", "three", "libthree", "libc", "begun", "alone", "top")
}

// Both rules together: what either keeps stays.
func TestRetentionAndKeepLastKeepWhatEitherKeeps(t *testing.T) {
	w := newWorld(t)
	w.rules["a"] = Own{KeepLast: 1}
	w.push("a", "old")
	w.now = w.now.Add(day)
	w.push("a", "last")
	w.now = w.now.Add(100 * day)
	w.collect()
	w.wants("a", "last")
}

// Over its quota a cache loses what was not used for the longest time, dependencies never before what needs them,
// and nothing that is pinned.
func TestQuotaTakesTheLeastRecentlyUsedFirst(t *testing.T) {
	w := newWorld(t)
	w.retention("a", 0)
	w.push("a", "pinned")
	w.pin("a", "host", "pinned", 0)
	for _, word := range []string{"first", "second", "third"} {
		w.now = w.now.Add(day)
		w.push("a", word+"dep")
		w.push("a", word, word+"dep")
	}
	w.now = w.now.Add(day)
	w.use("a", "first")
	w.now = w.now.Add(2 * day)
	w.rules["a"] = Own{Quota: 6 * 21 << 10} // of seven paths of a little more than 20 KiB
	w.collect()
	w.wants("a", "pinned", "first", "firstdep", "third", "thirddep")
	w.rules["a"] = Own{Quota: 1}
	w.push("a", "new")
	w.collect()
	w.wants("a", "pinned", "new")
}

// A NAR that two caches share stays for the one when the other has lost it.
func TestSharedNARStaysForTheOtherCache(t *testing.T) {
	w := newWorld(t, "b")
	scope := w.caches["b"]
	scope.Sees = append(scope.Sees, w.caches["a"].Cache.ID)
	w.caches["b"] = scope
	w.retention("b", 0)
	w.push("a", "word")
	w.push("b", "word")
	if _, objects := w.packs(); objects != 1 {
		t.Fatalf("%d packs", objects)
	}
	w.now = w.now.Add(60 * day)
	w.collect()
	w.wants("a")
	w.wants("b", "word")
	w.recovered()
	w.wants("b", "word")
}

// What one cache keeps or loses changes nothing for another.
func TestCollectionOfOneCacheLeavesOthersAlone(t *testing.T) {
	w := newWorld(t, "b")
	w.retention("b", 0)
	w.rules["a"] = Own{KeepLast: 1, Quota: 1}
	for _, c := range []string{"a", "b"} {
		w.push(c, "libc")
		w.push(c, "top", "libc")
		w.push(c, "alone")
	}
	w.pin("a", "host", "alone", 0)
	w.now = w.now.Add(60 * day)
	w.collect()
	w.wants("a", "alone")
	w.wants("b", "libc", "top", "alone")
	// Said of one cache, it is of no other.
	w.rules["b"] = Own{Quota: 1}
	w.unpin("a", "host")
	if _, err := w.gc.Run(t.Context(), Options{Cache: "a"}); err != nil {
		t.Fatal(err)
	}
	w.wants("a")
	w.wants("b", "libc", "top", "alone")
}

// A cache that was deleted softly keeps its paths for a day, in case that was a slip; then they go, pins or not.
func TestPathsOfDeletedCachesGo(t *testing.T) {
	w := newWorld(t, "b", "c")
	for _, c := range []string{"a", "b", "c"} {
		w.retention(c, 0)
		w.push(c, c)
	}
	w.pin("b", "host", "b", 0)
	w.update(func(tx *meta.Tx) error { return errors.Join(tx.DeleteCache("b", true), tx.DeleteCache("c", false)) })
	w.collect()
	if _, objects := w.packs(); objects != 2 {
		t.Errorf("%d packs, want those of a and b", objects)
	}
	w.now = w.now.Add(25 * time.Hour)
	r := w.collect()
	if rows, objects := w.packs(); rows != 1 || objects != 1 || r.Paths != 1 {
		t.Errorf("%d packs and %d objects, %d paths went", rows, objects, r.Paths)
	}
	w.wants("a", "a")
}

// Between the plan and the deletion everything goes on: what is pushed, pulled, pinned or newly referred to stays,
// with all that it needs.
func TestWhatIsTouchedBetweenPlanAndDeletionStays(t *testing.T) {
	for name, touch := range map[string]func(w *world){
		"pulled":   func(w *world) { w.use("a", "top") },
		"pinned":   func(w *world) { w.pin("a", "host", "top", 0) },
		"pushed":   func(w *world) { w.push("a", "top", "lib") },
		"referred": func(w *world) { w.push("a", "new", "top") },
		"waiting to be written": func(w *world) {
			w.gc.Uses = func(ctx context.Context) error {
				return w.db.Update(ctx, func(tx *meta.Tx) error {
					return tx.TouchPaths(w.caches["a"].Cache.ID, []string{hashOf("top")}, w.now)
				})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.push("a", "libc")
			w.push("a", "lib", "libc")
			w.push("a", "top", "lib")
			w.push("a", "dead", "lib")
			w.now = w.now.Add(60 * day)
			r := w.until(stagePaths)
			if n := len(r.paths.list); n != 4 {
				t.Fatalf("%d paths are to go, want 4", n)
			}
			touch(w)
			w.finish()
			want := []string{"libc", "lib", "top"}
			if name == "referred" {
				want = append(want, "new")
			}
			w.wants("a", want...)
		})
	}
}

// A cache whose retention is prolonged between the plan and the deletion keeps what that keeps.
func TestRetentionThatIsRaisedCountsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.push("a", "old")
	w.now = w.now.Add(60 * day)
	w.until(stagePaths)
	w.retention("a", 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a request has come, which ends the step and not the collection
	if more, err := w.gc.Step(ctx); !more || err != nil {
		t.Errorf("a step that finds another retention: more: %v, %v", more, err)
	}
	w.finish()
	w.wants("a", "old")
}

// A push finds a chunk in a condemned pack, and what it makes of it lasts.
func TestCommitRevivesACondemnedPack(t *testing.T) {
	w := newWorld(t)
	w.push("a", "word")
	w.now = w.now.Add(60 * day)
	r, err := w.gc.Run(t.Context(), Options{})
	if err != nil || r.Doomed != 1 || r.Waiting != 1 || r.Packs != 0 {
		t.Fatalf("%+v, %v: want one condemned pack", r, err)
	}
	w.now = w.now.Add(19 * time.Minute)
	w.commit("a", "word", "other")
	w.now = w.now.Add(10 * time.Minute)
	for range 2 {
		w.collect()
	}
	w.wants("a", "other")
	if _, objects := w.packs(); objects != 1 {
		t.Errorf("%d packs", objects)
	}
}

// A survey is old when it condemns: what was shown to a cache since it began is needed.
func TestPackThatIsUsedDuringTheSurveyIsNotCondemned(t *testing.T) {
	w := newWorld(t)
	w.push("a", "word")
	w.now = w.now.Add(60 * day)
	r := w.until(stageCondemn)
	if len(r.survey.idle) != 1 {
		t.Fatalf("%d packs are idle", len(r.survey.idle))
	}
	w.commit("a", "word", "other")
	w.finish()
	w.now = w.now.Add(day)
	for range 2 {
		w.collect()
	}
	w.wants("a", "other")
}

// From the moment on at which its row is gone, a pack's chunks are unknown, though the object may be there still: the
// client is told which to send again.
func TestDeletingCountsAsAbsent(t *testing.T) {
	w := newWorld(t)
	w.push("a", "word")
	w.now = w.now.Add(60 * day)
	if _, err := w.gc.Run(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(21 * time.Minute)
	w.store.fail = errors.New("the bucket is away")
	if _, err := w.gc.Reap(t.Context()); err == nil {
		t.Error("the bucket's error is not told")
	}
	if rows, objects := w.packs(); rows != 0 || objects != 1 {
		t.Fatalf("%d rows and %d objects, want the object alone", rows, objects)
	}
	var unknown *depot.UnknownChunksError
	if err := w.tryCommit("a", "word", "other"); !errors.As(err, &unknown) || len(unknown.IDs) == 0 {
		t.Fatalf("commit of chunks that are being deleted: %v, want to be told which to send again", err)
	}
	w.push("a", "word")
	w.store.fail = nil
	for more := true; more; {
		var err error
		if more, err = w.gc.Reap(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.wants("a", "word")
	if rows, objects := w.packs(); rows != 1 || objects != 1 {
		t.Errorf("%d rows and %d objects, want the new pack", rows, objects)
	}
	w.recovered()
	w.wants("a", "word")
}

// A pack of a push that was cut off stays for its day, so that the push goes on, and goes then.
func TestPacksThatNothingCommittedGoAfterTheirDay(t *testing.T) {
	w := newWorld(t)
	w.retention("a", 0)
	w.pushPack("a", "word")
	w.now = w.now.Add(23 * time.Hour)
	w.collect()
	if _, objects := w.packs(); objects != 1 {
		t.Fatalf("%d packs after 23 hours", objects)
	}
	w.commit("a", "word", "word")
	w.pushPack("a", "never")
	w.now = w.now.Add(2 * day)
	w.collect()
	w.nars["word"] = contents("word")
	w.wants("a", "word")
	if rows, objects := w.packs(); rows != 1 || objects != 1 {
		t.Errorf("%d rows and %d objects", rows, objects)
	}
}

// Two at a time would each delete what the other has found to be needed.
func TestSecondCollectorWaitsForTheLease(t *testing.T) {
	w := newWorld(t)
	w.push("a", "old")
	w.now = w.now.Add(60 * day)
	w.until(stagePaths)
	other := w.collector(w.gc.Layouts)
	if _, err := other.Run(t.Context(), Options{}); !errors.Is(err, meta.ErrLeased) {
		t.Fatalf("a second collection: %v, want %v", err, meta.ErrLeased)
	}
	w.wants("a", "old")
	w.now = w.now.Add(6 * time.Minute) // the first one hangs, or is dead
	if r, err := other.Run(t.Context(), Options{}); err != nil || r.Paths != 1 {
		t.Fatalf("after the lease: %+v, %v", r, err)
	}
	// It wakes up, and what it knows is old.
	w.push("a", "old")
	more, err := true, error(nil)
	for more && err == nil {
		more, err = w.gc.Step(t.Context())
	}
	if !errors.Is(err, errLost) {
		t.Errorf("the first collector goes on: %v", err)
	}
	w.wants("a", "old")
}

// A step ends when a request comes, and the next one goes on.
func TestStepsGiveWay(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.push("a", "old"+string(rune('a'+i)))
	}
	w.now = w.now.Add(60 * day)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	steps := 0
	for more := true; more; steps++ {
		var err error
		if more, err = w.gc.Step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if steps < 5 {
		t.Errorf("%d steps, though each was asked to stop", steps)
	}
	w.wants("a")
}

// Objects that a crash left between the bucket and the database, once they are older than anything under way. Keys that
// are not ours are nobody's business.
func TestOrphansGo(t *testing.T) {
	w := newWorld(t)
	w.retention("a", 0)
	w.push("a", "word")
	var name [32]byte
	orphan, foreign := depot.PackKey(name), "packs/00/readme"
	for _, key := range []string{orphan, foreign, "other/thing"} {
		if err := w.store.Put(t.Context(), key, blob.Bytes([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.collect(); r.Orphans != 0 {
		t.Errorf("%d objects went that were just put there", r.Orphans)
	}
	w.now = w.now.Add(26 * time.Hour)
	if r := w.collect(); r.Orphans != 1 || !slices.Equal(w.store.deleted, []string{orphan}) {
		t.Errorf("%d orphans, deleted %v, want %s", r.Orphans, w.store.deleted, orphan)
	}
	w.wants("a", "word")
}

// Another server has recovered from the bucket: what it has pushed since lies on packs that this one takes for dead.
func TestStaleServerDeletesNothing(t *testing.T) {
	w := newWorld(t)
	w.push("a", "word")
	w.now = w.now.Add(60 * day)
	if _, err := w.gc.Run(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	newer := &ledger.Log{Blobs: w.store, Epoch: 2}
	if _, err := newer.Append(t.Context(), 1, nil, []ledger.Record{{Recovered: &ledger.Recovered{At: w.now}}}); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(day)
	if _, err := w.gc.Reap(t.Context()); !errors.Is(err, ErrSuperseded) {
		t.Errorf("%v, want %v", err, ErrSuperseded)
	}
	if _, objects := w.packs(); objects != 1 {
		t.Errorf("%d packs", objects)
	}
}

// The dry run says what the collection then does.
func TestPlanSaysWhatHappens(t *testing.T) {
	w := newWorld(t)
	for _, word := range []string{"libc", "lib", "old", "older"} {
		w.push("a", word)
	}
	w.push("a", "top", "libc", "lib")
	w.pin("a", "host", "top", 0)
	w.now = w.now.Add(60 * day)
	p, err := w.gc.Plan(t.Context(), w.now)
	if err != nil {
		t.Fatal(err)
	}
	rows, objects := w.packs()
	r := w.collect()
	if p.Paths != 2 || p.Paths != r.Paths || p.NARs != r.NARs || p.Packs != 2 || p.Chunks < 2 || p.Requests.Delete != 2 || p.Requests.Put != 1 {
		t.Errorf("plan %+v, result %+v", p, r)
	}
	if left, o := w.packs(); left != rows-p.Packs || o != objects-p.Packs {
		t.Errorf("%d of %d packs are left, %d were to go", left, rows, p.Packs)
	}
	if len(p.Largest) != 1 || p.Largest[0].Pin != "host" || p.Largest[0].Paths != 3 || p.Largest[0].StorePath != storePath("top").String() {
		t.Errorf("what keeps the most: %+v", p.Largest)
	}
	w.view(func(tx *meta.Tx) error {
		last, err := LastResult(tx)
		if err == nil && (last == nil || last.Paths != 2) {
			t.Errorf("the last result is %+v", last)
		}
		return err
	})
}

// A checkpoint from before a collection names packs that are gone, and paths that the log takes away after it.
func TestDeletedPacksDoNotComeBackThroughARecovery(t *testing.T) {
	w := newWorld(t)
	for _, word := range []string{"libc", "old"} {
		w.push("a", word)
	}
	w.push("a", "top", "libc")
	w.pin("a", "host", "top", 0)
	keeper := &checkpoint.Keeper{DB: w.db, Blobs: w.store, Spool: w.depot.Spool, Now: func() time.Time { return w.now }}
	if err := keeper.Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(60 * day)
	w.collect()
	w.recovered()
	w.wants("a", "libc", "top")
	if rows, objects := w.packs(); rows != 2 || objects != 2 {
		t.Errorf("%d packs have a row, %d are in the bucket, want 2", rows, objects)
	}
	// It begins with everything used at the recovery, and goes on.
	w.unpin("a", "host")
	w.now = w.now.Add(60 * day)
	w.collect()
	w.wants("a")
	if rows, objects := w.packs(); rows != 0 || objects != 0 {
		t.Errorf("%d packs have a row, %d are in the bucket", rows, objects)
	}
}

// What a batch left in the log that failed, a checkpoint passes by, and so do recoveries. What no checkpoint has passed
// by stays: it may be the last batch, which counts.
func TestObjectsOfTheLogThatNobodyAcknowledgedGo(t *testing.T) {
	w := newWorld(t)
	w.retention("a", 0)
	w.push("a", "word")
	log := &ledger.Log{Blobs: w.store, Epoch: 1}
	passed, err := log.Append(t.Context(), 1, nil, []ledger.Record{{PinDeleted: &ledger.PinDeleted{Cache: "a", Name: "x", At: w.now}}})
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(26 * time.Hour)
	if r := w.collect(); r.Orphans != 0 {
		t.Errorf("%v went before a checkpoint", w.store.deleted)
	}
	keeper := &checkpoint.Keeper{DB: w.db, Blobs: w.store, Spool: w.depot.Spool, Now: func() time.Time { return w.now }}
	if err := keeper.Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	behind, err := log.Append(t.Context(), 1_000_000, nil, []ledger.Record{{PinDeleted: &ledger.PinDeleted{Cache: "a", Name: "y", At: w.now}}})
	if err != nil {
		t.Fatal(err)
	}
	w.store.deleted = nil
	w.now = w.now.Add(26 * time.Hour)
	r := w.collect()
	if r.Orphans != 1 || !slices.Equal(w.store.deleted, passed) {
		t.Errorf("%v went, want %v and not %v", w.store.deleted, passed, behind)
	}
	w.recovered()
	w.wants("a", "word")
}
