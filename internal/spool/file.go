package spool

import (
	"fmt"
	"os"
)

// checkEvery is how many bytes are written between two looks at the volume: a
// statfs costs microseconds, and 64 MiB is well below a sensible reserve.
const checkEvery = 64 << 20

// File is a temporary file that no directory names. Writes append; they are
// for one goroutine. ReadAt may be called by many at once, also beside a Write.
type File struct {
	dir       *Dir
	f         *os.File
	size      int64
	reserved  int64
	unchecked int64 // bytes written since the volume was looked at
	closed    bool
}

// Write appends b. Past the reservation it is ErrBudget, and when the volume's
// reserve would be touched ErrFull; then nothing of b is written.
func (f *File) Write(b []byte) (int, error) {
	n := int64(len(b))
	if n > f.reserved-f.size {
		return 0, fmt.Errorf("write spool file: %w: %d bytes reserved", ErrBudget, f.reserved)
	}
	if f.unchecked+n >= checkEvery {
		if err := f.dir.checkVolume(n); err != nil {
			return 0, fmt.Errorf("write spool file: %w", err)
		}
		f.unchecked = 0
	}
	w, err := f.f.WriteAt(b, f.size)
	f.size += int64(w)
	f.unchecked += int64(w)
	if err != nil {
		return w, fmt.Errorf("write spool file: %w", AsFull(err))
	}
	return w, nil
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

// Size is the number of bytes written.
func (f *File) Size() int64 { return f.size }

// OS returns the file itself, so that a store on the same volume can link it
// in place of copying it. Its offset is not Write's.
func (f *File) OS() *os.File { return f.f }

// Reserve makes room for n more bytes. It does not wait: ErrBudget when the
// budget is taken, ErrFull when the volume is.
func (f *File) Reserve(n int64) error {
	if n < 0 {
		return fmt.Errorf("reserve %d bytes: negative", n)
	}
	if err := f.dir.grow(n); err != nil {
		return fmt.Errorf("reserve %d bytes: %w", n, err)
	}
	if err := f.dir.checkVolume(n); err != nil {
		f.dir.release(n)
		return fmt.Errorf("reserve %d bytes: %w", n, err)
	}
	f.reserved += n
	return nil
}

// Close drops the file and gives its bytes back. Closing twice is harmless.
func (f *File) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	err := f.f.Close()
	f.dir.release(f.reserved)
	if err != nil {
		return fmt.Errorf("close spool file: %w", err)
	}
	return nil
}
