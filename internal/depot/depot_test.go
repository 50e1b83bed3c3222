package depot

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	mrand "math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// house is a depot with two caches, `a` and `b`, that know nothing of each other.
type house struct {
	*Depot
	t     *testing.T
	a, b  Scope
	blobs *blobtest.Mem
	now   time.Time
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, blobs: blobtest.NewMem(), now: time.Unix(1_800_000_000, 0)}
	dir := t.TempDir()
	db, err := meta.Open(t.Context(), filepath.Join(dir, "server.db"), meta.Options{
		Journal: &ledger.Log{Blobs: h.blobs, Epoch: 1},
		Now:     func() time.Time { return h.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	h.Depot = &Depot{DB: db, Blobs: h.blobs, Spool: &spool.Dir{Path: dir}, Cut: chunk.Params{Min: 1 << 10, Avg: 4 << 10, Max: 16 << 10}}
	h.a, h.b = h.cache("a"), h.cache("b")
	return h
}

func (h *house) cache(name string) Scope {
	h.t.Helper()
	c := meta.Cache{Name: name, PublicKey: name + ":key", SealedKey: []byte{1}, StoreDir: nix.StoreDir}
	if err := h.DB.Update(h.t.Context(), func(tx *meta.Tx) error { return tx.CreateCache(&c) }); err != nil {
		h.t.Fatal(err)
	}
	return Scope{Cache: c, Sees: []int64{c.ID}, User: "tester"}
}

// testNAR is bytes that stand for a NAR (the depot never parses them), with references at random
// places.
type testNAR struct {
	path nix.StorePath
	refs []string // base names
	data []byte

	ca   string
	sigs []string
}

func randomHash() string {
	b := make([]byte, 20)
	rand.Read(b)
	return nix.EncodeBase32(b)
}

func newNAR(t *testing.T, name string, size, refs int) testNAR {
	t.Helper()
	path, err := nix.ParseStorePath(nix.StoreDir + "/" + randomHash() + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	n := testNAR{path: path, data: make([]byte, size)}
	seed := mrand.Uint64()
	t.Logf("%s: seed %d", name, seed)
	r := mrand.New(mrand.NewPCG(seed, 1))
	for i := range n.data { // compresses by half or so
		n.data[i] = "abcdefghijklmnop"[r.IntN(16)]
	}
	for i := range refs {
		ref := randomHash() + fmt.Sprintf("-ref%d", i)
		n.refs = append(n.refs, ref)
		copy(n.data[r.IntN(max(1, size-100)):], "/nix/store/"+ref)
	}
	return n
}

func (n testNAR) hash() nix.Hash { return sha256.Sum256(n.data) }

func (n testNAR) hashes() []string {
	out := []string{n.path.Hash()}
	for _, r := range n.refs {
		out = append(out, r[:32])
	}
	return out
}

func (n testNAR) upload() Upload {
	return Upload{Path: n.path, NARHash: n.hash(), NARSize: uint64(len(n.data)), References: n.refs, CA: n.ca, Sigs: n.sigs}
}

func (n testNAR) header() api.PathHeader {
	return api.PathHeader{StorePath: n.path.String(), NARHash: n.hash().String(), NARSize: uint64(len(n.data)),
		References: n.refs, Upstream: n.refs, CA: n.ca, Sigs: n.sigs}
}

// cut returns the pieces of a NAR with their bytes, and its piece list.
func (h *house) cut(n testNAR) (pieces []chunk.Piece, raws [][]byte, list []byte) {
	h.t.Helper()
	c := chunk.NewCutter(h.Cut, n.hashes(), func(k chunk.Kind, data []byte) error {
		p := chunk.Piece{Kind: k}
		if k == chunk.Literal {
			p.Literal = bytes.Clone(data)
			list = chunk.AppendLiteral(list, data)
		} else {
			p.ID = chunk.Sum(data)
			list = chunk.AppendChunk(list, p.ID)
		}
		pieces, raws = append(pieces, p), append(raws, bytes.Clone(data))
		return nil
	})
	if _, err := c.Write(n.data); err != nil {
		h.t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		h.t.Fatal(err)
	}
	return pieces, raws, list
}

// packed makes a pack out of pieces: an own pack of all, or a shared one of the chunks.
func (h *house) packed(flags uint16, pieces []chunk.Piece, raws [][]byte) (name [32]byte, file []byte) {
	h.t.Helper()
	var out bytes.Buffer
	w, enc := pack.NewWriter(&out, flags), pack.NewEncoder()
	seen := map[chunk.ID]bool{}
	for i, p := range pieces {
		var err error
		switch {
		case p.Kind == chunk.Chunk && (flags&pack.FlagOwn != 0 || !seen[p.ID]):
			err = w.Add(p.Kind, p.ID, enc.Frame(nil, raws[i]), len(raws[i]))
		case p.Kind == chunk.Literal && flags&pack.FlagOwn != 0:
			err = w.Add(p.Kind, chunk.Sum(raws[i]), pack.LiteralFrame(nil, raws[i]), len(raws[i]))
		}
		if err != nil {
			h.t.Fatal(err)
		}
		seen[p.ID] = true
	}
	name, _, err := w.Finish()
	if err != nil {
		h.t.Fatal(err)
	}
	return name, out.Bytes()
}

func (h *house) put(s Scope, after *[32]byte, name [32]byte, file []byte) error {
	_, err := h.PutPack(h.t.Context(), s, name, after, int64(len(file)), bytes.NewReader(file))
	return err
}

func items(in ...api.PathItem) iter.Seq2[api.PathItem, error] {
	return func(yield func(api.PathItem, error) bool) {
		for _, it := range in {
			if !yield(it, nil) {
				return
			}
		}
	}
}

// push stores a NAR as our client does.
func (h *house) push(s Scope, flags uint16, n testNAR) string {
	h.t.Helper()
	pieces, raws, list := h.cut(n)
	if slices.ContainsFunc(pieces, func(p chunk.Piece) bool { return p.Kind == chunk.Chunk }) {
		name, file := h.packed(flags, pieces, raws)
		if err := h.put(s, nil, name, file); err != nil {
			h.t.Fatal(err)
		}
	}
	return h.commitOne(s, n, list)
}

func (h *house) commitOne(s Scope, n testNAR, list []byte) string {
	h.t.Helper()
	got, err := h.CommitPaths(h.t.Context(), s, items(api.PathItem{Header: n.header(), Pieces: list}))
	if err != nil {
		h.t.Fatal(err)
	}
	return got[0].Result
}

// stream is the NAR's compressed stream, as a client of the cache gets it.
func (h *house) stream(s Scope, n testNAR) ([]byte, *NAR) {
	h.t.Helper()
	nar, err := h.Open(h.t.Context(), s.Cache.ID, n.path.Hash())
	if err != nil {
		h.t.Fatal(err)
	}
	r := nar.Reader(h.t.Context(), nar.Size)
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		h.t.Fatal(err)
	}
	if int64(len(got)) != nar.Size {
		h.t.Fatalf("stream of %s has %d bytes, its size says %d", n.path.Name(), len(got), nar.Size)
	}
	return got, nar
}

func (h *house) wantNAR(s Scope, n testNAR) *NAR {
	h.t.Helper()
	stream, nar := h.stream(s, n)
	dec, err := zstd.NewReader(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer dec.Close()
	got, err := dec.DecodeAll(stream, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if !bytes.Equal(got, n.data) {
		h.t.Fatalf("%s reads back as other bytes", n.path.Name())
	}
	return nar
}

func (h *house) narRow(s Scope, n testNAR) (nar *meta.NAR) {
	h.t.Helper()
	err := h.DB.View(h.t.Context(), func(tx *meta.Tx) (err error) {
		_, nar, err = tx.Path(s.Cache.ID, n.path.Hash())
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return nar
}

func (h *house) packCount() (n int) {
	h.t.Helper()
	err := h.blobs.List(h.t.Context(), "packs/", func(blob.Info) error { n++; return nil })
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func TestPushedNARReadsBack(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  int
		flags uint16
	}{
		{"one literal", 3000, 0},
		{"shared pack", 300_000, 0},
		{"own pack", 300_000, pack.FlagOwn},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			n := newNAR(t, "x", c.size, 4)
			if got := h.push(h.a, c.flags, n); got != api.Stored {
				t.Errorf("result %q, want stored", got)
			}
			h.wantNAR(h.a, n)
			if got, want := h.narRow(h.a, n).Verified, c.name != "shared pack"; got != want {
				t.Errorf("verified %v, want %v", got, want)
			}
		})
	}
}

// A NAR that is one own pack can be redirected to: its stream is the pack's object, byte for byte.
func TestOwnPackIsTheStream(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 200_000, 3)
	pieces, raws, list := h.cut(n)
	name, file := h.packed(pack.FlagOwn, pieces, raws)
	if err := h.put(h.a, nil, name, file); err != nil {
		t.Fatal(err)
	}
	h.commitOne(h.a, n, list)
	if got, _ := h.stream(h.a, n); !bytes.Equal(got, file) {
		t.Error("the stream is not the pack file")
	}
}

func TestOwnPacksInARowAreVerified(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 400_000, 3)
	pieces, raws, list := h.cut(n)
	half := len(pieces) / 2
	first, file1 := h.packed(pack.FlagOwn, pieces[:half], raws[:half])
	second, file2 := h.packed(pack.FlagOwn, pieces[half:], raws[half:])
	if err := h.put(h.a, nil, first, file1); err != nil {
		t.Fatal(err)
	}
	if err := h.put(h.a, &first, second, file2); err != nil {
		t.Fatal(err)
	}
	h.commitOne(h.a, n, list)
	h.wantNAR(h.a, n)
	if !h.narRow(h.a, n).Verified {
		t.Error("a NAR of own packs in a row is not verified")
	}
	if got, _ := h.stream(h.a, n); !bytes.Equal(got, slices.Concat(file1, file2)) {
		t.Error("the stream is not the packs in a row")
	}
}

// A pusher who lies about a NAR hash is refused wherever the bytes were hashed on their way in.
func TestCommitRefusesAnotherNARHash(t *testing.T) {
	for _, flags := range []uint16{0, pack.FlagOwn} {
		h := newHouse(t)
		size := 300_000
		if flags == 0 {
			size = 2000
		}
		n := newNAR(t, "x", size, 1)
		pieces, raws, list := h.cut(n)
		if flags != 0 {
			name, file := h.packed(flags, pieces, raws)
			if err := h.put(h.a, nil, name, file); err != nil {
				t.Fatal(err)
			}
		}
		lie := n.header()
		lie.NARHash = nix.Hash(sha256.Sum256([]byte("another NAR"))).String()
		_, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: lie, Pieces: list}))
		var bad *BadRequest
		if !errors.As(err, &bad) {
			t.Fatalf("flags %d: got %v, want a BadRequest", flags, err)
		}
		if _, err := h.Open(t.Context(), h.a.Cache.ID, n.path.Hash()); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("flags %d: the path is there after the refusal: %v", flags, err)
		}
	}
}

func TestCommitNamesUnknownChunks(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 100_000, 1)
	pieces, raws, list := h.cut(n)
	keep := len(pieces) / 2
	name, file := h.packed(0, pieces[:keep], raws[:keep])
	if err := h.put(h.a, nil, name, file); err != nil {
		t.Fatal(err)
	}
	_, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: n.header(), Pieces: list}))
	var unknown *UnknownChunksError
	if !errors.As(err, &unknown) {
		t.Fatalf("got %v, want an UnknownChunksError", err)
	}
	var want []chunk.ID
	for _, p := range pieces[keep:] {
		if p.Kind == chunk.Chunk {
			want = append(want, p.ID)
		}
	}
	if !slices.Equal(unknown.IDs, want) {
		t.Errorf("%d chunks named, want %d", len(unknown.IDs), len(want))
	}
}

// The central rule of design §4: what another cache holds is as unknown as what nobody holds, and is
// stored again rather than shared, for "we have it already" would be the answer to "who has it?".
func TestChunksOfAnInvisibleCacheAreUnknown(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 100_000, 1)
	h.push(h.a, 0, n)
	pieces, raws, list := h.cut(n)
	var ids []chunk.ID
	for _, p := range pieces {
		if p.Kind == chunk.Chunk {
			ids = append(ids, p.ID)
		}
	}
	missing, err := h.MissingChunks(t.Context(), h.b, ids)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(missing, false) {
		t.Error("b learns of a chunk that only a holds")
	}
	var unknown *UnknownChunksError
	if _, err := h.CommitPaths(t.Context(), h.b, items(api.PathItem{Header: n.header(), Pieces: list})); !errors.As(err, &unknown) {
		t.Fatalf("commit to b: got %v, want an UnknownChunksError", err)
	}
	before := h.packCount()
	name, file := h.packed(0, pieces, raws)
	if err := h.put(h.b, nil, name, file); err != nil {
		t.Fatal(err)
	}
	if got := h.packCount(); got != before+1 {
		t.Errorf("%d packs after b's upload, want %d: the same file is stored again", got, before+1)
	}
	h.commitOne(h.b, n, list)
	h.wantNAR(h.b, n)
}

// A stock upload of a NAR that only an invisible cache holds is answered as a new one.
func TestIngestTellsNothingOfAnInvisibleCache(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 100_000, 1)
	ingest := func(s Scope) IngestResult {
		got, err := h.Ingest(t.Context(), s, n.upload(), bytes.NewReader(n.data), true)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first, second, again := ingest(h.a), ingest(h.b), ingest(h.b)
	if second.Kind != first.Kind || *second.FileSize != *first.FileSize || *second.Frac != *first.Frac {
		t.Errorf("b is told %+v, a was told %+v", second, first)
	}
	if again.Kind != kindDeduplicated {
		t.Errorf("the same upload again is %s, want Deduplicated", again.Kind)
	}
}

func TestChunksOfAReadableCacheAreShared(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 100_000, 1)
	h.push(h.a, 0, n)
	_, _, list := h.cut(n)
	reader := h.b
	reader.Sees = append(reader.Sees, h.a.Cache.ID)
	before := h.packCount()
	h.commitOne(reader, n, list)
	if got := h.packCount(); got != before {
		t.Errorf("%d packs, want %d: nothing new", got, before)
	}
	h.wantNAR(h.b, n)
	// From now on b knows these chunks itself, without seeing a.
	pieces, _, _ := h.cut(n)
	for _, p := range pieces {
		if p.Kind != chunk.Chunk {
			continue
		}
		if missing, err := h.MissingChunks(t.Context(), h.b, []chunk.ID{p.ID}); err != nil || missing[0] {
			t.Fatalf("chunk %s is missing for b (%v)", p.ID, err)
		}
	}
}

func TestBothRoadsStoreTheSameChunks(t *testing.T) {
	for _, size := range []int{5000, 100_000, 5 << 20} {
		h := newHouse(t)
		n := newNAR(t, "x", size, 5)
		flags := uint16(0)
		if size >= ownPackMin {
			flags = pack.FlagOwn
		}
		h.push(h.a, flags, n)
		if _, err := h.Ingest(t.Context(), h.b, n.upload(), bytes.NewReader(n.data), true); err != nil {
			t.Fatal(err)
		}
		ours, a := h.stream(h.a, n)
		stock, b := h.stream(h.b, n)
		if !bytes.Equal(ours, stock) {
			t.Errorf("%d bytes: the roads store different streams", size)
		}
		if flags != 0 && a.Form != b.Form {
			t.Errorf("%d bytes: the forms differ", size)
		}
		h.wantNAR(h.b, n)
		if !h.narRow(h.b, n).Verified {
			t.Errorf("%d bytes: the stock upload is not verified", size)
		}
	}
}

// A large stock upload begins as an own pack and turns to shared ones at the first chunk that is here.
func TestIngestLeavesTheOwnPackAtAKnownChunk(t *testing.T) {
	h := newHouse(t)
	old := newNAR(t, "old", 3<<20, 0)
	if _, err := h.Ingest(t.Context(), h.a, old.upload(), bytes.NewReader(old.data), true); err != nil {
		t.Fatal(err)
	}
	n := newNAR(t, "new", 6<<20, 10)
	copy(n.data[3<<20:], old.data)
	got, err := h.Ingest(t.Context(), h.a, n.upload(), bytes.NewReader(n.data), true)
	if err != nil {
		t.Fatal(err)
	}
	if *got.Frac < 0.4 || *got.Frac > 0.5 {
		t.Errorf("share of known bytes is %.2f, want just under a half", *got.Frac)
	}
	h.wantNAR(h.a, n)
}

// Own packs hold repeats as often as the NAR does. A NAR that is mostly copies of one file (git's
// programs, say) would be stored many times over.
func TestNARThatRepeatsItselfIsStoredOnce(t *testing.T) {
	h := newHouse(t)
	once := newNAR(t, "x", 3<<20, 0)
	n := newNAR(t, "copies", 0, 0)
	n.data = bytes.Repeat(once.data, 5)
	if _, err := h.Ingest(t.Context(), h.a, n.upload(), bytes.NewReader(n.data), true); err != nil {
		t.Fatal(err)
	}
	h.wantNAR(h.a, n)
	stored := int64(0)
	err := h.blobs.List(t.Context(), "packs/", func(i blob.Info) error { stored += i.Size; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if stored > int64(len(once.data))*11/10 { // these bytes hardly compress, and an index comes on top
		t.Errorf("%d bytes stored for five times %d raw ones", stored, len(once.data))
	}
}

func TestIngestRefusesWhatIsNotTheNAR(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 50_000, 1)
	for name, body := range map[string][]byte{
		"cut short":   n.data[:40_000],
		"other bytes": append([]byte("X"), n.data[1:]...),
		"empty":       nil,
	} {
		_, err := h.Ingest(t.Context(), h.a, n.upload(), bytes.NewReader(body), true)
		var bad *BadRequest
		if !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want a BadRequest", name, err)
		}
	}
	if _, err := h.Open(t.Context(), h.a.Cache.ID, n.path.Hash()); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the path is there: %v", err)
	}
	if got, err := h.Ingest(t.Context(), h.a, n.upload(), bytes.NewReader(append(bytes.Clone(n.data), "more"...)), true); err != nil || got.Kind != kindUploaded {
		t.Errorf("bytes after the NAR: %v %v, want them ignored", got, err)
	}
	// Whoever knows only the hash does not get the path.
	other := newNAR(t, "y", 10, 0)
	up := n.upload()
	up.Path = other.path
	if _, err := h.Ingest(t.Context(), h.a, up, bytes.NewReader(n.data[:100]), true); err == nil {
		t.Error("a known NAR was linked without proof of possession")
	}
}

// A stream that is cut at any byte goes on with a range to the same bytes.
func TestReaderGoesOnFromEveryOffset(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 60_000, 6)
	h.push(h.a, 0, n)
	whole, nar := h.stream(h.a, n)
	for off := range whole {
		r := nar.Reader(context.Background(), nar.Size)
		if _, err := r.Seek(int64(off), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, whole[off:]) {
			t.Fatalf("from byte %d: %d bytes, %v; want %d", off, len(got), err, len(whole)-off)
		}
	}
}

func TestSecondNARForAPath(t *testing.T) {
	const verified, unverified uint16 = pack.FlagOwn, 0
	for _, c := range []struct {
		name          string
		first, second uint16
		want          string
		wins          int
	}{
		{"the first of two verified stays", verified, verified, api.Kept, 0},
		{"the first of two unverified stays", unverified, unverified, api.Kept, 0},
		{"a verified replaces an unverified", unverified, verified, api.Stored, 1},
		{"an unverified does not replace a verified", verified, unverified, api.Kept, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			nars := []testNAR{newNAR(t, "x", 50_000, 1), newNAR(t, "x", 60_000, 1)}
			nars[1].path = nars[0].path
			h.push(h.a, c.first, nars[0])
			if got := h.push(h.a, c.second, nars[1]); got != c.want {
				t.Errorf("result %q, want %q", got, c.want)
			}
			h.wantNAR(h.a, nars[c.wins])
		})
	}
}

func TestSameNARAgainMerges(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 50_000, 1)
	h.push(h.a, 0, n)
	if got := h.push(h.a, 0, n); got != api.Merged {
		t.Errorf("result %q, want merged", got)
	}
	h.push(h.a, pack.FlagOwn, n)
	h.wantNAR(h.a, n)
}

func TestCommitRefusesReferencesThatAreNowhere(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 2000, 2)
	_, _, list := h.cut(n)
	header := n.header()
	header.Upstream = n.refs[:1]
	_, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: header, Pieces: list}))
	var missing *MissingReferencesError
	if !errors.As(err, &missing) || !slices.Equal(missing.Refs, n.refs[1:]) {
		t.Fatalf("got %v, want missing references %v", err, n.refs[1:])
	}
}

func TestPieceListSpansRequests(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 100_000, 1)
	pieces, raws, list := h.cut(n)
	name, file := h.packed(0, pieces, raws)
	if err := h.put(h.a, nil, name, file); err != nil {
		t.Fatal(err)
	}
	cut := []int{0, 100, 101, len(list)}
	for i := range 3 {
		header := n.header()
		header.Offset, header.More = int64(cut[i]), i < 2
		for range 2 { // a retry after a lost answer changes nothing
			got, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: header, Pieces: list[cut[i]:cut[i+1]]}))
			if err != nil {
				if i == 2 {
					break // the list is used up by the commit
				}
				t.Fatal(err)
			}
			if want := map[bool]string{true: api.Staged, false: api.Stored}[header.More]; got[0].Result != want {
				t.Fatalf("part %d: %q, want %q", i, got[0].Result, want)
			}
		}
	}
	h.wantNAR(h.a, n)
}

func TestPutPackRefusesAnotherName(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 50_000, 0)
	pieces, raws, _ := h.cut(n)
	name, file := h.packed(0, pieces, raws)
	bad := func(what string, err error) {
		t.Helper()
		var e *BadRequest
		if !errors.As(err, &e) {
			t.Errorf("%s: got %v, want a BadRequest", what, err)
		}
	}
	wrong := name
	wrong[0] ^= 1
	bad("wrong name", h.put(h.a, nil, wrong, file))
	_, err := h.PutPack(t.Context(), h.a, name, nil, int64(len(file)), bytes.NewReader(file[:len(file)-1]))
	bad("truncated", err)
	bad("unknown predecessor", h.put(h.a, &wrong, name, file))
	if got := h.packCount(); got != 0 {
		t.Errorf("%d packs are stored, want none", got)
	}
}

// An upload that nothing commits is forgotten after a day: whoever knows chunk hashes only can't keep
// them alive, and the space comes back.
func TestUncommittedPackIsInvisibleAfterADay(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 50_000, 0)
	pieces, raws, _ := h.cut(n)
	name, file := h.packed(0, pieces, raws)
	if err := h.put(h.a, nil, name, file); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after   time.Duration
		missing bool
	}{{uncommittedLife - time.Minute, false}, {2 * time.Minute, true}} {
		h.now = h.now.Add(c.after)
		got, err := h.MissingChunks(t.Context(), h.a, []chunk.ID{pieces[0].ID})
		if err != nil || got[0] != c.missing {
			t.Errorf("%v later: missing %v (%v), want %v", c.after, got, err, c.missing)
		}
	}
}
