package meta

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

var errEnded = errors.New("the transaction has ended")

// exec runs a statement that changes rows and says how many.
func (tx *Tx) exec(query string, args ...any) (int64, error) {
	res, err := tx.result(query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// insert runs a statement that adds one row and gives its id.
func (tx *Tx) insert(query string, args ...any) (int64, error) {
	res, err := tx.result(query, args...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

func (tx *Tx) result(query string, args ...any) (sql.Result, error) {
	if tx.conn == nil {
		return nil, errEnded
	}
	if !tx.writable {
		return nil, errors.New("change in a read-only transaction")
	}
	s, err := tx.conn.stmt(query)
	if err != nil {
		return nil, err
	}
	res, err := s.Exec(args...)
	return res, tx.check(err)
}

// check ends the transaction on an error of the database itself (a full disk, a
// broken file): SQLite may have rolled it back, and what came next would commit
// on its own.
func (tx *Tx) check(err error) error {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if isUnique(err) {
		return ErrExists
	}
	if err = full(err); !isConstraint(err) {
		tx.failed, tx.conn = err, nil
	}
	return err
}

// one scans the only row of a query into dest; ErrNotFound when there is none.
func (tx *Tx) one(query string, args []any, dest ...any) error {
	if tx.conn == nil {
		return errEnded
	}
	s, err := tx.conn.stmt(query)
	if err != nil {
		return err
	}
	err = s.QueryRow(args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return tx.check(err)
}

// each calls row for every row of a query.
func (tx *Tx) each(query string, args []any, row func(scan func(dest ...any) error) error) error {
	if tx.conn == nil {
		return errEnded
	}
	s, err := tx.conn.stmt(query)
	if err != nil {
		return err
	}
	rows, err := s.Query(args...)
	if err != nil {
		return tx.check(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return tx.check(rows.Err())
}

// stamp and unstamp: times are microseconds since 1970.
func stamp(t time.Time) int64    { return t.UnixMicro() }
func unstamp(us int64) time.Time { return time.UnixMicro(us).UTC() }

func nullStamp(t *time.Time) any {
	if t == nil {
		return nil
	}
	return stamp(*t)
}

// joinLines packs a list into one column. Elements come from outside, and one
// with a line break would come back as two.
func joinLines(what string, list []string) (string, error) {
	for _, s := range list {
		if s == "" || strings.Contains(s, "\n") {
			return "", fmt.Errorf("%s: element %q is empty or has a line break", what, s)
		}
	}
	return strings.Join(list, "\n"), nil
}

func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// signed checks that a size fits the database's integers.
func signed(what string, n uint64) (int64, error) {
	if n > math.MaxInt64 {
		return 0, fmt.Errorf("%s: %d is too large", what, n)
	}
	return int64(n), nil
}

// notNil: the driver makes NULL of a nil slice.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// idList is a short list of ids as one parameter.
func idList(ids []int64) string {
	b, _ := json.Marshal(ids) // integers always marshal
	return string(b)
}

func scanHash(dst []byte, src []byte) error {
	if len(src) != len(dst) {
		return fmt.Errorf("hash of %d bytes in the database, want %d", len(src), len(dst))
	}
	copy(dst, src)
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
