package meta

import (
	"context"
	"fmt"
	"time"
)

// DaySum sums up the paths of a cache that came on one day and are there still.
type DaySum struct {
	Day      time.Time // its start, UTC
	Paths    int64
	Size     uint64 // of their NARs, bytes
	FileSize uint64 // of these as they are served
}

// PackSum sums up packs. Raw is what their entries decode to, in bytes.
type PackSum struct {
	Packs     int64
	Size, Raw uint64
}

const day = 24 * time.Hour

// countStep is how many ids of paths are counted at a time: after a push a few, after
// a database was rebuilt a million.
const countStep = 50_000

const countNew = `INSERT INTO path_days (cache_id, day, paths, size, file_size)
	SELECT p.cache_id, p.created_at / 86400000000, count(*), sum(n.size), sum(n.file_size)
	FROM paths p JOIN nars n ON n.id = p.nar_id WHERE p.id > $1 AND p.id <= $2 GROUP BY 1, 2
	ON CONFLICT (cache_id, day) DO UPDATE SET paths = paths + excluded.paths, size = size + excluded.size, file_size = file_size + excluded.file_size`

const countedAndLast = `SELECT c.value, (SELECT coalesce(max(id), 0) FROM paths) FROM counters c WHERE c.name = 'paths_counted'`

// countPaths takes paths that are new into the sums; more says that there are others.
func (tx *Tx) countPaths() (more bool, err error) {
	var counted, last int64
	err = tx.one(countedAndLast, nil, &counted, &last)
	to := min(last, counted+countStep)
	if err == nil && to > counted {
		if _, err = tx.exec(countNew, counted, to); err == nil {
			_, err = tx.exec("UPDATE counters SET value = $1 WHERE name = 'paths_counted'", to)
		}
	}
	if err != nil {
		return false, fmt.Errorf("count paths: %w", err)
	}
	return to < last, nil
}

// CountPaths takes into the sums what is not yet in them, a step at a time. After
// pushes that is nothing.
func (db *DB) CountPaths(ctx context.Context) error {
	for more := true; more; {
		var counted, last int64
		err := db.View(ctx, func(tx *Tx) error {
			return tx.one(countedAndLast, nil, &counted, &last)
		})
		if err != nil || counted >= last {
			return err
		}
		if err := db.Update(ctx, func(tx *Tx) (err error) { more, err = tx.countPaths(); return err }); err != nil {
			return err
		}
	}
	return nil
}

// PathDays lists the days of a cache, the first one first. Their sums are those of
// the cache.
func (tx *Tx) PathDays(cacheID int64) ([]DaySum, error) {
	var list []DaySum
	err := tx.each("SELECT day, paths, size, file_size FROM path_days WHERE cache_id = $1 AND paths > 0 ORDER BY day", []any{cacheID},
		func(scan func(...any) error) error {
			var d DaySum
			var n, size, fileSize int64
			err := scan(&n, &d.Paths, &size, &fileSize)
			d.Day, d.Size, d.FileSize = unstamp(n*day.Microseconds()), uint64(size), uint64(fileSize)
			list = append(list, d)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("sum up paths: %w", err)
	}
	return list, nil
}

// AllPacks sums up the packs of all caches.
func (tx *Tx) AllPacks() (PackSum, error) {
	return tx.packSum("SELECT coalesce(sum(packs), 0), coalesce(sum(size), 0), coalesce(sum(raw), 0) FROM pack_days")
}

// packsOf reads an index that holds all it needs: the rows of packs are wide.
const packsOf = `SELECT count(*), coalesce(sum(p.size), 0), coalesce(sum(p.raw), 0)
	FROM visible v JOIN packs p INDEXED BY packs_size ON p.id = v.pack_id WHERE v.cache_id = $1 AND v.until IS NULL`

// PacksOf sums up the packs that a cache uses some or all of. Caches may use the
// same ones.
func (tx *Tx) PacksOf(cacheID int64) (PackSum, error) { return tx.packSum(packsOf, cacheID) }

func (tx *Tx) packSum(query string, args ...any) (PackSum, error) {
	var s PackSum
	var size, raw int64
	if err := tx.one(query, args, &s.Packs, &size, &raw); err != nil {
		return s, fmt.Errorf("sum up packs: %w", err)
	}
	s.Size, s.Raw = uint64(size), uint64(raw)
	return s, nil
}

// LargestPinned lists the newest revisions of the pins with the largest closures,
// at most limit.
func (tx *Tx) LargestPinned(cacheID int64, limit int) ([]Pin, error) {
	list, err := tx.pins(cacheID, `SELECT `+pinColumns+` FROM pins p JOIN pin_revisions r ON r.pin_id = p.id AND r.n = 0
		WHERE `+livePin+` ORDER BY r.size DESC, p.name LIMIT $3`, cacheID, stamp(tx.now), limit)
	if err != nil {
		return nil, fmt.Errorf("list largest closures: %w", err)
	}
	return list, nil
}

// CountPins is how many pins a cache has that have not expired.
func (tx *Tx) CountPins(cacheID int64) (n int64, err error) {
	if err := tx.one("SELECT count(*) FROM pins p WHERE "+livePin, []any{cacheID, stamp(tx.now)}, &n); err != nil {
		return 0, fmt.Errorf("count pins: %w", err)
	}
	return n, nil
}
