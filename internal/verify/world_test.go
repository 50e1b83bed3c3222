package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/checkpoint"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

var cut = chunk.Params{Min: 256, Avg: 512, Max: 2048}

// thing is a path and its NAR; the depot never parses one.
type thing struct {
	path nix.StorePath
	refs []string
	data []byte
}

func (n *thing) hash() nix.Hash { return sha256.Sum256(n.data) }

// world is a server's lower half, its bucket, and what was pushed to it.
type world struct {
	t      *testing.T
	dir    string
	bucket *bucket
	db     *meta.DB
	depot  *depot.Depot
	v      *Verifier
	scope  depot.Scope
	things []*thing
}

// bucket is a bucket whose requests fail once, or always, when a test says so.
type bucket struct {
	*blobtest.Mem
	mu   sync.Mutex
	fail func(key string) error
	gets map[string]int
}

func (b *bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	b.mu.Lock()
	fail := b.fail
	b.gets[key]++
	b.mu.Unlock()
	if fail != nil {
		if err := fail(key); err != nil {
			return nil, err
		}
	}
	return b.Mem.Get(ctx, key, off, n)
}

func (b *bucket) object(t *testing.T, key string) []byte {
	t.Helper()
	rc, err := b.Mem.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (b *bucket) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	if err := b.List(t.Context(), prefix, func(i blob.Info) error { keys = append(keys, i.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	return keys
}

// set replaces an object; nil takes it away.
func (b *bucket) set(t *testing.T, key string, data []byte) {
	t.Helper()
	err := b.Delete(t.Context(), key)
	if err == nil && data != nil {
		err = b.Put(t.Context(), key, blob.Bytes(data))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bucket) flip(t *testing.T, key string, at int) {
	t.Helper()
	data := bytes.Clone(b.object(t, key))
	data[at] ^= 1 << (at % 8)
	b.set(t, key, data)
}

func (b *bucket) copy(t *testing.T) *bucket {
	t.Helper()
	c := &bucket{Mem: blobtest.NewMem(), gets: map[string]int{}}
	for _, key := range b.keys(t, "") {
		c.set(t, key, b.object(t, key))
	}
	return c
}

// open opens the lower half of a server on a database and a bucket.
func open(t *testing.T, dir, file string, b *bucket) *world {
	t.Helper()
	w := &world{t: t, dir: dir, bucket: b}
	var err error
	w.db, err = meta.Open(t.Context(), file, meta.Options{Journal: &ledger.Log{Blobs: b, Epoch: 1}, Layouts: &depot.Layouts{}, Rebuilt: true})
	if err != nil {
		t.Fatal(err)
	}
	sp := &spool.Dir{Path: dir}
	w.depot = &depot.Depot{DB: w.db, Blobs: b, Spool: sp, Cut: cut, Jobs: 1}
	keeper := &checkpoint.Keeper{DB: w.db, Blobs: b, Spool: sp}
	w.v = &Verifier{DB: w.db, Depot: w.depot, Blobs: b, Again: time.Nanosecond, Renew: keeper.Make}
	return w
}

func (w *world) close() {
	w.t.Helper()
	if err := w.db.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) cache(name string) depot.Scope {
	w.t.Helper()
	c := meta.Cache{Name: name, PublicKey: name + ":key", SealedKey: []byte{1}, StoreDir: nix.StoreDir}
	if err := w.db.Update(w.t.Context(), func(tx *meta.Tx) error { return tx.CreateCache(&c) }); err != nil {
		w.t.Fatal(err)
	}
	return depot.Scope{Cache: c, Sees: []int64{c.ID}, User: "tester"}
}

var dice = rand.New(rand.NewPCG(1, 2)) // of contents alone: what is damaged, a test chooses

func newThing(t *testing.T, name string, size int, like []byte, refs ...*thing) *thing {
	t.Helper()
	b := make([]byte, 20)
	for i := range b {
		b[i] = byte(dice.IntN(256))
	}
	path, err := nix.ParseStorePath(nix.StoreDir + "/" + nix.EncodeBase32(b) + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	n := &thing{path: path, data: make([]byte, size)}
	for i := range n.data {
		n.data[i] = "abcdefghijklmnop"[dice.IntN(16)]
	}
	copy(n.data, like)
	for _, ref := range refs {
		n.refs = append(n.refs, ref.path.Base())
		copy(n.data[size/2:], ref.path.String())
	}
	return n
}

// small is a world with a bit of everything in a small bucket: packs of stock uploads and of ours, shared and
// own, a checkpoint, and log behind it.
func small(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := open(t, dir, filepath.Join(dir, "first.db"), &bucket{Mem: blobtest.NewMem(), gets: map[string]int{}})
	t.Cleanup(func() { _ = w.db.Close() }) // mostly closed before
	w.scope = w.cache("main")
	a := newThing(t, "stock", 9000, nil)
	b := newThing(t, "half-of-it", 9000, a.data[:5000], a)
	own := newThing(t, "own", 9500, nil, a)
	ours := newThing(t, "ours", 7000, b.data[6000:])
	tiny := newThing(t, "literal", 300, nil, own)
	last := newThing(t, "last", 5000, nil)
	w.things = []*thing{a, b, own, ours, tiny, last}
	w.stock(w.scope, a)
	w.stock(w.scope, b)
	w.push(w.scope, pack.FlagOwn, own)
	w.push(w.scope, 0, ours)
	w.stock(w.scope, tiny)
	if err := w.v.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.stock(w.scope, last)
	return w
}

// again is the same on copies of database and bucket.
func (w *world) again(t *testing.T, name string) *world {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, "first.db"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.dir, name+".db")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, w.dir, file, w.bucket.copy(t))
	c.scope, c.things = w.scope, w.things
	t.Cleanup(func() {
		_ = c.db.Close()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(file + suffix)
		}
	})
	return c
}

// stock pushes as the stock client does.
func (w *world) stock(s depot.Scope, n *thing) {
	w.t.Helper()
	_, err := w.depot.Ingest(context.Background(), s, depot.Upload{Path: n.path, NARHash: n.hash(), NARSize: uint64(len(n.data)),
		References: n.refs}, bytes.NewReader(n.data), true)
	if err != nil {
		w.t.Fatalf("push %s: %v", n.path, err)
	}
}

// push pushes as our client does: the chunks that are missing, in one pack, and then the path.
func (w *world) push(s depot.Scope, flags uint16, n *thing) {
	w.t.Helper()
	list, item := w.pieces(n)
	var ids []chunk.ID
	for _, p := range list {
		if p.kind == chunk.Chunk {
			ids = append(ids, p.id)
		}
	}
	missing, err := w.depot.MissingChunks(context.Background(), s, ids)
	if err != nil {
		w.t.Fatal(err)
	}
	var file bytes.Buffer
	pw, enc := pack.NewWriter(&file, flags), pack.NewEncoder()
	sent := map[chunk.ID]bool{}
	for _, p := range list {
		lacks := false
		if p.kind == chunk.Chunk {
			lacks, missing = missing[0], missing[1:]
		}
		switch {
		case p.kind == chunk.Literal && flags&pack.FlagOwn != 0:
			err = pw.Add(p.kind, p.id, pack.LiteralFrame(nil, p.raw), len(p.raw))
		case p.kind == chunk.Chunk && (flags&pack.FlagOwn != 0 || lacks && !sent[p.id]):
			sent[p.id] = true
			err = pw.Add(p.kind, p.id, enc.Frame(nil, p.raw), len(p.raw))
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if pw.Len() > 0 {
		name, _, err := pw.Finish()
		if err == nil {
			_, err = w.depot.PutPack(context.Background(), s, name, nil, int64(file.Len()), &file)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := w.depot.CommitPaths(context.Background(), s, func(yield func(api.PathItem, error) bool) { yield(item, nil) }); err != nil {
		w.t.Fatalf("push %s: %v", n.path, err)
	}
}

type piece struct {
	kind chunk.Kind
	id   chunk.ID
	raw  []byte
}

func (w *world) pieces(n *thing) (list []piece, item api.PathItem) {
	w.t.Helper()
	hashes := []string{n.path.Hash()}
	for _, ref := range n.refs {
		hashes = append(hashes, ref[:nix.PathHashLen])
	}
	item.Header = api.PathHeader{StorePath: n.path.String(), NARHash: n.hash().String(), NARSize: uint64(len(n.data)), References: n.refs, Upstream: n.refs}
	c := chunk.NewCutter(cut, hashes, func(k chunk.Kind, data []byte) error {
		p := piece{kind: k, id: chunk.Sum(data), raw: bytes.Clone(data)}
		if k == chunk.Literal {
			item.Pieces = chunk.AppendLiteral(item.Pieces, data)
		} else {
			item.Pieces = chunk.AppendChunk(item.Pieces, p.id)
		}
		list = append(list, p)
		return nil
	})
	_, err := c.Write(n.data)
	if err := errors.Join(err, c.Close()); err != nil {
		w.t.Fatal(err)
	}
	return list, item
}

// entries is how many chunks and literals a pack has.
func (w *world) entries(id int64) (n int) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(tx *meta.Tx) error {
		list, err := tx.PackEntries(id)
		n = len(list)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// read gives what a client gets of a path: nil with meta.ErrNotFound, the NAR, or an error that it sees as well.
func (w *world) read(s depot.Scope, n *thing) ([]byte, error) {
	nar, err := w.depot.Open(context.Background(), s.Cache.ID, n.path.Hash())
	if err != nil {
		return nil, err
	}
	r := nar.Reader(context.Background(), nar.Size)
	defer r.Close()
	stream, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if int64(len(stream)) != nar.Size {
		w.t.Fatalf("%s: a success of %d bytes, %d were announced", n.path, len(stream), nar.Size)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	data, err := dec.DecodeAll(stream, nil)
	if err == nil && sha256.Sum256(data) != n.hash() {
		err = errHash
	}
	return data, err
}

var errHash = errors.New("not the bytes of the narinfo's hash")

// served checks that each path is either absent or right, and gives the absent ones.
func (w *world) served() (absent []*thing) {
	w.t.Helper()
	for _, n := range w.things {
		_, err := w.read(w.scope, n)
		if errors.Is(err, meta.ErrNotFound) {
			absent = append(absent, n)
		} else if err != nil {
			w.t.Errorf("%s is served, and not right: %v", n.path, err)
		}
	}
	missing := map[string]bool{}
	err := w.db.View(context.Background(), func(tx *meta.Tx) error {
		var hashes []string
		for _, n := range w.things {
			hashes = append(hashes, n.path.Hash())
		}
		list, err := tx.MissingPaths(w.scope.Cache.ID, hashes)
		for _, h := range list {
			missing[h] = true
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	want := map[string]bool{}
	for _, n := range absent {
		want[n.path.Hash()] = true
	}
	if !maps.Equal(missing, want) {
		w.t.Errorf("missing are %v, and absent %v", slices.Collect(maps.Keys(missing)), slices.Collect(maps.Keys(want)))
	}
	return absent
}

// run verifies to the end.
func (w *world) run(o Options) *Result {
	w.t.Helper()
	for range 10_000 {
		p, err := w.v.Step(context.Background(), o, false)
		if err != nil {
			w.t.Fatal(err)
		}
		if p.Result != nil {
			return p.Result
		}
	}
	w.t.Fatal("a run never ends")
	return nil
}

// clean wants nothing to be found.
func (w *world) clean(when string) {
	w.t.Helper()
	if res := w.run(Options{Deep: true}); res.Damage > 0 || res.Waiting > 0 {
		w.t.Fatalf("%s: %d found, %d paths wait: %v", when, res.Damage, res.Waiting, res.Findings)
	}
	if absent := w.served(); len(absent) > 0 {
		w.t.Fatalf("%s: %s is absent", when, absent[0].path)
	}
}

func name(parts ...any) string { return fmt.Sprint(parts...) }
