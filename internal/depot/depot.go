// Package depot turns NARs into chunks and packs and back. It is the only place where the three
// meet: what a client sends becomes packs in the blob store and rows in the database, what a client
// asks for is put together from them.
//
//	PutPack ── spool, verify every span ──► packs/<aa>/<sha256>-<random>   visible to the cache, 24 h
//	CommitPaths ── pieces → places in visible packs → layout, form ──► record, transaction
//	Ingest ── a raw NAR, cut and packed here, then committed by the same code
//	Open ── layout → spans of packs and literals → bytes
//
// The rule everything here keeps (design §4): a chunk is known to a cache only through a pack that is
// visible to it. Visible means put there by a push to that cache or to another one that the token may
// read; everything else is as unknown as what was never uploaded.
//
// A depot stores and reads. It never deletes.
package depot

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/near"
	"github.com/org/attic-action/internal/budget"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// blobs is the part of a blob.Store that a depot uses.
type blobs interface {
	blob.Getter
	blob.Putter
}

// Depot joins the database, the blob store and the spool. Fill in the fields, then use it from any
// number of goroutines.
type Depot struct {
	DB    *meta.DB
	Blobs blobs
	Spool *spool.Dir
	Cut   chunk.Params // how raw uploads are cut; the same sizes that clients are told
	Log   *slog.Logger // nil: slog.Default

	Memory *budget.Bytes // of bytes in flight; nil: no limit
	Jobs   int           // how many compress, and how many verify, at a time; 0: one for each processor

	// Suspect is told of packs whose objects could not be read to the end of what was asked for, though the store
	// answers; nil means nobody is. It must not block.
	Suspect func(packID int64)

	// Near is set when Blobs is a bucket, to which every way is long: small reads come from here, large ones are
	// read ahead.
	Near *near.Cache

	once     sync.Once
	encoder  *pack.Encoder
	decoder  *pack.Decoder
	verifies chan struct{} // one token for each verification under way; it is bound by the CPU
	rows     rowCodec
	indexes  indexCache
	ahead    *readAhead
}

// Scope is what one request may see and change.
type Scope struct {
	Cache meta.Cache // the cache it pushes to
	Sees  []int64    // IDs of the caches whose packs it may know of; Cache.ID first
	User  string     // the token's subject, recorded as the uploader
	Token string     // the token's jti; empty: it has none, or there is no token

	// SignedBy, when not empty, are the keys of which one must have signed each path.
	SignedBy []nix.PublicKey
}

// permitted is meta.ErrRevoked once the token was taken back. It is asked before anything is stored,
// and in the transaction of every change: a request that began before the revocation ends there.
func (s Scope) permitted(tx *meta.Tx) error {
	if s.Token == "" {
		return nil
	}
	return tx.CheckToken(s.Token)
}

// update changes the database in the name of the scope's token.
func (d *Depot) update(ctx context.Context, s Scope, fn func(*meta.Tx) error) error {
	return d.DB.Update(ctx, func(tx *meta.Tx) error {
		if err := s.permitted(tx); err != nil {
			return err
		}
		return fn(tx)
	})
}

// uncommittedLife is how long a pack that nothing has committed stays visible, so that a push that
// was cut off goes on where it stopped (design §4).
const uncommittedLife = 24 * time.Hour

func (d *Depot) init() {
	d.once.Do(func() {
		if d.Jobs <= 0 {
			d.Jobs = runtime.GOMAXPROCS(0)
		}
		d.encoder, d.decoder = pack.NewEncoderFor(d.Jobs), pack.NewDecoderFor(d.Jobs)
		d.rows = newRowCodec()
		d.ahead = newReadAhead(d.Memory)
		d.verifies = make(chan struct{}, d.Jobs)
		if d.Log == nil {
			d.Log = slog.Default()
		}
	})
}

// verifying runs fn while holding one of the places for work that is bound by the CPU.
func (d *Depot) verifying(ctx context.Context, fn func() error) error {
	select {
	case d.verifies <- struct{}{}:
		defer func() { <-d.verifies }()
		return fn()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// BadRequest is an error whose text may be shown to the client: it says what was wrong with what the
// client sent.
type BadRequest struct{ Msg string }

func (e *BadRequest) Error() string { return e.Msg }

func badRequest(format string, args ...any) error {
	return &BadRequest{Msg: fmt.Sprintf(format, args...)}
}

// UnknownChunksError names the chunks of a commit that the scope does not know. Nothing of the commit
// was kept; the client sends them and commits again.
type UnknownChunksError struct{ IDs []chunk.ID }

func (e *UnknownChunksError) Error() string {
	return fmt.Sprintf("%d chunks of the commit are not here", len(e.IDs))
}

// MissingReferencesError names references (base names) that are neither in the cache, nor in the
// commit, nor declared to be an upstream's.
type MissingReferencesError struct{ Refs []string }

func (e *MissingReferencesError) Error() string {
	return fmt.Sprintf("%d references are not in the cache, first %s", len(e.Refs), e.Refs[0])
}
