// Package meta is the database: which caches there are, which paths they have,
// how the NARs are put together, in which packs the chunks lie, and who may see
// what.
//
//	caches ──< paths >── nars            a path is a name in a cache for a NAR
//	   │                   ┊ layout      (package depot reads it)
//	   ├──< visible >── packs             what a cache may see of a pack
//	   └──< places                        and where it finds the chunks in them
//	staged, seen_tokens, counters        help that nobody was promised
//
// What changes acknowledged state is a record in the bucket before it is a
// transaction here (package ledger), so this database can be lost. The mutators
// take or make their records themselves: nobody can forget one.
//
//	Update ──┐                     ┌─ fn                    ┐
//	Update ──┼─ one writer ─ BEGIN ┼─ SAVEPOINT fn RELEASE ─┼─ log records ─ COMMIT
//	Update ──┘                     └─ SAVEPOINT fn ROLLBACK ┘  (one object)
//	View ──── one of a few readers, a snapshot, never waits for the writer
package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/pack"
)

// readers is the number of read connections. Reads are short; more connections
// would only multiply the page caches.
const readers = 4

// Journal takes the records of a batch, durably, before the batch is committed,
// and gives the keys of the objects that it made. after is the position of the
// batch that was committed before; nil: not known. *ledger.Log is one.
type Journal interface {
	Append(ctx context.Context, seq uint64, after *ledger.Pos, recs []ledger.Record) (keys []string, err error)
}

// Layouts reads and writes what the database has no opinion about: the layouts of
// NARs and the indexes of packs, as they are in its rows. Package depot has them.
type Layouts interface {
	// Row is ErrNotFound when a pack of the spans has no row.
	Row(tx *Tx, spans []ledger.Span) ([]byte, error)
	Spans(tx *Tx, row []byte) ([]ledger.Span, error)
	Index(row []byte) (*pack.Index, error)
}

// Options are what a database is opened with.
type Options struct {
	Journal Journal          // nil means that records go nowhere: nothing could be recovered
	Now     func() time.Time // nil means time.Now
	Log     *slog.Logger     // nil means none

	// PageCache is how many bytes the page caches of all connections may take
	// together; 0 means 48 MiB. They are outside of Go's heap.
	PageCache int64
	Layouts   Layouts // for Apply and Snapshot; nil: they are not asked for

	// Rebuilt says that all of it can be made anew: after a power cut the last
	// commits may be undone, which makes many small ones cheap.
	Rebuilt bool

	// Trace is told of every statement that is run, for tests of how much work an
	// answer takes; nil means nobody. It may be called by several at a time.
	Trace func(query string)
}

// ErrClosed says that the database was closed.
var ErrClosed = errors.New("the database is closed")

// DB is the database. It is safe for concurrent use.
type DB struct {
	opt  Options
	sql  *sql.DB
	temp string // directory of a ":memory:" database, removed at Close

	read    chan *conn    // idle readers
	jobs    chan *job     // to the writer; unbuffered, so a waiting job belongs to its caller
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed by the writer when it is done
	close   sync.Once
}

// Open opens the database in file, makes it when it is missing, and migrates
// it. ":memory:" is a private database that is gone after Close, for tests.
func Open(ctx context.Context, file string, o Options) (*DB, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.PageCache <= 0 {
		o.PageCache = 48 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db := &DB{
		opt:     o,
		read:    make(chan *conn, readers),
		jobs:    make(chan *job),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if err := db.open(ctx, file); err != nil {
		if db.sql != nil {
			_ = db.sql.Close() // the first error is the one that matters
		}
		db.removeTemp()
		return nil, fmt.Errorf("open database %s: %w", file, err)
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, file string) error {
	synchronous := "FULL"
	if db.opt.Rebuilt {
		synchronous = "NORMAL"
	}
	if file == ":memory:" {
		// A file all the same: SQLite in memory has no WAL, so a test of it
		// would not be a test of what runs.
		dir, err := os.MkdirTemp("", "meta-")
		if err != nil {
			return err
		}
		db.temp, file, synchronous = dir, filepath.Join(dir, "meta.db"), "OFF"
	}
	// SQLite would make it readable for everybody; its WAL gets the mode of the file.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if db.sql, err = sql.Open("sqlite", dataSource(file)); err != nil {
		return err
	}
	w, err := openConn(ctx, db.sql, writerPragmas(synchronous, db.opt.PageCache))
	if err != nil {
		return err
	}
	w.trace = db.opt.Trace
	if err := migrate(w, db.opt.Now()); err != nil {
		return err
	}
	for range readers {
		r, err := openConn(ctx, db.sql, readerPragmas(db.opt.PageCache))
		if err != nil {
			return err
		}
		r.trace = db.opt.Trace
		db.read <- r
	}
	wr, err := newWriter(db, w)
	if err != nil {
		return err
	}
	go wr.run()
	return nil
}

// Close waits for the writer and the readers, checkpoints and closes. Updates
// that were not begun get ErrClosed.
func (db *DB) Close() error {
	err := ErrClosed
	db.close.Do(func() {
		close(db.closing)
		<-db.stopped
		for range readers {
			r := <-db.read
			r.close()
		}
		err = db.sql.Close() // the last connection's close checkpoints
		db.removeTemp()
	})
	if err != nil && err != ErrClosed {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

func (db *DB) removeTemp() {
	if db.temp != "" {
		_ = os.RemoveAll(db.temp) // left-overs in the temporary directory harm nobody
	}
}

// View runs fn on a snapshot: what is committed meanwhile, it does not see. fn
// must not call View or Update.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	var c *conn
	select {
	case c = <-db.read:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.closing:
		return ErrClosed
	}
	defer func() { db.read <- c }()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.exec("BEGIN"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	tx := &Tx{conn: c, now: db.opt.Now(), layouts: db.opt.Layouts}
	defer c.rollback(db.opt.Log)
	return tx.run(fn)
}

// Tx is a transaction: a snapshot under View, a savepoint of a batch under
// Update. It is not safe for concurrent use and ends with its function.
type Tx struct {
	conn     *conn // nil after the end
	now      time.Time
	layouts  Layouts
	writable bool
	failed   error // of the database itself; ends the transaction
	records  []ledger.Record
	newPaths bool               // to be counted at the end (see countPaths)
	live     map[int64]string   // names of live caches, once looked up
	touched  map[int64][]string // paths by cache that were pushed, used or pinned (see touch)
}

// Now is the time of the transaction; it stands still.
func (tx *Tx) Now() time.Time { return tx.now }

// run calls fn once and makes an error of a panic: one broken request must not
// take the others of its batch, or the process, with it.
func (tx *Tx) run(fn func(*Tx) error) (err error) {
	defer func() {
		tx.conn = nil
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return fn(tx)
}

// PanicError is a panic in the function of a transaction.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic in a transaction: %v", e.Value) }
