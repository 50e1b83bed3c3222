package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

const (
	// A batch ends after so many functions or so long, so that the first one
	// does not wait for the last of a long queue.
	batchFuncs = 64
	batchTime  = 50 * time.Millisecond

	// batchRecords ends a batch whose records hold about so many bytes: they
	// should fit into one object of the log.
	batchRecords = 8 << 20

	// journalTime is how long the bucket may take. One that hangs must not hold
	// every writer for ever.
	journalTime = 2 * time.Minute

	// seqBlock numbers are reserved at a time, at the price of one commit.
	seqBlock = 1024
)

// job is one Update that the writer has taken on. The function runs on its
// caller's goroutine, when it is its turn: a panic, or a test's FailNow, stays
// there.
type job struct {
	turn chan *Tx   // the writer's go; nil when there is no transaction to run in
	ran  chan error // what the function returned
	done chan error // what became of the batch
}

// errAborted is what a function leaves that ended its goroutine.
var errAborted = errors.New("the transaction's goroutine ended")

// Update runs fn in a transaction and returns when it is durable, its records
// first. fn may run together with others in one batch; its error rolls back its
// own work and records only. When the records or the commit fail, all of the
// batch fail with that error and nothing of it is in the database. ctx counts
// until fn begins: a commit in doubt is worse than a late answer. fn must not
// touch the network (everybody waits for it) and must not call Update or View.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{turn: make(chan *Tx), ran: make(chan error, 1), done: make(chan error, 1)}
	select {
	case db.jobs <- j:
	case <-ctx.Done():
		return fmt.Errorf("wait for the database: %w", ctx.Err())
	case <-db.closing:
		return ErrClosed
	}
	if tx := <-j.turn; tx != nil {
		j.run(tx, fn)
	}
	return <-j.done
}

func (j *job) run(tx *Tx, fn func(*Tx) error) {
	err := errAborted
	defer func() { j.ran <- err }()
	err = tx.run(fn)
}

// writer owns the one connection that writes.
type writer struct {
	db   *DB
	conn *conn

	next, limit uint64      // sequence numbers in [next, limit) are reserved
	last        *ledger.Pos // of the batch that was committed last; nil: not known
}

func newWriter(db *DB, c *conn) (*writer, error) {
	w := &writer{db: db, conn: c}
	err := c.c.QueryRowContext(context.Background(), "SELECT value FROM counters WHERE name = 'log_seq'").Scan(&w.next)
	if err != nil {
		return nil, fmt.Errorf("read sequence number: %w", err)
	}
	w.limit = w.next // whatever the last process had left of its block is lost
	w.last, err = (&Tx{conn: c}).LastLogged()
	return w, err
}

func (w *writer) run() {
	defer close(w.db.stopped)
	defer w.conn.close()
	for {
		select {
		case j := <-w.db.jobs:
			w.batch(j)
		case <-w.db.closing:
			return
		}
	}
}

// batch commits first and whoever waits by then. It never waits for company: a
// lone Update costs one commit, and while that takes its time the next batch
// gathers by itself.
func (w *writer) batch(first *job) {
	if err := w.begin(); err != nil {
		first.turn <- nil
		first.done <- err
		return
	}
	recs, err := w.turn(first)
	if err != nil {
		w.conn.rollback(w.db.opt.Log)
		first.done <- err
		return
	}
	ok, recs, broken := w.others(recs)
	if broken != nil {
		w.conn.rollback(w.db.opt.Log)
		err = broken
	} else {
		err = w.end(recs)
	}
	for _, j := range append(ok, first) {
		j.done <- err
	}
}

// others runs the jobs that wait, each in a savepoint. The first needs none,
// since alone it is undone by undoing all: a savepoint keeps a copy of every page
// that is changed after it, and most batches are of one.
func (w *writer) others(recs []ledger.Record) (ok []*job, _ []ledger.Record, broken error) {
	size, start := weight(recs), time.Now()
	for n := 1; broken == nil && n < batchFuncs && size < batchRecords && time.Since(start) < batchTime; n++ {
		var j *job
		select {
		case j = <-w.db.jobs:
		default:
			return ok, recs, nil
		}
		var more []ledger.Record
		var err error
		if more, err, broken = w.one(j); err != nil {
			j.done <- err
			continue
		}
		ok, recs, size = append(ok, j), append(recs, more...), size+weight(more)
	}
	return ok, recs, broken
}

func (w *writer) begin() error {
	if err := w.reserve(); err != nil {
		return fmt.Errorf("reserve sequence numbers: %w", err)
	}
	if err := w.conn.exec("BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

// one runs a job in a savepoint, which is released in either case, since
// ROLLBACK TO leaves it standing. When a savepoint cannot be made, undone or
// released, SQLite has rolled back the whole transaction by itself (it does on a
// full disk): then the batch is broken, and going on would commit the rest
// statement by statement, ahead of its records.
func (w *writer) one(j *job) (recs []ledger.Record, err, broken error) {
	if err := w.conn.exec("SAVEPOINT job"); err != nil {
		j.turn <- nil
		err = fmt.Errorf("begin: %w", err)
		return nil, err, err
	}
	if recs, err = w.turn(j); err != nil {
		if e := w.conn.exec("ROLLBACK TO job"); e != nil {
			return nil, err, fmt.Errorf("roll back: %w", e)
		}
	}
	if e := w.conn.exec("RELEASE job"); e != nil {
		e = fmt.Errorf("release savepoint: %w", e)
		return nil, cmp.Or(err, e), e
	}
	return recs, err, nil
}

// turn gives a job its turn and waits for its function.
func (w *writer) turn(j *job) ([]ledger.Record, error) {
	tx := &Tx{conn: w.conn, now: w.db.opt.Now(), layouts: w.db.opt.Layouts, writable: true}
	j.turn <- tx
	err := <-j.ran
	if err == nil {
		err = tx.failed // even if the function made light of it
	}
	if err == nil && tx.newPaths {
		tx.conn = w.conn // for this alone: the function's transaction has ended
		_, err = tx.countPaths()
		tx.conn = nil
	}
	if err == nil && tx.touched != nil {
		tx.conn = w.conn
		err = tx.noteTouched()
		tx.conn = nil
	}
	w.report(err)
	return tx.records, err
}

// report logs a panic with its stack, which the caller's error does not show.
func (w *writer) report(err error) {
	if p := (*PanicError)(nil); errors.As(err, &p) {
		w.db.opt.Log.Error("panic in a transaction", "panic", p.Value, "stack", string(p.Stack))
	}
}

// end makes the batch durable: the records first, since the bucket is the truth
// and a record without its transaction is harmless, while a transaction without
// its record is lost with the database.
func (w *writer) end(records []ledger.Record) error {
	last, err := w.journal(records)
	if err != nil {
		w.conn.rollback(w.db.opt.Log)
		return fmt.Errorf("log records: %w", err)
	}
	if err := w.conn.exec("COMMIT"); err != nil {
		w.conn.rollback(w.db.opt.Log)
		return fmt.Errorf("commit: %w", err)
	}
	w.last = last
	return nil
}

// journal uses up a sequence number whatever comes of it: after an error the
// object may be there or not. What was logged is noted in the same transaction,
// so that a checkpoint knows what it replaces. It gives the position of the last
// batch once this one is committed.
func (w *writer) journal(records []ledger.Record) (last *ledger.Pos, err error) {
	if len(records) == 0 || w.db.opt.Journal == nil {
		return w.last, nil
	}
	seq := w.next
	w.next++
	ctx, cancel := context.WithTimeout(context.Background(), journalTime)
	defer cancel()
	keys, err := w.db.opt.Journal.Append(ctx, seq, w.last, records)
	if err != nil || len(keys) == 0 {
		return w.last, err
	}
	pos, err := ledger.ParseKey(keys[0])
	if err == nil {
		err = (&Tx{conn: w.conn, writable: true}).AddLogObjects(keys)
	}
	return &pos, err
}

// reserve has the database say, durably, that the next block of numbers may
// have been used, before one of them is. A process that is killed between the
// object and the commit then never meets its number again.
func (w *writer) reserve() error {
	if w.next < w.limit {
		return nil
	}
	limit := w.next + seqBlock
	if err := w.conn.exec("UPDATE counters SET value = $1 WHERE name = 'log_seq'", int64(limit)); err != nil {
		return err
	}
	w.limit = limit
	return nil
}

// weight is about how many bytes the records take as JSON.
func weight(records []ledger.Record) int {
	n := 0
	for _, r := range records {
		n += 512
		if r.NAR != nil {
			n += len(r.NAR.Pieces)*4/3 + len(r.NAR.Layout)*100
			for _, s := range r.NAR.Layout {
				n += len(s.Literal) * 4 / 3
			}
		}
		if r.Path != nil {
			n += 64 * (len(r.Path.References) + len(r.Path.Upstream) + len(r.Path.Sigs))
		}
		if r.Pin != nil {
			n += 256 * len(r.Pin.Revisions)
		}
	}
	return n
}
