package meta

import (
	"context"
	"log/slog"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// Journal takes the records of a batch, durably, before the batch is committed.
// *ledger.Log is one.
type Journal interface {
	Append(ctx context.Context, seq uint64, recs []ledger.Record) error
}

// Options are what a database is opened with.
type Options struct {
	Journal Journal          // nil means that records go nowhere: nothing could be recovered
	Now     func() time.Time // nil means time.Now
	Log     *slog.Logger     // nil means none
}

// DB is the database. It is safe for concurrent use.
type DB struct{}

// Tx is a transaction: a snapshot under View, a savepoint of a batch under
// Update. It is not safe for concurrent use and ends with its function.
type Tx struct{}

func Open(ctx context.Context, file string, o Options) (*DB, error) { return nil, errTODO }
func (db *DB) Close() error                                         { return errTODO }
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error   { return errTODO }
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error { return errTODO }
