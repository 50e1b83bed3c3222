package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

const maxOwnFile = 1 << 20

// ownFile is a file of the user's that is about to be changed: there whole at any time, with the old text or with the new one.
type ownFile struct {
	named         string // as the user knows it
	path          string // with all links followed
	before, after []byte
	exists        bool
	mode          fs.FileMode // that it gets
}

// open reads a file, which need not exist. One that somebody else makes anew whenever he likes is an error.
func open(name string) (*ownFile, error) {
	f := &ownFile{named: name, path: name, mode: 0o644}
	real, err := filepath.EvalSymlinks(name)
	switch {
	case err == nil:
		f.path = real
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", name, err)
	default:
		if info, err := os.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, fmt.Errorf("%s is a link to nothing", name)
		}
		return f, nil
	}
	if strings.HasPrefix(f.path, nix.StoreDir+"/") {
		return nil, fmt.Errorf("%s is a link into the Nix store, so home-manager or NixOS makes it; add there what attic-action use --print says", name)
	}
	info, err := os.Stat(f.path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err == nil {
		f.before, err = readBounded(f.path, maxOwnFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f.exists, f.mode = true, info.Mode().Perm()
	return f, nil
}

// write writes what is to be there after, if that is something else, and says which it did: wrote, removed or, for nothing, "".
// A file that has nothing left in it goes.
func (f *ownFile) write() (done string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", f.path, err)
		}
	}()
	if len(bytes.TrimSpace(f.after)) == 0 {
		if !f.exists || len(f.before) == 0 {
			return "", nil
		}
		return "removed", os.Remove(f.path)
	}
	if f.exists && bytes.Equal(f.before, f.after) {
		info, err := os.Stat(f.path)
		if err != nil || info.Mode().Perm() == f.mode {
			return "", err
		}
		return "closed to others:", os.Chmod(f.path, f.mode)
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return "", err
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".attic-action-*") // 0600
	if err != nil {
		return "", err
	}
	_, err = temp.Write(f.after)
	if err = errors.Join(err, temp.Chmod(f.mode), temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), f.path)
	}
	if err != nil {
		_ = os.Remove(temp.Name()) // the error says why it would be left
	}
	return "wrote", err
}
