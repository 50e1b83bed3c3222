package meta

import (
	"fmt"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
)

// What a recovery does beside Apply. None of it logs anything.

// ListPack notes that a pack is in the bucket.
func (tx *Tx) ListPack(key string, size int64) error {
	_, err := tx.exec("INSERT INTO listed_packs (key, size) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET size = excluded.size", key, size)
	if err != nil {
		return fmt.Errorf("note pack %s: %w", key, err)
	}
	return nil
}

// ListedPack is the size of a pack in the bucket; ErrNotFound if it is not there.
func (tx *Tx) ListedPack(key string) (size int64, err error) {
	if err := tx.one("SELECT size FROM listed_packs WHERE key = $1", []any{key}, &size); err != nil {
		return 0, fmt.Errorf("find pack %s in the bucket: %w", key, err)
	}
	return size, nil
}

// ForgetListedPacks empties the list.
func (tx *Tx) ForgetListedPacks() error {
	if _, err := tx.exec("DELETE FROM listed_packs"); err != nil {
		return fmt.Errorf("forget the list of packs: %w", err)
	}
	return nil
}

// LostPacks calls each for packs that have a row and no object, or one of another
// size.
func (tx *Tx) LostPacks(each func(id int64, key string) error) error {
	err := tx.each(`SELECT p.id, p.key FROM packs p LEFT JOIN listed_packs l ON l.key = p.key
		WHERE coalesce(l.size, -1) <> p.size ORDER BY p.key`, nil, func(scan func(...any) error) error {
		var id int64
		var key string
		if err := scan(&id, &key); err != nil {
			return err
		}
		return each(id, key)
	})
	if err != nil {
		return fmt.Errorf("look for packs: %w", err)
	}
	return nil
}

// StrayPacks calls each for objects without a row, at most limit, and counts all.
func (tx *Tx) StrayPacks(limit int, each func(key string, size int64)) (count, bytes int64, err error) {
	err = tx.one(`SELECT count(*), coalesce(sum(l.size), 0) FROM listed_packs l LEFT JOIN packs p ON p.key = l.key WHERE p.id IS NULL`, nil, &count, &bytes)
	if err == nil {
		err = tx.each(`SELECT l.key, l.size FROM listed_packs l LEFT JOIN packs p ON p.key = l.key WHERE p.id IS NULL ORDER BY l.key LIMIT $1`,
			[]any{limit}, func(scan func(...any) error) error {
				var key string
				var size int64
				err := scan(&key, &size)
				each(key, size)
				return err
			})
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look for packs without a row: %w", err)
	}
	return count, bytes, nil
}

// LaidOut is a path and where its NAR's bytes lie.
type LaidOut struct {
	ID        int64
	CacheID   int64
	Cache     string // its name
	Hash      string
	StorePath string
	NAR       int64
	Layout    []byte // empty: not known
	Refs      []string
	Upstream  []string
}

// LaidOutPaths reads a page of paths behind an id, by id; an empty page is the end.
func (tx *Tx) LaidOutPaths(after int64) (list []LaidOut, err error) {
	err = tx.each(`SELECT p.id, p.cache_id, c.name, p.hash, p.store_path, p.nar_id, n.layout, p.refs, p.upstream
		FROM paths p JOIN caches c ON c.id = p.cache_id JOIN nars n ON n.id = p.nar_id WHERE p.id > $1 ORDER BY p.id LIMIT $2`,
		[]any{after, batchKeys}, func(scan func(...any) error) error {
			var l LaidOut
			var refs, upstream string
			err := scan(&l.ID, &l.CacheID, &l.Cache, &l.Hash, &l.StorePath, &l.NAR, &l.Layout, &refs, &upstream)
			l.Refs, l.Upstream = splitLines(refs), splitLines(upstream)
			list = append(list, l)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read paths: %w", err)
	}
	return list, nil
}

// LosePath takes away a path that can't be served: clients are told that it is
// missing, and push it again. It is no deletion, so it has no record.
func (tx *Tx) LosePath(id int64) error {
	if _, err := tx.exec("DELETE FROM paths WHERE id = $1", id); err != nil {
		return fmt.Errorf("take away path %d: %w", id, err)
	}
	return nil
}

// ShowBits lets a cache, live or not, see more entries of a pack for good: bit i of
// bits is entry i of all that the pack has; all of them are the whole.
func (tx *Tx) ShowBits(cacheID, packID int64, bits []byte, all []pack.Entry) error {
	if err := tx.showBits(cacheID, packID, bits, all); err != nil {
		return fmt.Errorf("show pack %d to cache %d: %w", packID, cacheID, err)
	}
	return nil
}

func (tx *Tx) showBits(cacheID, packID int64, bits []byte, all []pack.Entry) error {
	var old []byte
	var whole bool
	err := tx.one("SELECT bits, bits IS NULL FROM visible WHERE cache_id = $1 AND pack_id = $2", []any{cacheID, packID}, &old, &whole)
	if err != nil && !isNotFound(err) || whole {
		return err
	}
	both := unite(bits, notNil(old))
	if allBits(both, len(all)) {
		both = nil
	}
	if err := tx.setVisible(cacheID, packID, both, nil); err != nil {
		return err
	}
	return tx.addPlaces(cacheID, packID, all, func(entry int32) bool { return sees(bits, entry) })
}

func allBits(bits []byte, n int) bool {
	for i := range n {
		if !sees(bits, int32(i)) {
			return false
		}
	}
	return n > 0
}

// HideAll forgets what every cache sees, so that it can be made anew.
func (tx *Tx) HideAll() error {
	for _, query := range []string{"DELETE FROM visible", "DELETE FROM places"} {
		if _, err := tx.exec(query); err != nil {
			return fmt.Errorf("forget what caches see: %w", err)
		}
	}
	return nil
}

// MarkIncomplete says of each of the paths, all of one cache, whether references of
// it are not there.
func (tx *Tx) MarkIncomplete(cacheID int64, paths []LaidOut) error {
	asked := map[string]bool{}
	var hashes []string
	for _, p := range paths {
		for _, ref := range needs(p) {
			if !asked[ref] {
				asked[ref] = true
				hashes = append(hashes, ref)
			}
		}
	}
	missing, err := tx.missing(cacheID, hashes)
	if err != nil {
		return fmt.Errorf("look for references: %w", err)
	}
	lacks := map[string]bool{}
	for _, h := range missing {
		lacks[h] = true
	}
	for _, p := range paths {
		for _, ref := range needs(p) {
			if !lacks[ref] {
				continue
			}
			if _, err := tx.exec("UPDATE paths SET incomplete = 1 WHERE id = $1", p.ID); err != nil {
				return fmt.Errorf("mark path %s: %w", p.StorePath, err)
			}
			break
		}
	}
	return nil
}

// needs are the hashes of references that the cache itself must have.
func needs(p LaidOut) (hashes []string) {
	upstream := map[string]bool{}
	for _, u := range p.Upstream {
		upstream[u] = true
	}
	for _, ref := range p.Refs {
		if !upstream[ref] && len(ref) > nix.PathHashLen && ref[:nix.PathHashLen] != p.Hash {
			hashes = append(hashes, ref[:nix.PathHashLen])
		}
	}
	return hashes
}

// Prune drops NARs that are no path's, and packs that no cache sees, so that none
// has a place in them; it says how many it were.
func (tx *Tx) Prune() (nars, packs int64, err error) {
	nars, err = tx.exec("DELETE FROM nars WHERE NOT EXISTS (SELECT 1 FROM paths p WHERE p.nar_id = nars.id)")
	if err == nil {
		packs, err = tx.exec("DELETE FROM packs WHERE NOT EXISTS (SELECT 1 FROM visible v WHERE v.pack_id = packs.id)")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("drop what nothing needs: %w", err)
	}
	return nars, packs, nil
}

// Counts are how many rows of a kind there are.
type Counts struct {
	Caches   int64 `json:"caches"`
	Paths    int64 `json:"paths"`
	NARs     int64 `json:"nars"`
	Packs    int64 `json:"packs"`
	Tokens   int64 `json:"tokens"`
	Revoked  int64 `json:"revoked_tokens"`
	Policies int64 `json:"policies"`
	Pins     int64 `json:"pins"`
}

// Count counts rows; of a million paths it takes a tenth of a second.
func (tx *Tx) Count() (c Counts, err error) {
	err = tx.one(`SELECT (SELECT count(*) FROM caches), (SELECT count(*) FROM paths), (SELECT count(*) FROM nars), (SELECT count(*) FROM packs),
		(SELECT count(*) FROM issued_tokens), (SELECT count(*) FROM revoked_tokens), (SELECT count(*) FROM policies), (SELECT count(*) FROM pins)`,
		nil, &c.Caches, &c.Paths, &c.NARs, &c.Packs, &c.Tokens, &c.Revoked, &c.Policies, &c.Pins)
	if err != nil {
		return c, fmt.Errorf("count rows: %w", err)
	}
	return c, nil
}

// BeginEpoch makes a rebuilt database one that serves: with the key of the record
// that begins its epoch, after which the log goes on.
func (tx *Tx) BeginEpoch(key string) error {
	pos, err := ledger.ParseKey(key)
	if err != nil {
		return fmt.Errorf("begin epoch: %w", err)
	}
	if err := tx.SetFact(FactEpoch, fmt.Appendf(nil, "%d", pos.Epoch)); err != nil {
		return err
	}
	for _, query := range []string{
		"DELETE FROM waiting", "DELETE FROM listed_packs",
		"UPDATE counters SET value = value + 1 WHERE name IN ('policies', 'token_revocations')",
	} {
		if _, err := tx.exec(query); err != nil {
			return fmt.Errorf("begin epoch: %w", err)
		}
	}
	return tx.AddLogObjects([]string{key})
}

// FilePacks reads a page of packs behind a key, by key; an empty page is the end.
func (tx *Tx) FilePacks(after string) (keys []string, sizes []int64, err error) {
	err = tx.each("SELECT key, size FROM packs WHERE key > $1 ORDER BY key LIMIT $2", []any{after, batchKeys}, func(scan func(...any) error) error {
		var key string
		var size int64
		err := scan(&key, &size)
		keys, sizes = append(keys, key), append(sizes, size)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read packs: %w", err)
	}
	return keys, sizes, nil
}

// Broken says that the transaction has failed in the database itself: nothing more
// can be done in it.
func (tx *Tx) Broken() bool { return tx.failed != nil }
