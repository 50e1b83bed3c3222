package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/org/attic-action/internal/blob"
)

// Put implements blob.Putter. A source with OS() *os.File, such as a spool file,
// on the same volume is given a name in place of being copied; it must not be
// written to afterwards. A full volume is spool.ErrFull.
func (s *Store) Put(ctx context.Context, key string, src blob.Source) error {
	if err := s.put(ctx, key, src); err != nil {
		return fmt.Errorf("put %s: %w", key, full(err))
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, src blob.Source) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	name := s.file(key)
	// Looked for before the bytes are copied; the link decides.
	if _, err := os.Lstat(name); err == nil {
		return blob.ErrExists
	}
	if err := s.ensureDir(filepath.Dir(name)); err != nil {
		return err
	}
	linked, err := linkFile(src, name)
	if err == nil && !linked {
		err = s.copyTo(ctx, src, name)
	}
	if errors.Is(err, fs.ErrExist) {
		return blob.ErrExists
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// linkFile gives the source's own file the name, when it can. False without an
// error means that it cannot, and a copy is due.
func linkFile(src blob.Source, name string) (bool, error) {
	if known, ok := src.(blob.Summed); ok {
		src = known.Source
	}
	o, ok := src.(interface{ OS() *os.File })
	if !ok || o.OS() == nil {
		return false, nil
	}
	f := o.OS()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != src.Size() {
		return false, nil // a part of a file, or something else
	}
	if err := f.Sync(); err != nil {
		return false, err
	}
	err = link(f, name)
	if errors.Is(err, fs.ErrExist) {
		return false, err
	}
	// Other volume, unlinked file, no /proc: whatever the reason, a copy works or
	// says better why not.
	return err == nil, nil
}

// copyTo writes a copy in .tmp and links it into place.
func (s *Store) copyTo(ctx context.Context, src blob.Source, name string) error {
	f, err := os.CreateTemp(s.temp(), "put-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // New finds what a crash leaves
	defer f.Close()
	r := io.NewSectionReader(src, 0, src.Size())
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := io.CopyN(f, r, copySize)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() != src.Size() {
		return fmt.Errorf("%w: the source has %d bytes of %d", io.ErrUnexpectedEOF, info.Size(), src.Size())
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Link(f.Name(), name)
}

// ensureDir makes a directory of the store and sees to it that its name is on
// the disk. The lock makes a Put that finds the directory there wait until the
// one that made it has synced it; an object is worth nothing in a directory that
// a power cut takes away.
func (s *Store) ensureDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ensureLocked(dir)
}

func (s *Store) ensureLocked(dir string) error {
	if s.synced[dir] {
		return nil
	}
	if err := s.ensureLocked(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	s.synced[dir] = true
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
