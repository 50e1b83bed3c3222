package pack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/org/attic-action/internal/chunk"
)

// Writer writes a pack. It holds the index, never the frames.
type Writer struct {
	w    io.Writer
	sum  hash.Hash
	ix   Index
	size int64
	err  error // sticky; set by what leaves the output in an unknown state, and by Finish
}

// NewWriter returns a Writer of a shared pack (flags 0) or of an own one (FlagOwn).
func NewWriter(w io.Writer, flags uint16) *Writer {
	pw := &Writer{w: w, sum: sha256.New(), ix: Index{Flags: flags}}
	if flags&^FlagOwn != 0 {
		pw.err = fmt.Errorf("write pack: unknown flags %#x", flags)
	}
	return pw
}

// Size is the bytes of all frames so far.
func (w *Writer) Size() int64 { return w.size }

// Len is the number of entries so far.
func (w *Writer) Len() int { return len(w.ix.Entries) }

// Fits reports whether a frame of size bytes has room in this pack. Add returns ErrFull when not.
func (w *Writer) Fits(size int) bool {
	n := len(w.ix.Entries) + 1
	return n <= MaxEntries && w.size+int64(size)+frameSize(n) <= MaxPackSize
}

// Add appends one frame, which decodes to raw bytes with the hash id. The frame's grammar is checked,
// its contents are not. An error of the arguments leaves the pack as it was.
func (w *Writer) Add(k chunk.Kind, id chunk.ID, frame []byte, raw int) error {
	if w.err != nil {
		return w.err
	}
	if raw < 1 || raw > chunk.MaxSize {
		return fmt.Errorf("add to pack: %w: %d raw bytes, want 1 to %d", ErrFormat, raw, chunk.MaxSize)
	}
	if err := CheckFrame(frame, uint32(raw)); err != nil {
		return fmt.Errorf("add to pack: %w", err)
	}
	e := Entry{Kind: k, ID: id, Size: uint32(len(frame)), Raw: uint32(raw)}
	if err := e.check(w.ix.Flags); err != nil {
		return fmt.Errorf("add to pack: %w: %w", ErrFormat, err)
	}
	if !w.Fits(len(frame)) {
		return ErrFull
	}
	if err := w.write(frame); err != nil {
		return err
	}
	w.ix.Entries = append(w.ix.Entries, e)
	w.size += int64(len(frame))
	return nil
}

// Finish writes the index and returns the SHA-256 of the whole pack, which is its name. The index is
// decoded again before it is written: a pack that nobody can read must not reach a bucket. The
// Writer is of no use afterwards.
func (w *Writer) Finish() (sum [32]byte, ix *Index, err error) {
	if w.err != nil {
		return sum, nil, w.err
	}
	frame := w.ix.Encode()
	ix, err = DecodeIndex(frame)
	if err == nil && !bytes.Equal(ix.Encode(), frame) {
		err = errors.New("index reads back as another")
	}
	if err != nil {
		w.err = ErrBroken
		return sum, nil, fmt.Errorf("finish pack: %w", err)
	}
	if err := w.write(frame); err != nil {
		return sum, nil, err
	}
	w.err = errors.New("pack is finished")
	w.sum.Sum(sum[:0])
	return sum, ix, nil
}

func (w *Writer) write(b []byte) error {
	n, err := w.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = ErrBroken
		return fmt.Errorf("write pack: %w", err)
	}
	w.sum.Write(b)
	return nil
}
