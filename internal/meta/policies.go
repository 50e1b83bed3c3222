package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// Policy is a trust policy. What it says is JSON that package trust reads.
type Policy struct {
	Name      string
	Policy    json.RawMessage
	CreatedAt time.Time
	CreatedBy string // for people; may be empty
}

// maxPolicy bounds a policy's JSON, in bytes.
const maxPolicy = 64 << 10

// PoliciesVersion goes up with every change of the policies.
func (tx *Tx) PoliciesVersion() (int64, error) {
	var v int64
	if err := tx.one("SELECT value FROM counters WHERE name = 'policies'", nil, &v); err != nil {
		return 0, fmt.Errorf("read version of policies: %w", err)
	}
	return v, nil
}

// Policies lists the policies by name.
func (tx *Tx) Policies() ([]Policy, error) {
	var list []Policy
	err := tx.each("SELECT name, policy, created_at, created_by FROM policies ORDER BY name", nil,
		func(scan func(...any) error) error {
			var p Policy
			var text string
			var at int64
			if err := scan(&p.Name, &text, &at, &p.CreatedBy); err != nil {
				return err
			}
			p.Policy, p.CreatedAt = json.RawMessage(text), unstamp(at)
			list = append(list, p)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	return list, nil
}

// AddPolicy adds a policy; a zero CreatedAt becomes Now. A name that is taken is
// ErrExists.
func (tx *Tx) AddPolicy(p *Policy) error {
	return tx.putPolicy("add", p, "INSERT INTO policies (name, policy, created_at, created_by) VALUES ($1, $2, $3, $4)")
}

// PutPolicy adds a policy, or replaces the one of its name.
func (tx *Tx) PutPolicy(p *Policy) error {
	return tx.putPolicy("put", p, `INSERT INTO policies (name, policy, created_at, created_by) VALUES ($1, $2, $3, $4)
		ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, created_at = excluded.created_at, created_by = excluded.created_by`)
}

func (tx *Tx) putPolicy(verb string, p *Policy, query string) error {
	if p.CreatedAt.IsZero() {
		p.CreatedAt = tx.now
	}
	err := p.check()
	if err == nil {
		_, err = tx.exec(query, p.Name, string(p.Policy), stamp(p.CreatedAt), p.CreatedBy)
	}
	if err == nil {
		err = tx.policiesChanged()
	}
	if err != nil {
		return fmt.Errorf("%s policy %q: %w", verb, p.Name, err)
	}
	tx.records = append(tx.records, ledger.Record{Policy: &ledger.Policy{Name: p.Name, Policy: p.Policy, By: p.CreatedBy, At: p.CreatedAt}})
	return nil
}

// DeletePolicy takes a policy back; ErrNotFound if there is none of the name.
func (tx *Tx) DeletePolicy(name string) error {
	n, err := tx.exec("DELETE FROM policies WHERE name = $1", name)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	if err == nil {
		err = tx.policiesChanged()
	}
	if err != nil {
		return fmt.Errorf("delete policy %q: %w", name, err)
	}
	tx.records = append(tx.records, ledger.Record{PolicyDeleted: &ledger.PolicyDeleted{Name: name, At: tx.now}})
	return nil
}

func (tx *Tx) policiesChanged() error {
	_, err := tx.exec("UPDATE counters SET value = value + 1 WHERE name = 'policies'")
	return err
}

func (p *Policy) check() error {
	switch {
	case p.Name == "" || len(p.Name) > 64:
		return errors.New("the name must have 1 to 64 bytes")
	case len(p.Policy) > maxPolicy:
		return fmt.Errorf("it has %d bytes, at most %d are possible", len(p.Policy), maxPolicy)
	case !json.Valid(p.Policy):
		return errors.New("it is not JSON")
	}
	return nil
}
