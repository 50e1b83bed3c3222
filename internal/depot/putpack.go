package depot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// PutPack receives a pack of size bytes whose file has the SHA-256 name, verifies every span of it,
// stores it and makes all of its chunks visible to the scope's cache for a day, or for good once a
// commit uses it. The body is always read to its end and verified, whatever is here already: an
// answer that came earlier would tell the client that somebody else had the pack.
//
// after names the own pack that holds the stretch of the same NAR before this one, or is nil: the NAR
// hash is carried on from there, so that a NAR of many packs is hashed as it arrives.
func (d *Depot) PutPack(ctx context.Context, s Scope, name [32]byte, after *[32]byte, size int64, body io.Reader) (api.PackResult, error) {
	d.init()
	var none api.PackResult
	if size > pack.MaxPackSize {
		return none, badRequest("a pack of %d bytes is larger than the limit of %d", size, int64(pack.MaxPackSize))
	}
	file, err := d.Spool.Create(ctx, size)
	if err != nil {
		return none, fmt.Errorf("spool pack: %w", err)
	}
	defer file.Close()
	if err := receive(file, name, size, body); err != nil {
		return none, err
	}
	prev, state, err := d.previous(ctx, s, after)
	if err != nil {
		return none, err
	}
	entries, err := pack.CountEntries(file, size)
	if err != nil {
		return none, badRequest("%v", err)
	}
	release, err := d.acquire(ctx, verifyCost+int64(entries)*entryCost, packWait)
	if err != nil {
		return none, err
	}
	defer release()
	var ix *pack.Index
	err = d.verifying(ctx, func() (err error) {
		ix, err = d.verifyPack(ctx, file, size, state)
		return err
	})
	if err != nil {
		return none, err
	}
	if _, err := d.storePack(ctx, s, file, stored{name: name, index: ix, state: state, prev: prev}); err != nil {
		return none, err
	}
	return api.PackResult{Size: size, Chunks: len(ix.Entries)}, nil
}

// receive copies the body into the spool and checks its length and hash.
func receive(file *spool.File, name [32]byte, size int64, body io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, h), io.LimitReader(body, size))
	if err != nil {
		return fmt.Errorf("receive pack: %w", err)
	}
	if n != size {
		return badRequest("the pack ended after %d of %d bytes", n, size)
	}
	if [32]byte(h.Sum(nil)) != name {
		return badRequest("the pack's SHA-256 is %x, not the one in the URL", h.Sum(nil))
	}
	return nil
}

// previous finds the own pack that this one goes on from, and the NAR hash's state after it.
func (d *Depot) previous(ctx context.Context, s Scope, after *[32]byte) (id int64, state *narState, err error) {
	state = newNARState()
	if after == nil {
		return 0, state, nil
	}
	var prev *meta.Pack
	err = d.DB.View(ctx, func(tx *meta.Tx) (err error) {
		prev, err = tx.FindPack(*after, s.Cache.ID)
		return err
	})
	if errors.Is(err, meta.ErrNotFound) || err == nil && !prev.Own {
		return 0, nil, badRequest("no own pack %x is here to go on from", *after)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("find previous pack: %w", err)
	}
	if err := state.UnmarshalBinary(prev.NARState); err != nil {
		return 0, nil, fmt.Errorf("read NAR state of pack %d: %w", prev.ID, err)
	}
	return prev.ID, state, nil
}

// verifyPack checks the index and every span, and carries the NAR's hashes over an own pack's bytes.
func (d *Depot) verifyPack(ctx context.Context, file *spool.File, size int64, state *narState) (*pack.Index, error) {
	ix, err := pack.ReadIndex(file, size)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	own := ix.Flags&pack.FlagOwn != 0
	err = pack.Verify(io.NewSectionReader(file, 0, ix.DataSize()), ix, d.decoder, func(_ int, _ pack.Entry, raw []byte) error {
		if own {
			_, _ = state.Write(raw) // never fails
		}
		return ctx.Err() // a pack may unfold to 64 GiB, which is minutes of work for nobody
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, badRequest("%v", err)
	}
	return ix, nil
}

// stored is a verified pack on its way into the store.
type stored struct {
	name  [32]byte
	index *pack.Index
	state *narState // of an own pack: the NAR's hashes after its bytes
	prev  int64     // of an own pack: the one before it, 0 for the first
}

// storePack puts a verified pack under a key that was never used, and shows it to the cache.
func (d *Depot) storePack(ctx context.Context, s Scope, file blob.Source, p stored) (*meta.Pack, error) {
	row := meta.Pack{
		SHA256: p.name,
		Size:   file.Size(),
		Own:    p.index.Flags&pack.FlagOwn != 0,
		Prev:   p.prev,
		Index:  d.rows.encode(p.index.Encode()),
	}
	if row.Own {
		state, err := p.state.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("keep NAR state: %w", err)
		}
		row.NARState = state
	}
	if known, err := d.visiblePack(ctx, s, p); known != nil || err != nil {
		return known, err
	}
	row.Key = PackKey(p.name)
	if err := d.Blobs.Put(ctx, row.Key, blob.Summed{Source: file, SHA256: p.name}); err != nil {
		return nil, fmt.Errorf("store pack: %w", err)
	}
	err := d.update(ctx, s, func(tx *meta.Tx) error {
		row.CreatedAt = tx.Now()
		if err := tx.InsertPack(&row, p.index.Entries); err != nil {
			return err
		}
		return tx.Show(s.Cache.ID, row.ID, p.index.Entries, nil, tx.Now().Add(uncommittedLife))
	})
	if err != nil {
		// The object stays behind without a row. It is not deleted here: the transaction may have been
		// committed all the same. A collection finds it.
		return nil, fmt.Errorf("record pack: %w", err)
	}
	return &row, nil
}

// visiblePack returns the pack when the same file was put under this cache before, and prolongs its
// life: a push that repeats itself after a lost answer stores nothing twice.
func (d *Depot) visiblePack(ctx context.Context, s Scope, p stored) (*meta.Pack, error) {
	var known *meta.Pack
	err := d.DB.View(ctx, func(tx *meta.Tx) (err error) {
		if err := s.permitted(tx); err != nil {
			return err
		}
		known, err = tx.FindPack(p.name, s.Cache.ID)
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find pack: %w", err)
	}
	err = d.update(ctx, s, func(tx *meta.Tx) error {
		if _, err := tx.PackKey(known.ID); errors.Is(err, meta.ErrNotFound) {
			known = nil // it was collected meanwhile
			return nil
		}
		return tx.Show(s.Cache.ID, known.ID, p.index.Entries, nil, tx.Now().Add(uncommittedLife))
	})
	return known, err
}

// PackKey is a key for a pack's object. The random half makes that a key is used once only, so that a
// late delete of an old object can't hit a new upload of the same bytes.
func PackKey(name [32]byte) string {
	var random [8]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	sum := hex.EncodeToString(name[:])
	return "packs/" + sum[:2] + "/" + sum + "-" + hex.EncodeToString(random[:])
}
