package disk

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/spool"
)

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := New(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDiskKeepsTheContract(t *testing.T) {
	blobtest.Suite(t, func(t *testing.T) blob.Store { return open(t, filepath.Join(t.TempDir(), "new", "root")) })
}

func TestLargeObjectsStream(t *testing.T) { blobtest.Streams(t, open(t, t.TempDir())) }

func TestSecondStoreOnTheSameDirectorySeesEverything(t *testing.T) {
	root := t.TempDir()
	if err := open(t, root).Put(t.Context(), "a/b", blob.Bytes([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	s := open(t, root)
	if err := s.Put(t.Context(), "a/c", blob.Bytes(nil)); err != nil {
		t.Error(err)
	}
	r, err := s.Get(t.Context(), "a/b", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, _ := io.ReadAll(r); string(b) != "x" {
		t.Errorf("got %q", b)
	}
}

func spoolFile(t *testing.T, dir, data string) *spool.File {
	t.Helper()
	f, err := (&spool.Dir{Path: dir}).Create(t.Context(), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	return f
}

func inode(t *testing.T, info os.FileInfo, err error) uint64 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestSpoolFileOnTheVolumeIsLinkedNotCopied(t *testing.T) {
	root := t.TempDir()
	s, f := open(t, root), spoolFile(t, root, "spooled")
	if err := s.Put(t.Context(), "a/b", f); err != nil {
		t.Fatal(err)
	}
	info, err := f.OS().Stat()
	spooled := inode(t, info, err)
	info, err = os.Stat(filepath.Join(root, "a", "b"))
	if stored := inode(t, info, err); stored != spooled {
		t.Errorf("object is inode %d, spool file %d: it was copied", stored, spooled)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "a", "b")); err != nil || string(b) != "spooled" {
		t.Errorf("got %q, %v after the spool file was closed", b, err)
	}
}

// part is a stretch of a file whose OS is all of it.
type part struct{ *spool.File }

func (part) Size() int64 { return 3 }

// unlinked is a file that had a name: it cannot be linked.
type unlinked struct{ *os.File }

func (unlinked) Size() int64    { return 3 }
func (u unlinked) OS() *os.File { return u.File }

func TestFileThatCannotBeLinkedIsCopied(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	u, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := u.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(u.Name()); err != nil {
		t.Fatal(err)
	}
	for key, src := range map[string]blob.Source{"part": part{spoolFile(t, root, "abcdef")}, "unlinked": unlinked{u}} {
		if err := s.Put(t.Context(), key, src); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if b, _ := os.ReadFile(filepath.Join(root, key)); string(b) != "abc" {
			t.Errorf("%s: got %q", key, b)
		}
	}
}

func TestCopiesLeaveNothingBehind(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	for range 2 {
		_ = s.Put(t.Context(), "k", blob.Bytes([]byte("x"))) // the second is refused
	}
	old, fresh := filepath.Join(root, tempDir, "put-old"), filepath.Join(root, tempDir, "put-new")
	for _, f := range []string{old, fresh} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * tempAge)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	open(t, root)
	left, err := os.ReadDir(filepath.Join(root, tempDir))
	if err != nil || len(left) != 1 || left[0].Name() != "put-new" {
		t.Errorf("left %v, %v, want put-new alone: another process may be writing it", left, err)
	}
}

func TestForeignFilesAreNotListed(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := os.WriteFile(filepath.Join(root, ".DS_Store"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "lost found"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := s.List(t.Context(), "", func(i blob.Info) error { t.Errorf("listed %s", i.Key); return nil })
	if err != nil {
		t.Error(err)
	}
}

func TestLinkedDirectoryIsListed(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	s := open(t, root)
	if err := os.Symlink(elsewhere, filepath.Join(root, "packs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root, filepath.Join(elsewhere, "loop")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "packs/x", blob.Bytes(nil)); err != nil {
		t.Fatal(err)
	}
	var keys []string
	if err := s.List(t.Context(), "packs/x", func(i blob.Info) error { keys = append(keys, i.Key); return nil }); err != nil {
		t.Error(err)
	}
	if strings.Join(keys, " ") != "packs/x" {
		t.Errorf("got %q", keys)
	}
}
