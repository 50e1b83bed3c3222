package meta

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// blocking is a journal whose first Append waits until it is let go.
type blocking struct {
	journal
	entered, release chan struct{}
	once             sync.Once
}

func (b *blocking) Append(ctx context.Context, seq uint64, after *ledger.Pos, recs []ledger.Record) ([]string, error) {
	b.once.Do(func() { close(b.entered); <-b.release })
	return b.journal.Append(ctx, seq, after, recs)
}

// gather runs fns so that they end up in one batch, and gives their errors: all
// wait while the batch before them is in the journal.
func gather(t *testing.T, db *DB, b *blocking, fns ...func(*Tx) error) []error {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { update(t, db, func(tx *Tx) error { return tx.CreateCache(&Cache{Name: "first"}) }) })
	<-b.entered
	errs := make([]error, len(fns))
	ready := make(chan struct{}, len(fns))
	for i, fn := range fns {
		wg.Go(func() { ready <- struct{}{}; errs[i] = db.Update(context.Background(), fn) })
	}
	for range fns {
		<-ready
	}
	time.Sleep(50 * time.Millisecond) // they stand in line; if not, there are two batches and the same results
	close(b.release)
	wg.Wait()
	return errs
}

func newBlocking() *blocking {
	return &blocking{entered: make(chan struct{}), release: make(chan struct{})}
}

func create(name string) func(*Tx) error {
	return func(tx *Tx) error { return tx.CreateCache(&Cache{Name: name}) }
}

func names(t *testing.T, db *DB) string {
	t.Helper()
	var s []string
	view(t, db, func(tx *Tx) error {
		list, err := tx.Caches()
		for _, c := range list {
			s = append(s, c.Name)
		}
		return err
	})
	return strings.Join(s, " ")
}

func TestErrorInABatchRollsBackItsOwnWorkAndRecordsOnly(t *testing.T) {
	b := newBlocking()
	db := open(t, Options{Journal: b})
	own := errors.New("own")
	errs := gather(t, db, b, create("a"), func(tx *Tx) error { return errors.Join(create("b")(tx), own) }, create("c"), func(tx *Tx) error {
		_ = create("d")(tx)
		panic("broken")
	})
	var p *PanicError
	if errs[0] != nil || !errors.Is(errs[1], own) || errs[2] != nil || !errors.As(errs[3], &p) {
		t.Errorf("got errors %v", errs)
	}
	if got := names(t, db); got != "a c first" {
		t.Errorf("got caches %q", got)
	}
	if n := len(b.all()); n != 3 {
		t.Errorf("%d records, want 3: %+v", n, b.all())
	}
}

func TestJournalFailureFailsTheBatchAndLeavesNothing(t *testing.T) {
	b := newBlocking()
	db := open(t, Options{Journal: b})
	broken := errors.New("bucket is gone")
	errs := gather(t, db, b, create("a"), create("b"), func(tx *Tx) error { b.mu.Lock(); b.err = broken; b.mu.Unlock(); return nil })
	for i, err := range errs[:2] {
		// Should they have come in an earlier batch than the third, they succeed.
		if err != nil {
			wantErr(t, err, broken)
		} else if !strings.Contains(names(t, db), []string{"a", "b"}[i]) {
			t.Errorf("update %d was acknowledged and is not there", i)
		}
	}
	wantErr(t, db.Update(t.Context(), create("c")), broken)
	if got := names(t, db); strings.Contains(got, "c") {
		t.Errorf("got caches %q: one is there without its record", got)
	}
	b.mu.Lock()
	b.err = nil
	b.mu.Unlock()
	update(t, db, create("d"))
	if got := names(t, db); !strings.Contains(got, "d") {
		t.Errorf("got caches %q after the bucket came back", got)
	}
}

func TestWaitingUpdatesShareACommit(t *testing.T) {
	b := newBlocking()
	db := open(t, Options{Journal: b})
	var fns []func(*Tx) error
	for i := range 20 {
		fns = append(fns, create(fmt.Sprint(i)))
	}
	if err := errors.Join(gather(t, db, b, fns...)...); err != nil {
		t.Fatal(err)
	}
	if n := len(b.seqs); n > 10 {
		t.Errorf("21 updates took %d objects", n)
	}
	for i := 1; i < len(b.seqs); i++ {
		if b.seqs[i] <= b.seqs[i-1] {
			t.Errorf("sequence numbers %v do not rise", b.seqs)
		}
	}
}

// A test that calls FailNow in a transaction must not hang all others.
func TestGoexitInATransactionFreesTheWriter(t *testing.T) {
	db := open(t, Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = db.Update(context.Background(), func(tx *Tx) error { _ = create("a")(tx); runtime.Goexit(); return nil })
	}()
	<-done
	update(t, db, create("b"))
	if got := names(t, db); got != "b" {
		t.Errorf("got caches %q", got)
	}
}

func TestTransactionEndsWithItsFunction(t *testing.T) {
	db := open(t, Options{})
	var kept *Tx
	update(t, db, func(tx *Tx) error { kept = tx; return nil })
	wantErr(t, kept.CreateCache(&Cache{Name: "late"}), errEnded)
	view(t, db, func(tx *Tx) error {
		if err := tx.CreateCache(&Cache{Name: "x"}); err == nil {
			t.Error("a View wrote")
		}
		return nil
	})
}

func TestViewIsASnapshotBesideTheWriter(t *testing.T) {
	db := open(t, Options{})
	newCache(t, db, "a")
	view(t, db, func(tx *Tx) error {
		if _, err := tx.Cache("a"); err != nil {
			return err
		}
		newCache(t, db, "b") // another connection: no deadlock
		_, err := tx.Cache("b")
		wantErr(t, err, ErrNotFound)
		return nil
	})
	if got := names(t, db); got != "a b" {
		t.Errorf("got caches %q", got)
	}
}

func TestUpdateGivesUpWaitingWithItsContext(t *testing.T) {
	b := newBlocking()
	db := open(t, Options{Journal: b})
	done := make(chan error, 1)
	go func() { done <- db.Update(context.Background(), create("a")) }()
	<-b.entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	wantErr(t, db.Update(ctx, create("b")), context.DeadlineExceeded)
	close(b.release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := names(t, db); got != "a" {
		t.Errorf("got caches %q", got)
	}
}

func TestClosedDatabaseSaysSo(t *testing.T) {
	db, err := Open(t.Context(), ":memory:", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, db.Update(t.Context(), create("a")), ErrClosed)
	wantErr(t, db.View(t.Context(), func(*Tx) error { return nil }), ErrClosed)
}

func TestSequenceNumbersGoOnAfterReopen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "odd ?name#%41.db")
	j := &journal{}
	for i := range 3 {
		db, err := Open(t.Context(), file, Options{Journal: j})
		if err != nil {
			t.Fatal(err)
		}
		for k := range 2 {
			update(t, db, create(fmt.Sprint(i, k)))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < len(j.seqs); i++ {
		if j.seqs[i] <= j.seqs[i-1] {
			t.Errorf("sequence numbers %v do not rise", j.seqs)
		}
	}
	if len(j.seqs) != 6 {
		t.Errorf("%d objects, want 6", len(j.seqs))
	}
}

func TestSequenceNumbersPassABlock(t *testing.T) {
	j := &journal{}
	db := open(t, Options{Journal: j})
	for i := range seqBlock + 10 {
		update(t, db, create(fmt.Sprint(i)))
	}
	if last := j.seqs[len(j.seqs)-1]; last != seqBlock+10 {
		t.Errorf("last number %d", last)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meta.db")
	db, err := Open(t.Context(), file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *Tx) error {
		_, err := tx.exec("INSERT INTO migrations (version, applied_at) VALUES (999, 0)")
		return err
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(t.Context(), file, Options{}); err == nil {
		db.Close()
		t.Fatal("opened a database with schema 999")
	} else if !strings.Contains(err.Error(), "newer program") {
		t.Errorf("error does not say what to do: %v", err)
	}
}
