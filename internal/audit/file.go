package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// file is one of the files that a Log appends to, and those that it was before. It is
// the writer's own.
type file struct {
	path    string
	maxSize int64
	keep    int

	f     *os.File
	size  int64
	dirty bool // written and not synced
}

// pushes is the name of the file for what pushes send, beside the one of the given name.
func pushes(path string) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "-pushes" + ext
}

// put appends whole lines.
func (f *file) put(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if err := f.ready(int64(len(lines))); err != nil {
		return err
	}
	n, err := f.f.Write(lines)
	f.size += int64(n)
	f.dirty = true
	if err != nil {
		return errors.Join(err, f.shut()) // what is torn is mended by the next open
	}
	return nil
}

// ready makes sure that the file is open, is the one at its path, and has room.
func (f *file) ready(n int64) error {
	var err error
	if f.f != nil && !f.inPlace() {
		err = f.shut() // somebody moved it, or another server on this directory began the next
	}
	if f.f != nil && f.size > 0 && f.size+n > f.maxSize {
		err = errors.Join(f.shut(), f.rotate())
	}
	if f.f == nil {
		err = errors.Join(err, f.open())
	}
	return err
}

func (f *file) inPlace() bool {
	ours, err1 := f.f.Stat()
	there, err2 := os.Stat(f.path)
	return err1 == nil && err2 == nil && os.SameFile(ours, there)
}

func (f *file) open() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", f.path)
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return err
	}
	f.f, f.size = file, fi.Size()
	// A line that a crash tore must not swallow the next one.
	var last [1]byte
	if f.size > 0 {
		if _, err := file.ReadAt(last[:], f.size-1); err == nil && last[0] != '\n' {
			n, _ := file.Write([]byte("\n")) // the next write tells
			f.size += int64(n)
		}
	}
	return nil
}

func (f *file) shut() error {
	if f.f == nil {
		return nil
	}
	err := errors.Join(f.sync(), f.f.Close())
	f.f = nil
	return err
}

func (f *file) sync() error {
	if f.f == nil || !f.dirty {
		return nil
	}
	f.dirty = false
	return f.f.Sync()
}

// rotate makes room for a new file: .1 becomes .2, and so on.
func (f *file) rotate() error {
	for i := f.keep; i > 0; i-- {
		err := os.Rename(rotated(f.path, i-1), rotated(f.path, i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	return nil
}

// rotated is the name of the i-th older file; the 0th is the present one.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}
