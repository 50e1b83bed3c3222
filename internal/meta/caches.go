package meta

import (
	"fmt"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

const cacheColumns = `id, name, public_key, sealed_key, public, store_dir, priority, upstream_keys, retention, created_at, deleted_at`

func scanCache(scan func(...any) error) (Cache, error) {
	var c Cache
	var upstream string
	var created int64
	var deleted *int64
	err := scan(&c.ID, &c.Name, &c.PublicKey, &c.SealedKey, &c.Public, &c.StoreDir, &c.Priority,
		&upstream, &c.Retention, &created, &deleted)
	if err != nil {
		return Cache{}, err
	}
	c.UpstreamKeys, c.CreatedAt = splitLines(upstream), unstamp(created)
	if deleted != nil {
		t := unstamp(*deleted)
		c.DeletedAt = &t
	}
	return c, nil
}

// Cache finds a live cache; a soft-deleted one is ErrNotFound too.
func (tx *Tx) Cache(name string) (*Cache, error) {
	c, err := tx.cache("SELECT "+cacheColumns+" FROM caches WHERE name = $1 AND deleted_at IS NULL", name)
	if err != nil {
		return nil, fmt.Errorf("read cache %q: %w", name, err)
	}
	return c, nil
}

func (tx *Tx) cache(query string, arg any) (*Cache, error) {
	c, err := scanCache(func(dest ...any) error { return tx.one(query, []any{arg}, dest...) })
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// Caches lists the live caches by name.
func (tx *Tx) Caches() ([]Cache, error) {
	var list []Cache
	err := tx.each("SELECT "+cacheColumns+" FROM caches WHERE deleted_at IS NULL ORDER BY name", nil,
		func(scan func(...any) error) error {
			c, err := scanCache(scan)
			list = append(list, c)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list caches: %w", err)
	}
	return list, nil
}

// CreateCache adds a cache and sets its ID; a zero CreatedAt becomes Now. A name
// that is taken, be it by a soft-deleted cache, is ErrExists.
func (tx *Tx) CreateCache(c *Cache) error {
	upstream, err := joinLines("upstream keys", c.UpstreamKeys)
	if err != nil {
		return fmt.Errorf("create cache %q: %w", c.Name, err)
	}
	if c.CreatedAt.IsZero() {
		c.CreatedAt = tx.now
	}
	c.ID, err = tx.insert(`INSERT INTO caches (name, public_key, sealed_key, public, store_dir, priority, upstream_keys, retention, created_at, deleted_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		c.Name, c.PublicKey, notNil(c.SealedKey), c.Public, c.StoreDir, c.Priority, upstream, c.Retention, stamp(c.CreatedAt), nullStamp(c.DeletedAt))
	if err != nil {
		return fmt.Errorf("create cache %q: %w", c.Name, err)
	}
	tx.recordCache(c)
	return nil
}

// UpdateCache writes all settings of a live cache, found by ID. Its name and
// times stay as they are.
func (tx *Tx) UpdateCache(c *Cache) error {
	upstream, err := joinLines("upstream keys", c.UpstreamKeys)
	if err != nil {
		return fmt.Errorf("update cache %q: %w", c.Name, err)
	}
	n, err := tx.exec(`UPDATE caches SET public_key = $2, sealed_key = $3, public = $4, store_dir = $5, priority = $6, upstream_keys = $7, retention = $8
		WHERE id = $1 AND deleted_at IS NULL`,
		c.ID, c.PublicKey, notNil(c.SealedKey), c.Public, c.StoreDir, c.Priority, upstream, c.Retention)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("update cache %q: %w", c.Name, err)
	}
	// The record is of the row, not of c: name and times may differ.
	row, err := tx.cache("SELECT "+cacheColumns+" FROM caches WHERE id = $1", c.ID)
	if err != nil {
		return fmt.Errorf("update cache %q: %w", c.Name, err)
	}
	tx.recordCache(row)
	return nil
}

func (tx *Tx) recordCache(c *Cache) { tx.records = append(tx.records, cacheRecord(c)) }

func cacheRecord(c *Cache) ledger.Record {
	return ledger.Record{Cache: &ledger.Cache{
		Name: c.Name, PublicKey: c.PublicKey, SealedKey: c.SealedKey, Public: c.Public,
		StoreDir: c.StoreDir, Priority: c.Priority, UpstreamKeys: c.UpstreamKeys,
		Retention: c.Retention, CreatedAt: c.CreatedAt, DeletedAt: c.DeletedAt,
	}}
}

// DeleteCache deletes a cache. Softly, it stays with all it has, unseen, and
// its name stays taken. Otherwise its paths and what it could see go with it;
// NARs and packs stay until a collection finds that nobody needs them. A
// soft-deleted cache can only be deleted for good.
func (tx *Tx) DeleteCache(name string, soft bool) error {
	var err error
	if soft {
		err = tx.hideCache(name)
	} else {
		err = tx.dropCache(name)
	}
	if err != nil {
		return fmt.Errorf("delete cache %q: %w", name, err)
	}
	tx.live = nil
	return nil
}

func (tx *Tx) hideCache(name string) error {
	c, err := tx.Cache(name)
	if err != nil {
		return err
	}
	if _, err := tx.exec("UPDATE caches SET deleted_at = $2 WHERE id = $1", c.ID, stamp(tx.now)); err != nil {
		return err
	}
	at := unstamp(stamp(tx.now))
	c.DeletedAt = &at
	tx.recordCache(c)
	return nil
}

func (tx *Tx) dropCache(name string) error {
	var id int64
	if err := tx.one("SELECT id FROM caches WHERE name = $1", []any{name}, &id); err != nil {
		return err
	}
	if err := tx.dropPins(id); err != nil {
		return err
	}
	for _, query := range []string{
		"DELETE FROM paths WHERE cache_id = $1",
		"DELETE FROM path_days WHERE cache_id = $1",
		"DELETE FROM visible WHERE cache_id = $1",
		"DELETE FROM places WHERE cache_id = $1",
		"DELETE FROM staged WHERE cache_id = $1",
		"DELETE FROM build_logs WHERE cache_id = $1",
		"DELETE FROM realisations WHERE cache_id = $1",
		"DELETE FROM old_keys WHERE cache_id = $1",
		"DELETE FROM caches WHERE id = $1",
	} {
		if _, err := tx.exec(query, id); err != nil {
			return err
		}
	}
	tx.records = append(tx.records, ledger.Record{CacheDeleted: &ledger.CacheDeleted{Name: name, At: tx.now}})
	return nil
}

// liveCache gives the name of a live cache. A request may hold the id of one
// that was deleted meanwhile: it must not be written to.
func (tx *Tx) liveCache(id int64) (string, error) {
	if name, ok := tx.live[id]; ok {
		return name, nil
	}
	var name string
	if err := tx.one("SELECT name FROM caches WHERE id = $1 AND deleted_at IS NULL", []any{id}, &name); err != nil {
		return "", fmt.Errorf("read cache %d: %w", id, err)
	}
	if tx.live == nil {
		tx.live = map[int64]string{}
	}
	tx.live[id] = name
	return name, nil
}

// later is a time as a column, where the zero time means never.
func later(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}
