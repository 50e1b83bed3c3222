package meta

import (
	"fmt"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/pack"
)

const packColumns = `p.id, p.key, p.sha256, p.size, p.own, p.prev, p.created_at, p.nar_state, p.idx`

// InsertPack adds a pack, sets its ID, and notes where its chunks lie: of one
// that repeats, the first. It makes nothing visible (see Show). A key that is
// there already is ErrExists. A pack alone is no promise, so no record.
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
	for i, e := range entries {
		if e.Kind != chunk.Chunk {
			continue
		}
		if err := tx.insertChunk(p.ID, i, e); err != nil {
			return fmt.Errorf("insert pack %s: entry %d: %w", p.Key, i, err)
		}
	}
	return nil
}

// insertChunk notes a place: in the chunk's row if it has none yet, else as a copy.
func (tx *Tx) insertChunk(packID int64, entry int, e pack.Entry) error {
	args := []any{e.ID[:], packID, entry, e.Size, e.Raw}
	n, err := tx.exec(`INSERT INTO chunks (hash, pack_id, entry, size, raw) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (hash) DO NOTHING`, args...)
	if err != nil || n > 0 {
		return err
	}
	_, err = tx.exec(`INSERT INTO copies (hash, pack_id, entry, size, raw) SELECT $1, $2, $3, $4, $5
		WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE hash = $1 AND pack_id = $2) ON CONFLICT (pack_id, hash) DO NOTHING`, args...)
	return err
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
// present. One that another cache has is not found, as one that nobody has.
func (tx *Tx) FindPack(sha [32]byte, cache int64) (*Pack, error) {
	p, err := tx.pack(findPack, sha[:], cache, stamp(tx.now))
	if err != nil {
		return nil, fmt.Errorf("find pack %x: %w", sha, err)
	}
	return p, nil
}

// findPack looks for what is seen of an unknown pack, too, as of pack 0, so that
// it takes as long as one that only other caches have (see locate).
const findPack = `SELECT ` + packColumns + ` FROM ordinals o
	LEFT JOIN packs p ON p.sha256 = $1
	LEFT JOIN visible v ON v.cache_id = $2 AND v.pack_id = coalesce(p.id, 0)
	WHERE o.i = 0 AND coalesce(v.cache_id, -1) >= 0 AND v.bits IS NULL AND (v.until IS NULL OR v.until > $3) ORDER BY p.id LIMIT 1`

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
