package meta

import (
	"fmt"
	"slices"
	"time"
)

// Node is a path as a walk along references needs it.
type Node struct {
	Refs     string // base names, one a line
	Upstream string // those of them that upstream caches serve, one a line
	LastUsed time.Time
	Size     uint64 // of the NAR, bytes
	FileSize uint64 // of the NAR as it is served
	Damaged  bool   // it is there and cannot be served (see Quarantine)
}

const readNodes = `SELECT o.i, p.refs, p.upstream, p.last_used, n.size, n.file_size, EXISTS (SELECT 1 FROM damaged d WHERE d.nar_id = n.id)
	FROM ` + batchFrom + ` CROSS JOIN paths p ON p.cache_id = $3 AND p.hash = ` + batchText + ` JOIN nars n ON n.id = p.nar_id
	WHERE o.i < $2`

// Nodes calls each for those of the hashes that are paths of the cache, in no
// order, with the place of the hash in the list.
func (tx *Tx) Nodes(cacheID int64, hashes []string, each func(i int, n Node) error) error {
	err := batches(hashes, func(order []int, keys []byte) error {
		return tx.each(readNodes, []any{keys, len(order), cacheID}, func(scan func(...any) error) error {
			var n Node
			var i int
			var used, size, fileSize int64
			if err := scan(&i, &n.Refs, &n.Upstream, &used, &size, &fileSize, &n.Damaged); err != nil {
				return err
			}
			n.LastUsed, n.Size, n.FileSize = unstamp(used), uint64(size), uint64(fileSize)
			return each(order[i], n)
		})
	})
	if err != nil {
		return fmt.Errorf("read %d paths: %w", len(hashes), err)
	}
	return nil
}

// eachPath reads the table from end to end: by the index of (cache_id, hash) every
// row would be looked up on its own. The plus keeps the planner from it.
const eachPath = `SELECT hash, store_path, refs, last_used FROM paths WHERE +cache_id = $1`

// EachPath calls each for every path of a cache, in no order. It takes seconds
// where there are a million.
func (tx *Tx) EachPath(cacheID int64, each func(hash, storePath, refs string, lastUsed time.Time) error) error {
	return tx.eachPath(eachPath, []any{cacheID}, each)
}

func (tx *Tx) eachPath(query string, args []any, each func(hash, storePath, refs string, lastUsed time.Time) error) error {
	err := tx.each(query, args, func(scan func(...any) error) error {
		var hash, path, refs string
		var used int64
		if err := scan(&hash, &path, &refs, &used); err != nil {
			return err
		}
		return each(hash, path, refs, unstamp(used))
	})
	if err != nil {
		return fmt.Errorf("read all paths: %w", err)
	}
	return nil
}

// eachReferrer has the database look into the lists: of a million rows none but those
// that are wanted come out of it, which is most of what EachPath takes.
const eachReferrer = `SELECT hash, store_path, refs, last_used FROM paths WHERE +cache_id = $1 AND instr(refs, $2) > 0`

// EachReferrer is EachPath of those paths of a cache that refer to the one of a hash,
// and perhaps of a few others: whoever asks looks at refs.
func (tx *Tx) EachReferrer(cacheID int64, hash string, each func(hash, storePath, refs string, lastUsed time.Time) error) error {
	return tx.eachPath(eachReferrer, []any{cacheID, hash + "-"}, each)
}

// PinsOf lists the pins that hold a path itself and have not expired, by name.
func (tx *Tx) PinsOf(cacheID int64, hash string) ([]string, error) {
	var names []string
	err := tx.each(`SELECT p.name FROM pin_revisions r JOIN pins p ON p.id = r.pin_id WHERE `+livePin+` AND r.hash = $3 ORDER BY p.name`,
		[]any{cacheID, stamp(tx.now), hash}, func(scan func(...any) error) error {
			var name string
			err := scan(&name)
			names = append(names, name)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list pins of %s: %w", hash, err)
	}
	return slices.Compact(names), nil
}
