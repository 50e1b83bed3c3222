package meta

import (
	"database/sql"
	"fmt"

	"github.com/org/attic-action/internal/ledger"
)

// What a collection reads and changes; package gc is the only one that does. Whatever
// it found out in earlier transactions, it asks again in the one that deletes: of
// paths by what was touched since (Touched), of NARs by whether they have paths, of
// packs by whether any of them was shown to a cache since (Condemn).

// BeginCollection gives the next collection its number.
func (tx *Tx) BeginCollection() (number int64, err error) {
	if _, err = tx.exec("UPDATE counters SET value = value + 1 WHERE name = 'collections'"); err == nil {
		err = tx.one("SELECT value FROM counters WHERE name = 'collections'", nil, &number)
	}
	if err != nil {
		return 0, fmt.Errorf("begin collection: %w", err)
	}
	return number, nil
}

// Watch has all paths noted that are pushed, used or pinned from now on, for the
// collection of this number. 0 ends that.
func (tx *Tx) Watch(number int64) error {
	_, err := tx.exec("DELETE FROM touched")
	if err == nil {
		_, err = tx.exec("UPDATE counters SET value = $1 WHERE name = 'watching'", number)
	}
	if err != nil {
		return fmt.Errorf("watch paths: %w", err)
	}
	return nil
}

// Watching is the number of the collection for which paths are noted; 0: none.
func (tx *Tx) Watching() (number int64, err error) {
	if err := tx.one("SELECT value FROM counters WHERE name = 'watching'", nil, &number); err != nil {
		return 0, fmt.Errorf("read who watches: %w", err)
	}
	return number, nil
}

// touch notes paths at the end of the transaction, if a collection watches.
func (tx *Tx) touch(cacheID int64, hashes ...string) {
	if tx.touched == nil {
		tx.touched = map[int64][]string{}
	}
	tx.touched[cacheID] = append(tx.touched[cacheID], hashes...)
}

const noteTouched = `INSERT INTO touched (cache_id, hash) SELECT $3, ` + batchText + ` FROM ` + batchFrom + ` WHERE o.i < $2
	ON CONFLICT (cache_id, hash) DO NOTHING`

func (tx *Tx) noteTouched() error {
	number, err := tx.Watching()
	if err != nil || number == 0 {
		return err
	}
	for cache, hashes := range tx.touched {
		err := batches(hashes, func(order []int, keys []byte) error {
			_, err := tx.exec(noteTouched, keys, len(order), cache)
			return err
		})
		if err != nil {
			return fmt.Errorf("note what was used: %w", err)
		}
	}
	return nil
}

// Touched calls each for paths that were pushed, used or pinned since the watch began,
// in that order, from behind a number on; each once, when that was first. Some are no
// paths.
func (tx *Tx) Touched(after int64, each func(seq, cacheID int64, hash string) error) error {
	err := tx.each("SELECT seq, cache_id, hash FROM touched WHERE seq > $1 ORDER BY seq", []any{after}, func(scan func(...any) error) error {
		var seq, cache int64
		var hash string
		if err := scan(&seq, &cache, &hash); err != nil {
			return err
		}
		return each(seq, cache, hash)
	})
	if err != nil {
		return fmt.Errorf("read what was used: %w", err)
	}
	return nil
}

// Kept is a path as a collection sees it. Hash and Refs are valid during the call.
type Kept struct {
	CacheID  int64
	Hash     sql.RawBytes
	Refs     sql.RawBytes // base names, one a line
	LastUsed int64        // microseconds since 1970
	NAR      int64
	FileSize int64
}

// PathCount is how many paths there are; of a million it takes a tenth of a second.
func (tx *Tx) PathCount() (n int, err error) {
	if err := tx.one("SELECT count(*) FROM paths", nil, &n); err != nil {
		return 0, fmt.Errorf("count paths: %w", err)
	}
	return n, nil
}

// PathsAfter calls each for at most limit paths behind an id, of all caches, in the
// order of their ids; read is how many, none is the end.
func (tx *Tx) PathsAfter(after int64, limit int, each func(Kept) error) (last int64, read int, err error) {
	const query = `SELECT p.id, p.cache_id, p.hash, p.refs, p.last_used, p.nar_id, n.file_size FROM paths p JOIN nars n ON n.id = p.nar_id
		WHERE p.id > $1 ORDER BY p.id LIMIT $2`
	var k Kept
	err = tx.each(query, []any{after, limit}, func(scan func(...any) error) error {
		if err := scan(&last, &k.CacheID, &k.Hash, &k.Refs, &k.LastUsed, &k.NAR, &k.FileSize); err != nil {
			return err
		}
		read++
		return each(k)
	})
	if err != nil {
		return last, read, fmt.Errorf("read paths: %w", err)
	}
	return last, read, nil
}

// Shrink empties the connection's page cache, after a read of a whole table has filled
// it with what nobody will ask for.
func (tx *Tx) Shrink() error {
	return tx.each("PRAGMA shrink_memory", nil, func(func(...any) error) error { return nil })
}

// AllCaches lists the caches by id, soft-deleted ones too.
func (tx *Tx) AllCaches() (list []Cache, err error) {
	err = tx.each("SELECT "+cacheColumns+" FROM caches ORDER BY id", nil, func(scan func(...any) error) error {
		c, err := scanCache(scan)
		list = append(list, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list caches: %w", err)
	}
	return list, nil
}

// CollectPath deletes a path and logs it, if it was last used no later than a time in
// microseconds since 1970; whether it did is gone. The cache need not be live.
func (tx *Tx) CollectPath(c *Cache, hash string, used int64) (gone bool, err error) {
	n, err := tx.exec("DELETE FROM paths WHERE cache_id = $1 AND hash = $2 AND last_used <= $3", c.ID, hash, used)
	if err != nil {
		return false, fmt.Errorf("collect path %s: %w", hash, err)
	}
	if n > 0 {
		tx.records = append(tx.records, ledger.Record{PathDeleted: &ledger.PathDeleted{Cache: c.Name, Hash: hash, At: tx.now}})
	}
	return n > 0, nil
}

// LastNAR is the highest id of a NAR.
func (tx *Tx) LastNAR() (id int64, err error) {
	if err := tx.one("SELECT coalesce(max(id), 0) FROM nars", nil, &id); err != nil {
		return 0, fmt.Errorf("read last NAR: %w", err)
	}
	return id, nil
}

// CollectNARs deletes NARs behind an id, up to another, that are no path's. It logs
// nothing: a NAR is only promised as a path's.
func (tx *Tx) CollectNARs(after, to int64) (gone int64, err error) {
	gone, err = tx.exec("DELETE FROM nars WHERE id > $1 AND id <= $2 AND NOT EXISTS (SELECT 1 FROM paths p WHERE p.nar_id = nars.id)", after, to)
	if err != nil {
		return 0, fmt.Errorf("collect NARs: %w", err)
	}
	return gone, nil
}
