// Package ledger is the log of records in the bucket. The bucket is the truth:
// what changes acknowledged state is a record here first and a transaction in
// the database second, so a lost database is rebuilt from the bucket alone.
//
//	log/<epoch %010d>/<seq %020d>-<sha256 of the object>
//
// An object is zstd-compressed JSON Lines, one Record a line. Records apply in
// the order of (epoch, seq), and within an object from top to bottom; applying
// one twice changes nothing, and the last one about a thing wins. A batch that
// is too large for one object becomes several under one number, each beginning
// with a Part line that gives its place. An After line names the batch before:
// what lies between the two was never acknowledged, and if the named one is gone,
// something acknowledged is.
//
//	checkpoints/<epoch>/<seq>-<sha256>   a manifest: the state at a position, and
//	shards/<epoch>/<seq>-<sha256>        the objects of the log that it replaces
package ledger

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/nix"
)

// Record has exactly one member that is not nil.
type Record struct {
	Part  *Part `json:"part,omitempty"`  // written and read by Log alone
	After *Pos  `json:"after,omitempty"` // the same

	Cache        *Cache        `json:"cache,omitempty"`
	CacheDeleted *CacheDeleted `json:"cache_deleted,omitempty"`
	NAR          *NAR          `json:"nar,omitempty"`
	Path         *Path         `json:"path,omitempty"`
	PathDeleted  *PathDeleted  `json:"path_deleted,omitempty"`
	TokenIssued  *TokenIssued  `json:"token_issued,omitempty"`
	TokenRevoked *TokenRevoked `json:"token_revoked,omitempty"`

	Policy        *Policy        `json:"policy,omitempty"`
	PolicyDeleted *PolicyDeleted `json:"policy_deleted,omitempty"`
	KeyRotated    *KeyRotated    `json:"key_rotated,omitempty"`
	Pin           *Pin           `json:"pin,omitempty"`
	PinDeleted    *PinDeleted    `json:"pin_deleted,omitempty"`
	Pack          *Pack          `json:"pack,omitempty"` // in checkpoints only
	Recovered     *Recovered     `json:"recovered,omitempty"`
	Quarantine    *Quarantine    `json:"quarantine,omitempty"`
	Healed        *Healed        `json:"healed,omitempty"`
	Verified      *Verified      `json:"verified,omitempty"`

	Listing         *Listing         `json:"listing,omitempty"`
	BuildLog        *BuildLog        `json:"build_log,omitempty"`
	BuildLogDeleted *BuildLogDeleted `json:"build_log_deleted,omitempty"`
	Realisation     *Realisation     `json:"realisation,omitempty"`
}

// Part is the place of an object among those of one sequence number, from 1.
type Part struct {
	N  int `json:"n"`
	Of int `json:"of"`
}

// Cache is a cache with all its settings, as of this record.
type Cache struct {
	Name         string     `json:"name"`
	PublicKey    string     `json:"public_key"`
	SealedKey    []byte     `json:"sealed_key"` // the private key under the root key (package seal)
	Public       bool       `json:"public"`
	StoreDir     string     `json:"store_dir"`
	Priority     int32      `json:"priority"`
	UpstreamKeys []string   `json:"upstream_keys,omitempty"`
	Retention    *uint32    `json:"retention,omitempty"` // seconds; nil means the server's
	CreatedAt    time.Time  `json:"created_at"`
	DeletedAt    *time.Time `json:"deleted_at,omitempty"` // soft deletion: the name stays taken
}

// CacheDeleted is a hard deletion: the cache, its paths and what it could see.
type CacheDeleted struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// NAR is how one NAR is put together. Sizes are in bytes.
type NAR struct {
	ID        string    `json:"id"`   // a random name; paths refer to it
	Form      Hex       `json:"form"` // SHA-256 of the form (design §2)
	Hash      nix.Hash  `json:"hash"` // of the NAR
	Size      uint64    `json:"size"`
	FileSize  uint64    `json:"file_size"`
	Verified  bool      `json:"verified"`
	Pieces    []byte    `json:"pieces"` // package chunk's piece list
	Layout    []Span    `json:"layout"` // where the pieces lie
	CreatedAt time.Time `json:"created_at"`
}

// Span is a run of pack entries, or literal bytes where Pack is empty.
type Span struct {
	Pack    string `json:"pack,omitempty"` // object key
	First   int    `json:"first,omitempty"`
	Count   int    `json:"count,omitempty"`
	Trailer bool   `json:"trailer,omitempty"` // the pack's index frame follows
	Literal []byte `json:"literal,omitempty"`
}

// Path is what narinfo says about a store path in a cache.
type Path struct {
	Cache      string    `json:"cache"`
	StorePath  string    `json:"store_path"`
	NAR        string    `json:"nar"` // NAR.ID
	NARHash    nix.Hash  `json:"nar_hash"`
	Form       Hex       `json:"form"`
	References []string  `json:"references,omitempty"` // base names
	Upstream   []string  `json:"upstream,omitempty"`   // base names of references that upstream caches have
	Deriver    string    `json:"deriver,omitempty"`
	System     string    `json:"system,omitempty"`
	CA         string    `json:"ca,omitempty"`
	Sigs       []string  `json:"sigs,omitempty"`
	CreatedBy  string    `json:"created_by,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
}

// PathDeleted takes a path out of a cache.
type PathDeleted struct {
	Cache string    `json:"cache"`
	Hash  string    `json:"hash"` // the store path's 32 characters
	At    time.Time `json:"at"`
}

// TokenIssued remembers that a token exists, never the token.
type TokenIssued struct {
	ID       string    `json:"id"` // jti
	Subject  string    `json:"subject,omitempty"`
	Policies []string  `json:"policies,omitempty"` // that granted it; none: made by hand
	Caches   []string  `json:"caches,omitempty"`   // "pattern:permission,permission"
	At       time.Time `json:"at"`
	Expires  time.Time `json:"expires,omitzero"` // zero: never
}

// TokenRevoked makes a token worthless before it expires.
type TokenRevoked struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires,omitzero"` // of the token; zero: never, or not known
}

// KeyRotated is what a cache's keys are after a rotation. The present one is in
// the Cache record beside it.
type KeyRotated struct {
	Cache     string    `json:"cache"`
	PublicKey string    `json:"public_key"` // the present one
	Old       []OldKey  `json:"old"`        // all that it had before, newest first
	At        time.Time `json:"at"`
}

// OldKey signs along until its end.
type OldKey struct {
	PublicKey string    `json:"public_key"`
	SealedKey []byte    `json:"sealed_key,omitempty"` // none after its end
	RotatedAt time.Time `json:"rotated_at"`
	Until     time.Time `json:"until"`
}

// Policy is a trust policy beside those of server.toml.
type Policy struct {
	Name   string          `json:"name"`
	Policy json.RawMessage `json:"policy"` // package trust's, as an object
	By     string          `json:"by,omitempty"`
	At     time.Time       `json:"at"`
}

// PolicyDeleted takes a policy back. Tokens that were issued under it stay.
type PolicyDeleted struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// Pin is a name in a cache and all that it holds, as of this record.
type Pin struct {
	Cache     string     `json:"cache"`
	Name      string     `json:"name"`
	Keep      int        `json:"keep"`             // revisions that it holds at most
	Expires   time.Time  `json:"expires,omitzero"` // zero: never
	Revisions []Revision `json:"revisions"`        // newest first
}

// Revision is a store path that a pin holds, with its closure.
type Revision struct {
	StorePath string    `json:"store_path"`
	By        string    `json:"by,omitempty"`       // the token's subject
	Policies  []string  `json:"policies,omitempty"` // that granted the token
	At        time.Time `json:"at"`
	Paths     int64     `json:"paths"` // of the closure
	Size      uint64    `json:"size"`  // of its NARs, bytes
}

// PinDeleted takes a pin away, with all its revisions.
type PinDeleted struct {
	Cache string    `json:"cache"`
	Name  string    `json:"name"`
	At    time.Time `json:"at"`
}

// Quarantine says that what was stored is not there any more as it was: of a pack, or
// of a NAR that is not what its hash says.
type Quarantine struct {
	Pack    string    `json:"pack,omitempty"`    // object key
	Entries []byte    `json:"entries,omitempty"` // bit i, lowest first, is entry i; none: all of the pack
	NAR     string    `json:"nar,omitempty"`     // NAR.ID
	Why     string    `json:"why"`
	At      time.Time `json:"at"`
}

// Healed ends the quarantine of a pack: its object is as it was stored.
type Healed struct {
	Pack string    `json:"pack"`
	At   time.Time `json:"at"`
}

// Verified says that a NAR that was put together from chunks was read and hashed.
type Verified struct {
	NAR string    `json:"nar"` // NAR.ID
	At  time.Time `json:"at"`
}

// Hex is a SHA-256 that is written as 64 hexadecimal digits.
type Hex [32]byte

// String returns 64 lower-case digits.
func (h Hex) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes 64 lower-case digits.
func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads exactly 64 digits.
func (h *Hex) UnmarshalText(b []byte) error {
	if len(b) != 64 {
		return fmt.Errorf("parse hash: %d characters, want 64", len(b))
	}
	if _, err := hex.Decode(h[:], b); err != nil {
		return fmt.Errorf("parse hash: %w", err)
	}
	return nil
}
