package rewrite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
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

// world is a server's lower half with real files, tiny chunks, and all that was ever pushed to it.
type world struct {
	t     testing.TB
	dir   string
	now   time.Time
	store *flaky

	db      *meta.DB
	depot   *depot.Depot
	rewrite *Rewriter

	caches map[string]depot.Scope
	paths  map[string]map[string]thing // of each cache, by hash
	chunks map[chunk.ID]bool           // of all that was ever pushed
	before map[string]bool             // views, once they were needed
}

// thing is a path's contents, and the form that they were first served in.
type thing struct {
	data []byte
	form [32]byte
}

// errKilled is what everything answers once the process is dead.
var errKilled = errors.New("killed")

// flaky is a store that dies after some operations, and counts.
type flaky struct {
	blob.Store
	mu    sync.Mutex
	left  int // operations until the end; negative: no end
	count int
	gets  int
	puts  int
	after func() // runs once, after the next Put of a pack
}

func (f *flaky) op() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return errKilled
	}
	f.left--
	f.count++
	return nil
}

func (f *flaky) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := f.op(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.gets++
	f.mu.Unlock()
	return f.Store.Get(ctx, key, off, n)
}

func (f *flaky) Put(ctx context.Context, key string, src blob.Source) error {
	if err := f.op(); err != nil {
		return err
	}
	f.mu.Lock()
	f.puts++
	var after func()
	if strings.HasPrefix(key, "packs/") {
		after, f.after = f.after, nil
	}
	f.mu.Unlock()
	err := f.Store.Put(ctx, key, src)
	if after != nil {
		after()
	}
	return errors.Join(err, f.op()) // it may die before anybody hears of it
}

// testNow is when it all happens.
var testNow = time.Unix(1_800_000_000, 0).UTC()

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	store, err := disk.New(filepath.Join(dir, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, dir, store)
}

func newWorldOn(t testing.TB, dir string, store blob.Store) *world {
	t.Helper()
	w := &world{t: t, dir: dir, now: testNow, store: &flaky{Store: store, left: -1},
		caches: map[string]depot.Scope{}, paths: map[string]map[string]thing{}, chunks: map[chunk.ID]bool{}}
	w.open("server.db", 1)
	for _, name := range []string{"a", "b"} {
		w.cache(name)
	}
	return w
}

// open opens a database of the world's directory.
func (w *world) open(file string, epoch uint64) {
	w.t.Helper()
	layouts := &depot.Layouts{}
	db, err := meta.Open(w.t.Context(), filepath.Join(w.dir, file), meta.Options{Rebuilt: true, Trace: w.trace,
		Journal: &ledger.Log{Blobs: w.store, Epoch: epoch}, Layouts: layouts, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = db.Close() }) // closed already, mostly
	sp := &spool.Dir{Path: w.dir}
	w.db = db
	w.depot = &depot.Depot{DB: db, Blobs: w.store, Spool: sp, Cut: chunk.Params{Min: 256, Avg: 1 << 10, Max: 4 << 10}, Log: slog.New(slog.DiscardHandler)}
	w.rewrite = &Rewriter{DB: db, Layouts: layouts, Blobs: w.store, Spool: sp, Log: slog.New(slog.DiscardHandler), Target: 64 << 10, Small: 16 << 10}
}

// trace is told of statements. One that changes what a rewrite changes is an operation that the process may die in.
func (w *world) trace(query string) {
	for _, change := range []string{"INSERT INTO packs", "INSERT INTO visible", "UPDATE visible", "DELETE FROM visible WHERE cache", "UPDATE nars"} {
		if strings.HasPrefix(query, change) {
			if err := w.store.op(); err != nil {
				panic(err)
			}
		}
	}
}

func (w *world) view(fn func(*meta.Tx) error) {
	w.t.Helper()
	if err := w.db.View(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update(fn func(*meta.Tx) error) {
	w.t.Helper()
	if err := w.db.Update(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) cache(name string) {
	w.t.Helper()
	c := meta.Cache{Name: name, PublicKey: name + ":key", SealedKey: []byte{1}, StoreDir: nix.StoreDir}
	w.update(func(tx *meta.Tx) error { return tx.CreateCache(&c) })
	w.caches[name] = depot.Scope{Cache: c, Sees: []int64{c.ID}, User: "tester"}
	w.paths[name] = map[string]thing{}
}

// text is n bytes that compress by half or so.
func text(dice *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnop"[dice.IntN(16)]
	}
	return b
}

func hashOf(dice *rand.Rand) string {
	b := make([]byte, 20)
	for i := range b {
		b[i] = byte(dice.IntN(256))
	}
	return nix.EncodeBase32(b)
}

func storePath(t testing.TB, hash string) nix.StorePath {
	t.Helper()
	path, err := nix.ParseStorePath(nix.StoreDir + "/" + hash + "-thing")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// ingest pushes a NAR as the stock client does.
func (w *world) ingest(cache, hash string, data []byte) {
	w.t.Helper()
	w.cut(hash, data)
	_, err := w.depot.Ingest(context.Background(), w.caches[cache], depot.Upload{Path: storePath(w.t, hash), NARHash: sha256.Sum256(data), NARSize: uint64(len(data))},
		bytes.NewReader(data), true)
	if err != nil {
		w.t.Fatal(err)
	}
	w.keep(cache, hash, data)
}

// keep remembers a path that was pushed.
func (w *world) keep(cache, hash string, data []byte) {
	w.t.Helper()
	n, err := w.depot.Open(context.Background(), w.caches[cache].Cache.ID, hash)
	if err != nil {
		w.t.Fatal(err)
	}
	w.paths[cache][hash] = thing{data, n.Form}
}

func (w *world) cut(hash string, data []byte) (raws map[chunk.ID][]byte, ids []chunk.ID, list []byte) {
	w.t.Helper()
	raws = map[chunk.ID][]byte{}
	c := chunk.NewCutter(w.depot.Cut, []string{hash}, func(k chunk.Kind, data []byte) error {
		if k == chunk.Literal {
			list = chunk.AppendLiteral(list, data)
			return nil
		}
		id := chunk.Sum(data)
		raws[id] = bytes.Clone(data)
		ids = append(ids, id)
		list = chunk.AppendChunk(list, id)
		w.chunks[id] = true
		return nil
	})
	if _, err := c.Write(data); err != nil {
		w.t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		w.t.Fatal(err)
	}
	return raws, ids, list
}

// push stores NARs as our client does, in one pack.
func (w *world) push(cache string, nars map[string][]byte) {
	w.t.Helper()
	ctx := context.Background()
	scope := w.caches[cache]
	var file bytes.Buffer
	out, enc := pack.NewWriter(&file, 0), pack.NewEncoderFor(1)
	var items []api.PathItem
	sent := map[chunk.ID]bool{}
	for _, hash := range slices.Sorted(maps.Keys(nars)) {
		data := nars[hash]
		raws, ids, list := w.cut(hash, data)
		missing, err := w.depot.MissingChunks(ctx, scope, ids)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, id := range ids {
			if !missing[i] || sent[id] {
				continue
			}
			sent[id] = true
			if err := out.Add(chunk.Chunk, id, enc.Frame(nil, raws[id]), len(raws[id])); err != nil {
				w.t.Fatal(err)
			}
		}
		items = append(items, api.PathItem{Header: api.PathHeader{StorePath: storePath(w.t, hash).String(), NARHash: nix.Hash(sha256.Sum256(data)).String(),
			NARSize: uint64(len(data))}, Pieces: list})
	}
	if out.Len() > 0 {
		name, _, err := out.Finish()
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.depot.PutPack(ctx, scope, name, nil, int64(file.Len()), bytes.NewReader(file.Bytes())); err != nil {
			w.t.Fatal(err)
		}
	}
	_, err := w.depot.CommitPaths(ctx, scope, func(yield func(api.PathItem, error) bool) {
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for hash, data := range nars {
		w.keep(cache, hash, data)
	}
}

// drop deletes paths, and the NARs that are nobody's then.
func (w *world) drop(cache string, hashes ...string) {
	w.t.Helper()
	w.update(func(tx *meta.Tx) error {
		for _, hash := range hashes {
			if err := tx.DeletePath(w.caches[cache].Cache.ID, hash); err != nil {
				return err
			}
			delete(w.paths[cache], hash)
		}
		_, _, err := tx.Prune()
		return err
	})
}

// run is a whole run.
func (w *world) run() Result {
	w.t.Helper()
	for {
		more, err := w.rewrite.Step(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		if !more {
			return w.rewrite.Last()
		}
	}
}

// collect does what package gc does of packs that no layout needs.
func (w *world) collect() {
	w.t.Helper()
	usage, err := Alive(context.Background(), w.db, w.rewrite.Layouts, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	usage.Each(func(p PackUsage) {
		if p.Entries > 0 || p.Busy {
			return
		}
		w.update(func(tx *meta.Tx) error {
			key, err := tx.PackKey(p.ID)
			if err == nil {
				err = tx.DropPack(p.ID)
			}
			if err == nil {
				err = w.store.Delete(context.Background(), key)
			}
			return err
		})
	})
}

// stored is the bytes of all packs that are in rows, and how many they are.
func (w *world) stored() (size int64, packs int) {
	w.t.Helper()
	w.view(func(tx *meta.Tx) error {
		list, err := tx.PackFacts(0, 1<<20)
		for _, p := range list {
			size += p.Size
		}
		packs = len(list)
		return err
	})
	return size, packs
}

// served reads every path that is remembered, byte by byte, from a cache that has it, in the form that it was
// first served in.
func (w *world) served() {
	w.t.Helper()
	dec, _ := zstd.NewReader(nil)
	defer dec.Close()
	for cache, paths := range w.paths {
		for hash, want := range paths {
			n, err := w.depot.Open(context.Background(), w.caches[cache].Cache.ID, hash)
			if err != nil {
				w.t.Fatalf("%s in %s: %v", hash, cache, err)
			}
			r := n.Reader(context.Background(), n.Size)
			stream, err := io.ReadAll(r)
			_ = r.Close()
			if err != nil {
				w.t.Fatalf("read %s in %s: %v", hash, cache, err)
			}
			got, err := dec.DecodeAll(stream, nil)
			if err != nil || !bytes.Equal(got, want.data) || int64(len(stream)) != n.Size {
				w.t.Fatalf("%s in %s: reads back as %d bytes of %d, %v", hash, cache, len(got), len(want.data), err)
			}
			if n.Form != want.form {
				w.t.Fatalf("%s in %s has another form", hash, cache)
			}
		}
	}
}

// views is which chunks, of all that there ever were, each cache finds.
func (w *world) views() map[string]bool {
	w.t.Helper()
	ids := slices.SortedFunc(maps.Keys(w.chunks), func(a, b chunk.ID) int { return bytes.Compare(a[:], b[:]) })
	views := map[string]bool{}
	for name, scope := range w.caches {
		missing, err := w.depot.MissingChunks(context.Background(), scope, ids)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, id := range ids {
			if !missing[i] {
				views[fmt.Sprintf("%s sees %s", name, id)] = true
			}
		}
	}
	return views
}

// sameViews compares what caches find with what they found.
func (w *world) sameViews(before map[string]bool) {
	w.t.Helper()
	after := w.views()
	for line := range after {
		if !before[line] {
			w.t.Errorf("widened: %s", line)
		}
	}
	for line := range before {
		if !after[line] {
			w.t.Errorf("lost: %s", line)
		}
	}
}

// findsItsOwn sees to it that each cache finds the chunks of its paths: the next push sends none of them again.
func (w *world) findsItsOwn() {
	w.t.Helper()
	for name, scope := range w.caches {
		for hash, thing := range w.paths[name] {
			_, ids, _ := w.cut(hash, thing.data)
			missing, err := w.depot.MissingChunks(context.Background(), scope, ids)
			if err != nil {
				w.t.Fatal(err)
			}
			if i := slices.Index(missing, true); i >= 0 {
				w.t.Errorf("cache %s does not find chunk %s of its path %s", name, ids[i], hash)
			}
		}
	}
}

// recovered makes the database anew out of the bucket and goes on with it.
func (w *world) recovered(file string) {
	w.t.Helper()
	if err := w.db.Close(); err != nil {
		w.t.Fatal(err)
	}
	layouts := &depot.Layouts{}
	db, err := meta.Open(w.t.Context(), filepath.Join(w.dir, file), meta.Options{Layouts: layouts, Rebuilt: true, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := (&recovery.Recovery{Blobs: w.store, DB: db, Layouts: layouts, Now: func() time.Time { return w.now }}).Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if res.LostCount > 0 {
		w.t.Fatalf("the recovery lost %d, first %s", res.LostCount, res.Lost[0])
	}
	if err := db.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open(file, res.Epoch)
	for name := range w.caches {
		w.view(func(tx *meta.Tx) error {
			c, err := tx.Cache(name)
			if err == nil {
				w.caches[name] = depot.Scope{Cache: *c, Sees: []int64{c.ID}, User: "tester"}
			}
			return err
		})
	}
}
