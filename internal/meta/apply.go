package meta

import (
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
)

// Apply makes the database what a record says. It logs nothing: the record comes
// from the log, or from a checkpoint. Whoever rebuilds a database applies a
// checkpoint first and then the log behind it, in order; so the last one of a key
// wins, and applying a stretch again from any point on changes nothing.
//
// A checkpoint is read table by table while the database changes, so a record of it
// may speak of a cache or a NAR that is made only by the log behind it. A path that
// can't be placed for that reason waits by its name (see Waiting) until the log has
// it again.
func (tx *Tx) Apply(pos ledger.Pos, r ledger.Record) error {
	if err := tx.apply(r); err != nil {
		return fmt.Errorf("apply a record of %s: %w", pos, err)
	}
	return nil
}

func (tx *Tx) apply(r ledger.Record) error {
	switch {
	case r.Cache != nil:
		return tx.applyCache(r.Cache)
	case r.CacheDeleted != nil:
		return tx.applyCacheDeleted(r.CacheDeleted.Name)
	case r.NAR != nil:
		return tx.applyNAR(r.NAR)
	case r.Path != nil:
		return tx.applyPath(r.Path)
	case r.PathDeleted != nil:
		return tx.applyPathDeleted(r.PathDeleted)
	case r.TokenIssued != nil:
		return tx.applyTokenIssued(r.TokenIssued)
	case r.TokenRevoked != nil:
		return tx.applyTokenRevoked(r.TokenRevoked)
	case r.KeyRotated != nil:
		return tx.applyKeyRotated(r.KeyRotated)
	case r.Policy != nil:
		return tx.applyPolicy(r.Policy)
	case r.PolicyDeleted != nil:
		_, err := tx.exec("DELETE FROM policies WHERE name = $1", r.PolicyDeleted.Name)
		return err
	case r.Pin != nil:
		return tx.applyPin(r.Pin)
	case r.PinDeleted != nil:
		return tx.applyPinDeleted(r.PinDeleted)
	case r.Pack != nil:
		return tx.applyPack(r.Pack)
	case r.Listing != nil:
		return tx.applyListing(r.Listing)
	case r.BuildLog != nil:
		return tx.applyBuildLog(r.BuildLog)
	case r.BuildLogDeleted != nil:
		return tx.applyBuildLogDeleted(r.BuildLogDeleted)
	case r.Realisation != nil:
		return tx.applyRealisation(r.Realisation)
	case r.Quarantine != nil:
		return tx.applyQuarantine(r.Quarantine)
	case r.Healed != nil:
		return tx.applyHealed(r.Healed)
	case r.Verified != nil:
		return tx.applyVerified(r.Verified)
	case r.Recovered != nil:
		return tx.SetFact(FactRecovered, []byte(r.Recovered.At.UTC().Format(time.RFC3339Nano)))
	}
	return errors.New("there is no rule for a record of its kind")
}

func (tx *Tx) applyCache(c *ledger.Cache) error {
	upstream, err := joinLines("upstream keys", c.UpstreamKeys)
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO caches (name, public_key, sealed_key, public, store_dir, priority, upstream_keys, retention, created_at, deleted_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (name) DO UPDATE SET public_key = excluded.public_key, sealed_key = excluded.sealed_key, public = excluded.public,
			store_dir = excluded.store_dir, priority = excluded.priority, upstream_keys = excluded.upstream_keys,
			retention = excluded.retention, created_at = excluded.created_at, deleted_at = excluded.deleted_at`,
		c.Name, c.PublicKey, notNil(c.SealedKey), c.Public, c.StoreDir, c.Priority, upstream, c.Retention, stamp(c.CreatedAt), nullStamp(c.DeletedAt))
	return err
}

func (tx *Tx) applyCacheDeleted(name string) error {
	if _, err := tx.exec("DELETE FROM waiting WHERE cache = $1", name); err != nil {
		return err
	}
	records := tx.records
	err := tx.dropCache(name)
	tx.records = records
	if isNotFound(err) {
		return nil
	}
	return err
}

// cacheID finds a cache, a soft-deleted one too; 0 is none.
func (tx *Tx) cacheID(name string) (id int64, err error) {
	if err = tx.one("SELECT id FROM caches WHERE name = $1", []any{name}, &id); isNotFound(err) {
		return 0, nil
	}
	return id, err
}

// applyNAR keeps a NAR whose packs are unknown without a layout: whether that
// matters is known at the end, when the paths are.
func (tx *Tx) applyNAR(n *ledger.NAR) error {
	size, err := signed("size", n.Size)
	fileSize, err2 := signed("file size", n.FileSize)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if n.ID == "" {
		return errors.New("a NAR without an id")
	}
	if tx.layouts == nil {
		return errors.New("nobody can make layouts")
	}
	layout, err := tx.layouts.Row(tx, n.Layout)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("NAR %s: %w", n.ID, err)
	}
	_, err = tx.exec(`INSERT INTO nars (uid, form, hash, size, file_size, verified, created_at, layout) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (uid) DO UPDATE SET form = excluded.form, hash = excluded.hash, size = excluded.size, file_size = excluded.file_size,
			verified = excluded.verified, created_at = excluded.created_at, layout = excluded.layout`,
		n.ID, n.Form[:], n.Hash[:], size, fileSize, n.Verified, stamp(n.CreatedAt), notNil(layout))
	return err
}

// applyPath says of a path's last use that it is now: when it was last pulled is in
// no record, and a collection must not take what a machine runs.
func (tx *Tx) applyPath(p *ledger.Path) error {
	path, err := nix.ParseStorePath(p.StorePath)
	if err != nil {
		return err
	}
	var nar int64
	cache, err := tx.cacheID(p.Cache)
	if err != nil {
		return err
	}
	if err := tx.one("SELECT id FROM nars WHERE uid = $1", []any{p.NAR}, &nar); err != nil && !isNotFound(err) {
		return err
	}
	if cache == 0 || nar == 0 {
		why := "what its NAR is made of is not known"
		if cache == 0 {
			why = "the settings of its cache are not known"
		}
		return tx.wait(p, path.Hash(), cache, why)
	}
	var lists [3]string
	for i, list := range [][]string{p.References, p.Upstream, p.Sigs} {
		if lists[i], err = joinLines([]string{"references", "upstream", "signatures"}[i], list); err != nil {
			return err
		}
	}
	args := []any{cache, path.Hash(), nar, p.StorePath, lists[0], lists[1], p.Deriver, p.System, p.CA, lists[2],
		p.CreatedBy, stamp(p.CreatedAt), stamp(tx.now), false}
	n, err := tx.exec(insertPath, args...)
	if err == nil && n == 0 {
		_, err = tx.exec(replacePath, args...)
	}
	if err != nil {
		return err
	}
	return tx.unwait(p.Cache, path.Hash())
}

// wait notes a path that can't be placed. If there is an older version of it, that
// one is not what was promised last.
func (tx *Tx) wait(p *ledger.Path, hash string, cache int64, why string) error {
	if _, err := tx.exec("DELETE FROM paths WHERE cache_id = $1 AND hash = $2", cache, hash); err != nil {
		return err
	}
	_, err := tx.exec(`INSERT INTO waiting (cache, hash, store_path, why) VALUES ($1, $2, $3, $4)
		ON CONFLICT (cache, hash) DO UPDATE SET store_path = excluded.store_path, why = excluded.why`, p.Cache, hash, p.StorePath, why)
	return err
}

func (tx *Tx) unwait(cache, hash string) error {
	_, err := tx.exec("DELETE FROM waiting WHERE cache = $1 AND hash = $2", cache, hash)
	return err
}

func (tx *Tx) applyPathDeleted(d *ledger.PathDeleted) error {
	_, err := tx.exec("DELETE FROM paths WHERE cache_id = (SELECT id FROM caches WHERE name = $1) AND hash = $2", d.Cache, d.Hash)
	if err != nil {
		return err
	}
	return tx.unwait(d.Cache, d.Hash)
}

func (tx *Tx) applyTokenIssued(t *ledger.TokenIssued) error {
	policies, err := joinLines("policies", t.Policies)
	caches, err2 := joinLines("caches", t.Caches)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if !t.Expires.IsZero() && t.Expires.Before(tx.now.Add(-keepExpired)) {
		return nil
	}
	_, err = tx.exec("INSERT INTO issued_tokens (jti, subject, policies, caches, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (jti) DO NOTHING",
		t.ID, t.Subject, policies, caches, stamp(t.At), later(t.Expires))
	return err
}

func (tx *Tx) applyTokenRevoked(t *ledger.TokenRevoked) error {
	_, err := tx.exec("INSERT INTO revoked_tokens (jti, revoked_at, until) VALUES ($1, $2, $3) ON CONFLICT (jti) DO NOTHING",
		t.ID, stamp(t.At), later(t.Expires))
	return err
}

func (tx *Tx) applyKeyRotated(k *ledger.KeyRotated) error {
	cache, err := tx.cacheID(k.Cache)
	if err != nil || cache == 0 {
		return err
	}
	if _, err := tx.exec("DELETE FROM old_keys WHERE cache_id = $1", cache); err != nil {
		return err
	}
	for i := range k.Old { // their order is that of their ids, the newest last
		old := k.Old[len(k.Old)-1-i]
		sealed := old.SealedKey
		if !old.Until.After(tx.now) {
			sealed = nil // it signs no more
		}
		_, err := tx.exec("INSERT INTO old_keys (cache_id, public_key, sealed_key, rotated_at, until) VALUES ($1, $2, $3, $4, $5)",
			cache, old.PublicKey, notNil(sealed), stamp(old.RotatedAt), stamp(old.Until))
		if err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) applyPolicy(p *ledger.Policy) error {
	records := tx.records
	err := tx.PutPolicy(&Policy{Name: p.Name, Policy: p.Policy, CreatedAt: p.At, CreatedBy: p.By})
	tx.records = records
	return err
}

// applyPack adds a pack that is not there. The contents of a key never change.
func (tx *Tx) applyPack(p *ledger.Pack) error {
	var id int64
	if err := tx.one("SELECT id FROM packs WHERE key = $1", []any{p.Key}, &id); !isNotFound(err) {
		return err
	}
	sum, err := PackSHA256(p.Key)
	if err != nil {
		return err
	}
	if tx.layouts == nil {
		return errors.New("nobody can read indexes")
	}
	ix, err := tx.layouts.Index(p.Index)
	if err != nil {
		return fmt.Errorf("index of %s: %w", p.Key, err)
	}
	if ix.Size() != p.Size || ix.Flags&pack.FlagOwn != 0 != p.Own {
		return fmt.Errorf("%s: its index is of another pack", p.Key)
	}
	row := Pack{Key: p.Key, SHA256: sum, Size: p.Size, Own: p.Own, Index: p.Index, NARState: p.NARState, CreatedAt: p.CreatedAt}
	if p.Prev != "" {
		if err := tx.one("SELECT id FROM packs WHERE key = $1", []any{p.Prev}, &row.Prev); isNotFound(err) {
			row.NARState = nil // without the ones before, it proves nothing
		} else if err != nil {
			return err
		}
	}
	return tx.InsertPack(&row, ix.Entries)
}

// Waiting calls each for paths that were promised and whose cache or NAR was never
// met: they are lost.
func (tx *Tx) Waiting(each func(cache, storePath, why string) error) error {
	err := tx.each("SELECT cache, store_path, why FROM waiting ORDER BY cache, hash", nil, func(scan func(...any) error) error {
		var cache, path, why string
		if err := scan(&cache, &path, &why); err != nil {
			return err
		}
		return each(cache, path, why)
	})
	if err != nil {
		return fmt.Errorf("list waiting paths: %w", err)
	}
	return nil
}
