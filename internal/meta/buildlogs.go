package meta

import (
	"fmt"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// BuildLog is what a builder wrote. Size is of the text, bytes; Data is it as zstd
// frames.
type BuildLog struct {
	CacheID   int64
	Name      string // base name of the derivation
	Size      int64
	Data      []byte
	CreatedBy string
	CreatedAt time.Time
}

const putBuildLog = `INSERT INTO build_logs (cache_id, name, size, created_by, created_at, data) VALUES ($1, $2, $3, $4, $5, $6)
	ON CONFLICT (cache_id, name) DO UPDATE SET size = excluded.size, created_by = excluded.created_by, created_at = excluded.created_at, data = excluded.data`

// PutBuildLog keeps a log in a live cache, in place of one that was there, and logs
// it.
func (tx *Tx) PutBuildLog(l *BuildLog) error {
	cache, err := tx.liveCache(l.CacheID)
	if err == nil {
		l.CreatedAt = tx.now
		_, err = tx.exec(putBuildLog, l.CacheID, l.Name, l.Size, l.CreatedBy, stamp(l.CreatedAt), notNil(l.Data))
	}
	if err != nil {
		return fmt.Errorf("keep build log %s: %w", l.Name, err)
	}
	tx.records = append(tx.records, ledger.Record{BuildLog: &ledger.BuildLog{
		Cache: cache, Name: l.Name, Size: l.Size, Data: l.Data, CreatedBy: l.CreatedBy, CreatedAt: l.CreatedAt,
	}})
	return nil
}

// BuildLog reads a log: ErrNotFound if the cache has none.
func (tx *Tx) BuildLog(cacheID int64, name string) (*BuildLog, error) {
	l := BuildLog{CacheID: cacheID, Name: name}
	var at int64
	err := tx.one("SELECT size, created_by, created_at, data FROM build_logs WHERE cache_id = $1 AND name = $2", []any{cacheID, name},
		&l.Size, &l.CreatedBy, &at, &l.Data)
	if err != nil {
		return nil, fmt.Errorf("read build log %s: %w", name, err)
	}
	l.CreatedAt = unstamp(at)
	return &l, nil
}

// loneLogs reads all paths of the cache once, whatever there are of logs. A deriver
// is a base name, or the whole path as the stock client sent it.
const loneLogs = `SELECT l.name FROM build_logs l WHERE l.cache_id = $1 AND l.created_at < $2
	AND NOT EXISTS (SELECT 1 FROM paths p WHERE p.cache_id = $1 AND p.hash = substr(l.name, 1, 32))
	AND l.name NOT IN (SELECT replace(p.deriver, rtrim(p.deriver, replace(p.deriver, '/', '')), '') FROM paths p WHERE +p.cache_id = $1 AND p.deriver <> '')
	ORDER BY l.name`

// LoneLogs are the names of logs that came before a time and whose derivation is
// neither a path of the cache nor what made one: a collection has taken those paths,
// and takes these with DeleteBuildLog. Where there are logs it reads every path of
// the cache, so call it once a run, behind the deletion of paths, with a time some
// hours ago: a log may come before its paths.
func (tx *Tx) LoneLogs(cacheID int64, before time.Time) (names []string, err error) {
	var some bool
	err = tx.one("SELECT EXISTS (SELECT 1 FROM build_logs WHERE cache_id = $1)", []any{cacheID}, &some)
	if err == nil && some {
		err = tx.each(loneLogs, []any{cacheID, stamp(before)}, func(scan func(...any) error) error {
			var name string
			err := scan(&name)
			names = append(names, name)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("look for logs of no path: %w", err)
	}
	return names, nil
}

// DeleteBuildLog takes a log out of a live cache and logs it; ErrNotFound if there
// is none.
func (tx *Tx) DeleteBuildLog(cacheID int64, name string) error {
	cache, err := tx.liveCache(cacheID)
	if err == nil {
		err = tx.dropBuildLog(cacheID, name)
	}
	if err != nil {
		return fmt.Errorf("delete build log %s: %w", name, err)
	}
	tx.records = append(tx.records, ledger.Record{BuildLogDeleted: &ledger.BuildLogDeleted{Cache: cache, Name: name, At: tx.now}})
	return nil
}

func (tx *Tx) dropBuildLog(cacheID int64, name string) error {
	n, err := tx.exec("DELETE FROM build_logs WHERE cache_id = $1 AND name = $2", cacheID, name)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

func (tx *Tx) applyBuildLog(l *ledger.BuildLog) error {
	cache, err := tx.cacheID(l.Cache)
	if err != nil || cache == 0 {
		return err // the log behind the checkpoint has the cache's end, or it again
	}
	_, err = tx.exec(putBuildLog, cache, l.Name, l.Size, l.CreatedBy, stamp(l.CreatedAt), notNil(l.Data))
	return err
}

func (tx *Tx) applyBuildLogDeleted(d *ledger.BuildLogDeleted) error {
	cache, err := tx.cacheID(d.Cache)
	if err == nil {
		err = tx.dropBuildLog(cache, d.Name)
	}
	if isNotFound(err) {
		return nil
	}
	return err
}

func (tx *Tx) snapshotBuildLogs(c Cursor) ([]snapshotRow, error) {
	const query = `SELECT l.id, c.name, l.name, l.size, l.created_by, l.created_at
		FROM build_logs l JOIN caches c ON c.id = l.cache_id WHERE l.id > $1 ORDER BY l.id LIMIT $2`
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var row snapshotRow
		var l ledger.BuildLog
		var at int64
		err := scan(&row.id, &l.Cache, &l.Name, &l.Size, &l.CreatedBy, &at)
		l.CreatedAt = unstamp(at)
		row.record = func() (ledger.Record, error) { // one by one: a page of them would be a gigabyte
			err := tx.one("SELECT data FROM build_logs WHERE id = $1", []any{row.id}, &l.Data)
			return ledger.Record{BuildLog: &l}, err
		}
		return row, err
	})
}
