package action

import (
	"bytes"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
)

// LocatedError is an error that a line of the repository is to blame for.
type LocatedError struct {
	At  github.Line
	Err error
}

func (e *LocatedError) Error() string { return e.Err.Error() }
func (e *LocatedError) Unwrap() error { return e.Err }

// located adds to an error where it is, if anybody knows.
func (r *run) located(err error) error {
	if at := r.locate(err); at.File != "" {
		return &LocatedError{At: at, Err: err}
	}
	return err
}

// locate finds the line of the repository that is to blame, where Nix names one: the last one, which is nearest to
// what is wrong. Nix names places in the store, in other flakes and in Nixpkgs too; an annotation there would be on a
// file that only looks like it.
func (r *run) locate(err error) github.Line {
	workspace := r.Runner.Getenv("GITHUB_WORKSPACE")
	if workspace == "" {
		return github.Line{}
	}
	root, openErr := os.OpenRoot(workspace)
	if openErr != nil {
		return github.Line{}
	}
	defer root.Close()
	for _, p := range slices.Backward(nixcli.Places(err)) {
		for _, file := range r.candidates(workspace, p) {
			if r.isSource(root, file, p) {
				return github.Line{File: filepath.ToSlash(file), Line: p.Line, Col: p.Column}
			}
		}
	}
	return github.Line{}
}

// candidates are the files of the repository, by their paths in it, that a place may be.
func (r *run) candidates(workspace string, p nixcli.Place) []string {
	if p.Source == "" {
		rel, err := filepath.Rel(workspace, p.File)
		if err != nil || !filepath.IsLocal(rel) {
			return nil
		}
		return []string{rel}
	}
	if !filepath.IsLocal(p.File) {
		return nil
	}
	var files []string
	for dir := r.flakeDir(workspace); filepath.IsLocal(dir); dir = filepath.Dir(dir) {
		files = append(files, filepath.Join(dir, p.File)) // what is copied is the flake's folder, or one above it
		if dir == "." {
			break
		}
	}
	return files
}

// flakeDir is the flake's folder within the workspace; ".." where it is not in there.
func (r *run) flakeDir(workspace string) string {
	ref, _, _ := strings.Cut(r.in.Flake, "?")
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "path:"), "git+file:")
	ref = strings.TrimPrefix(ref, "//")
	if filepath.IsAbs(ref) {
		rel, err := filepath.Rel(workspace, ref)
		if err != nil {
			return ".."
		}
		return rel
	}
	if u, err := url.Parse(ref); err == nil && u.Scheme != "" { // such as github:acme/infra, which may be this very repository
		return "."
	}
	return filepath.Clean(ref)
}

// sourceMax is how large a file may be that Nix read: more is nobody's configuration.
const sourceMax = 4 << 20

// isSource reports whether a file of the repository is the one that a place names. Of a copy in the store it has the
// same contents.
func (r *run) isSource(root *os.Root, file string, p nixcli.Place) bool {
	info, err := root.Lstat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() > sourceMax {
		return false
	}
	if p.Source == "" {
		return true
	}
	if _, err := nix.ParseStorePath(p.Source); err != nil { // a reference
		for _, name := range []string{"git+file://" + root.Name(), "path:" + root.Name(), "github:" + r.Runner.Getenv("GITHUB_REPOSITORY")} {
			if rest, ok := strings.CutPrefix(p.Source, name); ok && (rest == "" || strings.ContainsRune("/?", rune(rest[0]))) {
				return true
			}
		}
		return false
	}
	copied := filepath.Join(p.Source, p.File)
	if info, err := os.Lstat(copied); err != nil || !info.Mode().IsRegular() {
		return false
	}
	ours, err := root.Open(file)
	if err != nil {
		return false
	}
	defer ours.Close()
	theirs, err := os.Open(copied)
	if err != nil {
		return false
	}
	defer theirs.Close()
	a, err := io.ReadAll(io.LimitReader(ours, sourceMax))
	if err != nil {
		return false
	}
	b, err := io.ReadAll(io.LimitReader(theirs, sourceMax))
	return err == nil && bytes.Equal(a, b)
}
