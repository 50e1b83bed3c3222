package meta

import (
	"fmt"
	"path"
	"time"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
)

// Realisation says which path an output of a content-addressed derivation is. It
// is there as long as that path is.
type Realisation struct {
	CacheID   int64
	Name      string // "sha256:<hex>!<output>"
	OutPath   string // base name
	Text      string // JSON, as Nix writes it
	CreatedBy string
	CreatedAt time.Time
}

const putRealisation = `INSERT INTO realisations (cache_id, name, out_hash, created_by, created_at, text) VALUES ($1, $2, $3, $4, $5, $6)
	ON CONFLICT (cache_id, name) DO UPDATE SET out_hash = excluded.out_hash, created_by = excluded.created_by, created_at = excluded.created_at, text = excluded.text`

// PutRealisation keeps r in a live cache, in place of one that was there, and logs
// it. A path that the cache does not have is ErrNotFound.
func (tx *Tx) PutRealisation(r *Realisation) error {
	cache, err := tx.liveCache(r.CacheID)
	if err == nil {
		_, _, err = tx.Path(r.CacheID, r.OutPath[:nix.PathHashLen])
	}
	if err == nil {
		r.CreatedAt = tx.now
		err = tx.putRealisation(r)
	}
	if err != nil {
		return fmt.Errorf("keep realisation %s: %w", r.Name, err)
	}
	tx.records = append(tx.records, ledger.Record{Realisation: &ledger.Realisation{
		Cache: cache, Name: r.Name, OutPath: r.OutPath, Text: r.Text, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt,
	}})
	return nil
}

func (tx *Tx) putRealisation(r *Realisation) error {
	_, err := tx.exec(putRealisation, r.CacheID, r.Name, r.OutPath[:nix.PathHashLen], r.CreatedBy, stamp(r.CreatedAt), r.Text)
	return err
}

const readRealisation = `SELECT p.store_path, r.created_by, r.created_at, r.text FROM realisations r
	JOIN paths p ON p.cache_id = r.cache_id AND p.hash = r.out_hash WHERE r.cache_id = $1 AND r.name = $2`

// Realisation reads one: ErrNotFound if the cache has none.
func (tx *Tx) Realisation(cacheID int64, name string) (*Realisation, error) {
	r := Realisation{CacheID: cacheID, Name: name}
	var at int64
	var storePath string
	if err := tx.one(readRealisation, []any{cacheID, name}, &storePath, &r.CreatedBy, &at, &r.Text); err != nil {
		return nil, fmt.Errorf("read realisation %s: %w", name, err)
	}
	r.OutPath, r.CreatedAt = path.Base(storePath), unstamp(at)
	return &r, nil
}

// applyRealisation keeps one whose path is not there yet, too: a path that never
// comes hides it.
func (tx *Tx) applyRealisation(l *ledger.Realisation) error {
	cache, err := tx.cacheID(l.Cache)
	if err != nil || cache == 0 {
		return err
	}
	if len(l.OutPath) < nix.PathHashLen {
		return fmt.Errorf("realisation of %q", l.OutPath)
	}
	return tx.putRealisation(&Realisation{CacheID: cache, Name: l.Name, OutPath: l.OutPath, Text: l.Text, CreatedBy: l.CreatedBy, CreatedAt: l.CreatedAt})
}

func (tx *Tx) snapshotRealisations(c Cursor) ([]snapshotRow, error) {
	const query = `SELECT r.id, c.name, r.name, p.store_path, r.created_by, r.created_at, r.text FROM realisations r
		JOIN caches c ON c.id = r.cache_id JOIN paths p ON p.cache_id = r.cache_id AND p.hash = r.out_hash
		WHERE r.id > $1 ORDER BY r.id LIMIT $2`
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var row snapshotRow
		var r ledger.Realisation
		var storePath string
		var at int64
		err := scan(&row.id, &r.Cache, &r.Name, &storePath, &r.CreatedBy, &at, &r.Text)
		r.OutPath, r.CreatedAt = path.Base(storePath), unstamp(at)
		row.record = ready(ledger.Record{Realisation: &r})
		return row, err
	})
}
