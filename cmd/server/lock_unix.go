//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// errLocked says that another process has the lock.
var errLocked = errors.New("another attic-server uses the database")

// lockData makes sure that one server at a time uses a database: two writers
// would give records the same numbers. The lock ends with the process.
func lockData(database string) (*os.File, error) {
	if database == ":memory:" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(database), 0o700); err != nil {
		return nil, unwritable(database, fmt.Errorf("make data directory: %w", err))
	}
	f, err := os.OpenFile(database+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, unwritable(database, fmt.Errorf("lock database: %w", err))
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w %s", errLocked, database)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

// unwritable says who lacks the right to write where, which is what goes wrong first on
// a new machine.
func unwritable(database string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return configError{hintError{err, fmt.Sprintf("this runs as user %d, who must own what lies in %s: chown -R %[1]d %[2]s",
		os.Geteuid(), shellQuote(filepath.Dir(database)))}}
}
