package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// millions fills a cache with closures of small made-up paths, by the same code that pushes go through, a hundred
// times as fast: for whatever has to be seen at the size that a cache has after years.
//
// Closure c has the paths "c-0" to "c-<n-1>"; each refers to three before it, and the last, the toplevel, to fifty.
// A path is a literal and a chunk of its own; the chunks of a closure lie in one pack.
type millions struct {
	file     string // the database, of a server that is not running
	storage  string // folder for packs; empty: they are thrown away, and no NAR can be read
	cache    string // which exists
	paths    int
	closures int
	journal  bool // also write the log, into storage

	spread time.Duration // how long ago the first closure came; the others came at equal distances since
}

func millionsFlags(args []string) (*millions, error) {
	m := &millions{}
	f := flag.NewFlagSet("millions", flag.ContinueOnError)
	f.StringVar(&m.file, "database", "", "file of the database; its server must not run")
	f.StringVar(&m.storage, "storage", "", "folder of the packs; empty: none are kept")
	f.StringVar(&m.cache, "cache", "bench", "cache to fill, which exists")
	f.IntVar(&m.paths, "paths", 1_000_000, "paths, in all closures together")
	f.IntVar(&m.closures, "closures", 500, "closures")
	f.DurationVar(&m.spread, "spread", 0, "how long ago the first closure came")
	f.BoolVar(&m.journal, "log", false, "write the log into storage, too, as a server does")
	return m, f.Parse(args)
}

func (m *millions) run(ctx context.Context) (err error) {
	if m.file == "" || m.journal && m.storage == "" {
		return errors.New("millions: --database is needed, and --storage with --log")
	}
	temp, err := os.MkdirTemp(filepath.Dir(m.file), ".millions-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	kept := m.storage
	if kept == "" {
		kept = filepath.Join(temp, "packs")
	}
	store, err := disk.New(kept)
	if err != nil {
		return err
	}
	now := time.Now()
	o := meta.Options{PageCache: 512 << 20, Now: func() time.Time { return now }}
	if m.journal {
		o.Journal = &ledger.Log{Blobs: store, Epoch: 1}
	}
	db, err := meta.Open(ctx, m.file, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	d := &depot.Depot{DB: db, Blobs: store, Spool: &spool.Dir{Path: temp}, Cut: chunk.DefaultParams}
	if m.storage == "" {
		d.Blobs = forgetful{store}
	}
	return m.fill(ctx, db, d, func(c int) {
		now = time.Now().Add(-m.spread * time.Duration(m.closures-c) / time.Duration(m.closures))
	})
}

// forgetful keeps nothing.
type forgetful struct{ *disk.Store }

func (forgetful) Put(context.Context, string, blob.Source) error { return nil }

func (m *millions) fill(ctx context.Context, db *meta.DB, d *depot.Depot, at func(closure int)) error {
	scope := depot.Scope{User: "millions"}
	err := db.View(ctx, func(tx *meta.Tx) error {
		c, err := tx.Cache(m.cache)
		if err == nil {
			scope.Cache, scope.Sees = *c, []int64{c.ID}
		}
		return err
	})
	if err != nil {
		return err
	}
	start, each := time.Now(), max(1, m.paths/m.closures)
	for c := range m.closures {
		at(c)
		if err := m.closure(ctx, d, scope, c, each); err != nil {
			return err
		}
		if c%50 == 49 || c == m.closures-1 {
			fmt.Fprintf(os.Stderr, "bench: %d paths in %s\n", (c+1)*each, time.Since(start).Round(time.Second))
		}
	}
	runtime.GC()
	return nil
}

// closure puts a pack and commits the paths whose chunks are in it.
func (m *millions) closure(ctx context.Context, d *depot.Depot, s depot.Scope, c, n int) error {
	var file bytes.Buffer
	w, enc := pack.NewWriter(&file, 0), pack.NewEncoder()
	for i := range n {
		raw := millionth(c, i)
		if err := w.Add(chunk.Chunk, chunk.Sum(raw), enc.Frame(nil, raw), len(raw)); err != nil {
			return err
		}
	}
	name, _, err := w.Finish()
	if err != nil {
		return err
	}
	if _, err := d.PutPack(ctx, s, name, nil, int64(file.Len()), &file); err != nil {
		return err
	}
	_, err = d.CommitPaths(ctx, s, m.items(s.Cache.StoreDir, c, n))
	return err
}

// millionth is the chunk of a path.
func millionth(closure, i int) []byte {
	return fmt.Appendf(nil, "the chunk of path %d in closure %d, which is as long as a unit file of systemd's with a few lines of settings", i, closure)
}

// millionthPath is the i-th path of a closure.
func millionthPath(dir string, closure, i int) (nix.StorePath, error) {
	name := fmt.Sprintf("%d-%d", closure, i)
	sum := sha256.Sum256([]byte(name))
	return nix.ParseBaseName(dir, nix.EncodeBase32(sum[:20])+"-"+name)
}

func (m *millions) items(dir string, c, n int) iter.Seq2[api.PathItem, error] {
	return func(yield func(api.PathItem, error) bool) {
		for i := range n {
			it, err := m.item(dir, c, i, n)
			if !yield(it, err) || err != nil {
				return
			}
		}
	}
}

func (m *millions) item(dir string, c, i, n int) (it api.PathItem, err error) {
	path, err := millionthPath(dir, c, i)
	if err != nil {
		return it, err
	}
	raw, literal := millionth(c, i), []byte(path.Base())
	sum := sha256.Sum256(append(raw, literal...))
	it.Header = api.PathHeader{StorePath: path.String(), NARHash: nix.Hash(sum).String(), NARSize: uint64(len(raw) + len(literal)), References: []string{}}
	it.Pieces = chunk.AppendLiteral(chunk.AppendChunk(nil, chunk.Sum(raw)), literal)
	refs := 3
	if i == n-1 {
		refs = 50
	}
	for k := 1; k <= refs && i-k*k >= 0; k++ { // neighbours and some further away
		ref, err := millionthPath(dir, c, i-k*k)
		if err != nil {
			return it, err
		}
		it.Header.References = append(it.Header.References, ref.Base())
	}
	return it, nil
}
