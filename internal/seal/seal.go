// Package seal holds the root key and what it encrypts (design §3, Keys).
package seal

import (
	"context"
	"errors"
	"io"

	"github.com/org/attic-action/internal/blob"
)

// RootKey encrypts the caches' private keys.
type RootKey [32]byte

var (
	// ErrWrongSecret says that the bucket has a root key and none of the
	// configured secrets opens it.
	ErrWrongSecret = errors.New("no configured token secret opens the bucket's root key")
	errTODO        = errors.New("not written yet")
)

// Blobs is what Load needs of a bucket.
type Blobs interface {
	blob.Getter
	blob.Putter
	blob.Lister
}

func (k RootKey) Seal(plain, context []byte) []byte           { panic(errTODO) }
func (k RootKey) Open(sealed, context []byte) ([]byte, error) { return nil, errTODO }

func Load(ctx context.Context, blobs Blobs, secrets [][]byte, rand io.Reader) (RootKey, error) {
	return RootKey{}, errTODO
}
