// Package spool holds bytes that are on their way: temporary files without a
// name, so that nothing of them is left after a crash, under a budget of bytes,
// so that parallel uploads cannot fill the volume that the database lives on.
//
//	Create(ctx, size) ── waits its turn for budget ── statfs ── O_TMPFILE
//	Write, ReadAt     ── statfs again every 64 MiB
//	Close             ── the bytes go back to the budget, the file is gone
package spool

import (
	"context"
	"errors"
	"os"
	"sync"
)

// ErrFull says that the volume has no room. A server answers 507.
var ErrFull = errors.New("the volume is full")

// Dir is a directory for spool files. Its zero limits mean none.
type Dir struct {
	Path    string // empty means os.TempDir()
	Budget  int64  // bytes that all open files may take together; 0 means no limit
	Reserve int64  // bytes of the volume that stay free whatever is spooled; 0 means none

	mu   sync.Mutex
	used int64
}

// File is a temporary file that no directory names.
type File struct {
	dir *Dir
	f   *os.File
}

var errTODO = errors.New("not written yet")

func (d *Dir) Create(ctx context.Context, size int64) (*File, error) { return nil, errTODO }
func (f *File) Write(b []byte) (int, error)                          { return 0, errTODO }
func (f *File) ReadAt(b []byte, off int64) (int, error)              { return 0, errTODO }
func (f *File) Size() int64                                          { return 0 }
func (f *File) OS() *os.File                                         { return f.f }
func (f *File) Reserve(n int64) error                                { return errTODO }
func (f *File) Close() error                                         { return errTODO }
