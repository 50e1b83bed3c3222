package meta

import (
	"errors"
	"fmt"
	"time"
)

// ErrLeased says that somebody else is at it.
var ErrLeased = errors.New("somebody else is at it")

// TakeLease makes holder the one who does what is called name, for life from now on,
// or prolongs that. While another one's lease lasts it is ErrLeased, with the time at
// which that ends.
func (tx *Tx) TakeLease(name, holder string, life time.Duration) error {
	var other string
	var until int64
	err := tx.one("SELECT holder, until FROM leases WHERE name = $1", []any{name}, &other, &until)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("read lease %s: %w", name, err)
	}
	if err == nil && other != holder && until > stamp(tx.now) {
		return fmt.Errorf("take lease %s: %w, until %s at the latest", name, ErrLeased, unstamp(until).Format(time.RFC3339))
	}
	_, err = tx.exec("INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until",
		name, holder, stamp(tx.now.Add(life)))
	if err != nil {
		return fmt.Errorf("take lease %s: %w", name, err)
	}
	return nil
}

// DropLease ends a lease that holder has; one that he has not stays.
func (tx *Tx) DropLease(name, holder string) error {
	if _, err := tx.exec("DELETE FROM leases WHERE name = $1 AND holder = $2", name, holder); err != nil {
		return fmt.Errorf("drop lease %s: %w", name, err)
	}
	return nil
}

// ClearLeases ends all of them: for a process that knows that it is the only one.
func (tx *Tx) ClearLeases() error {
	if _, err := tx.exec("DELETE FROM leases"); err != nil {
		return fmt.Errorf("clear leases: %w", err)
	}
	return nil
}
