package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/config"
)

// What Attic has stored is not read here, and not touched: its tables and its chunks
// mean nothing to us, and once the data of the two are mixed nobody can tell them
// apart. Whoever comes with a server.toml of Attic's most often still points at both.

// refuseAttics looks at the places on this machine before anything is made there.
func refuseAttics(ctx context.Context, cfg *config.Server) error {
	if err := checkDatabase(ctx, cfg.Database); err != nil {
		return err
	}
	if cfg.Storage.Type == config.Local && isAtticsDirectory(cfg.Storage.Path) {
		return configError{hintError{fmt.Errorf("%s is a storage of Attic; nothing in it was read or touched", cfg.Storage.Path),
			"give another storage.path, and push the paths again from where they are"}}
	}
	return nil
}

// checkDatabase refuses a database of Attic, and a file that is not there and may not
// be made.
func checkDatabase(ctx context.Context, d config.Database) error {
	if d.File == ":memory:" {
		return nil
	}
	_, err := os.Stat(d.File)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !d.Create:
		return configError{hintError{fmt.Errorf("there is no database %s", d.File), "its url needs ?mode=rwc for it to be made"}}
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at database: %w", err)
	}
	if isAtticsDatabase(ctx, d.File) {
		return configError{hintError{fmt.Errorf("%s is a database of Attic; nothing in it was touched", d.File),
			"give another database.url, or another directory with --data, and push the paths again from where they are"}}
	}
	return nil
}

// isAtticsDatabase looks for Attic's tables. Whatever else is wrong with the file,
// opening it will say.
func isAtticsDatabase(ctx context.Context, file string) bool {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	// immutable: not even a WAL file is made beside it.
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?mode=ro&immutable=1")
	if err != nil {
		return false
	}
	defer db.Close()
	var n int
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('object', 'chunkref')").Scan(&n)
	return err == nil && n == 2
}

// firstPage is how many names are looked at. A listing of a bucket has as many at a
// time, and Attic's, which begin with a digit or a to f, stand before all of ours.
const firstPage = 1000

// atticsChunk is how Attic names every object, in a bucket and on a disk.
var atticsChunk = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.chunk$`)

// isAtticsDirectory knows both layouts that Attic had on a disk: chunks side by side,
// and a/ab/abcd….chunk with a file VERSION beside them.
func isAtticsDirectory(root string) bool {
	if _, err := os.Lstat(filepath.Join(root, "keys")); err == nil {
		return false // ours
	}
	for _, name := range someNames(root) {
		switch {
		case atticsChunk.MatchString(name):
			return true
		case name == "VERSION":
			text, err := os.ReadFile(filepath.Join(root, name))
			if v := strings.TrimSpace(string(text)); err == nil && (v == "0" || v == "1") {
				return true
			}
		case len(name) == 1 && strings.Contains("0123456789abcdef", name):
			for _, below := range someNames(filepath.Join(root, name)) {
				if len(below) == 2 && below[:1] == name && hasAtticsChunk(filepath.Join(root, name, below)) {
					return true
				}
			}
		}
	}
	return false
}

func hasAtticsChunk(dir string) bool {
	for _, name := range someNames(dir) {
		if atticsChunk.MatchString(name) {
			return true
		}
	}
	return false
}

// someNames lists the beginning of a directory; none of one that cannot be read, for
// opening the store will say why.
func someNames(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(firstPage)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return names
}

// refuseAtticsBucket looks at the first names of a bucket. It costs a listing, so it
// is for servers that have nothing yet.
func refuseAtticsBucket(ctx context.Context, bucket blob.Lister, name string) error {
	found, err := anyOf(ctx, bucket, "", atticsChunk.MatchString)
	if err != nil || !found {
		return err
	}
	ours, err := anyOf(ctx, bucket, "keys/", func(string) bool { return true })
	if err != nil || ours {
		return err
	}
	return configError{hintError{fmt.Errorf("the bucket %s has chunks of Attic; nothing in it was read or touched", name),
		"give another bucket, and push the paths again from where they are"}}
}

// anyOf looks for a key among the first ones below prefix.
func anyOf(ctx context.Context, bucket blob.Lister, prefix string, is func(key string) bool) (bool, error) {
	stop := errors.New("seen enough")
	seen, found := 0, false
	err := bucket.List(ctx, prefix, func(o blob.Info) error {
		seen++
		if found = is(o.Key); found || seen == firstPage {
			return stop
		}
		return nil
	})
	if err != nil && !errors.Is(err, stop) {
		return false, fmt.Errorf("look at bucket: %w", err)
	}
	return found, nil
}
