package push

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
)

// fakeServer is a cache in memory that believes nothing: packs are verified
// span by span, and a path is put together from its pieces and hashed.
type fakeServer struct {
	t   *testing.T
	url string

	ext      *api.Extension // nil: a stock server
	upstream []string
	storeDir string
	// before sees each request first; true means that it has answered.
	before func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	chunks   map[chunk.ID][]byte
	nars     map[[32]byte]hash.Hash // own packs: the NAR hash after them
	paths    map[string]api.PathHeader
	staged   map[string][]byte
	requests map[string]int // by route
	packs    []fakePack
	stock    map[string][]byte // NARs of upload-path
	kept     map[string]bool   // hashes answered with "kept"
	batches  [][]string        // base names of each commit, in order
	missing  int               // hashes asked of chunks/missing
}

type fakePack struct {
	sum   [32]byte
	own   bool
	size  int64
	after string
	raw   int64
}

func newFake(t *testing.T) *fakeServer {
	f := &fakeServer{
		t: t, ext: extension(),
		chunks: map[chunk.ID][]byte{}, nars: map[[32]byte]hash.Hash{}, paths: map[string]api.PathHeader{},
		staged: map[string][]byte{}, requests: map[string]int{}, stock: map[string][]byte{}, kept: map[string]bool{},
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

func extension() *api.Extension {
	e := &api.Extension{Packs: []int{1}, Routes: api.Routes()}
	e.Cut = api.Cut{Version: chunk.Version, Min: 32 << 10, Avg: 128 << 10, Max: 512 << 10, Literal: chunk.LiteralMax}
	e.Limits = api.Limits{PackBytes: pack.MaxPackSize, PathsBytes: 16 << 20, MissingChunks: 1 << 14}
	return e
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.before != nil && f.before(w, r) {
		return
	}
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + api.CacheConfigRoute:    f.config,
		"POST " + api.MissingPathsRoute:  f.missingPaths,
		"POST " + api.MissingChunksRoute: f.missingChunks,
		"PUT " + api.PackRoute:           f.putPack,
		"POST " + api.PathsRoute:         f.commit,
		"PUT " + api.UploadPathRoute:     f.uploadPath,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.requests[r.Pattern]++
			err := h(w, r)
			if e, ok := err.(*api.Error); ok {
				answerError(w, e)
			} else if err != nil {
				answerError(w, &api.Error{Code: 400, Name: api.RequestError, Message: err.Error()})
			}
		})
	}
	mux.ServeHTTP(w, r)
}

func answerError(w http.ResponseWriter, e *api.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code)
	w.Write(e.JSON())
}

func answerJSON(w http.ResponseWriter, v any) error { return json.NewEncoder(w).Encode(v) }

func (f *fakeServer) config(w http.ResponseWriter, r *http.Request) error {
	if r.PathValue("cache") != "main" {
		return &api.Error{Code: 404, Name: api.NoSuchCache, Message: "There is no such cache."}
	}
	return answerJSON(w, map[string]any{
		"api_endpoint": f.url + "/", "store_dir": f.storeDir, "retention_period": "Global",
		"upstream_cache_key_names": f.upstream, "attic_action": f.ext,
	})
}

func (f *fakeServer) missingPaths(w http.ResponseWriter, r *http.Request) error {
	var in api.MissingPathsRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return err
	}
	out := api.MissingPaths{MissingPaths: []string{}}
	for _, h := range in.StorePathHashes {
		if !f.has(h) {
			out.MissingPaths = append(out.MissingPaths, h)
		}
	}
	return answerJSON(w, out)
}

func (f *fakeServer) has(hash string) bool {
	_, path := f.paths[hash]
	_, stock := f.stock[hash]
	return path || stock
}

func (f *fakeServer) missingChunks(w http.ResponseWriter, r *http.Request) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	n := len(b) / 32
	if len(b)%32 != 0 || n == 0 || int64(n) > f.ext.Limits.MissingChunks {
		return fmt.Errorf("%d bytes of hashes", len(b))
	}
	f.missing += n
	out := make([]byte, (n+7)/8)
	for i := range n {
		if f.chunks[chunk.ID(b[32*i:32*i+32])] == nil {
			out[i/8] |= 1 << (i % 8)
		}
	}
	w.Write(out)
	return nil
}

func (f *fakeServer) putPack(w http.ResponseWriter, r *http.Request) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	if hex.EncodeToString(sum[:]) != r.PathValue("sha256") || r.ContentLength != int64(len(b)) {
		return fmt.Errorf("length %d, hash %x", r.ContentLength, sum)
	}
	if int64(len(b)) > f.ext.Limits.PackBytes {
		return fmt.Errorf("pack of %d bytes", len(b))
	}
	ix, err := pack.ReadIndex(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	state, err := f.stateAfter(r.URL.Query().Get("after"))
	if err != nil {
		return err
	}
	err = pack.Verify(bytes.NewReader(b), ix, pack.NewDecoder(), func(_ int, e pack.Entry, raw []byte) error {
		if e.Kind == chunk.Chunk {
			f.chunks[e.ID] = slices.Clone(raw)
		}
		if ix.Own() {
			state.Write(raw)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if ix.Own() {
		f.nars[sum] = state
	}
	f.packs = append(f.packs, fakePack{sum, ix.Own(), int64(len(b)), r.URL.Query().Get("after"), ix.RawSize()})
	return answerJSON(w, api.PackResult{Size: int64(len(b)), Chunks: len(ix.Entries)})
}

// stateAfter is the NAR hash that an own pack goes on from.
func (f *fakeServer) stateAfter(after string) (hash.Hash, error) {
	state := sha256.New()
	if after == "" {
		return state, nil
	}
	id, err := hex.DecodeString(after)
	if err != nil || len(id) != 32 || f.nars[[32]byte(id)] == nil {
		return nil, fmt.Errorf("no own pack %s", after)
	}
	b, _ := f.nars[[32]byte(id)].(encoding.BinaryMarshaler).MarshalBinary()
	return state, state.(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
}

func (f *fakeServer) commit(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Content-Encoding") != "zstd" || r.Header.Get("Content-Type") != api.PathsType {
		return fmt.Errorf("headers %v", r.Header)
	}
	dec, err := zstd.NewReader(r.Body)
	if err != nil {
		return err
	}
	defer dec.Close()
	var out api.PathsResult
	staged, batch := map[string][]byte{}, map[string]api.PathHeader{}
	var names []string
	for in, err := range api.ReadPaths(dec, f.ext.Limits.PathsBytes) {
		if err != nil {
			return err
		}
		path, err := nix.ParseStorePath(in.Header.StorePath)
		if err != nil {
			return err
		}
		list := f.staged[path.Hash()]
		if int64(len(list)) < in.Header.Offset {
			return fmt.Errorf("list of %s goes on at %d, have %d", path, in.Header.Offset, len(list))
		}
		list = append(slices.Clone(list[:in.Header.Offset]), in.Pieces...)
		result := api.Stored
		if in.Header.More {
			staged[path.Hash()], result = list, api.Staged
		} else {
			if err := f.assemble(in.Header, list, batch); err != nil {
				return err
			}
			batch[path.Hash()] = in.Header
			names = append(names, path.Name())
		}
		if f.kept[path.Hash()] {
			result = api.Kept
		}
		out.Results = append(out.Results, api.PathResult{StorePathHash: path.Hash(), Result: result})
	}
	for h, list := range staged {
		f.staged[h] = list
	}
	for h, header := range batch {
		f.paths[h] = header
	}
	if len(names) > 0 {
		f.batches = append(f.batches, names)
	}
	return answerJSON(w, out)
}

// assemble checks that a path can be served: chunks, hash, references.
func (f *fakeServer) assemble(h api.PathHeader, list []byte, batch map[string]api.PathHeader) error {
	sum := sha256.New()
	var unknown, absent []string
	var size uint64
	for piece, err := range chunk.ParsePieces(list) {
		if err != nil {
			return err
		}
		data := piece.Literal
		if piece.Kind == chunk.Chunk {
			if data = f.chunks[piece.ID]; data == nil {
				unknown = append(unknown, piece.ID.String())
			}
		}
		size += uint64(len(data))
		sum.Write(data)
	}
	if len(unknown) > 0 {
		return &api.Error{Code: 409, Name: api.UnknownChunks, Message: "send them", Chunks: unknown}
	}
	if got := nix.Hash(sum.Sum(nil)); got.String() != h.NARHash || size != h.NARSize {
		return fmt.Errorf("NAR of %s is %s, %d bytes", h.StorePath, got, size)
	}
	path, err := nix.ParseStorePath(h.StorePath)
	if err != nil {
		return err
	}
	for _, ref := range h.References {
		_, here := batch[ref[:32]]
		if !f.has(ref[:32]) && !here && ref != path.Base() && !slices.Contains(h.Upstream, ref) {
			absent = append(absent, ref)
		}
	}
	if len(absent) > 0 {
		return &api.Error{Code: 409, Name: api.MissingReferences, Message: "push them", References: absent}
	}
	return nil
}

func (f *fakeServer) uploadPath(w http.ResponseWriter, r *http.Request) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	info := []byte(r.Header.Get(api.NarInfoHeader))
	if n, err := strconv.Atoi(r.Header.Get(api.NarInfoPreambleSizeHeader)); err == nil {
		info, b = b[:n], b[n:]
	} else if len(info) >= 4096 {
		return fmt.Errorf("header of %d bytes", len(info))
	}
	in, err := api.DecodeUploadInfo(info)
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != in.NARHash {
		return fmt.Errorf("bad NAR hash of %s", in.StorePath)
	}
	f.stock[in.StorePathHash] = b
	return answerJSON(w, api.UploadResult{Kind: api.Uploaded})
}

// commitNames returns the names in a commit, and its body for who reads it next.
func commitNames(t *testing.T, r *http.Request) (names []string, body []byte) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	dec, err := zstd.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return nil, body
	}
	defer dec.Close()
	for in, err := range api.ReadPaths(dec, 16<<20) {
		if err != nil {
			t.Error(err)
			break
		}
		path, err := nix.ParseStorePath(in.Header.StorePath)
		if err != nil {
			t.Error(err)
			break
		}
		names = append(names, path.Name())
	}
	return names, body
}
