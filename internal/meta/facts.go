package meta

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// Names of facts: what is known once for the whole database. None of them is a
// promise, so none has a record.
const (
	FactStore         = "store_id"       // id of the bucket that it belongs to
	FactEpoch         = "epoch"          // of what it appends to the log; decimal
	FactRecovered     = "recovered_at"   // when it was rebuilt from the bucket; RFC 3339
	FactRootKeys      = "root_keys"      // the wrapped root key, as in the bucket (package seal)
	FactCheckpoint    = "checkpoint"     // key of the newest checkpoint's manifest
	FactCheckpointAt  = "checkpoint_at"  // when it was made; RFC 3339
	FactCheckpointRun = "checkpoint_run" // how far the next one is
	FactCollection    = "collection"     // what the last collection did; JSON (package gc)
	FactPlan          = "plan"           // what a collection would have done when it was last asked for; JSON (package gc)
	FactSwept         = "swept_at"       // when the bucket was last searched for what nothing knows of; RFC 3339
	FactRecovery      = "recovery"       // how far a recovery is; gone when it is done
)

// Fact reads a fact; nil when nothing is known.
func (tx *Tx) Fact(name string) ([]byte, error) {
	var value []byte
	err := tx.one("SELECT value FROM facts WHERE name = $1", []any{name}, &value)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read fact %s: %w", name, err)
	}
	return notNil(value), nil
}

// SetFact writes a fact; nil forgets it.
func (tx *Tx) SetFact(name string, value []byte) error {
	query, args := "DELETE FROM facts WHERE name = $1", []any{name}
	if value != nil {
		query = "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
		args = append(args, value)
	}
	if _, err := tx.exec(query, args...); err != nil {
		return fmt.Errorf("write fact %s: %w", name, err)
	}
	return nil
}

// Epoch is the epoch of what this database appends to the log, from 1.
func (tx *Tx) Epoch() (uint64, error) {
	value, err := tx.Fact(FactEpoch)
	if err != nil || value == nil {
		return 1, err
	}
	epoch, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || epoch == 0 {
		return 0, fmt.Errorf("read epoch: %q is none", value)
	}
	return epoch, nil
}

// RecoveredAt is when the database was last rebuilt from the bucket; zero: never.
func (tx *Tx) RecoveredAt() (time.Time, error) {
	value, err := tx.Fact(FactRecovered)
	if err != nil || value == nil {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339Nano, string(value))
	if err != nil {
		return time.Time{}, fmt.Errorf("read time of the recovery: %w", err)
	}
	return at, nil
}

// Used says whether anything was ever logged from here: a database that is not
// used may be one that was lost.
func (tx *Tx) Used() (bool, error) {
	var next int64
	if err := tx.one("SELECT value FROM counters WHERE name = 'log_seq'", nil, &next); err != nil {
		return false, fmt.Errorf("read sequence number: %w", err)
	}
	return next > 1, nil
}

// LastLogged is the position of the newest batch in the database: nil when that
// is not known, and position 0 when there is none.
func (tx *Tx) LastLogged() (*ledger.Pos, error) {
	key, err := tx.LastLogObject()
	if err == nil && key == "" {
		var manifest []byte
		manifest, err = tx.Fact(FactCheckpoint)
		key = string(manifest)
	}
	if err != nil {
		return nil, fmt.Errorf("read last position: %w", err)
	}
	if key == "" {
		used, err := tx.Used()
		if used || err != nil {
			return nil, err
		}
		return &ledger.Pos{}, nil
	}
	pos, err := ledger.ParseKey(key)
	if err != nil {
		return nil, fmt.Errorf("read last position: %w", err)
	}
	return &pos, nil
}

// LastLogObject is the key of the newest object of the log that is in the database
// and in no checkpoint; empty: there is none.
func (tx *Tx) LastLogObject() (key string, err error) {
	if err := tx.one("SELECT coalesce(max(key), '') FROM log_objects", nil, &key); err != nil {
		return "", fmt.Errorf("read last log object: %w", err)
	}
	return key, nil
}

// LogObjects lists the keys of the log's objects that are in the database and in
// no checkpoint, in the order of the log: those behind after, at most limit.
func (tx *Tx) LogObjects(after string, limit int) ([]string, error) {
	var keys []string
	err := tx.each("SELECT key FROM log_objects WHERE key > $1 ORDER BY key LIMIT $2", []any{after, limit}, func(scan func(...any) error) error {
		var key string
		err := scan(&key)
		keys = append(keys, key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list log objects: %w", err)
	}
	return keys, nil
}

// AddLogObjects notes objects of the log that the database has.
func (tx *Tx) AddLogObjects(keys []string) error {
	for _, key := range keys {
		if _, err := tx.exec("INSERT INTO log_objects (key) VALUES ($1) ON CONFLICT (key) DO NOTHING", key); err != nil {
			return fmt.Errorf("note log object %s: %w", key, err)
		}
	}
	return nil
}

// DropLogObjects forgets the objects up to a key: a checkpoint has taken their
// place.
func (tx *Tx) DropLogObjects(last string) error {
	if _, err := tx.exec("DELETE FROM log_objects WHERE key <= $1", last); err != nil {
		return fmt.Errorf("forget log objects: %w", err)
	}
	return nil
}
