package meta

import (
	"errors"
	"time"

	"github.com/org/attic-action/internal/nix"
)

var (
	// ErrNotFound says that there is no such row, or none that may be seen.
	ErrNotFound = errors.New("not found")
	// ErrExists says that the name or id is taken.
	ErrExists = errors.New("exists already")
)

// Cache is a cache's settings. A nil Retention means the server's default.
type Cache struct {
	ID           int64
	Name         string
	PublicKey    string
	SealedKey    []byte
	Public       bool
	StoreDir     string
	Priority     int32
	UpstreamKeys []string
	Retention    *uint32 // seconds
	CreatedAt    time.Time
	DeletedAt    *time.Time // set means soft-deleted
}

// NAR is how one NAR is put together. Sizes are in bytes.
type NAR struct {
	ID        int64
	UID       string   // 32 random hex digits: its name in the log
	Form      [32]byte // SHA-256 of the form
	Hash      nix.Hash // of the NAR's bytes
	Size      uint64   // of the NAR
	FileSize  uint64   // of the form, as it is served
	Verified  bool     // the server hashed the NAR itself
	Layout    []byte   // where the form's pieces lie; depot's encoding
	Damaged   bool     // it cannot be served (see Quarantine): its paths count as absent
	CreatedAt time.Time
}

// Path is a store path in a cache.
type Path struct {
	CacheID    int64
	Hash       string // 32 characters
	StorePath  string // whole
	NAR        int64  // NAR.ID
	References []string
	Upstream   []string // references that upstream caches serve
	Deriver    string
	System     string
	CA         string
	Sigs       []string
	CreatedBy  string
	CreatedAt  time.Time
	LastUsed   time.Time
	Incomplete bool // references are still to come
}

// Pack is a pack in the bucket.
type Pack struct {
	ID        int64
	Key       string
	SHA256    [32]byte
	Size      int64 // bytes of the whole file
	Own       bool
	Prev      int64  // previous own pack of the same NAR; 0 means none
	NARState  []byte // marshaled SHA-256 state after this pack's raw bytes
	Index     []byte // encoded index, zstd
	CreatedAt time.Time
}

// Place is where a chunk lies. The zero Place is not found.
type Place struct {
	Pack  int64
	Entry int32
	Cache int64 // through which it is visible
	Found bool
}
