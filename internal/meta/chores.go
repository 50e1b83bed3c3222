package meta

import (
	"context"
	"fmt"
	"time"
)

// ChoreRuns returns when each chore was last done, by name.
func (db *DB) ChoreRuns(ctx context.Context) (map[string]time.Time, error) {
	runs := map[string]time.Time{}
	err := db.View(ctx, func(tx *Tx) error {
		return tx.each("SELECT name, ran_at FROM chores", nil, func(scan func(...any) error) error {
			var name string
			var at int64
			err := scan(&name, &at)
			runs[name] = unstamp(at)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read chores: %w", err)
	}
	return runs, nil
}

// ChoreRan notes that a chore was done. Nobody was promised it, so there is no
// record of it.
func (db *DB) ChoreRan(ctx context.Context, name string, at time.Time) error {
	err := db.Update(ctx, func(tx *Tx) error {
		_, err := tx.exec("INSERT INTO chores (name, ran_at) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET ran_at = excluded.ran_at",
			name, stamp(at))
		return err
	})
	if err != nil {
		return fmt.Errorf("note chore %s: %w", name, err)
	}
	return nil
}
