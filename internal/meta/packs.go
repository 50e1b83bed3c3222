package meta

import (
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/pack"
)

const packColumns = `p.id, p.key, p.sha256, p.size, p.own, p.prev, p.created_at, p.nar_state, p.idx`

// InsertPack adds a pack with these entries and sets its ID. It makes nothing
// visible (see Show). A key that is there already is ErrExists. A pack alone is no
// promise, so no record.
func (tx *Tx) InsertPack(p *Pack, entries []pack.Entry) error {
	if p.CreatedAt.IsZero() {
		p.CreatedAt = tx.now
	}
	var raw int64
	for _, e := range entries {
		raw += int64(e.Raw)
	}
	var err error
	p.ID, err = tx.insert(`INSERT INTO packs (key, sha256, size, own, prev, created_at, nar_state, idx, raw) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		p.Key, p.SHA256[:], p.Size, p.Own, p.Prev, stamp(p.CreatedAt), notNil(p.NARState), notNil(p.Index), raw)
	if err != nil {
		return fmt.Errorf("insert pack %s: %w", p.Key, err)
	}
	return nil
}

// DropPack removes a pack's row and all that caches see of it. A chunk that they
// see in another pack as well is found there. That nothing needs it, and that its
// object goes, is for the caller to see to. It logs nothing: which packs there are,
// the bucket says.
func (tx *Tx) DropPack(id int64) error {
	if err := tx.dropPack(id); err != nil {
		return fmt.Errorf("drop pack %d: %w", id, err)
	}
	return nil
}

func (tx *Tx) dropPack(id int64) error {
	entries, err := tx.PackEntries(id)
	if err != nil {
		return err
	}
	var caches []int64
	err = tx.each("SELECT cache_id FROM visible WHERE pack_id = $1", []any{id}, func(scan func(...any) error) error {
		var cache int64
		err := scan(&cache)
		caches = append(caches, cache)
		return err
	})
	if err != nil {
		return err
	}
	for _, cache := range caches {
		if err := tx.dropPlaces(cache, id, entries); err != nil {
			return err
		}
	}
	for _, query := range []string{"DELETE FROM visible WHERE pack_id = $1", "DELETE FROM packs WHERE id = $1"} {
		if _, err := tx.exec(query, id); err != nil {
			return err
		}
	}
	return nil
}

// PackEntries reads what a pack holds out of its index.
func (tx *Tx) PackEntries(id int64) ([]pack.Entry, error) {
	p, err := tx.Pack(id)
	if err != nil {
		return nil, err
	}
	if tx.layouts == nil {
		return nil, errors.New("nobody can read indexes")
	}
	ix, err := tx.layouts.Index(p.Index)
	if err != nil {
		return nil, fmt.Errorf("index of pack %d: %w", id, err)
	}
	return ix.Entries, nil
}

// Pack reads a pack, whoever may see it.
func (tx *Tx) Pack(id int64) (*Pack, error) {
	p, err := tx.pack("SELECT "+packColumns+" FROM packs p WHERE p.id = $1", id)
	if err != nil {
		return nil, fmt.Errorf("read pack %d: %w", id, err)
	}
	return p, nil
}

// FindPack finds a pack by its SHA-256 that the cache may see wholly and at
// present. One that another cache has is not found, as one that nobody has, and as
// one of which something is in quarantine.
func (tx *Tx) FindPack(sha [32]byte, cache int64) (*Pack, error) {
	p, err := tx.pack(findPack, sha[:], cache, stamp(tx.now))
	if err != nil {
		return nil, fmt.Errorf("find pack %x: %w", sha, err)
	}
	return p, nil
}

const findPack = `SELECT ` + packColumns + ` FROM visible v INDEXED BY visible_sha256 JOIN packs p ON p.id = v.pack_id
	WHERE v.cache_id = $2 AND v.sha256 = $1 AND v.bits IS NULL AND (v.until IS NULL OR v.until > $3)
	AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.pack_id = v.pack_id) LIMIT 1`

func (tx *Tx) pack(query string, args ...any) (*Pack, error) {
	var p Pack
	var sha []byte
	var created int64
	err := tx.one(query, args, &p.ID, &p.Key, &sha, &p.Size, &p.Own, &p.Prev, &created, &p.NARState, &p.Index)
	if err != nil {
		return nil, err
	}
	p.CreatedAt = unstamp(created)
	return &p, scanHash(p.SHA256[:], sha)
}

// PackFile is where a pack's bytes are.
type PackFile struct {
	Key  string
	Size int64 // bytes
	Own  bool  // of one NAR
}

// PackFiles gives the objects of packs; all must exist.
func (tx *Tx) PackFiles(ids []int64) (map[int64]PackFile, error) {
	files := make(map[int64]PackFile, len(ids))
	for _, id := range ids {
		if _, ok := files[id]; ok {
			continue
		}
		var f PackFile
		if err := tx.one("SELECT key, size, own FROM packs WHERE id = $1", []any{id}, &f.Key, &f.Size, &f.Own); err != nil {
			return nil, fmt.Errorf("read place of pack %d: %w", id, err)
		}
		files[id] = f
	}
	return files, nil
}
