package main

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/blob/s3test"
)

const anAtticChunk = "0190f3c2-7b1e-4f7e-9a63-5d1f0c2b7a90.chunk"

// snapshot is everything below a directory, with contents, owners and times.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		var text []byte
		if !d.IsDir() {
			if text, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(&b, "%s %s %s %x\n", path, fi.Mode(), fi.ModTime().Format(time.RFC3339Nano), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whoever points us at what Attic has stored must find all of it as it was, and nothing
// made beside it.
func TestWhatAtticStoredIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		lay  func(t *testing.T, dir string)
		want string
	}{
		"database": {func(t *testing.T, dir string) {
			db, err := sql.Open("sqlite", filepath.Join(dir, "server.db"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec("CREATE TABLE object (id INTEGER); CREATE TABLE chunkref (id INTEGER)"); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}, "server.db is a database of Attic; nothing in it was touched"},
		"storage": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "storage", "VERSION"), "1")
			write(t, filepath.Join(dir, "storage", "0", "01", anAtticChunk), "chunk")
		}, "storage is a storage of Attic; nothing in it was read or touched"},
		"storage without its version": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "storage", "0", "01", anAtticChunk), "chunk")
		}, "is a storage of Attic"},
		"storage as it was at first": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "storage", anAtticChunk), "chunk")
		}, "is a storage of Attic"},
		"storage without a chunk": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "storage", "VERSION"), "1\n")
		}, "is a storage of Attic"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.lay(t, dir)
			file := writeConfig(t, dir, "")
			before := snapshot(t, dir)
			for _, args := range [][]string{
				{"atticd", "-f", file, "--mode", "monolithic"},
				{"atticd", "-f", file, "--mode", "db-migrations"},
				{"attic-server", "token", "list", "-f", file},
			} {
				code, _, stderr := call(t, dir, args...)
				var lines []string
				for line := range strings.Lines(stderr) {
					if !strings.Contains(line, " warning: ") {
						lines = append(lines, line)
					}
				}
				if code != 78 || len(lines) != 2 || !strings.Contains(lines[0], c.want) || !strings.HasPrefix(lines[1], "hint: ") {
					t.Errorf("%q: exit %d, %q", args, code, stderr)
				}
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("before\n%safter\n%s", before, after)
			}
		})
	}
}

func TestOtherDirectoriesAreNotTakenForAttics(t *testing.T) {
	for name, files := range map[string][]string{
		"empty":                          nil,
		"ours, with a chunk thrown in":   {"keys/root-x", anAtticChunk},
		"a directory of one hex digit":   {"a/ab/notes.txt", "a/ab/0190f3c2.chunk"},
		"a version of something else":    {"VERSION"},
		"a directory that only looks so": {"a/bc/" + anAtticChunk},
	} {
		dir := t.TempDir()
		for _, f := range files {
			write(t, filepath.Join(dir, f), "PostgreSQL 16")
		}
		if isAtticsDirectory(dir) {
			t.Errorf("%s is taken for a storage of Attic", name)
		}
	}
	if isAtticsDirectory(filepath.Join(t.TempDir(), "none")) {
		t.Error("what is not there is taken for a storage of Attic")
	}
}

// The same of a real bucket, by the environment that fly.io sets.
func TestBucketOfAtticsIsLeftAlone(t *testing.T) {
	gw := s3test.Start(t)
	bucket := gw.Bucket(t)
	write(t, filepath.Join(gw.Root, bucket, anAtticChunk), "chunk")
	before := snapshot(t, gw.Root)
	proxy := s3test.StartProxy(t, gw.Endpoint)
	home := t.TempDir()
	env := map[string]string{"HOME": home, "FLY_APP_NAME": "cache",
		"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64": base64.StdEncoding.EncodeToString(make([]byte, 48))}
	for _, pair := range s3test.Env(proxy.URL, bucket) {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	var stderr strings.Builder
	p := &program{args: []string{"attic-server", "--listen", "127.0.0.1:0"}, stdout: io.Discard, stderr: &stderr,
		getenv: func(name string) string { return env[name] }}
	code := p.run(t.Context())
	if code != 78 || !strings.Contains(stderr.String(), "the bucket "+bucket+" has chunks of Attic; nothing in it was read or touched\nhint: ") {
		t.Errorf("exit %d, %s", code, stderr.String())
	}
	if after := snapshot(t, gw.Root); after != before {
		t.Errorf("before\n%safter\n%s", before, after)
	}
	for _, r := range proxy.Seen() {
		if r.Method != "GET" && r.Method != "HEAD" || strings.HasSuffix(r.URL.Path, ".chunk") {
			t.Errorf("it asked the bucket to %s %s", r.Method, r.URL)
		}
	}
}

// oneBucket counts what a listing costs.
type oneBucket struct {
	blob.Lister
	listed int
}

func (b *oneBucket) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	return b.Lister.List(ctx, prefix, func(o blob.Info) error { b.listed++; return each(o) })
}

func TestAtticsBucketIsRefusedAfterOnePage(t *testing.T) {
	chunk := func(i int) string { return fmt.Sprintf("%08x-7b1e-4f7e-9a63-5d1f0c2b7a90.chunk", i) }
	for name, c := range map[string]struct {
		keys    func(put func(string))
		refused bool
	}{
		"empty":            {func(func(string)) {}, false},
		"Attic's":          {func(put func(string)) { put(chunk(1)); put(chunk(2)) }, true},
		"ours":             {func(put func(string)) { put("keys/root-x"); put("log/1/1-x"); put("packs/aa/x") }, false},
		"ours and Attic's": {func(put func(string)) { put(chunk(1)); put("keys/root-x") }, false},
		"somebody else's": {func(put func(string)) {
			for i := range firstPage + 5 {
				put(fmt.Sprintf("00/%d", i))
			}
			put(chunk(1))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			mem := blobtest.NewMem()
			c.keys(func(key string) {
				if err := mem.Put(t.Context(), key, blob.Bytes([]byte("x"))); err != nil {
					t.Fatal(err)
				}
			})
			b := &oneBucket{Lister: mem}
			err := refuseAtticsBucket(t.Context(), b, "cache")
			var config configError
			if got := errors.As(err, &config); got != c.refused || err != nil && !got {
				t.Errorf("got %v", err)
			}
			if c.refused && !strings.Contains(err.Error(), "the bucket cache has chunks of Attic") {
				t.Errorf("got %v", err)
			}
			if b.listed > firstPage {
				t.Errorf("%d keys were listed", b.listed)
			}
		})
	}
}
