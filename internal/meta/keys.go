package meta

import (
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/ledger"
)

// OldKey is a key that signed for a cache before its present one. Until its end
// it signs along, so that machines which trust only it go on.
type OldKey struct {
	CacheID   int64
	PublicKey string
	SealedKey []byte // empty once it was forgotten, after its end
	RotatedAt time.Time
	Until     time.Time
}

// RotateKey gives the live cache with c's ID a new key, and sets c's fields to
// it. The key that it had becomes an old one until then; a time that has passed
// means that it never signs again.
func (tx *Tx) RotateKey(c *Cache, publicKey string, sealedKey []byte, until time.Time) error {
	if err := tx.rotateKey(c, publicKey, sealedKey, until); err != nil {
		return fmt.Errorf("rotate key of cache %q: %w", c.Name, err)
	}
	return nil
}

func (tx *Tx) rotateKey(c *Cache, publicKey string, sealedKey []byte, until time.Time) error {
	row, err := tx.cache("SELECT "+cacheColumns+" FROM caches WHERE id = $1 AND deleted_at IS NULL", c.ID)
	if err != nil {
		return err
	}
	if row.PublicKey == publicKey {
		return errors.New("the new key is the one that it has")
	}
	_, err = tx.exec("INSERT INTO old_keys (cache_id, public_key, sealed_key, rotated_at, until) VALUES ($1, $2, $3, $4, $5)",
		row.ID, row.PublicKey, notNil(row.SealedKey), stamp(tx.now), stamp(until))
	if err != nil {
		return err
	}
	if err := tx.ForgetOldKeys(); err != nil {
		return err
	}
	row.PublicKey, row.SealedKey = publicKey, sealedKey
	if err := tx.UpdateCache(row); err != nil {
		return err
	}
	*c = *row
	return tx.recordKeys(c)
}

// EndOldKeys ends all old keys of a cache now.
func (tx *Tx) EndOldKeys(c *Cache) error {
	_, err := tx.exec("UPDATE old_keys SET until = $2 WHERE cache_id = $1 AND until > $2", c.ID, stamp(tx.now))
	if err == nil {
		err = tx.ForgetOldKeys()
	}
	if err == nil {
		err = tx.recordKeys(c)
	}
	if err != nil {
		return fmt.Errorf("end old keys of cache %q: %w", c.Name, err)
	}
	return nil
}

// ForgetOldKeys drops the private halves of keys that are past, of all caches. A
// rotation does it by itself.
func (tx *Tx) ForgetOldKeys() error {
	_, err := tx.exec("UPDATE old_keys SET sealed_key = x'' WHERE until <= $1 AND length(sealed_key) > 0", stamp(tx.now))
	if err != nil {
		return fmt.Errorf("forget old keys: %w", err)
	}
	return nil
}

// recordKeys logs all that a cache has had.
func (tx *Tx) recordKeys(c *Cache) error {
	rec, err := tx.keysRecord(c)
	if err == nil {
		tx.records = append(tx.records, rec)
	}
	return err
}

func (tx *Tx) keysRecord(c *Cache) (ledger.Record, error) {
	old, err := tx.OldKeys(c.ID)
	if err != nil {
		return ledger.Record{}, err
	}
	rec := &ledger.KeyRotated{Cache: c.Name, PublicKey: c.PublicKey, At: tx.now}
	for _, k := range old {
		rec.Old = append(rec.Old, ledger.OldKey{PublicKey: k.PublicKey, SealedKey: k.SealedKey, RotatedAt: k.RotatedAt, Until: k.Until})
	}
	return ledger.Record{KeyRotated: rec}, nil
}

// OldKeys lists the keys that a cache had before its present one, newest first,
// those that are past too.
func (tx *Tx) OldKeys(cacheID int64) ([]OldKey, error) {
	return tx.oldKeys("SELECT cache_id, public_key, sealed_key, rotated_at, until FROM old_keys WHERE cache_id = $1 ORDER BY id DESC", cacheID)
}

// SigningOldKeys lists the old keys of all caches that sign along now, newest first.
func (tx *Tx) SigningOldKeys() ([]OldKey, error) {
	return tx.oldKeys("SELECT cache_id, public_key, sealed_key, rotated_at, until FROM old_keys WHERE until > $1 AND length(sealed_key) > 0 ORDER BY id DESC", stamp(tx.now))
}

func (tx *Tx) oldKeys(query string, arg any) ([]OldKey, error) {
	var list []OldKey
	err := tx.each(query, []any{arg}, func(scan func(...any) error) error {
		var k OldKey
		var rotated, until int64
		err := scan(&k.CacheID, &k.PublicKey, &k.SealedKey, &rotated, &until)
		k.RotatedAt, k.Until = unstamp(rotated), unstamp(until)
		list = append(list, k)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list old keys: %w", err)
	}
	return list, nil
}
