// Package seal holds the root key and what it encrypts: the caches' private
// keys (design §3, Keys).
//
//	token secret ── HKDF ──► wrapping key ── opens ── keys/root-<id of the secret>
//	                                                       │
//	                                                    root key ── HKDF ──► sealing key ── opens ── Cache.SealedKey
//
// The bucket holds the one root key wrapped once per token secret, so rotating a
// secret wraps again and re-encrypts nothing. The id of a secret is derived from
// it as the wrapping key is, and tells nothing of either.
//
// Sealed bytes: version 1, a random nonce of 12 bytes, AES-256-GCM.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// version is the first byte of what is sealed.
const version = 1

// Each derived key has its own use; the texts are part of the format.
const (
	infoSeal = "attic-action seal v1"
	infoWrap = "attic-action wrap v1"
	infoID   = "attic-action secret id v1"
)

// ErrOpen says that sealed bytes were damaged, sealed by another key, or belong
// to another context.
var ErrOpen = errors.New("sealed bytes do not open: damaged, of another key or of another context")

// RootKey encrypts the caches' private keys. It prints as [redacted].
type RootKey [32]byte

const redacted = "[redacted]"

// Format implements fmt.Formatter for every verb: %x and %d pass String by.
func (RootKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// String returns [redacted].
func (RootKey) String() string { return redacted }

// MarshalText returns [redacted], for loggers that encode values as JSON.
func (RootKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Seal encrypts plain. context, for instance a cache's name, is not in the
// result, but Open needs the same: what is sealed for one cache is worth nothing
// under the name of another.
func (k RootKey) Seal(plain, context []byte) []byte {
	return sealed(derive(k[:], infoSeal), plain, context, nonce())
}

// Open decrypts what Seal made with the same context; otherwise it is ErrOpen.
func (k RootKey) Open(sealed, context []byte) ([]byte, error) {
	return opened(derive(k[:], infoSeal), sealed, context)
}

// nonce is random: 2^32 seals of one key would be needed for a likely repeat,
// and there is one per cache. crypto/rand does not fail, it ends the process.
func nonce() []byte {
	b := make([]byte, 12)
	_, _ = rand.Read(b)
	return b
}

// derive makes a key of a secret for one use.
func derive(secret []byte, info string) []byte {
	// The only error is a length above 255 hashes.
	key, _ := hkdf.Key(sha256.New, secret, nil, info, 32)
	return key
}

func aead(key []byte) cipher.AEAD {
	// The only errors are wrong sizes of keys and nonces, and these are constants.
	block, _ := aes.NewCipher(key)
	gcm, _ := cipher.NewGCM(block)
	return gcm
}

func sealed(key, plain, context, nonce []byte) []byte {
	return aead(key).Seal(append([]byte{version}, nonce...), nonce, plain, context)
}

func opened(key, sealed, context []byte) ([]byte, error) {
	gcm := aead(key)
	if len(sealed) < 1+gcm.NonceSize()+gcm.Overhead() || sealed[0] != version {
		return nil, ErrOpen
	}
	nonce, text := sealed[1:1+gcm.NonceSize()], sealed[1+gcm.NonceSize():]
	plain, err := gcm.Open(nil, nonce, text, context)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}
