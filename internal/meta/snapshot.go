package meta

import (
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/ledger"
)

// Cursor is a place in the walk over all that was promised. The zero Cursor is its
// beginning; it is kept as JSON while a checkpoint is made.
type Cursor struct {
	Table int    `json:"table"`          // of snapshotTables
	ID    int64  `json:"id,omitempty"`   // the last row that was given
	Name  string `json:"name,omitempty"` // the same, of tables whose key is a text
}

// snapshotPage is how many rows are read at a time.
const snapshotPage = 256

// snapshotTables read a page of a table. They are in the order in which they apply:
// a NAR needs its packs, a path its NAR and its cache.
var snapshotTables = []func(*Tx, Cursor) ([]snapshotRow, error){
	(*Tx).snapshotCaches, (*Tx).snapshotKeys, (*Tx).snapshotPolicies, (*Tx).snapshotIssued, (*Tx).snapshotRevoked,
	(*Tx).snapshotPins, (*Tx).snapshotPacks, (*Tx).snapshotNARs, (*Tx).snapshotPaths,
	(*Tx).snapshotQuarantine, (*Tx).snapshotWrong,
	(*Tx).snapshotListings, (*Tx).snapshotBuildLogs, (*Tx).snapshotRealisations,
}

// snapshotRow is a row and how it becomes a record; without a record it is nothing
// that was promised.
type snapshotRow struct {
	id     int64
	name   string
	record func() (ledger.Record, error)
}

func ready(r ledger.Record) func() (ledger.Record, error) {
	return func() (ledger.Record, error) { return r, nil }
}

// Snapshot gives everything that was promised, as records, from a cursor on: each
// row behind it, once. It moves the cursor along and stops when more is false; done
// says that it has come to the end.
//
// One walk may go over many transactions. A row that is not changed meanwhile comes
// as it is; one that is may come in either state or not at all, and the log behind
// the position at which the walk began has the change.
func (tx *Tx) Snapshot(c *Cursor, each func(ledger.Record) error, more func() bool) (done bool, err error) {
	for c.Table < len(snapshotTables) {
		rows, err := snapshotTables[c.Table](tx, *c)
		if err != nil {
			return false, fmt.Errorf("read the state: %w", err)
		}
		for _, row := range rows {
			if row.record != nil {
				rec, err := row.record()
				if err == nil {
					err = each(rec)
				}
				if err != nil {
					return false, fmt.Errorf("read the state: %w", err)
				}
			}
			if c.ID, c.Name = row.id, row.name; !more() {
				return false, nil
			}
		}
		if len(rows) < snapshotPage {
			*c = Cursor{Table: c.Table + 1}
		}
	}
	return true, nil
}

// page scans the rows of a query whose first two parameters are the cursor and the
// size of a page.
func (tx *Tx) page(query string, behind any, scan func(scan func(...any) error) (snapshotRow, error)) (rows []snapshotRow, err error) {
	err = tx.each(query, []any{behind, snapshotPage}, func(s func(...any) error) error {
		row, err := scan(s)
		rows = append(rows, row)
		return err
	})
	return rows, err
}

func (tx *Tx) snapshotCaches(c Cursor) ([]snapshotRow, error) {
	return tx.page("SELECT "+cacheColumns+" FROM caches WHERE id > $1 ORDER BY id LIMIT $2", c.ID, func(scan func(...any) error) (snapshotRow, error) {
		row, err := scanCache(scan)
		return snapshotRow{id: row.ID, record: ready(cacheRecord(&row))}, err
	})
}

func (tx *Tx) snapshotKeys(c Cursor) ([]snapshotRow, error) {
	const query = `SELECT id, name, public_key, EXISTS (SELECT 1 FROM old_keys k WHERE k.cache_id = caches.id) FROM caches WHERE id > $1 ORDER BY id LIMIT $2`
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var cache Cache
		var rotated bool
		err := scan(&cache.ID, &cache.Name, &cache.PublicKey, &rotated)
		row := snapshotRow{id: cache.ID}
		if rotated {
			row.record = func() (ledger.Record, error) { return tx.keysRecord(&cache) }
		}
		return row, err
	})
}

func (tx *Tx) snapshotPolicies(c Cursor) ([]snapshotRow, error) {
	const query = "SELECT name, policy, created_at, created_by FROM policies WHERE name > $1 ORDER BY name LIMIT $2"
	return tx.page(query, c.Name, func(scan func(...any) error) (snapshotRow, error) {
		var p ledger.Policy
		var text string
		var at int64
		err := scan(&p.Name, &text, &at, &p.By)
		p.Policy, p.At = []byte(text), unstamp(at)
		return snapshotRow{name: p.Name, record: ready(ledger.Record{Policy: &p})}, err
	})
}

func (tx *Tx) snapshotIssued(c Cursor) ([]snapshotRow, error) {
	return tx.page(selectIssued+"WHERE i.jti > $1 ORDER BY i.jti LIMIT $2", c.Name, func(scan func(...any) error) (snapshotRow, error) {
		t, err := scanIssued(scan)
		return snapshotRow{name: t.ID, record: ready(issuedRecord(&t))}, err
	})
}

func (tx *Tx) snapshotRevoked(c Cursor) ([]snapshotRow, error) {
	const query = "SELECT jti, revoked_at, until FROM revoked_tokens WHERE jti > $1 ORDER BY jti LIMIT $2"
	return tx.page(query, c.Name, func(scan func(...any) error) (snapshotRow, error) {
		var t ledger.TokenRevoked
		var at int64
		var until *int64
		err := scan(&t.ID, &at, &until)
		t.At = unstamp(at)
		if until != nil {
			t.Expires = unstamp(*until)
		}
		return snapshotRow{name: t.ID, record: ready(ledger.Record{TokenRevoked: &t})}, err
	})
}

func (tx *Tx) snapshotPins(c Cursor) ([]snapshotRow, error) {
	const query = "SELECT p.id, p.cache_id, c.name, p.name FROM pins p JOIN caches c ON c.id = p.cache_id WHERE p.id > $1 ORDER BY p.id LIMIT $2"
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var row snapshotRow
		var cache int64
		var cacheName, name string
		err := scan(&row.id, &cache, &cacheName, &name)
		row.record = func() (ledger.Record, error) {
			// Expired ones too: whether they are is for the time of the recovery to say.
			list, err := tx.pins(cache, readPinAlways, cache, name)
			if err != nil || len(list) != 1 {
				return ledger.Record{}, errors.Join(err, fmt.Errorf("pin %q has %d rows", name, len(list)))
			}
			return ledger.Record{Pin: list[0].record(cacheName)}, nil
		}
		return row, err
	})
}

const readPinAlways = `SELECT ` + pinColumns + ` FROM pins p JOIN pin_revisions r ON r.pin_id = p.id
	WHERE p.cache_id = $1 AND p.name = $2 ORDER BY r.n`

// snapshotPacks leaves out packs that no path was ever committed from: they are no
// promise.
func (tx *Tx) snapshotPacks(c Cursor) ([]snapshotRow, error) {
	const query = `SELECT p.id, p.key, p.size, p.own, p.created_at, p.nar_state, p.idx, coalesce(q.key, ''),
			EXISTS (SELECT 1 FROM visible v WHERE v.pack_id = p.id AND v.until IS NULL)
		FROM packs p LEFT JOIN packs q ON q.id = p.prev WHERE p.id > $1 ORDER BY p.id LIMIT $2`
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var row snapshotRow
		var p ledger.Pack
		var at int64
		var used bool
		err := scan(&row.id, &p.Key, &p.Size, &p.Own, &at, &p.NARState, &p.Index, &p.Prev, &used)
		p.CreatedAt = unstamp(at)
		if used {
			row.record = ready(ledger.Record{Pack: &p})
		}
		return row, err
	})
}

// snapshotNARs gives those too that are no path's at this moment: the next path that
// is committed may be theirs, and their own records are of before. The piece list is
// not kept here: the layout and the packs' indexes say the same.
func (tx *Tx) snapshotNARs(c Cursor) ([]snapshotRow, error) {
	if tx.layouts == nil {
		return nil, errors.New("nobody can read layouts")
	}
	const query = "SELECT " + narColumns + `, n.layout FROM nars n WHERE n.id > $1 ORDER BY n.id LIMIT $2`
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var r narRow
		if err := scan(append(r.dest(), &r.Layout)...); err != nil {
			return snapshotRow{}, err
		}
		n, err := r.nar()
		return snapshotRow{id: n.ID, record: func() (ledger.Record, error) {
			spans, err := tx.layouts.Spans(tx, n.Layout)
			if err != nil {
				err = fmt.Errorf("NAR %d: %w", n.ID, err)
			}
			return ledger.Record{NAR: &ledger.NAR{ID: n.UID, Form: n.Form, Hash: n.Hash, Size: n.Size, FileSize: n.FileSize,
				Verified: n.Verified, Layout: spans, CreatedAt: n.CreatedAt}}, err
		}}, err
	})
}

const snapshotPaths = `SELECT p.id, c.name, p.store_path, n.uid, n.hash, n.form, p.refs, p.upstream, p.deriver, p.system, p.ca, p.sigs, p.created_by, p.created_at
	FROM paths p JOIN caches c ON c.id = p.cache_id JOIN nars n ON n.id = p.nar_id
	WHERE p.id > $1 ORDER BY p.id LIMIT $2`

func (tx *Tx) snapshotPaths(c Cursor) ([]snapshotRow, error) {
	return tx.page(snapshotPaths, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var row snapshotRow
		var p ledger.Path
		var hash, form []byte
		var refs, upstream, sigs string
		var at int64
		err := scan(&row.id, &p.Cache, &p.StorePath, &p.NAR, &hash, &form, &refs, &upstream, &p.Deriver, &p.System, &p.CA, &sigs, &p.CreatedBy, &at)
		if err != nil {
			return row, err
		}
		p.References, p.Upstream, p.Sigs, p.CreatedAt = splitLines(refs), splitLines(upstream), splitLines(sigs), unstamp(at)
		row.record = ready(ledger.Record{Path: &p})
		return row, errors.Join(scanHash(p.NARHash[:], hash), scanHash(p.Form[:], form))
	})
}

// issuedRecord is the record of a listed token.
func issuedRecord(t *IssuedToken) ledger.Record {
	return ledger.Record{TokenIssued: &ledger.TokenIssued{
		ID: t.ID, Subject: t.Subject, Policies: t.Policies, Caches: t.Caches, At: t.Issued, Expires: t.Expires,
	}}
}
