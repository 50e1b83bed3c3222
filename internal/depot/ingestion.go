package depot

import (
	"context"
	"fmt"
	"io"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// Sizes of design §2, shared by every writer of packs through the numbers in docs/format.md.
const (
	ownPackMin    = 4 << 20  // a NAR of as many raw bytes may get packs to itself
	ownPackMax    = 64 << 20 // compressed bytes of one own pack; then the next begins
	ownRepeats    = 16       // a NAR of which more than this part repeats gets no own packs: they would hold it all
	sharedPackMax = 16 << 20 // compressed bytes of a shared pack
	indexRoom     = 4 << 20  // more than the index of a pack with as many entries as there may be
	window        = 1 << 20  // raw bytes of chunks looked up at once
)

// ingestion is a raw NAR on its way into packs. Pieces gather in a window; a full window is looked up
// in one go, and what is not here is compressed and spooled. While every chunk is new, the NAR is on
// its way to packs of its own; the first chunk that is known turns it to shared ones.
type ingestion struct {
	depot *Depot
	ctx   context.Context // of the request that this ingestion is a part of
	scope Scope

	list       []byte // piece list
	size       int64  // raw bytes of the NAR, as claimed
	knownBytes int64  // raw bytes of chunks that were here
	repeated   int64  // raw bytes of chunks that this NAR brought before

	pending []pendingPiece
	raw     []byte // bytes of the pending pieces, back to back
	queued  map[chunk.ID]bool

	own      bool
	prev     int64     // the own pack before the current one
	narState *narState // after all that is in own packs
	file     *spool.File
	writer   *pack.Writer
	entries  []pack.Entry // in the current pack, to leave the own form
	frame    []byte
}

type pendingPiece struct {
	kind chunk.Kind
	id   chunk.ID
	size int
}

// piece is the cutter's callback.
func (in *ingestion) piece(kind chunk.Kind, data []byte) error {
	p := pendingPiece{kind: kind, id: chunk.Sum(data), size: len(data)}
	if kind == chunk.Literal {
		in.list = chunk.AppendLiteral(in.list, data)
	} else {
		in.list = chunk.AppendChunk(in.list, p.id)
	}
	in.pending = append(in.pending, p)
	in.raw = append(in.raw, data...)
	if len(in.raw) >= window {
		return in.flush()
	}
	return nil
}

// flush looks the pending chunks up and packs those that are missing.
func (in *ingestion) flush() error {
	var ids []chunk.ID
	for _, p := range in.pending {
		if p.kind == chunk.Chunk {
			ids = append(ids, p.id)
		}
	}
	missing, err := in.depot.missingChunks(in.ctx, in.scope, ids, true)
	if err != nil {
		return err
	}
	rest := in.raw
	for _, p := range in.pending {
		data := rest[:p.size]
		rest = rest[p.size:]
		known := false
		if p.kind == chunk.Chunk {
			known, missing = !missing[0], missing[1:]
		}
		if err := in.pack(p, data, known); err != nil {
			return err
		}
	}
	in.pending, in.raw = in.pending[:0], in.raw[:0]
	return nil
}

func (in *ingestion) pack(p pendingPiece, data []byte, known bool) error {
	// A chunk that this NAR brought before is not in the database while its pack is being written.
	repeat := in.queued[p.id]
	if known && !repeat {
		in.knownBytes += int64(p.size)
		if in.own {
			if err := in.leaveOwn(); err != nil {
				return err
			}
		}
	}
	if repeat && p.kind == chunk.Chunk {
		in.repeated += int64(p.size)
		if in.own && in.repeated > in.size/ownRepeats {
			if err := in.leaveOwn(); err != nil {
				return err
			}
		}
	}
	if !in.own && (known || repeat || p.kind == chunk.Literal) {
		return nil
	}
	if p.kind == chunk.Chunk {
		if in.queued == nil {
			in.queued = map[chunk.ID]bool{}
		}
		in.queued[p.id] = true
		in.frame = in.depot.encoder.Frame(in.frame[:0], data)
	} else {
		in.frame = pack.LiteralFrame(in.frame[:0], data)
	}
	if p.kind == chunk.Chunk {
		// Only before a chunk: a pack that began with the NAR's last literal would hold nothing else.
		if err := in.rotate(); err != nil {
			return err
		}
	}
	if err := in.add(p, in.frame); err != nil {
		return err
	}
	if in.own {
		_, _ = in.narState.Write(data) // never fails
	}
	return nil
}

func (in *ingestion) add(p pendingPiece, frame []byte) error {
	if in.writer == nil {
		if err := in.open(); err != nil {
			return err
		}
	}
	if err := in.writer.Add(p.kind, p.id, frame, p.size); err != nil {
		return fmt.Errorf("spool chunk: %w", err)
	}
	in.entries = append(in.entries, pack.Entry{Kind: p.kind, ID: p.id, Size: uint32(len(frame)), Raw: uint32(p.size)})
	return nil
}

func (in *ingestion) open() error {
	limit, flags := int64(sharedPackMax), uint16(0)
	if in.own {
		limit, flags = ownPackMax, pack.FlagOwn
	}
	file, err := in.depot.Spool.Create(in.ctx, limit+indexRoom)
	if err != nil {
		return fmt.Errorf("spool pack: %w", err)
	}
	in.file, in.writer, in.entries = file, pack.NewWriter(file, flags), in.entries[:0]
	return nil
}

// leaveOwn goes over to shared packs: the chunks that are spooled move together, span by span, over
// the literals and repeats between them. They stay in the same file, for an upload that waited for
// more spool while it holds some could wait for ever.
func (in *ingestion) leaveOwn() error {
	in.own = false
	if in.writer == nil {
		return nil
	}
	if err := in.file.Room(sharedPackMax + indexRoom); err != nil { // it is written past Write from here on
		return fmt.Errorf("spool pack: %w", err)
	}
	entries := in.entries
	in.entries = nil
	in.writer = pack.NewWriter(io.NewOffsetWriter(in.file.OS(), 0), 0)
	off := int64(0)
	seen := map[chunk.ID]bool{}
	for _, e := range entries {
		if e.Kind == chunk.Chunk && !seen[e.ID] {
			seen[e.ID] = true
			in.frame = grow(in.frame, int(e.Size))
			if _, err := in.file.OS().ReadAt(in.frame, off); err != nil {
				return fmt.Errorf("read spool: %w", err)
			}
			if err := in.add(pendingPiece{kind: e.Kind, id: e.ID, size: int(e.Raw)}, in.frame); err != nil {
				return err
			}
		}
		off += int64(e.Size)
	}
	return nil
}

func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// rotate stores the current pack once it is as large as it should get.
func (in *ingestion) rotate() error {
	limit := int64(sharedPackMax)
	if in.own {
		limit = ownPackMax
	}
	if in.writer == nil {
		return nil
	}
	// A chunk at its largest and a literal must fit, so that a pack never passes its limits.
	if in.writer.Size()+chunk.MaxSize+2*chunk.LiteralMax < limit && in.writer.Len()+2 <= pack.MaxEntries {
		return nil
	}
	return in.store()
}

// store finishes the current pack and puts it into the store.
func (in *ingestion) store() error {
	if in.writer == nil {
		return nil
	}
	name, ix, err := in.writer.Finish()
	if err != nil {
		return fmt.Errorf("spool pack: %w", err)
	}
	src := packFile{in.file, ix.DataSize() + ix.FrameSize()}
	if err := in.file.OS().Truncate(src.size); err != nil {
		return fmt.Errorf("spool pack: %w", err)
	}
	row, err := in.depot.storePack(in.ctx, in.scope, src, stored{name: name, index: ix, state: in.narState, prev: in.prev})
	if err != nil {
		return err
	}
	in.prev = row.ID
	in.close()
	return nil
}

// packFile is a spool file that holds a pack of size bytes; more may have been written to it.
type packFile struct {
	*spool.File
	size int64
}

func (f packFile) Size() int64 { return f.size }

// finish packs what is pending and stores the last pack.
func (in *ingestion) finish() error {
	if err := in.flush(); err != nil {
		return err
	}
	return in.store()
}

// close releases the spool of a pack that is stored or given up.
func (in *ingestion) close() {
	if in.file != nil {
		in.file.Close()
	}
	in.file, in.writer, in.entries = nil, nil, in.entries[:0]
}
