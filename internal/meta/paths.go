package meta

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
)

// batchKeys is how many keys one statement looks up; the table ordinals has as
// many rows. A constant number of parameters whatever the request asks: SQLite
// and PostgreSQL both limit them.
const batchKeys = 1024

const readPath = `SELECT p.nar_id, p.store_path, p.refs, p.upstream, p.deriver, p.system, p.ca, p.sigs, p.created_by, p.created_at, p.last_used, p.incomplete, ` + narColumns + `
	FROM paths p JOIN nars n ON n.id = p.nar_id
	WHERE p.cache_id = $1 AND p.hash = $2`

// Path reads a path and its NAR, the NAR without its Layout (see NARLayout):
// what a narinfo needs, in one statement. Whoever serves it looks at NAR.Damaged.
func (tx *Tx) Path(cacheID int64, hash string) (*Path, *NAR, error) {
	p := Path{CacheID: cacheID, Hash: hash}
	var n narRow
	var refs, upstream, sigs string
	var created, used int64
	dest := append([]any{&p.NAR, &p.StorePath, &refs, &upstream, &p.Deriver, &p.System, &p.CA, &sigs,
		&p.CreatedBy, &created, &used, &p.Incomplete}, n.dest()...)
	if err := tx.one(readPath, []any{cacheID, hash}, dest...); err != nil {
		return nil, nil, fmt.Errorf("read path %s: %w", hash, err)
	}
	p.References, p.Upstream, p.Sigs = splitLines(refs), splitLines(upstream), splitLines(sigs)
	p.CreatedAt, p.LastUsed = unstamp(created), unstamp(used)
	nar, err := n.nar()
	if err != nil {
		return nil, nil, fmt.Errorf("read path %s: %w", hash, err)
	}
	return &p, nar, nil
}

// keys32 joins with a batch of 32-byte keys: $1 holds them one after the other,
// $2 is their number. PostgreSQL will unnest an array here.
const (
	batchText = `CAST(substr($1, o.i * 32 + 1, 32) AS TEXT)`
	batchBlob = `substr($1, o.i * 32 + 1, 32)`
	batchFrom = `ordinals o`
)

// missingPaths gives a batch's numbers in one row: sixty thousand rows would take
// the driver longer than the look-ups take the database.
const missingPaths = `SELECT coalesce(group_concat(o.i), '') FROM ` + batchFrom + ` WHERE o.i < $2 AND NOT EXISTS (
	SELECT 1 FROM paths p WHERE p.cache_id = $3 AND p.hash = ` + batchText + `)`

// missingOrDamaged reads the paths' rows as well, so it is asked only while something
// is damaged.
const missingOrDamaged = `SELECT coalesce(group_concat(o.i), '') FROM ` + batchFrom + ` WHERE o.i < $2 AND NOT EXISTS (
	SELECT 1 FROM paths p WHERE p.cache_id = $3 AND p.hash = ` + batchText + ` AND NOT EXISTS (SELECT 1 FROM damaged x WHERE x.nar_id = p.nar_id))`

// MissingPaths gives those of the hashes, in their order, that are no path of a
// live cache, or one that is damaged. Of a cache that is not live, all are missing.
func (tx *Tx) MissingPaths(cacheID int64, hashes []string) ([]string, error) {
	if _, err := tx.liveCache(cacheID); isNotFound(err) {
		return hashes, nil
	} else if err != nil {
		return nil, fmt.Errorf("find missing paths: %w", err)
	}
	missing, err := tx.missing(cacheID, hashes)
	if err != nil {
		return nil, fmt.Errorf("find missing paths: %w", err)
	}
	return missing, nil
}

func (tx *Tx) missing(cacheID int64, hashes []string) ([]string, error) {
	lacks := make([]bool, len(hashes))
	query := missingPaths
	damaged, err := tx.AnyDamaged()
	if damaged {
		query = missingOrDamaged
	}
	if err != nil {
		return nil, err
	}
	err = batches(hashes, func(order []int, keys []byte) error {
		var list string
		if err := tx.one(query, []any{keys, len(order), cacheID}, &list); err != nil || list == "" {
			return err
		}
		for s := range strings.SplitSeq(list, ",") {
			i, err := strconv.Atoi(s)
			if err != nil {
				return err
			}
			lacks[order[i]] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var missing []string
	for i, h := range hashes {
		if lacks[i] {
			missing = append(missing, h)
		}
	}
	return missing, nil
}

// batches hands out hashes by the batchKeys: the places of some in the list, and
// their bytes joined. They come sorted, so that neighbours in the index are
// looked up together: the page cache is small. One that has not 32 bytes is
// joined as 32 zeros, which no path has.
func batches(hashes []string, each func(order []int, keys []byte) error) error {
	var zero [nix.PathHashLen]byte
	keys := make([]byte, 0, min(batchKeys, len(hashes))*nix.PathHashLen)
	order := sorted(len(hashes), func(a, b int) int { return strings.Compare(hashes[a], hashes[b]) })
	for part := range slices.Chunk(order, batchKeys) {
		keys = keys[:0]
		for _, i := range part {
			if h := hashes[i]; len(h) == nix.PathHashLen {
				keys = append(keys, h...)
			} else {
				keys = append(keys, zero[:]...)
			}
		}
		if err := each(part, keys); err != nil {
			return err
		}
	}
	return nil
}

// sorted gives the numbers below n in the order of what they stand for.
func sorted(n int, compare func(a, b int) int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, compare)
	return order
}

// insertPath and replacePath are two statements, not an upsert: SQLite keeps a
// journal for each statement that may update a foreign key, even when it inserts,
// and a batch of a thousand takes twice as long.
const (
	insertPath = `INSERT INTO paths (cache_id, hash, nar_id, store_path, refs, upstream, deriver, system, ca, sigs, created_by, created_at, last_used, incomplete)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (cache_id, hash) DO NOTHING`
	replacePath = `UPDATE paths SET nar_id = $3, store_path = $4, refs = $5, upstream = $6, deriver = $7, system = $8, ca = $9, sigs = $10,
	created_by = $11, created_at = $12, last_used = $13, incomplete = $14 WHERE cache_id = $1 AND hash = $2`
)

// PutPath adds a path to a live cache, or replaces all that was known of it, and
// logs rec, which must name the same cache and path; its NAR is filled in. Zero
// times become Now. A cache that was deleted meanwhile is ErrNotFound, as is a
// NAR that is not there.
func (tx *Tx) PutPath(p *Path, rec ledger.Path) error {
	if err := tx.putPath(p, &rec); err != nil {
		return fmt.Errorf("put path %s: %w", p.StorePath, err)
	}
	tx.records = append(tx.records, ledger.Record{Path: &rec})
	return nil
}

func (tx *Tx) putPath(p *Path, rec *ledger.Path) error {
	cache, err := tx.liveCache(p.CacheID)
	if err != nil {
		return err
	}
	if rec.Cache != cache || rec.StorePath != p.StorePath {
		return fmt.Errorf("its record is of %s in cache %q", rec.StorePath, rec.Cache)
	}
	if len(p.Hash) != nix.PathHashLen {
		return fmt.Errorf("hash %q has not %d characters", p.Hash, nix.PathHashLen)
	}
	if err := tx.one("SELECT uid FROM nars WHERE id = $1", []any{p.NAR}, &rec.NAR); err != nil {
		return fmt.Errorf("read NAR %d: %w", p.NAR, err)
	}
	var lists [3]string
	for i, list := range [][]string{p.References, p.Upstream, p.Sigs} {
		if lists[i], err = joinLines([]string{"references", "upstream", "signatures"}[i], list); err != nil {
			return err
		}
	}
	if p.CreatedAt.IsZero() {
		p.CreatedAt = tx.now
	}
	if p.LastUsed.IsZero() {
		p.LastUsed = tx.now
	}
	args := []any{p.CacheID, p.Hash, p.NAR, p.StorePath, lists[0], lists[1], p.Deriver, p.System, p.CA, lists[2],
		p.CreatedBy, stamp(p.CreatedAt), stamp(p.LastUsed), p.Incomplete}
	n, err := tx.exec(insertPath, args...)
	if err == nil && n == 0 {
		_, err = tx.exec(replacePath, args...)
	}
	tx.newPaths = tx.newPaths || n > 0
	tx.touch(p.CacheID, p.Hash)
	return err
}

// DeletePath takes a path out of a live cache and logs it.
func (tx *Tx) DeletePath(cacheID int64, hash string) error {
	cache, err := tx.liveCache(cacheID)
	if err != nil {
		return fmt.Errorf("delete path %s: %w", hash, err)
	}
	n, err := tx.exec("DELETE FROM paths WHERE cache_id = $1 AND hash = $2", cacheID, hash)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("delete path %s: %w", hash, err)
	}
	tx.records = append(tx.records, ledger.Record{PathDeleted: &ledger.PathDeleted{Cache: cache, Hash: hash, At: tx.now}})
	return nil
}

const touchPaths = `UPDATE paths SET last_used = $4 WHERE cache_id = $3 AND last_used < $4
	AND hash IN (SELECT ` + batchText + ` FROM ` + batchFrom + ` WHERE o.i < $2)`

// TouchPaths says that paths were used at a time; it never goes back. Hashes
// that are no paths are passed over. Last use is no promise, so no record.
func (tx *Tx) TouchPaths(cacheID int64, hashes []string, at time.Time) error {
	tx.touch(cacheID, hashes...)
	return tx.mark("touch paths", touchPaths, cacheID, hashes, stamp(at))
}

const completePaths = `UPDATE paths SET incomplete = $4 WHERE cache_id = $3 AND incomplete <> $4
	AND hash IN (SELECT ` + batchText + ` FROM ` + batchFrom + ` WHERE o.i < $2)`

// SetComplete says that the references of paths are there. It follows from what
// was logged, so it needs no record.
func (tx *Tx) SetComplete(cacheID int64, hashes []string) error {
	return tx.mark("complete paths", completePaths, cacheID, hashes, 0)
}

func (tx *Tx) mark(what, query string, cacheID int64, hashes []string, value any) error {
	err := batches(hashes, func(order []int, keys []byte) error {
		_, err := tx.exec(query, keys, len(order), cacheID, value)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
