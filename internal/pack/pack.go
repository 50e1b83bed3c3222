// Package pack reads and writes the pack, the only file format for contents:
//
//	┌ frame ┬ frame ┬ … ┬ frame ┬ index ─────────────────────────────────────────────────┐
//	│ zstd, one an entry        │ zstd skippable frame: 5E 2A 4D 18, u32 payload length  │
//	│                           │   entry × count: kind u8, SHA-256, size u32, raw u32   │
//	│                           │   version u16, flags u16, count u32, length u32, APK1  │
//	└───────────────────────────┴────────────────────────────────────────────────────────┘
//
// A shared pack holds chunks of many NARs in any order. An own pack (FlagOwn) holds all pieces of
// one NAR, or of a stretch of it, in order: decompressed by any zstd it is the NAR, so a bucket can
// serve it without us.
//
// Packs come from outside. A frame's grammar is checked before anything is decoded, and it is so
// narrow that a frame's memory is known from the index: see CheckFrame. The format is specified in
// docs/format.md.
package pack

import (
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/chunk"
)

const (
	// MaxPackSize is the most bytes of a pack, index included. Common proxies refuse a request
	// body above 100 MB.
	MaxPackSize = 96 << 20
	// MaxEntries is the most entries of a pack. It bounds the memory of an index that a stranger
	// wrote: 96 MiB would hold two million entries of one byte.
	MaxEntries = 1 << 16
	// FlagOwn says that the entries in order are one NAR's stream, or a stretch of it. Only such
	// a pack may hold literals.
	FlagOwn = 1
)

var (
	// ErrFormat is wrapped by every error about bytes that are no pack.
	ErrFormat = errors.New("malformed pack")
	// ErrHash is wrapped by the error about an entry whose bytes have another hash than the index says.
	ErrHash = errors.New("wrong hash in pack")
	// ErrFull says that a pack has no room for one more entry.
	ErrFull = errors.New("pack is full")
	// ErrBroken says that a write went wrong before, so what was written is no pack.
	ErrBroken = errors.New("pack is broken by an earlier error")
)

// Entry is one span of a pack: a zstd frame.
type Entry struct {
	Kind chunk.Kind
	ID   chunk.ID // SHA-256 of the raw bytes, for a literal too
	Size uint32   // bytes of the frame
	Raw  uint32   // bytes that it decodes to
}

// Index lists the spans of a pack from its first byte on, without gaps.
type Index struct {
	Flags   uint16
	Entries []Entry
}

// Own reports whether the entries are a NAR's stream.
func (ix *Index) Own() bool { return ix.Flags&FlagOwn != 0 }

// DataSize is the bytes of all frames, which is where the index frame starts.
func (ix *Index) DataSize() int64 {
	var n int64
	for i := range ix.Entries {
		n += int64(ix.Entries[i].Size)
	}
	return n
}

// RawSize is the bytes that all frames decode to.
func (ix *Index) RawSize() int64 {
	var n int64
	for i := range ix.Entries {
		n += int64(ix.Entries[i].Raw)
	}
	return n
}

// FrameSize is the bytes of the index frame.
func (ix *Index) FrameSize() int64 { return frameSize(len(ix.Entries)) }

// Size is the bytes of the whole pack.
func (ix *Index) Size() int64 { return ix.DataSize() + ix.FrameSize() }

// Offsets returns where each entry's span starts in the pack and, as one element more, where the
// last one ends.
func (ix *Index) Offsets() []int64 {
	offs := make([]int64, 1, len(ix.Entries)+1)
	for i := range ix.Entries {
		offs = append(offs, offs[i]+int64(ix.Entries[i].Size))
	}
	return offs
}

// Offset returns where entry i starts. It adds up sizes; use Offsets for many.
func (ix *Index) Offset(i int) int64 {
	var n int64
	for j := range ix.Entries[:i] {
		n += int64(ix.Entries[j].Size)
	}
	return n
}

// check reports an entry that no pack with these flags may hold.
func (e *Entry) check(flags uint16) error {
	switch e.Kind {
	case chunk.Chunk:
		if e.Raw < 1 || e.Raw > chunk.MaxSize {
			return fmt.Errorf("chunk of %d bytes, want 1 to %d", e.Raw, chunk.MaxSize)
		}
	case chunk.Literal:
		if flags&FlagOwn == 0 {
			return errors.New("literal in a shared pack")
		}
		if e.Raw < 1 || e.Raw > chunk.LiteralMax {
			return fmt.Errorf("literal of %d bytes, want 1 to %d", e.Raw, chunk.LiteralMax)
		}
	default:
		return fmt.Errorf("unknown kind %d", uint8(e.Kind))
	}
	if e.Size < minSpan || e.Size > e.Raw+maxOverhead {
		return fmt.Errorf("frame of %d bytes for %d, want %d to %d", e.Size, e.Raw, minSpan, e.Raw+maxOverhead)
	}
	return nil
}
