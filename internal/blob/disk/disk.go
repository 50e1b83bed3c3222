// Package disk keeps objects as files below a directory.
//
//	root/packs/3f/3f9c…   an object; its key is its path
//	root/.tmp/…           copies that are not whole yet
//
// An object appears under its name whole and on the disk, or not at all: the
// bytes are synced, then linked into place (a link, unlike a rename, fails when
// the name is taken), then the directory is synced. A key cannot be both an
// object and the beginning of another key.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/spool"
)

const (
	tempDir = ".tmp" // no key begins with a dot
	// tempAge is when a copy in .tmp belongs to a process that died.
	tempAge = 24 * time.Hour
	// copySize is copied between two looks at the context.
	copySize = 1 << 20
)

// Store is a directory of objects. It is safe for concurrent use, also by
// several processes.
type Store struct {
	root string

	mu     sync.Mutex
	synced map[string]bool // directories whose names are known to be on the disk
}

var _ blob.Store = (*Store)(nil)

// New opens the store below root, makes the directory when it is missing, and
// drops copies that a crash left behind.
func New(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := syncDir(filepath.Dir(root)); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{root: root, synced: map[string]bool{root: true}}
	if err := s.ensureDir(s.temp()); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.dropOldCopies(time.Now()); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) temp() string { return filepath.Join(s.root, tempDir) }

func (s *Store) file(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) }

func (s *Store) dropOldCopies(now time.Time) error {
	list, err := os.ReadDir(s.temp())
	if err != nil {
		return err
	}
	for _, e := range list {
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > tempAge {
			_ = os.Remove(filepath.Join(s.temp(), e.Name())) // the next start tries again
		}
	}
	return nil
}

// Get implements blob.Getter.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := s.get(ctx, key, off, n)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return r, nil
}

func (s *Store) get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	f, err := os.Open(s.file(key))
	if err != nil {
		return nil, notFound(err)
	}
	r, err := section(f, off, n)
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// sectionReader is a stretch of a file that closes the file.
type sectionReader struct {
	*io.SectionReader
	f *os.File
}

func (r sectionReader) Close() error { return r.f.Close() }

func section(f *os.File, off, n int64) (io.ReadCloser, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, blob.ErrNotFound
	}
	size := info.Size()
	if off < 0 || off > size || n > size-off {
		return nil, fmt.Errorf("%w: %d bytes from %d of %d", blob.ErrRange, n, off, size)
	}
	if n < 0 {
		n = size - off
	}
	return sectionReader{io.NewSectionReader(f, off, n), f}, nil
}

// notFound: a key below an object is not there either.
func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return blob.ErrNotFound
	}
	return err
}

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return blob.CheckKey(key)
}

// Delete implements blob.Deleter. It is not synced: an object that comes back
// after a power cut is an orphan, which a collection finds.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.remove(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	// os.Remove takes empty directories too, and another Put may be on its way
	// into this one.
	if info, err := os.Lstat(s.file(key)); err == nil && info.IsDir() {
		return nil
	}
	if err := os.Remove(s.file(key)); err != nil && notFound(err) != blob.ErrNotFound {
		return err
	}
	return nil
}

// List implements blob.Lister.
func (s *Store) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	dir := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
		if blob.CheckKey(dir) != nil {
			return nil // no key begins like this
		}
	}
	return s.list(ctx, dir, prefix, each)
}

func (s *Store) list(ctx context.Context, dir, prefix string, each func(blob.Info) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	entries, err := os.ReadDir(s.file(dir))
	if err = notFound(err); errors.Is(err, blob.ErrNotFound) {
		return nil
	} else if err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		if key := keyOf(dir, e); key != "" && (strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys) // directories with their slash: "a-b" comes before "a/b"
	for _, key := range keys {
		if sub, ok := strings.CutSuffix(key, "/"); ok {
			err = s.list(ctx, sub, prefix, each)
		} else if strings.HasPrefix(key, prefix) {
			err = s.info(key, each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keyOf names an entry, a directory with a slash at its end; what is no key is
// empty. A link to a directory counts as one: people move packs elsewhere.
func keyOf(dir string, e fs.DirEntry) string {
	key := e.Name()
	if dir != "" {
		key = dir + "/" + key
	}
	if blob.CheckKey(key) != nil {
		return ""
	}
	if e.IsDir() || e.Type()&fs.ModeSymlink != 0 {
		return key + "/"
	}
	return key
}

func (s *Store) info(key string, each func(blob.Info) error) error {
	info, err := os.Stat(s.file(key))
	if err != nil {
		if err = notFound(err); errors.Is(err, blob.ErrNotFound) {
			return nil // it went meanwhile
		}
		return fmt.Errorf("list %s: %w", key, err)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	return each(blob.Info{Key: key, Size: info.Size(), Modified: info.ModTime()})
}

// full names a full volume in the one way that callers look for.
func full(err error) error { return spool.AsFull(err) }
