//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/org/attic-action/internal/config"
)

// becomeOwner makes a process of root one of the data directory's owner.
//
// A server runs as a user of its own, and people call commands as root: with sudo,
// or on fly.io, whose console is always root's. What such a command makes in the
// directory (a lock, a log of the database) would keep the server from starting
// again. And a server that was started as root for its port needs root no longer.
// There is no way back: what parses requests afterwards has the owner's rights only.
func becomeOwner(cfg *config.Server) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir := cfg.Data
	if cfg.Database.File != ":memory:" {
		dir = filepath.Dir(cfg.Database.File)
	}
	uid, gid, err := ownerOf(dir)
	if err != nil || uid == 0 {
		return err
	}
	if at, err := closedTo(dir, uid, gid); err != nil || at != "" {
		return hintError{errors.Join(err, fmt.Errorf("user %d owns %s and cannot get there: %s is closed to it", uid, dir, at)),
			"systemd does so with DynamicUser: start the service, and call the command again; it asks the server that runs"}
	}
	err = syscall.Setgroups([]int{gid}) // root's other groups go first, while they can
	if err == nil {
		err = syscall.Setgid(gid)
	}
	if err == nil {
		err = syscall.Setuid(uid)
	}
	if err != nil {
		return hintError{fmt.Errorf("become user %d, who owns %s: %w", uid, dir, err), "start it as that user"}
	}
	if syscall.Setuid(0) == nil {
		return fmt.Errorf("become user %d: root's rights could be taken back", uid)
	}
	return nil
}

// ownerOf tells whose a directory is, or would be: if it is not there yet, that of
// the nearest one above it counts.
func ownerOf(dir string) (uid, gid int, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("look at data directory: %w", err)
	}
	for {
		fi, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("look at data directory: %w", err)
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, 0, fmt.Errorf("look at data directory: %s has no owner", dir)
		}
		return int(st.Uid), int(st.Gid), nil
	}
}

// closedTo returns the first directory on the way to dir that a user may not pass.
func closedTo(dir string, uid, gid int) (string, error) {
	for ; ; dir = filepath.Dir(dir) {
		real, err := filepath.EvalSymlinks(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			continue // not there yet
		}
		if err != nil {
			return "", fmt.Errorf("look at data directory: %w", err)
		}
		for ; real != filepath.Dir(real); real = filepath.Dir(real) {
			fi, err := os.Stat(real)
			if err != nil {
				return "", fmt.Errorf("look at data directory: %w", err)
			}
			st, ok := fi.Sys().(*syscall.Stat_t)
			if !ok {
				return "", fmt.Errorf("look at data directory: %s has no owner", real)
			}
			pass := fs.FileMode(0o001)
			switch {
			case int(st.Uid) == uid:
				pass = 0o100
			case int(st.Gid) == gid:
				pass = 0o010
			}
			if fi.Mode().Perm()&pass == 0 {
				return real, nil
			}
		}
		return "", nil
	}
}
