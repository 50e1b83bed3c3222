// Package blob is the contract for object storage: what the depot, the ledger
// and the key ring ask of a bucket, and no more. Implementations live below it
// (disk, s3) and pass blobtest.Suite.
//
// The keys of a bucket:
//
//	packs/<aa>/<sha256>-<16 hex>       contents (package pack)
//	log/<epoch>/<seq>-<sha256>         records (package ledger)
//	keys/root-<id of the secret>       the wrapped root key (package seal)
package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

var (
	// ErrNotFound says that no object has this key.
	ErrNotFound = errors.New("no such object")
	// ErrExists says that the key is taken. Objects are never overwritten.
	ErrExists = errors.New("object exists already")
	// ErrRange says that a range lies outside the object.
	ErrRange = errors.New("range outside the object")
	// ErrUnavailable says that the store does not answer at present. It was tried
	// for a while; what comes later may find it well.
	ErrUnavailable = errors.New("the storage does not answer")
	// ErrKey says that a key is not one (see ValidKey).
	ErrKey = errors.New("not an object key")
)

// Source is what can be put: readable at any offset, so that an attempt can be
// repeated and parts sent in parallel. Size is the number of bytes.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Summed is a Source of which the caller has computed the SHA-256: a store that signs what it sends need not read
// it twice. Where it is wrong, Put fails, or stores what the source has.
type Summed struct {
	Source
	SHA256 [32]byte
}

// Getter reads objects.
type Getter interface {
	// Get opens n bytes from offset off; n < 0 means to the end. The caller
	// closes the reader; ctx has to last as long as it is read. A missing object
	// is ErrNotFound; a range that begins or ends past the object's end is
	// ErrRange, either from Get or from Read before any byte after the end was
	// promised.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
}

// Putter writes objects.
type Putter interface {
	// Put stores src under key, durably when it returns nil. It never
	// replaces: a key that is taken is ErrExists. After an error the object
	// is either absent or whole.
	Put(ctx context.Context, key string, src Source) error
}

// Deleter removes objects.
type Deleter interface {
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, key string) error
}

// Info describes one object of a listing. Size is in bytes.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Lister enumerates objects.
type Lister interface {
	// List calls each for every object whose key begins with prefix, sorted
	// bytewise. The prefix need not end at a slash; the empty one is everything.
	// An error of each ends the listing and is returned. Objects that come
	// and go meanwhile may be listed or not.
	List(ctx context.Context, prefix string, each func(Info) error) error
}

// Store is all of it.
type Store interface {
	Getter
	Putter
	Deleter
	Lister
}

// Presigner is a Store whose objects can be fetched by whoever has a URL, by GET
// and not by HEAD, until life has passed. Nothing is asked of the store: the URL
// of an object that is not there is as good as any.
type Presigner interface {
	Presign(ctx context.Context, key string, life time.Duration) (url string, err error)
}

// Bytes makes a Source of bytes in memory.
func Bytes(b []byte) Source { return bytes.NewReader(b) }

// maxKey keeps keys below the 1,024 bytes of S3 and each file name below the
// 255 bytes of common file systems.
const maxKey, maxName = 512, 200

// CheckKey tells whether key is a slash path of names of [A-Za-z0-9._-], none
// of which begins with a dot: no "..", no hidden file, no empty name. The error
// wraps ErrKey.
func CheckKey(key string) error {
	if len(key) == 0 || len(key) > maxKey {
		return fmt.Errorf("%w: %d bytes long, want 1 to %d", ErrKey, len(key), maxKey)
	}
	name := 0 // bytes of the present name so far
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '/':
			if name == 0 {
				return fmt.Errorf("%w: %q has an empty name", ErrKey, key)
			}
			name = 0
			continue
		case c == '.' && name == 0:
			return fmt.Errorf("%w: %q has a name that begins with a dot", ErrKey, key)
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%w: %q has byte %q", ErrKey, key, c)
		}
		if name++; name > maxName {
			return fmt.Errorf("%w: %q has a name longer than %d bytes", ErrKey, key, maxName)
		}
	}
	if name == 0 {
		return fmt.Errorf("%w: %q ends with a slash", ErrKey, key)
	}
	return nil
}
