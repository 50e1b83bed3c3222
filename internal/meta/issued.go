package meta

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// ErrRevoked says that a token was taken back.
var ErrRevoked = errors.New("the token was revoked")

// IssuedToken is a token that this server made, or one that was revoked without
// being listed; then only ID and Revoked are set. The token itself is nowhere.
type IssuedToken struct {
	ID       string // jti
	Subject  string
	Policies []string  // trust policies that granted it; none: it was made by hand
	Caches   []string  // "pattern:permission,permission"
	Issued   time.Time // zero: not known
	Expires  time.Time // zero: never, or not known
	Revoked  time.Time // zero: it was not
}

// Live reports whether the token is good at a moment.
func (t *IssuedToken) Live(now time.Time) bool {
	return t.Revoked.IsZero() && (t.Expires.IsZero() || now.Before(t.Expires))
}

const (
	// keepExpired is how long a token stays listed after its end.
	keepExpired = 24 * time.Hour
	// keepRevoked is how long a revocation outlives its token, for replicas whose
	// clocks are behind.
	keepRevoked = time.Hour
	// maxTokenID bounds a jti, in bytes. Ours have 26 or 32.
	maxTokenID = 256
)

// ValidTokenID reports whether s can be a jti of ours: printable ASCII without
// spaces.
func ValidTokenID(s string) bool {
	return s != "" && len(s) <= maxTokenID && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// IssueToken lists a token, before anybody is given it. A jti that is listed
// already is ErrExists. Tokens long expired are dropped.
func (tx *Tx) IssueToken(t *IssuedToken) error {
	if err := tx.issueToken(t); err != nil {
		return fmt.Errorf("list token: %w", err)
	}
	tx.records = append(tx.records, issuedRecord(t))
	return nil
}

func (tx *Tx) issueToken(t *IssuedToken) error {
	if !ValidTokenID(t.ID) {
		return errors.New("its id is not printable ASCII")
	}
	policies, err := joinLines("policies", t.Policies)
	if err != nil {
		return err
	}
	caches, err := joinLines("caches", t.Caches)
	if err != nil {
		return err
	}
	if t.Issued.IsZero() {
		t.Issued = tx.now
	}
	if _, err := tx.exec("DELETE FROM issued_tokens WHERE expires_at <= $1", stamp(tx.now.Add(-keepExpired))); err != nil {
		return err
	}
	_, err = tx.exec("INSERT INTO issued_tokens (jti, subject, policies, caches, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
		t.ID, t.Subject, policies, caches, stamp(t.Issued), later(t.Expires))
	return err
}

const selectIssued = `SELECT i.jti, i.subject, i.policies, i.caches, i.issued_at, i.expires_at, r.revoked_at
	FROM issued_tokens i LEFT JOIN revoked_tokens r ON r.jti = i.jti `

// IssuedToken finds a listed token, whatever became of it, by its jti.
func (tx *Tx) IssuedToken(id string) (*IssuedToken, error) {
	t, err := scanIssued(func(dest ...any) error { return tx.one(selectIssued+"WHERE i.jti = $1", []any{id}, dest...) })
	if err != nil {
		return nil, fmt.Errorf("find token: %w", err)
	}
	return &t, nil
}

// IssuedTokens lists the tokens that are good, oldest first; with all, those too
// that were revoked or that expired a short while ago.
func (tx *Tx) IssuedTokens(all bool) ([]IssuedToken, error) {
	var list []IssuedToken
	err := tx.each(selectIssued+"ORDER BY i.issued_at, i.jti", nil,
		func(scan func(...any) error) error {
			t, err := scanIssued(scan)
			if all || t.Live(tx.now) {
				list = append(list, t)
			}
			return err
		})
	if err == nil && all {
		list, err = tx.revokedUnlisted(list)
	}
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return list, nil
}

func scanIssued(scan func(...any) error) (t IssuedToken, err error) {
	var policies, caches string
	var issued int64
	var expires, revoked *int64
	err = scan(&t.ID, &t.Subject, &policies, &caches, &issued, &expires, &revoked)
	t.Policies, t.Caches, t.Issued = splitLines(policies), splitLines(caches), unstamp(issued)
	if expires != nil {
		t.Expires = unstamp(*expires)
	}
	if revoked != nil {
		t.Revoked = unstamp(*revoked)
	}
	return t, err
}

// revokedUnlisted adds revocations of tokens that are not in the list.
func (tx *Tx) revokedUnlisted(list []IssuedToken) ([]IssuedToken, error) {
	err := tx.each(`SELECT jti, revoked_at FROM revoked_tokens
		WHERE jti NOT IN (SELECT jti FROM issued_tokens) ORDER BY revoked_at, jti`, nil,
		func(scan func(...any) error) error {
			var t IssuedToken
			var revoked int64
			err := scan(&t.ID, &revoked)
			t.Revoked = unstamp(revoked)
			list = append(list, t)
			return err
		})
	return list, err
}

// RevokeTokens takes tokens back, listed ones or not, and returns the ids of
// those that were not revoked before.
func (tx *Tx) RevokeTokens(ids []string) ([]string, error) {
	var revoked []string
	for _, id := range ids {
		done, err := tx.revoke(id)
		if err != nil {
			return nil, fmt.Errorf("revoke token: %w", err)
		}
		if done {
			revoked = append(revoked, id)
		}
	}
	if len(revoked) == 0 {
		return nil, nil
	}
	if _, err := tx.exec("DELETE FROM revoked_tokens WHERE until <= $1", stamp(tx.now.Add(-keepRevoked))); err != nil {
		return nil, fmt.Errorf("drop old revocations: %w", err)
	}
	if _, err := tx.exec("UPDATE counters SET value = value + 1 WHERE name = 'token_revocations'"); err != nil {
		return nil, fmt.Errorf("count revocations: %w", err)
	}
	return revoked, nil
}

func (tx *Tx) revoke(id string) (bool, error) {
	if !ValidTokenID(id) {
		return false, fmt.Errorf("%.40q is no id of a token", id)
	}
	var expires *int64
	err := tx.one("SELECT expires_at FROM issued_tokens WHERE jti = $1", []any{id}, &expires)
	if err != nil && !isNotFound(err) {
		return false, err
	}
	n, err := tx.exec("INSERT INTO revoked_tokens (jti, revoked_at, until) VALUES ($1, $2, $3) ON CONFLICT (jti) DO NOTHING",
		id, stamp(tx.now), expires)
	if err != nil || n == 0 {
		return false, err
	}
	rec := &ledger.TokenRevoked{ID: id, At: tx.now}
	if expires != nil {
		rec.Expires = unstamp(*expires)
	}
	tx.records = append(tx.records, ledger.Record{TokenRevoked: rec})
	return true, nil
}

// CheckToken is ErrRevoked for the id of a revoked token. In an Update its answer
// is the last word: what is revoked before the transaction begins is seen by it.
func (tx *Tx) CheckToken(id string) error {
	var at int64
	err := tx.one("SELECT revoked_at FROM revoked_tokens WHERE jti = $1", []any{id}, &at)
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for revocation: %w", err)
	}
	return ErrRevoked
}

// Revocations is a number that changes whenever a token is revoked.
func (tx *Tx) Revocations() (int64, error) {
	var n int64
	if err := tx.one("SELECT value FROM counters WHERE name = 'token_revocations'", nil, &n); err != nil {
		return 0, fmt.Errorf("read number of revocations: %w", err)
	}
	return n, nil
}

// RevokedTokens lists the ids of revoked tokens whose end has not passed.
func (tx *Tx) RevokedTokens() ([]string, error) {
	var ids []string
	err := tx.each("SELECT jti FROM revoked_tokens WHERE until IS NULL OR until > $1", []any{stamp(tx.now.Add(-keepRevoked))},
		func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list revoked tokens: %w", err)
	}
	return ids, nil
}
