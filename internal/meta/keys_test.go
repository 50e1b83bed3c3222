package meta

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRotatedKeysSignUntilTheirEnd(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	j := &journal{}
	db := open(t, Options{Journal: j, Now: func() time.Time { return now }})
	c, other := newCache(t, db, "main"), newCache(t, db, "other")
	rotate := func(public string, sealed byte, keep time.Duration) {
		t.Helper()
		update(t, db, func(tx *Tx) error { return tx.RotateKey(c, public, []byte{sealed}, now.Add(keep)) })
	}
	signing := func() (keys []OldKey) {
		view(t, db, func(tx *Tx) (err error) { keys, err = tx.SigningOldKeys(); return err })
		return keys
	}
	rotate("main.2:AAAA", 2, time.Hour)
	rotate("main.3:AAAA", 3, 2*time.Hour)
	if c.PublicKey != "main.3:AAAA" || c.SealedKey[0] != 3 {
		t.Errorf("the cache has %s, %v", c.PublicKey, c.SealedKey)
	}
	keys := signing()
	if len(keys) != 2 || keys[0].PublicKey != "main.2:AAAA" || keys[0].SealedKey[0] != 2 || keys[0].CacheID != c.ID ||
		keys[1].PublicKey != "main:AAAA" || !keys[1].Until.Equal(now.Add(time.Hour)) {
		t.Errorf("old keys: %+v", keys)
	}
	recs := j.all()
	last := recs[len(recs)-1].KeyRotated
	if last == nil || last.Cache != "main" || last.PublicKey != "main.3:AAAA" || len(last.Old) != 2 || last.Old[0].SealedKey[0] != 2 {
		t.Errorf("last record: %+v", recs[len(recs)-1])
	}
	if cache := recs[len(recs)-2].Cache; cache == nil || cache.PublicKey != "main.3:AAAA" || cache.SealedKey[0] != 3 {
		t.Errorf("record of the cache: %+v", recs[len(recs)-2])
	}

	now = now.Add(time.Hour)
	if keys := signing(); len(keys) != 1 || keys[0].PublicKey != "main.2:AAAA" {
		t.Errorf("after the first one's end: %+v", keys)
	}
	rotate("main.4:AAAA", 4, 0)
	if keys := signing(); len(keys) != 1 || keys[0].PublicKey != "main.2:AAAA" {
		t.Errorf("a key that is not kept signs: %+v", keys)
	}
	view(t, db, func(tx *Tx) error {
		all, err := tx.OldKeys(c.ID)
		if len(all) != 3 || len(all[0].SealedKey) != 0 || len(all[1].SealedKey) != 1 || len(all[2].SealedKey) != 0 {
			t.Errorf("private halves of keys that are past: %+v", all)
		}
		return err
	})
	now = now.Add(2 * time.Hour)
	update(t, db, func(tx *Tx) error { return tx.ForgetOldKeys() })
	view(t, db, func(tx *Tx) error {
		all, err := tx.OldKeys(c.ID)
		for _, k := range all {
			if len(k.SealedKey) != 0 {
				t.Errorf("the private half of %s is kept after its end", k.PublicKey)
			}
		}
		return err
	})
	rotate("main.5:AAAA", 5, time.Hour)
	update(t, db, func(tx *Tx) error { return tx.EndOldKeys(c) })
	if keys := signing(); len(keys) != 0 {
		t.Errorf("after the end of all: %+v", keys)
	}
	update(t, db, func(tx *Tx) error { return tx.RotateKey(other, "other.2:AAAA", []byte{9}, now.Add(time.Hour)) })
	update(t, db, func(tx *Tx) error { return tx.DeleteCache("other", false) })
	if keys := signing(); len(keys) != 0 {
		t.Errorf("keys of a deleted cache: %+v", keys)
	}
	err := db.Update(t.Context(), func(tx *Tx) error { return tx.RotateKey(other, "other.3:AAAA", []byte{9}, now) })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("rotate the key of a deleted cache: %v", err)
	}
}

// The attack: another user of the machine reads the sealed keys, subjects and policies.
func TestDatabaseIsItsOwnersAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meta.db")
	db, err := Open(t.Context(), file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	newCache(t, db, "main")
	defer db.Close()
	for _, name := range []string{file, file + "-wal", file + "-shm"} {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := fi.Mode().Perm(); got != 0o600 {
			t.Errorf("mode of %s: %o, want 600", fi.Name(), got)
		}
	}
}
