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

// Sweep drops up to limit rows of each kind that nobody asks for any more: tokens
// that expired, parts of piece lists that were never completed, private halves of
// keys that are past. It says whether there are more. Whoever adds such rows drops
// old ones too; this is for servers where nobody does for long.
func (tx *Tx) Sweep(limit int) (more bool, err error) {
	now := tx.now
	for _, q := range []struct {
		query string
		until time.Time
	}{
		{sweepSeen, now},
		{sweepIssued, now.Add(-keepExpired)},
		{sweepRevoked, now.Add(-keepRevoked)},
		{sweepStaged, now.Add(-stagedTime)},
	} {
		n, err := tx.exec(q.query, stamp(q.until), limit)
		if err != nil {
			return false, fmt.Errorf("drop what expired: %w", err)
		}
		more = more || n >= int64(limit)
	}
	return more, tx.ForgetOldKeys()
}

const (
	sweepSeen    = "DELETE FROM seen_tokens WHERE (issuer, jti) IN (SELECT issuer, jti FROM seen_tokens WHERE until <= $1 LIMIT $2)"
	sweepIssued  = "DELETE FROM issued_tokens WHERE jti IN (SELECT jti FROM issued_tokens WHERE expires_at <= $1 LIMIT $2)"
	sweepRevoked = "DELETE FROM revoked_tokens WHERE jti IN (SELECT jti FROM revoked_tokens WHERE until <= $1 LIMIT $2)"
	sweepStaged  = "DELETE FROM staged WHERE (cache_id, hash, nar, start) IN (SELECT cache_id, hash, nar, start FROM staged WHERE staged_at <= $1 LIMIT $2)"
)
