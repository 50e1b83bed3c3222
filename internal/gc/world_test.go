package gc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/recovery"
	"github.com/org/attic-action/internal/spool"
)

// world is a server's lower half, with a database and packs in files and a clock that tests move. Paths are named by
// one word.
type world struct {
	t     *testing.T
	dir   string
	now   time.Time
	store *watched

	db     *meta.DB
	depot  *depot.Depot
	gc     *Collector
	caches map[string]depot.Scope
	nars   map[string][]byte // by word
	rules  map[string]Own
}

// watched is a store of which tests see, and fail, what is deleted.
type watched struct {
	blob.Store
	mu      sync.Mutex
	deleted []string
	fail    error
}

func (s *watched) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.deleted = append(s.deleted, key)
	return s.Store.Delete(ctx, key)
}

const day = 24 * time.Hour

func newWorld(t *testing.T, caches ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: time.Now().UTC().Truncate(time.Second), caches: map[string]depot.Scope{}, nars: map[string][]byte{}, rules: map[string]Own{}}
	store, err := disk.New(filepath.Join(w.dir, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	w.store = &watched{Store: store}
	w.open("server.db", 1)
	for _, name := range append([]string{"a"}, caches...) {
		w.cache(name)
	}
	return w
}

func (w *world) open(file string, epoch uint64) {
	w.t.Helper()
	layouts := &depot.Layouts{}
	db, err := meta.Open(w.t.Context(), filepath.Join(w.dir, file), meta.Options{Rebuilt: true,
		Journal: &ledger.Log{Blobs: w.store, Epoch: epoch}, Layouts: layouts, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { db.Close() })
	quiet := slog.New(slog.DiscardHandler)
	w.db = db
	w.depot = &depot.Depot{DB: db, Blobs: w.store, Spool: &spool.Dir{Path: w.dir}, Cut: chunk.Params{Min: 1 << 10, Avg: 2 << 10, Max: 8 << 10}, Log: quiet}
	w.gc = w.collector(layouts)
}

// collector is another one of the same database.
func (w *world) collector(layouts *depot.Layouts) *Collector {
	return &Collector{DB: w.db, Layouts: layouts, Blobs: w.store, Retention: 30 * day, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return w.now }, Rules: func(cache string) Own { return w.rules[cache] }}
}

func (w *world) cache(name string) {
	w.t.Helper()
	c := meta.Cache{Name: name, PublicKey: name, StoreDir: nix.StoreDir}
	w.update(func(tx *meta.Tx) error { return tx.CreateCache(&c) })
	w.caches[name] = depot.Scope{Cache: c, Sees: []int64{c.ID}, User: "pusher"}
}

// retention sets that of a cache; 0 is for ever.
func (w *world) retention(cache string, d time.Duration) {
	w.t.Helper()
	s := w.caches[cache]
	seconds := uint32(d / time.Second)
	s.Cache.Retention = &seconds
	w.caches[cache] = s
	w.update(func(tx *meta.Tx) error { c := s.Cache; return tx.UpdateCache(&c) })
}

func (w *world) update(fn func(*meta.Tx) error) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) view(fn func(*meta.Tx) error) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// store is the store path of a word.
func storePath(word string) nix.StorePath {
	sum := sha256.Sum256([]byte(word))
	p, err := nix.ParseBaseName(nix.StoreDir, nix.EncodeBase32(sum[:20])+"-"+word)
	if err != nil {
		panic(err)
	}
	return p
}

func hashOf(word string) string { return storePath(word).Hash() }

// contents are those of a word: up to a '/' words have the same.
func contents(word string) []byte {
	name, _, _ := strings.Cut(word, "_")
	sum := sha256.Sum256([]byte(name))
	r := rand.NewChaCha8(sum)
	b := make([]byte, 20<<10)
	_, _ = r.Read(b)
	return b
}

// push has the stock client push a path that refers to others.
func (w *world) push(cache, word string, refs ...string) {
	w.t.Helper()
	data := contents(word)
	up := depot.Upload{Path: storePath(word), NARHash: sha256.Sum256(data), NARSize: uint64(len(data))}
	for _, ref := range refs {
		up.References = append(up.References, storePath(ref).Base())
	}
	if _, err := w.depot.Ingest(w.t.Context(), w.caches[cache], up, bytes.NewReader(data), true); err != nil {
		w.t.Fatalf("push %s: %v", word, err)
	}
	w.nars[word] = data
}

// pin holds a path, as one revision of a pin that lives for a time; 0: for ever.
func (w *world) pin(cache, name, word string, life time.Duration) {
	w.t.Helper()
	w.update(func(tx *meta.Tx) error {
		p := &meta.Pin{CacheID: w.caches[cache].Cache.ID, Name: name}
		if life > 0 {
			p.Expires = w.now.Add(life)
		}
		return tx.SetPin(p, meta.Revision{Hash: hashOf(word), StorePath: storePath(word).String()})
	})
}

func (w *world) unpin(cache, name string) {
	w.t.Helper()
	w.update(func(tx *meta.Tx) error { return tx.DeletePin(w.caches[cache].Cache.ID, name) })
}

// use says that a path is pulled now.
func (w *world) use(cache, word string) {
	w.t.Helper()
	w.update(func(tx *meta.Tx) error {
		return tx.TouchPaths(w.caches[cache].Cache.ID, []string{hashOf(word)}, w.now)
	})
}

// collect makes collections until the packs that nothing needs are gone, too.
func (w *world) collect() *Result {
	w.t.Helper()
	r, err := w.gc.Run(w.t.Context(), Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.now = w.now.Add(21 * time.Minute)
	for more := true; more; {
		if more, err = w.gc.Reap(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	return r
}

// has lists the words that a cache has, of those that were ever pushed, and reads each.
func (w *world) has(cache string) (words []string) {
	w.t.Helper()
	for word, data := range w.nars {
		got, err := w.pull(cache, word)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		}
		if err != nil {
			w.t.Errorf("pull %s from %s: %v", word, cache, err)
			continue
		}
		if !bytes.Equal(got, data) {
			w.t.Errorf("%s from %s is not what was pushed", word, cache)
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

func (w *world) wants(cache string, words ...string) {
	w.t.Helper()
	slices.Sort(words)
	if got := w.has(cache); !slices.Equal(got, words) {
		w.t.Errorf("cache %s has %v, want %v", cache, got, words)
	}
}

func (w *world) pull(cache, word string) (data []byte, err error) {
	n, err := w.depot.Open(w.t.Context(), w.caches[cache].Cache.ID, hashOf(word))
	if err != nil {
		return nil, err
	}
	r := n.Reader(w.t.Context(), n.Size)
	stream, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(stream, nil)
}

// packs is how many packs have a row, and how many objects there are of them.
func (w *world) packs() (rows, objects int) {
	w.t.Helper()
	w.view(func(tx *meta.Tx) error {
		c, err := tx.Count()
		rows = int(c.Packs)
		return err
	})
	err := w.store.List(w.t.Context(), "packs/", func(blob.Info) error { objects++; return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return rows, objects
}

// recovered opens a database that was made from the bucket alone.
func (w *world) recovered() {
	w.t.Helper()
	if err := w.db.Close(); err != nil {
		w.t.Fatal(err)
	}
	layouts := &depot.Layouts{}
	file := fmt.Sprintf("again-%d.db", len(w.store.deleted))
	db, err := meta.Open(w.t.Context(), filepath.Join(w.dir, file), meta.Options{Layouts: layouts, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	r := &recovery.Recovery{Blobs: w.store, DB: db, Layouts: layouts}
	res, err := r.Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if len(res.Lost) > 0 {
		w.t.Errorf("lost: %v", res.Lost)
	}
	if err := db.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open(file, res.Epoch)
	w.view(func(tx *meta.Tx) error {
		for name, s := range w.caches {
			c, err := tx.Cache(name)
			if err != nil {
				return err
			}
			s.Cache, s.Sees = *c, []int64{c.ID}
			w.caches[name] = s
		}
		return nil
	})
}

// Stages at which tests stop.
const (
	stagePaths   = 2
	stageCondemn = 6
)

// until does the stages before one.
func (w *world) until(stage int) *run {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	cancel() // a step does as little as it can
	for w.gc.run == nil || w.gc.run.stage < stage {
		if more, err := w.gc.Step(ctx); err != nil || !more {
			w.t.Fatalf("%v, %v", more, err)
		}
	}
	return w.gc.run
}

// finish does the rest, and what has to wait.
func (w *world) finish() {
	w.t.Helper()
	for more := true; more; {
		var err error
		if more, err = w.gc.Step(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	w.now = w.now.Add(21 * time.Minute)
	for more := true; more; {
		var err error
		if more, err = w.gc.Reap(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// cut cuts a word's contents as our client does, and packs the chunks.
func (w *world) cut(word string) (list, file []byte, name [32]byte) {
	w.t.Helper()
	var out bytes.Buffer
	p, enc := pack.NewWriter(&out, 0), pack.NewEncoderFor(1)
	c := chunk.NewCutter(w.depot.Cut, nil, func(k chunk.Kind, data []byte) error {
		if k == chunk.Literal {
			list = chunk.AppendLiteral(list, data)
			return nil
		}
		id := chunk.Sum(data)
		list = chunk.AppendChunk(list, id)
		return p.Add(k, id, enc.Frame(nil, data), len(data))
	})
	_, err := c.Write(contents(word))
	if err = errors.Join(err, c.Close()); err != nil {
		w.t.Fatal(err)
	}
	if name, _, err = p.Finish(); err != nil {
		w.t.Fatal(err)
	}
	return list, out.Bytes(), name
}

// pushPack sends a word's chunks and commits nothing.
func (w *world) pushPack(cache, word string) {
	w.t.Helper()
	_, file, name := w.cut(word)
	if _, err := w.depot.PutPack(w.t.Context(), w.caches[cache], name, nil, int64(len(file)), bytes.NewReader(file)); err != nil {
		w.t.Fatal(err)
	}
}

// commit has our client commit a path with the contents of another, whose chunks it does not send.
func (w *world) commit(cache, contentsOf, word string) {
	w.t.Helper()
	if err := w.tryCommit(cache, contentsOf, word); err != nil {
		w.t.Fatal(err)
	}
	w.nars[word] = contents(contentsOf)
}

func (w *world) tryCommit(cache, contentsOf, word string) error {
	list, _, _ := w.cut(contentsOf)
	data := contents(contentsOf)
	header := api.PathHeader{StorePath: storePath(word).String(), NARHash: nix.Hash(sha256.Sum256(data)).String(), NARSize: uint64(len(data))}
	_, err := w.depot.CommitPaths(w.t.Context(), w.caches[cache], func(yield func(api.PathItem, error) bool) {
		yield(api.PathItem{Header: header, Pieces: list}, nil)
	})
	return err
}
