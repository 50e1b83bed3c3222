package spool

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// unnamed opens a file that no directory names and that can be given a name
// later (no O_EXCL: linkat must stay possible).
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), filepath.Join(dir, "(spool)")), nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL):
		// EISDIR and EINVAL: kernels and file systems that do not know the flag.
		return createUnlinked(dir)
	}
	return nil, &os.PathError{Op: "open temporary file in", Path: dir, Err: err}
}
