package depot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// Upload is a path as a client describes it: the stock client before its NAR, ours in a commit.
type Upload struct {
	Path       nix.StorePath
	NARHash    nix.Hash
	NARSize    uint64
	References []string // base names
	Upstream   []string // those of them that the cache's upstreams have
	Deriver    string
	System     string
	CA         string
	Sigs       []string
	Incomplete bool // set here: some reference was not in the cache when the path came

	Listing  []byte // the NAR's skeleton as zstd frames, as our client sends it; nil: none. Of a raw NAR it is made here
	Overhead int64  // bytes of memory that whoever reads a raw NAR's body takes, beside what it takes here

	buildIDs []string // of Listing
}

// IngestResult is what the stock client is told.
type IngestResult struct {
	Kind     string   // Uploaded or Deduplicated
	FileSize *int64   // compressed bytes of the NAR; nil when deduplicated
	Frac     *float64 // share of the NAR's bytes that were there; nil when deduplicated
}

const (
	kindUploaded     = "Uploaded"
	kindDeduplicated = "Deduplicated"
)

var noEnd time.Time

// Ingest takes a raw NAR, as the stock client sends it, and stores it as a push would have: cut by the
// same rule into the same packs. The NAR is hashed as it passes, so what is kept is verified. With
// requireProof a NAR that is here already is read and hashed all the same; without, its body is left
// alone (attic-protocol §9.4).
func (d *Depot) Ingest(ctx context.Context, s Scope, up Upload, body io.Reader, requireProof bool) (IngestResult, error) {
	d.init()
	c, err := newClaim(s, &up)
	if err != nil {
		return IngestResult{}, err
	}
	c.listing = d.newListing()
	known, err := d.knownNAR(ctx, s, up)
	if err != nil {
		return IngestResult{}, err
	}
	// One that was put together from chunks was never hashed, and may be anything, from whoever may push
	// to a cache that is seen from here. With its bytes at hand, now is the time.
	if known != nil && known.Verified {
		result, err := d.deduplicate(ctx, s, c, known, body, requireProof)
		if requireProof || !errors.Is(err, meta.ErrNotFound) {
			return result, err
		}
		known = nil // it was collected meanwhile; its bytes are still to come
	}
	result, err := d.ingestNew(ctx, s, c, body)
	if known != nil {
		result = IngestResult{Kind: kindDeduplicated}
	}
	return result, err
}

// knownNAR finds the NAR in the caches that the scope sees.
func (d *Depot) knownNAR(ctx context.Context, s Scope, up Upload) (nar *meta.NAR, err error) {
	err = d.DB.View(ctx, func(tx *meta.Tx) error {
		nars, err := tx.FindNARs(up.NARHash, s.Sees)
		if err != nil || len(nars) == 0 {
			return err
		}
		nar = &nars[0]
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find NAR: %w", err)
	}
	return nar, nil
}

func (d *Depot) deduplicate(ctx context.Context, s Scope, c *claim, nar *meta.NAR, body io.Reader, requireProof bool) (IngestResult, error) {
	done := IngestResult{Kind: kindDeduplicated}
	if requireProof {
		if err := proof(c, nar, body); err != nil {
			return done, err
		}
	}
	up := *c.up
	if !requireProof && c.contents() != nil {
		up.CA = "" // of bytes that were not shown; clients would believe it
	}
	if requireProof {
		var err error
		if up, err = c.listed(up); err != nil {
			return done, err
		}
	}
	up.NARSize = nar.Size // without proof the claim may be wrong; what is stored is right
	return done, d.update(ctx, s, func(tx *meta.Tx) error { return d.link(tx, s, up, nar) })
}

// proof reads the body and sees that the client has the NAR, and not just its hash.
func proof(c *claim, nar *meta.NAR, body io.Reader) error {
	up := *c.up
	if up.NARSize != nar.Size {
		return badRequest("the NAR has %d bytes, not %d", nar.Size, up.NARSize)
	}
	h := sha256.New()
	// One byte more than there may be, to see a body that is too long.
	n, err := io.Copy(c.tee(h), io.LimitReader(body, int64(nar.Size)+1))
	if err != nil {
		return fmt.Errorf("receive NAR: %w", err)
	}
	if err := checkNAR(up, h, n); err != nil {
		return err
	}
	return c.checkContents()
}

func checkNAR(up Upload, h hash.Hash, n int64) error {
	if n < int64(up.NARSize) {
		return badRequest("the NAR ended after %d of %d bytes; a proxy may have cut the upload", n, up.NARSize)
	}
	if n > int64(up.NARSize) {
		return badRequest("the NAR is longer than the %d bytes claimed", up.NARSize)
	}
	if got := nix.Hash(h.Sum(nil)); got != up.NARHash {
		return badRequest("the NAR's SHA-256 is %s, not %s", got, up.NARHash)
	}
	return nil
}

// link points the path at a verified NAR that is here, and shows its chunks to the cache.
func (d *Depot) link(tx *meta.Tx, s Scope, up Upload, nar *meta.NAR) error {
	old, oldNAR, err := tx.Path(s.Cache.ID, up.Path.Hash())
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return fmt.Errorf("find path: %w", err)
	}
	switch {
	case old == nil:
	case old.StorePath != up.Path.String(), oldNAR.Hash != up.NARHash && oldNAR.Verified && !oldNAR.Damaged:
		return nil // the first one stays; the stock client takes this for success, as it is
	case oldNAR.Hash != up.NARHash:
		old = nil
	case oldNAR.Verified && !oldNAR.Damaged:
		nar = oldNAR // else this one, which was hashed, takes the place of one that only claims to be it
	}
	row, err := tx.NARLayout(nar.ID)
	if err != nil {
		return fmt.Errorf("read layout: %w", err)
	}
	l, err := d.layout(row)
	if err != nil {
		return err
	}
	used := map[int64][]int32{}
	for _, sp := range l {
		if sp.kind == runSpan {
			for i := range sp.count {
				used[sp.pack] = append(used[sp.pack], int32(sp.first+i))
			}
		}
	}
	if err := d.show(tx, s, used); err != nil {
		return err
	}
	if err := markIncomplete(tx, s, &up); err != nil {
		return err
	}
	return d.writePath(tx, s, up, nar, old)
}

func (d *Depot) layout(row []byte) (layout, error) {
	b, err := d.rows.decode(row)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLayout, err)
	}
	return decodeLayout(b)
}

// markIncomplete notes whether some reference is not here: stock uploads come in any order (design
// §2), so this is no error.
func markIncomplete(tx *meta.Tx, s Scope, up *Upload) error {
	var hashes []string
	for _, ref := range up.References {
		if hash := ref[:nix.PathHashLen]; hash != up.Path.Hash() {
			hashes = append(hashes, hash)
		}
	}
	missing, err := tx.MissingPaths(s.Cache.ID, hashes)
	if err != nil {
		return fmt.Errorf("look for references: %w", err)
	}
	up.Incomplete = len(missing) > 0
	return nil
}

func (d *Depot) ingestNew(ctx context.Context, s Scope, c *claim, body io.Reader) (IngestResult, error) {
	up := *c.up
	release, err := d.acquire(ctx, uploadCost(up.NARSize, d.Cut)+up.Overhead, stockWait)
	if err != nil {
		return IngestResult{}, err
	}
	defer release()
	in := &ingestion{depot: d, ctx: ctx, scope: s, size: int64(up.NARSize), own: up.NARSize >= ownPackMin, narState: newNARState()}
	defer in.close()
	hashes := []string{up.Path.Hash()}
	for _, ref := range up.References {
		hashes = append(hashes, ref[:nix.PathHashLen])
	}
	cutter := chunk.NewCutter(d.Cut, hashes, in.piece)
	h := sha256.New()
	buf := make([]byte, 64<<10)
	n, err := io.CopyBuffer(c.tee(h, cutter), onlyReader{io.LimitReader(body, int64(up.NARSize))}, buf)
	if err != nil {
		return IngestResult{}, fmt.Errorf("receive NAR: %w", err)
	}
	if err := checkNAR(up, h, n); err != nil {
		return IngestResult{}, err
	}
	if err := c.checkContents(); err != nil {
		return IngestResult{}, err
	}
	if err := cutter.Close(); err != nil {
		return IngestResult{}, err
	}
	if err := in.finish(); err != nil {
		return IngestResult{}, err
	}
	if up, err = c.listed(up); err != nil {
		return IngestResult{}, err
	}
	return d.commitIngested(ctx, s, up, in)
}

// onlyReader hides WriteTo, so that the copy goes through the buffer that was made for it.
type onlyReader struct{ io.Reader }

func (d *Depot) commitIngested(ctx context.Context, s Scope, up Upload, in *ingestion) (IngestResult, error) {
	out := IngestResult{Kind: kindUploaded}
	pieces, err := parsePieces(in.list)
	if err != nil {
		return out, err
	}
	err = d.update(ctx, s, func(tx *meta.Tx) error {
		places, err := locate(tx, s, pieces)
		if err != nil {
			return err
		}
		a := &assembler{depot: d, tx: tx, places: places}
		asm, err := a.assemble(pieces, up.NARHash, up.NARSize)
		if err != nil {
			return err
		}
		asm.verified = true // the whole NAR was hashed on its way in
		if err := markIncomplete(tx, s, &up); err != nil {
			return err
		}
		result, err := d.keep(tx, s, up, asm, in.list)
		if result == api.Kept {
			out.Kind = kindDeduplicated
		}
		size := asm.layout.size()
		out.FileSize = &size
		return err
	})
	if err != nil || out.Kind == kindDeduplicated {
		out.FileSize = nil
		return out, err
	}
	frac := float64(in.knownBytes) / float64(up.NARSize)
	out.Frac = &frac
	return out, nil
}

func parsePieces(list []byte) ([]chunk.Piece, error) {
	pieces := []chunk.Piece{}
	for p, err := range chunk.ParsePieces(list) {
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, p)
	}
	return pieces, nil
}
