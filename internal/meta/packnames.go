package meta

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// PackSHA256 is the digest in a pack's key.
func PackSHA256(key string) (sum [32]byte, err error) {
	const prefix = len("packs/aa/")
	if len(key) != prefix+64+1+16 || !strings.HasPrefix(key, "packs/") || key[prefix+64] != '-' || key[6:8] != key[prefix:prefix+2] {
		return sum, fmt.Errorf("%q is not the key of a pack", key)
	}
	if _, err := hex.Decode(sum[:], []byte(key[prefix:prefix+64])); err != nil {
		return sum, fmt.Errorf("%q is not the key of a pack: %w", key, err)
	}
	return sum, nil
}

// PackID finds a pack by its object's key, whoever may see it.
func (tx *Tx) PackID(key string) (id int64, err error) {
	if err := tx.one("SELECT id FROM packs WHERE key = $1", []any{key}, &id); err != nil {
		return 0, fmt.Errorf("find pack %s: %w", key, err)
	}
	return id, nil
}

// PackKey is PackID's inverse.
func (tx *Tx) PackKey(id int64) (key string, err error) {
	if err := tx.one("SELECT key FROM packs WHERE id = $1", []any{id}, &key); err != nil {
		return "", fmt.Errorf("find pack %d: %w", id, err)
	}
	return key, nil
}
