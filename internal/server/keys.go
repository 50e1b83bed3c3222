package server

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/seal"
)

// keyring opens the caches' signing keys and keeps the open ones in memory.
type keyring struct {
	root seal.RootKey

	mu   sync.Mutex
	open map[keyName]openKey
}

// A keyName is one of the keys that a cache has and had.
type keyName struct {
	cache     int64
	publicKey string
}

// An openKey belongs to the sealed bytes it came from: a cache with a new key
// has other bytes, so nothing has to be told about the change.
type openKey struct {
	sealed []byte
	pair   nix.Keypair
}

// maxOpenKeys bounds the memory; beyond it the ring starts anew.
const maxOpenKeys = 4096

// of returns the keypair that signs for c.
func (k *keyring) of(c *meta.Cache) (nix.Keypair, error) {
	return k.unseal(c, c.PublicKey, c.SealedKey)
}

func (k *keyring) unseal(c *meta.Cache, publicKey string, sealed []byte) (nix.Keypair, error) {
	name := keyName{c.ID, publicKey}
	k.mu.Lock()
	have, ok := k.open[name]
	k.mu.Unlock()
	if ok && bytes.Equal(have.sealed, sealed) {
		return have.pair, nil
	}
	text, err := k.root.Open(sealed, []byte(c.Name))
	if err != nil {
		return nix.Keypair{}, fmt.Errorf("open signing key of cache %s: %w", c.Name, err)
	}
	pair, err := nix.ParseKeypair(string(text))
	if err != nil {
		return nix.Keypair{}, fmt.Errorf("read signing key of cache %s: %w", c.Name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == nil || len(k.open) >= maxOpenKeys {
		k.open = make(map[keyName]openKey)
	}
	k.open[name] = openKey{sealed: sealed, pair: pair}
	return pair, nil
}

// setKey gives c the keypair whose text form is text, or a new one named as
// the cache when text is empty.
func (k *keyring) setKey(c *meta.Cache, text string) error {
	var pair nix.Keypair
	var err error
	if text == "" {
		pair, err = nix.GenerateKeypair(c.Name, rand.Reader)
	} else {
		pair, err = nix.ParseKeypair(text)
	}
	if err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	c.SealedKey, c.PublicKey = k.seal(c.Name, pair), pair.Public().String()
	return nil
}

// seal encrypts the private half, bound to the cache's name, so that nobody who
// can write the database makes one cache sign with another one's key.
func (k *keyring) seal(cache string, pair nix.Keypair) []byte {
	return k.root.Seal([]byte(pair.Secret()), []byte(cache))
}
