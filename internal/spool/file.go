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
	most      int64 // that it may come to reserve by itself
	unchecked int64 // bytes written since the volume was looked at
	closed    bool
}

// Write appends b. Past the file's size, or when the budget is taken, it is
// ErrBudget, and when the volume's reserve would be touched ErrFull; then nothing
// of b is written.
func (f *File) Write(b []byte) (int, error) {
	n := int64(len(b))
	if f.size+n > f.most {
		return 0, fmt.Errorf("write spool file: %w: it may have %d bytes", ErrBudget, f.most)
	}
	if err := f.Room(f.size + n); err != nil {
		return 0, fmt.Errorf("write spool file: %w", err)
	}
	if f.unchecked+n >= checkEvery {
		if err := f.dir.checkVolume(); err != nil {
			return 0, fmt.Errorf("write spool file: %w", err)
		}
		f.unchecked = 0
	}
	w, err := f.f.WriteAt(b, f.size)
	f.size += int64(w)
	f.unchecked += int64(w)
	f.dir.wrote(int64(w))
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

// Room reserves, in steps, until the file may have size bytes; it is for those who
// write past Write. It does not wait: ErrBudget when the budget is taken, ErrFull
// when the volume is.
func (f *File) Room(size int64) error {
	if size <= f.reserved {
		return nil
	}
	step := size - f.reserved
	if f.dir.Step > 0 {
		step = (step + f.dir.Step - 1) / f.dir.Step * f.dir.Step
	}
	if f.reserved < f.most {
		step = max(min(step, f.most-f.reserved), size-f.reserved)
	}
	return f.reserve(step)
}

// Reserve lets the file grow by n more bytes than it was made for, and reserves
// them. It does not wait: ErrBudget when the budget is taken, ErrFull when the
// volume is.
func (f *File) Reserve(n int64) error {
	if n < 0 {
		return fmt.Errorf("reserve %d bytes: negative", n)
	}
	if err := f.reserve(n); err != nil {
		return err
	}
	f.most += n
	return nil
}

func (f *File) reserve(n int64) error {
	if err := f.dir.grow(n); err != nil {
		return fmt.Errorf("reserve %d bytes: %w", n, err)
	}
	if err := f.dir.checkVolume(); err != nil {
		f.dir.release(n, 0)
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
	f.dir.release(f.reserved, f.size)
	if err != nil {
		return fmt.Errorf("close spool file: %w", err)
	}
	return nil
}
