package recovery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/checkpoint"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/spool"
)

// world is a server's lower half with a bucket in memory, and random things that
// happen to it.
type world struct {
	t      *testing.T
	dice   *rand.Rand
	bucket *bucket
	dir    string
	now    time.Time
	epoch  uint64

	db     *meta.DB
	depot  *depot.Depot
	keeper *checkpoint.Keeper

	caches map[string]bool
	paths  map[string]map[string][]byte // of each cache, by hash: the NAR
	bodies [][]byte                     // of NARs that were there once
	tokens []string
	serial int
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, dice: rand.New(rand.NewPCG(seed, 3)), bucket: &bucket{Mem: blobtest.NewMem(), left: -1}, dir: t.TempDir(), epoch: 1,
		now: time.Unix(1_800_000_000, 0).UTC(), caches: map[string]bool{}, paths: map[string]map[string][]byte{}}
	w.open("first")
	return w
}

// bucket counts writes and deletions, and dies after some: what comes then fails, as
// all does after kill -9.
type bucket struct {
	*blobtest.Mem
	mu    sync.Mutex
	left  int // writes and deletions until the end; negative: no end
	count int
}

var errKilled = errors.New("killed")

func (b *bucket) write() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return errKilled
	}
	b.left--
	b.count++
	return nil
}

func (b *bucket) dead() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return errKilled
	}
	return nil
}

func (b *bucket) Put(ctx context.Context, key string, src blob.Source) error {
	if err := b.write(); err != nil {
		return err
	}
	return b.Mem.Put(ctx, key, src)
}

func (b *bucket) Delete(ctx context.Context, key string) error {
	if err := b.write(); err != nil {
		return err
	}
	return b.Mem.Delete(ctx, key)
}

func (b *bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := b.dead(); err != nil {
		return nil, err
	}
	return b.Mem.Get(ctx, key, off, n)
}

func (b *bucket) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	if err := b.dead(); err != nil {
		return err
	}
	return b.Mem.List(ctx, prefix, each)
}

// copy is another bucket with the same objects.
func (b *bucket) copy(t *testing.T) *bucket {
	t.Helper()
	c := &bucket{Mem: blobtest.NewMem(), left: -1}
	err := b.Mem.List(t.Context(), "", func(i blob.Info) error {
		rc, err := b.Mem.Get(t.Context(), i.Key, 0, -1)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(rc)
		if err != nil {
			return err
		}
		return c.Mem.Put(t.Context(), i.Key, blob.Bytes(data))
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *bucket) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	if err := b.Mem.List(t.Context(), prefix, func(i blob.Info) error { keys = append(keys, i.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	return keys
}

// open opens the database called name, empty or as it was left.
func (w *world) open(name string) {
	w.t.Helper()
	w.db, w.depot, w.keeper = w.stack(filepath.Join(w.dir, name+".db"), w.bucket, &ledger.Log{Blobs: w.bucket, Epoch: w.epoch})
}

func (w *world) stack(file string, b *bucket, journal meta.Journal) (*meta.DB, *depot.Depot, *checkpoint.Keeper) {
	w.t.Helper()
	layouts := &depot.Layouts{}
	db, err := meta.Open(w.t.Context(), file, meta.Options{Journal: journal, Layouts: layouts, Rebuilt: true, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = db.Close() }) // closed already, mostly
	sp := &spool.Dir{Path: w.dir}
	d := &depot.Depot{DB: db, Blobs: b, Spool: sp, Cut: chunk.Params{Min: 1 << 10, Avg: 4 << 10, Max: 16 << 10}}
	k := &checkpoint.Keeper{DB: db, Blobs: b, Spool: sp, Now: func() time.Time { return w.now }, Objects: 1, ShardRecords: 7}
	return db, d, k
}

// must ends the test on an error, unless the bucket has died.
func (w *world) must(err error) bool {
	w.t.Helper()
	if errors.Is(err, errKilled) {
		return false
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return true
}

func (w *world) update(fn func(*meta.Tx) error) bool {
	w.t.Helper()
	return w.must(w.db.Update(context.Background(), fn))
}

// any is one of the live caches, or "".
func (w *world) any() string {
	var names []string
	for name := range w.caches {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[w.dice.IntN(len(names))]
}

// step lets something happen.
func (w *world) step() {
	w.t.Helper()
	w.now = w.now.Add(time.Duration(1+w.dice.IntN(1000)) * time.Second)
	name := w.any()
	if name == "" {
		w.createCache()
		return
	}
	switch n := w.dice.IntN(100); {
	case n < 5:
		w.createCache()
	case n < 8:
		soft := w.dice.IntN(2) == 0
		if w.update(func(tx *meta.Tx) error { return tx.DeleteCache(name, soft) }) {
			delete(w.caches, name)
			delete(w.paths, name)
		}
	case n < 12:
		w.update(func(tx *meta.Tx) error {
			c, err := tx.Cache(name)
			if err != nil {
				return err
			}
			w.serial++
			return tx.RotateKey(c, fmt.Sprintf("%s-%d:k", name, w.serial), []byte{byte(w.serial)}, w.now.Add(time.Hour*time.Duration(w.dice.IntN(3))))
		})
	case n < 16:
		w.serial++
		w.update(func(tx *meta.Tx) error {
			return tx.PutPolicy(&meta.Policy{Name: fmt.Sprint("p", w.dice.IntN(4)), Policy: json.RawMessage(fmt.Sprintf(`{"n":%d}`, w.serial))})
		})
	case n < 18:
		w.update(func(tx *meta.Tx) error {
			if err := tx.DeletePolicy(fmt.Sprint("p", w.dice.IntN(4))); !errors.Is(err, meta.ErrNotFound) {
				return err
			}
			return nil
		})
	case n < 22:
		w.serial++
		id := fmt.Sprint("token", w.serial)
		if w.update(func(tx *meta.Tx) error {
			return tx.IssueToken(&meta.IssuedToken{ID: id, Subject: "s", Expires: w.now.Add(1000 * time.Hour)})
		}) {
			w.tokens = append(w.tokens, id)
		}
	case n < 25 && len(w.tokens) > 0:
		id := w.tokens[w.dice.IntN(len(w.tokens))]
		w.update(func(tx *meta.Tx) error { _, err := tx.RevokeTokens([]string{id}); return err })
	case n < 35:
		w.deletePath(name)
	default:
		w.push(name)
	}
}

func (w *world) createCache() {
	w.serial++
	name := fmt.Sprint("cache-", w.dice.IntN(6))
	ok := w.update(func(tx *meta.Tx) error {
		err := tx.CreateCache(&meta.Cache{Name: name, PublicKey: fmt.Sprintf("%s-%d:k", name, w.serial), SealedKey: []byte{1, byte(w.serial)},
			StoreDir: nix.StoreDir, UpstreamKeys: []string{"cache.nixos.org-1"}})
		if errors.Is(err, meta.ErrExists) {
			// Perhaps the soft-deleted one; then for good, and the next will do.
			if _, err := tx.Cache(name); errors.Is(err, meta.ErrNotFound) {
				return tx.DeleteCache(name, false)
			}
			return nil
		}
		return err
	})
	if ok {
		delete(w.caches, name)
		if w.db.View(context.Background(), func(tx *meta.Tx) error { _, err := tx.Cache(name); return err }) == nil {
			w.caches[name] = true
			if w.paths[name] == nil {
				w.paths[name] = map[string][]byte{}
			}
		}
	}
}

func (w *world) deletePath(name string) {
	for hash := range w.paths[name] {
		if w.update(func(tx *meta.Tx) error {
			c, err := tx.Cache(name)
			if err != nil {
				return err
			}
			return tx.DeletePath(c.ID, hash)
		}) {
			delete(w.paths[name], hash)
		}
		return
	}
}

func (w *world) hash() string {
	b := make([]byte, 20)
	for i := range b {
		b[i] = byte(w.dice.IntN(256))
	}
	return nix.EncodeBase32(b)
}

// body is a NAR: new, small or large enough for a pack of its own, or with much of
// an old one.
func (w *world) body() []byte {
	if len(w.bodies) > 0 && w.dice.IntN(4) == 0 {
		return w.bodies[w.dice.IntN(len(w.bodies))]
	}
	size := []int{100, 3000, 20_000, 60_000}[w.dice.IntN(4)]
	if w.dice.IntN(30) == 0 {
		size = 4<<20 + w.dice.IntN(1<<16)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = "abcdefghijklmnop"[w.dice.IntN(16)]
	}
	if len(w.bodies) > 0 && w.dice.IntN(3) == 0 {
		old := w.bodies[w.dice.IntN(len(w.bodies))]
		data = append(data[:len(data)/2], old...)
	}
	w.bodies = append(w.bodies, data)
	return data
}

func (w *world) push(name string) {
	w.t.Helper()
	path, err := nix.ParseStorePath(nix.StoreDir + "/" + w.hash() + "-thing")
	w.must(err)
	data := w.body()
	var refs []string
	for hash := range w.paths[name] {
		if refs = append(refs, hash+"-thing"); len(refs) == 3 {
			break
		}
	}
	scope := w.scope(name)
	_, err = w.depot.Ingest(context.Background(), scope, depot.Upload{Path: path, NARHash: sha256.Sum256(data), NARSize: uint64(len(data)),
		References: refs, System: "x86_64-linux"}, bytes.NewReader(data), true)
	if w.must(err) {
		w.paths[name][path.Hash()] = data
	}
}

func (w *world) scope(name string) depot.Scope {
	w.t.Helper()
	return scopeOf(w.t, w.db, name)
}

func scopeOf(t *testing.T, db *meta.DB, name string) depot.Scope {
	t.Helper()
	var c *meta.Cache
	if err := db.View(t.Context(), func(tx *meta.Tx) (err error) { c, err = tx.Cache(name); return err }); err != nil {
		t.Fatal(err)
	}
	return depot.Scope{Cache: *c, Sees: []int64{c.ID}, User: "tester"}
}

// recovered rebuilds a database from a bucket.
func (w *world) recovered(name string, b *bucket) (*meta.DB, *depot.Depot, *Result) {
	w.t.Helper()
	db, d, res, err := w.recover(w.t.Context(), name, b)
	if err != nil {
		w.t.Fatal(err)
	}
	return db, d, res
}

func (w *world) recover(ctx context.Context, name string, b *bucket) (*meta.DB, *depot.Depot, *Result, error) {
	w.t.Helper()
	layouts := &depot.Layouts{}
	db, err := meta.Open(w.t.Context(), filepath.Join(w.dir, name+".db"), meta.Options{Layouts: layouts, Rebuilt: true, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = db.Close() })
	r := &Recovery{Blobs: b, DB: db, Layouts: layouts, Now: func() time.Time { return w.now }}
	res, err := r.Run(ctx)
	d := &depot.Depot{DB: db, Blobs: b, Spool: &spool.Dir{Path: w.dir}, Cut: chunk.Params{Min: 1 << 10, Avg: 4 << 10, Max: 16 << 10}}
	return db, d, res, err
}

// promises is all that a database has promised, a line each, sorted: what is in a
// checkpoint, without packs (their rows follow from the NARs) and NARs of no path.
func (w *world) promises(db *meta.DB) []string {
	t := w.t
	t.Helper()
	var lines []string
	nars := map[string]bool{}
	var all []ledger.Record
	err := db.View(t.Context(), func(tx *meta.Tx) error {
		done, err := tx.Snapshot(&meta.Cursor{}, func(r ledger.Record) error { all = append(all, r); return nil }, func() bool { return true })
		if err == nil && !done {
			err = errors.New("the walk stopped")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Path != nil {
			nars[r.Path.NAR] = true
		}
	}
	for _, r := range all {
		if r.Pack != nil || r.NAR != nil && !nars[r.NAR.ID] {
			continue
		}
		if r.KeyRotated != nil {
			for i, old := range r.KeyRotated.Old {
				// Private halves that are past are forgotten at the next rotation, or at once.
				if len(old.SealedKey) == 0 || !old.Until.After(w.now) {
					r.KeyRotated.Old[i].SealedKey = nil
				}
			}
			r.KeyRotated.At = time.Time{} // of the walk
		}
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	slices.Sort(lines)
	return lines
}

// same compares promises.
func same(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range got {
		if _, found := slices.BinarySearch(want, line); !found {
			t.Errorf("recovered and not promised: %.300s", line)
		}
	}
	for _, line := range want {
		if _, found := slices.BinarySearch(got, line); !found {
			t.Errorf("promised and not recovered: %.300s", line)
		}
	}
}

// served reads every path that the world remembers, byte by byte.
func (w *world) served(db *meta.DB, d *depot.Depot) {
	w.t.Helper()
	w.found(db)
	dec, _ := zstd.NewReader(nil)
	defer dec.Close()
	for name, paths := range w.paths {
		if !w.caches[name] {
			continue
		}
		scope := scopeOf(w.t, db, name)
		for hash, want := range paths {
			n, err := d.Open(w.t.Context(), scope.Cache.ID, hash)
			if err != nil {
				w.t.Fatalf("%s in %s: %v", hash, name, err)
			}
			r := n.Reader(w.t.Context(), n.Size)
			stream, err := io.ReadAll(r)
			r.Close()
			if err != nil {
				w.t.Fatalf("read %s: %v", hash, err)
			}
			got, err := dec.DecodeAll(stream, nil)
			if err != nil || !bytes.Equal(got, want) {
				w.t.Fatalf("%s in %s: %d bytes of %d are right, %v", hash, name, len(got), len(want), err)
			}
		}
	}
}

func short(lines []string) string { return strings.Join(lines[:min(len(lines), 5)], "\n") }

// found sees to it that each cache finds the chunks of its paths, so that the next
// push sends none of them again.
func (w *world) found(db *meta.DB) {
	w.t.Helper()
	layouts := &depot.Layouts{}
	err := db.View(w.t.Context(), func(tx *meta.Tx) error {
		page, err := tx.LaidOutPaths(0)
		for _, p := range page {
			var ids []chunk.ID
			err = errors.Join(err, layouts.Uses(p.Layout, func(id int64, first, count int) {
				row, err2 := tx.Pack(id)
				if err2 != nil {
					w.t.Fatal(err2)
				}
				ix, err2 := layouts.Index(row.Index)
				if err2 != nil {
					w.t.Fatal(err2)
				}
				for _, e := range ix.Entries[first : first+count] {
					if e.Kind == chunk.Chunk {
						ids = append(ids, e.ID)
					}
				}
			}))
			places, err2 := tx.Locate([]int64{p.CacheID}, ids)
			err = errors.Join(err, err2)
			for i, place := range places {
				if !place.Found {
					w.t.Errorf("%s in %s: chunk %s is not found", p.StorePath, p.Cache, ids[i])
					return err
				}
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}
