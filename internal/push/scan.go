package push

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
)

const (
	// keepBelow is the size in bytes up to which a NAR is held in memory from
	// scan to pack. Larger ones are read a second time.
	keepBelow = 8 << 20
	// scanCost is what the scan of a NAR holds that is not kept: the cutter's
	// window and the buffers of the file being read.
	scanCost = 2 << 20
)

// chunks are the ids in an item's piece list, with repeats.
func (it *item) chunks() iter.Seq[chunk.ID] {
	return func(yield func(chunk.ID) bool) {
		for piece, err := range chunk.ParsePieces(it.pieces) {
			if err != nil { // we wrote the list
				panic("push: internal error: " + err.Error())
			}
			if piece.Kind == chunk.Chunk && !yield(piece.ID) {
				return
			}
		}
	}
}

// repeated is how many bytes of the NAR are chunks that it holds already.
func (it *item) repeated() (n uint64) {
	seen := make(map[chunk.ID]bool, len(it.sizes))
	i := 0
	for id := range it.chunks() {
		if seen[id] {
			n += uint64(it.sizes[i])
		}
		seen[id] = true
		i++
	}
	return n
}

// scanOrder is the order in which NARs are read: large ones first, the largest
// at the head, for one that came last would leave all cores but one idle. The
// others keep the order of the items, so that commits can follow on their heels.
func (r *run) scanOrder() []*item {
	order := slices.Clone(r.items)
	slices.SortStableFunc(order, func(a, b *item) int {
		return cmp.Compare(b.readTwice(), a.readTwice())
	})
	return order
}

// readTwice is the size of a NAR that is not held in memory, or 0.
func (it *item) readTwice() uint64 {
	if it.info.NarSize <= keepBelow {
		return 0
	}
	return it.info.NarSize
}

// scanAll reads every item's NAR.
func (r *run) scanAll(ctx context.Context) error {
	defer r.asks.close()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.p.workers()) // hashing and cutting are bound by the CPU
	for _, it := range r.scanOrder() {
		if err := r.hold(gctx, it); err != nil {
			break // gctx ended; Wait or ctx knows why
		}
		g.Go(func() error { return r.scanOne(gctx, it) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// hold takes the bytes of memory that a scan needs, and waits for them.
func (r *run) hold(ctx context.Context, it *item) error {
	it.held = scanCost
	if it.info.NarSize <= keepBelow {
		it.held = int64(it.info.NarSize) + 1
	}
	it.held = min(it.held, r.p.memory())
	return r.memory.Acquire(ctx, it.held)
}

// release gives the memory back; the item's bytes must not be used any more.
func (r *run) release(it *item) {
	it.data = nil
	r.memory.Release(it.held)
	it.held = 0
}

func (r *run) scanOne(ctx context.Context, it *item) error {
	err := errDependency
	if !r.track.over(it) {
		err = it.scan(ctx, r.road.cut, r.encoder.Frame, func(n int) { r.progress.Scanned.Add(int64(n)) })
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && len(it.sizes) > 0 {
		if it.data == nil {
			r.release(it)
		}
		r.asks.put(it)
		return nil
	}
	r.release(it)
	if err != nil {
		r.track.fail(it, err.Error())
	} else {
		r.track.packed(it, nil) // it is all literals
	}
	return r.through(ctx)
}

var (
	errDependency = errors.New("a reference was not pushed")
	// errContents is a NAR that is not the one Nix recorded. It must not get a
	// signature of the cache.
	errContents = errors.New("the contents of the store path are not what Nix recorded")
)

// scan reads the NAR, checks it against what Nix recorded, cuts it, and lists what is in it.
func (it *item) scan(ctx context.Context, cut chunk.Params, compress func(dst, raw []byte) []byte, read func(int)) error {
	s := &scanner{ctx: ctx, it: it, left: int64(it.info.NarSize), read: read}
	s.listing = nar.Skeleton{Compress: compress, Limit: api.MaxListing}
	cutter := chunk.NewCutter(cut, it.hashes(), s.piece)
	keep := it.info.NarSize <= keepBelow
	if keep {
		s.data.Grow(int(it.info.NarSize))
	} else {
		s.sum, s.cutter = sha256.New(), cutter
	}
	err := nar.Dump(s, it.info.Path.String())
	switch {
	case errors.Is(err, errContents):
		return fmt.Errorf("%w: longer than the recorded %d bytes", errContents, it.info.NarSize)
	case err != nil:
		return fmt.Errorf("read: %w", err)
	}
	var sum nix.Hash
	if keep {
		sum = sha256.Sum256(s.data.Bytes())
	} else {
		s.sum.Sum(sum[:0])
	}
	if s.left != 0 || sum != it.info.NarHash {
		return fmt.Errorf("%w: NAR hash %s, recorded %s", errContents, sum, it.info.NarHash)
	}
	if keep {
		if _, err := cutter.Write(s.data.Bytes()); err != nil {
			return fmt.Errorf("cut: %w", err)
		}
	}
	if err := cutter.Close(); err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	it.listing = s.listing.Bytes()
	if keep && len(it.sizes) > 0 {
		it.data = s.data.Bytes()
	}
	return nil
}

// hashes are what the cutter cuts around.
func (it *item) hashes() []string {
	out := []string{it.info.Path.Hash()}
	for _, ref := range it.info.References {
		if ref != it.info.Path {
			out = append(out, ref.Hash())
		}
	}
	return out
}

// scanner takes a NAR as it is read.
type scanner struct {
	ctx    context.Context
	it     *item
	left   int64        // bytes until the recorded size
	data   bytes.Buffer // of a NAR that is kept
	sum    hash.Hash    // of one that is not
	cutter *chunk.Cutter
	read   func(int)

	listing nar.Skeleton
}

func (s *scanner) Write(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.left -= int64(len(b)); s.left < 0 {
		return 0, errContents
	}
	s.read(len(b))
	_, _ = s.listing.Write(b) // never fails
	if s.cutter == nil {
		return s.data.Write(b)
	}
	s.sum.Write(b)
	return s.cutter.Write(b)
}

func (s *scanner) piece(k chunk.Kind, data []byte) error {
	if k == chunk.Literal {
		s.it.pieces = chunk.AppendLiteral(s.it.pieces, data)
		return nil
	}
	s.it.pieces = chunk.AppendChunk(s.it.pieces, chunk.Sum(data))
	s.it.sizes = append(s.it.sizes, uint32(len(data)))
	return nil
}
