package nixcli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// maxSymlinks is what Linux itself follows in one path.
const maxSymlinks = 40

// Resolve finds the store path of each path, in the same order: symlinks such as ./result are followed until they
// enter the store, and a path inside a store object stands for the object. It looks at the file system only; whether nix
// knows the object is Closure's and Infos' to say.
func (n *Nix) Resolve(ctx context.Context, paths []string) ([]nix.StorePath, error) {
	store, err := n.storeDir()
	if err != nil {
		return nil, err
	}
	resolved := make([]nix.StorePath, len(paths))
	for i, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if resolved[i], err = resolve(store, path); err != nil {
			return nil, fmt.Errorf("find store path of %.200q: %w", path, err)
		}
	}
	return resolved, nil
}

func resolve(store, path string) (nix.StorePath, error) {
	if path == "" {
		return nix.StorePath{}, errors.New("the path is empty")
	}
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return nix.StorePath{}, err
		}
		path = dir + "/" + path // not Join: it would drop a ".." behind a symlink
	}
	for range maxSymlinks {
		object, next, err := walk(store, path)
		if err != nil || next == "" {
			return object, err
		}
		path = next
	}
	return nix.StorePath{}, errors.New("too many symlinks")
}

// walk goes down an absolute path until it enters the store, and returns the object there, or meets a symlink, and
// returns the path with the symlink replaced.
func walk(store, path string) (object nix.StorePath, next string, err error) {
	at, rest := "", path
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			at = strings.TrimSuffix(at[:max(0, strings.LastIndexByte(at, '/'))], "/")
			continue
		}
		if at == store {
			return enter(store, filepath.Clean(store+"/"+part+"/"+rest))
		}
		// Whatever the store's directory is, a symlink to another disk perhaps, its name is the store's.
		if at += "/" + part; at == store || strings.HasPrefix(store, at+"/") {
			continue
		}
		info, err := os.Lstat(at)
		if err != nil {
			return object, "", err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			continue
		}
		target, err := os.Readlink(at)
		if err != nil {
			return object, "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Dir(at) + "/" + target
		}
		return object, target + "/" + rest, nil
	}
	return object, "", fmt.Errorf("it is not in the store %s", store)
}

// enter takes a path that went into the store: to an object, or out of the store again by its "..".
func enter(store, path string) (object nix.StorePath, next string, err error) {
	inside, ok := strings.CutPrefix(path, store+"/")
	if !ok {
		return object, path, nil
	}
	base, _, _ := strings.Cut(inside, "/")
	if object, err = nix.ParseBaseName(store, base); err != nil {
		return object, "", err
	}
	_, err = os.Lstat(object.String())
	return object, "", err
}
