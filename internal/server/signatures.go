package server

import (
	"crypto/sha256"
	"sync"

	"github.com/org/attic-action/internal/nix"
)

// signatureBytes is about what one signature takes in the cache: key, text and their place in a map.
const signatureBytes = 256

// signatures keeps signatures that were made, for Nix asks for the same narinfos again and again, and Ed25519 takes
// half of an answer. A signature is a function of key and fingerprint alone, so nothing has to be told about changes.
//
// Two generations: what is used moves into the young one, and when that is full the old one goes.
type signatures struct {
	limit int64 // bytes of both together

	mu         sync.Mutex
	young, old map[[32]byte]string
}

// sign returns the signature of a fingerprint.
func (c *signatures) sign(pair nix.Keypair, fingerprint string) string {
	key := keyOfSignature(pair, fingerprint)
	if sig, ok := c.find(key); ok {
		return sig
	}
	sig := pair.Sign(fingerprint)
	c.keep(key, sig)
	return sig
}

// keyOfSignature is as hard to meet again as what is signed is to forge: fingerprints come from outside.
func keyOfSignature(pair nix.Keypair, fingerprint string) [32]byte {
	return sha256.Sum256([]byte(pair.Public().String() + "\n" + fingerprint))
}

func (c *signatures) find(key [32]byte) (sig string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sig, ok = c.young[key]; ok {
		return sig, true
	}
	if sig, ok = c.old[key]; ok {
		c.add(key, sig)
	}
	return sig, ok
}

func (c *signatures) keep(key [32]byte, sig string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(key, sig)
}

// add puts a signature into the young generation; c.mu is held.
func (c *signatures) add(key [32]byte, sig string) {
	if int64(len(c.young)+1)*signatureBytes > c.limit/2 {
		c.old, c.young = c.young, nil
	}
	if c.young == nil {
		c.young = map[[32]byte]string{}
	}
	c.young[key] = sig
}
