package meta

import (
	"errors"
	"fmt"
	"time"
)

// SeenToken notes that an ID token was traded in, until it would have expired
// anyhow; a second time is ErrExists: a token that leaked into a log is worth
// nothing. Not logged in the bucket: recovery refuses all tokens issued before
// it (design §3).
func (tx *Tx) SeenToken(issuer, jti string, until time.Time) error {
	if !until.After(tx.now) {
		return errors.New("note token: it has expired")
	}
	if _, err := tx.exec("DELETE FROM seen_tokens WHERE until <= $1", stamp(tx.now)); err != nil {
		return fmt.Errorf("drop expired tokens: %w", err)
	}
	_, err := tx.exec("INSERT INTO seen_tokens (issuer, jti, until) VALUES ($1, $2, $3)", issuer, jti, stamp(until))
	if err != nil {
		return fmt.Errorf("note token: %w", err)
	}
	return nil
}
