package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/org/attic-action/internal/spool"
)

// This file is what is particular to SQLite.

// dataSource names a file so that no character of its path is a parameter.
func dataSource(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	return "file:" + (&url.URL{Path: file}).EscapedPath()
}

var commonPragmas = []string{
	// Before all others: they take locks too. Only another process (an admin's
	// command beside the server) ever holds one for long.
	"PRAGMA busy_timeout = 10000",
	"PRAGMA foreign_keys = ON",    // off by default, and per connection
	"PRAGMA mmap_size = 0",        // a bad disk is an error, not a SIGBUS; and pages stay out of the process's memory
	"PRAGMA temp_store = MEMORY",  // our sorts are small, and the temporary directory may be read-only
	"PRAGMA trusted_schema = OFF", // a database that somebody handed us runs no functions of its own
}

// writerPragmas: synchronous FULL, since with NORMAL a power cut undoes commits
// of a WAL that clients were told of.
//
// A database that can be made anew is written in larger stretches: fewer waits for
// the disk, a longer WAL.
func writerPragmas(synchronous string, cache int64) []string {
	autocheckpoint := "1000" // pages, 4 MiB, so that reads need not search a long WAL
	if synchronous == "NORMAL" {
		autocheckpoint = "16000"
	}
	return append(commonPragmas[:len(commonPragmas):len(commonPragmas)],
		"PRAGMA journal_mode = WAL", // readers never wait for the writer; stays in the file
		"PRAGMA synchronous = "+synchronous,
		cacheSize(cache/2),
		"PRAGMA wal_autocheckpoint = "+autocheckpoint,
		"PRAGMA journal_size_limit = 67108864", // a burst does not leave its WAL on the volume
	)
}

func readerPragmas(cache int64) []string {
	return append(commonPragmas[:len(commonPragmas):len(commonPragmas)],
		"PRAGMA query_only = ON", // a mistake is an error, not a second writer
		cacheSize(cache/2/readers),
	)
}

// cacheSize gives a connection so many bytes for its page cache. What it does not hold is in the system's. SQLite
// takes KiB, and twice that in memory: a page of 4 KiB takes a slot of 8.
func cacheSize(bytes int64) string {
	return fmt.Sprintf("PRAGMA cache_size = -%d", max(bytes/2>>10, 256))
}

// conn is one connection and the statements that were prepared on it. Statements
// run without a context: interrupting one in the middle leaves a transaction in
// doubt, and each is short. Contexts are looked at between them.
type conn struct {
	c     *sql.Conn
	stmts map[string]*sql.Stmt
	trace func(query string) // told of every statement; nil means nobody
}

func openConn(ctx context.Context, db *sql.DB, pragmas []string) (*conn, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pragmas {
		if _, err := c.ExecContext(ctx, p); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	return &conn{c: c, stmts: map[string]*sql.Stmt{}}, nil
}

// stmt prepares a query once. Queries are constants, so the map is bounded.
func (c *conn) stmt(query string) (*sql.Stmt, error) {
	if c.trace != nil {
		c.trace(query)
	}
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	s, err := c.c.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = s
	return s, nil
}

func (c *conn) exec(query string, args ...any) error {
	s, err := c.stmt(query)
	if err != nil {
		return err
	}
	_, err = s.Exec(args...)
	return full(err)
}

// rollback ends a transaction whose outcome is known already.
func (c *conn) rollback(log *slog.Logger) {
	if err := c.exec("ROLLBACK"); err != nil {
		log.Error("roll back", "err", err)
	}
}

func (c *conn) close() {
	for _, s := range c.stmts {
		_ = s.Close() // the connection goes with them
	}
	_ = c.c.Close()
}

// full makes SQLite's "disk full" the one that servers answer 507 for.
func full(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL {
		return fmt.Errorf("%w: %w", spool.ErrFull, err)
	}
	return err
}

// isUnique tells a violated UNIQUE or PRIMARY KEY from other errors.
func isUnique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) &&
		(e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// isConstraint tells an error that undid its own statement only.
func isConstraint(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_CONSTRAINT
}
