package soak

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/token"
)

// ask sends a request to the present process. A dead one does not answer: ok is false.
func (w *world) ask(method, path, tok string, header http.Header, body []byte) (answer *httptest.ResponseRecorder, ok bool) {
	p := w.p
	req := httptest.NewRequest(method, "http://cache.test"+path, bytes.NewReader(body))
	for k, v := range header {
		req.Header[k] = v
	}
	if tok != "" {
		req.Header.Set("Authorization", "bearer "+tok)
	}
	rec := httptest.NewRecorder()
	serve(p.http, rec, req)
	if w.broken != "" { // amid it; the server's guard had the panic
		panic(violation{})
	}
	return rec, !p.dead.Load()
}

// cutOff is the status of an answer whose connection ended in the middle.
const cutOff = 599

func serve(h http.Handler, rec *httptest.ResponseRecorder, req *http.Request) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			rec.Code = cutOff
		} else if p != nil {
			panic(p)
		}
	}()
	h.ServeHTTP(rec, req)
}

func (w *world) askJSON(method, path, tok string, body any) (*httptest.ResponseRecorder, bool) {
	text, err := json.Marshal(body)
	w.must(err)
	return w.ask(method, path, tok, http.Header{"Content-Type": {"application/json"}}, text)
}

// token may do everything with one cache, and pull from nowhere else but what is
// public.
func (w *world) token(cache string) string {
	claims := token.Claims{Subject: "host", Pins: []string{"**", "*"}}
	w.must(claims.Caches.Add(cache, token.All))
	text, err := w.auth.Sign(claims)
	w.must(err)
	return text
}

// outcome is how a request of a client ended.
type outcome int

const (
	done    outcome = iota
	gone            // the process was killed, or its bucket failed: the client does not know
	refused         // by an answer that the client understands
)

func named(rec *httptest.ResponseRecorder, name string) bool {
	e, ok := api.DecodeError(rec.Body.Bytes())
	return ok && e.Name == name
}

// failed tells a failure that is our own doing from one that is wrong.
func (w *world) failed(rec *httptest.ResponseRecorder, ok bool, what string) bool {
	switch {
	case !ok:
		return true
	case rec.Code >= 500 && w.faults > 0:
		return true
	case rec.Code >= 500:
		w.wrong("%s: %d %.300s; log: %s", what, rec.Code, rec.Body, w.p.errors())
	}
	return false
}

// missingPaths asks which paths a cache lacks, and holds the answer against the model.
func (w *world) missingPaths(s *shelf, want []*product) (missing []*product, end outcome) {
	hashes := make([]string, len(want))
	for i, p := range want {
		hashes[i] = p.path.Hash()
	}
	rec, ok := w.askJSON("POST", api.MissingPathsRoute, w.token(s.name), api.MissingPathsRequest{Cache: s.name, StorePathHashes: hashes})
	if w.failed(rec, ok, "get-missing-paths") {
		return nil, gone
	}
	if rec.Code != http.StatusOK {
		if _, there := w.m.caches[s.name]; there {
			w.wrong("get-missing-paths of cache %s: %d %s", s.name, rec.Code, rec.Body)
		}
		return nil, refused
	}
	var answer api.MissingPaths
	w.must(json.Unmarshal(rec.Body.Bytes(), &answer))
	before := w.before.caches[s.name]
	for _, p := range want {
		hash := p.path.Hash()
		lacks := slices.Contains(answer.MissingPaths, hash)
		if lacks {
			missing = append(missing, p)
		}
		if before == nil {
			continue
		}
		h, there := before.paths[hash]
		switch {
		case lacks && there && !h.doubt:
			w.wrong("%s is missing from cache %s: it was pushed, and nothing took it", p.path, s.name)
		case !lacks && !there && !w.committed[hash]:
			w.wrong("cache %s claims to have %s, which was deleted or never pushed", s.name, p.path)
		}
	}
	for _, p := range want {
		if !slices.Contains(missing, p) {
			w.asked(p.path.Hash(), before, w.m.caches[s.name])
		}
	}
	return missing, done
}

// asked notes that a path was there when a push asked for it: that is a use, though
// it is not known to the minute, and what it needs is kept from here on.
func (w *world) asked(hash string, shelves ...*shelf) {
	for _, s := range shelves {
		if s == nil {
			continue
		}
		h, there := s.paths[hash]
		if !there {
			continue
		}
		noted := time.Hour
		if d := w.retentionOf(s); d > 0 {
			noted = min(noted, d/2)
		}
		s.paths[hash] = held{lo: later(h.lo, w.now.Add(-noted)), hi: w.now}
	}
}

// push brings a closure as our client does: what is missing, its chunks that are
// missing, packs, paths, what is needed first. Between requests something else may
// happen.
func (w *world) push(r *rand.Rand, s *shelf, top string, between func()) outcome {
	want := w.forge.closure(top)
	for range 8 {
		missing, end := w.missingPaths(s, want)
		if end != done {
			return end
		}
		if len(missing) == 0 {
			return done
		}
		again := false
		for len(missing) > 0 && !again {
			n := min(1+r.IntN(5), len(missing))
			between()
			switch end := w.pushSome(r, s, missing[:n], between); end {
			case gone:
				return gone
			case refused:
				again = true
			}
			missing = missing[n:]
		}
		if !again {
			return done
		}
		if _, there := w.m.caches[s.name]; !there {
			return refused
		}
	}
	w.wrong("a push of %s to %s comes to no end", top, s.name)
	return gone
}

// pushSome commits some paths. refused means that something went meanwhile, and the
// client begins anew.
func (w *world) pushSome(r *rand.Rand, s *shelf, some []*product, between func()) outcome {
	for range 8 {
		lists, raws, ids := w.cutAll(s, some)
		missing, end := w.missingChunks(s, ids)
		if end != done {
			return end
		}
		between()
		if end := w.sendPacks(r, s, some, lists, raws, missing); end != done {
			return end
		}
		between()
		var body []byte
		for i, p := range some {
			var err error
			body, err = api.AppendPath(body, api.PathHeader{StorePath: p.path.String(), NARHash: p.sum.String(), NARSize: uint64(len(p.nar)),
				References: p.base, System: "x86_64-linux"}, lists[i])
			w.must(err)
		}
		rec, ok := w.ask("POST", api.Expand(api.PathsRoute, "cache", s.name), w.token(s.name), http.Header{"Content-Type": {api.PathsType}}, body)
		if w.failed(rec, ok, "commit") {
			return gone
		}
		switch {
		case rec.Code == http.StatusOK:
			for _, p := range some {
				w.acknowledged(s, p, true)
			}
			return done
		case named(rec, api.UnknownChunks): // they went since they were asked for; send them again
			w.count["chunks sent again"]++
		case named(rec, api.MissingReferences):
			w.count["paths sent again"]++
			return refused
		default:
			if _, there := w.m.caches[s.name]; there {
				w.wrong("commit to %s: %d %s", s.name, rec.Code, rec.Body)
			}
			return refused
		}
	}
	w.wrong("a commit to %s comes to no end", s.name)
	return gone
}

// cutAll cuts NARs; ids are of their chunks, each once.
func (w *world) cutAll(s *shelf, some []*product) (lists [][]byte, raws map[chunk.ID][]byte, ids []chunk.ID) {
	raws = map[chunk.ID][]byte{}
	for _, p := range some {
		var list []byte
		cutter := chunk.NewCutter(w.cut, append([]string{p.path.Hash()}, p.refs...), func(k chunk.Kind, data []byte) error {
			if k == chunk.Literal {
				list = chunk.AppendLiteral(list, data)
				return nil
			}
			id := chunk.Sum(data)
			list = chunk.AppendChunk(list, id)
			if raws[id] == nil {
				raws[id] = bytes.Clone(data)
				ids = append(ids, id)
			}
			return nil
		})
		_, err := cutter.Write(p.nar)
		w.must(err)
		w.must(cutter.Close())
		lists = append(lists, list)
	}
	return lists, raws, ids
}

// missingChunks asks which chunks a cache lacks. It must know those of its own paths,
// and none that nobody sent to it or to a public cache.
func (w *world) missingChunks(s *shelf, ids []chunk.ID) (map[chunk.ID]bool, outcome) {
	body := make([]byte, 0, 32*len(ids))
	for _, id := range ids {
		body = append(body, id[:]...)
	}
	rec, ok := w.ask("POST", api.Expand(api.MissingChunksRoute, "cache", s.name), w.token(s.name), http.Header{"Content-Type": {api.HashesType}}, body)
	if w.failed(rec, ok, "chunks/missing") {
		return nil, gone
	}
	now, there := w.m.caches[s.name]
	if rec.Code != http.StatusOK {
		if there {
			w.wrong("chunks/missing of %s: %d %s", s.name, rec.Code, rec.Body)
		}
		return nil, refused
	}
	missing := map[chunk.ID]bool{}
	for i, id := range ids {
		missing[id] = rec.Body.Bytes()[i/8]>>(i%8)&1 == 1
		if !missing[id] && there && !w.mayKnow(now, id) {
			w.wrong("cache %s knows chunk %s, which nobody sent to a cache that it may see", s.name, id)
		}
	}
	for _, id := range ids {
		if there {
			now.sent[id] = true
		}
	}
	return missing, done
}

func (w *world) mayKnow(s *shelf, id chunk.ID) bool {
	for _, c := range w.m.caches {
		if (c == s || c.public) && c.sent[id] {
			return true
		}
	}
	return false
}

// sendPacks packs what is missing: a NAR whose chunks are all new at times into a
// pack of its own, the rest into shared ones of random sizes.
func (w *world) sendPacks(r *rand.Rand, s *shelf, some []*product, lists [][]byte, raws map[chunk.ID][]byte, missing map[chunk.ID]bool) outcome {
	var shared []chunk.ID
	sent := map[chunk.ID]bool{}
	for i := range some {
		pieces, fresh := w.pieces(lists[i]), true
		var ids []chunk.ID
		for _, p := range pieces {
			if p.Kind == chunk.Chunk {
				fresh = fresh && missing[p.ID] && !sent[p.ID]
				ids = append(ids, p.ID)
			}
		}
		if len(ids) > 0 && fresh && r.IntN(3) == 0 {
			if end := w.sendOwn(s, pieces, raws); end != done {
				return end
			}
		} else {
			for _, id := range ids {
				if missing[id] && !sent[id] {
					shared = append(shared, id)
				}
			}
		}
		for _, id := range ids {
			sent[id] = true
		}
	}
	for len(shared) > 0 {
		n := min(1+r.IntN(40), len(shared))
		var file bytes.Buffer
		pw := pack.NewWriter(&file, 0)
		for _, id := range shared[:n] {
			w.must(pw.Add(chunk.Chunk, id, w.encoder.Frame(nil, raws[id]), len(raws[id])))
		}
		shared = shared[n:]
		if end := w.sendPack(s, pw, &file); end != done {
			return end
		}
	}
	return done
}

func (w *world) pieces(list []byte) (pieces []chunk.Piece) {
	for p, err := range chunk.ParsePieces(list) {
		w.must(err)
		pieces = append(pieces, p)
	}
	return pieces
}

func (w *world) sendOwn(s *shelf, pieces []chunk.Piece, raws map[chunk.ID][]byte) outcome {
	var file bytes.Buffer
	pw := pack.NewWriter(&file, pack.FlagOwn)
	for _, p := range pieces {
		raw, id := raws[p.ID], p.ID
		if p.Kind == chunk.Literal {
			raw, id = p.Literal, chunk.Sum(p.Literal)
		}
		w.must(pw.Add(p.Kind, id, w.encoder.Frame(nil, raw), len(raw)))
	}
	w.count["own packs"]++
	return w.sendPack(s, pw, &file)
}

func (w *world) sendPack(s *shelf, pw *pack.Writer, file *bytes.Buffer) outcome {
	sum, _, err := pw.Finish()
	w.must(err)
	rec, ok := w.ask("PUT", api.Expand(api.PackRoute, "cache", s.name, "sha256", hex.EncodeToString(sum[:])), w.token(s.name),
		http.Header{"Content-Type": {api.PackType}}, file.Bytes())
	switch {
	case w.failed(rec, ok, "put pack"):
		return gone
	case rec.Code == http.StatusOK:
		return done
	}
	if _, there := w.m.caches[s.name]; there {
		w.wrong("put pack to %s: %d %s", s.name, rec.Code, rec.Body)
	}
	return refused
}

// upload brings a closure as the stock client does: NARs, in any order.
func (w *world) upload(r *rand.Rand, s *shelf, top string, between func()) outcome {
	missing, end := w.missingPaths(s, w.forge.closure(top))
	if end != done {
		return end
	}
	r.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	for _, p := range missing {
		between()
		w.brings(s, p)
		info, err := json.Marshal(api.UploadInfo{Cache: s.name, StorePathHash: p.path.Hash(), StorePath: p.path.String(), References: p.base,
			Sigs: []string{}, NARHash: p.sum, NARSize: uint64(len(p.nar))})
		w.must(err)
		rec, ok := w.ask("PUT", api.UploadPathRoute, w.token(s.name), http.Header{api.NarInfoHeader: {string(info)}}, p.nar)
		if w.failed(rec, ok, "upload-path") {
			return gone
		}
		if rec.Code != http.StatusOK {
			if _, there := w.m.caches[s.name]; there {
				w.wrong("upload of %s to %s: %d %s", p.path, s.name, rec.Code, rec.Body)
			}
			return refused
		}
		w.acknowledged(s, p, false)
	}
	return done
}

// brings notes what chunks a cache gets with a NAR.
func (w *world) brings(s *shelf, p *product) {
	_, _, ids := w.cutAll(s, []*product{p})
	if now, there := w.m.caches[s.name]; there {
		for _, id := range ids {
			now.sent[id] = true
		}
	}
}

// acknowledged notes that a path was taken: from here on it must be there, whatever
// becomes of the push, unless a collection takes it later. whole says that what it needs
// is there as well; a stock client brings that later, or not at all.
func (w *world) acknowledged(s *shelf, p *product, whole bool) {
	hash := p.path.Hash()
	w.committed[hash] = true
	if b := w.before.caches[s.name]; b != nil {
		b.paths[hash] = held{lo: w.now, hi: w.now}
	}
	now, there := w.m.caches[s.name]
	if !there {
		return
	}
	if h, there := now.paths[hash]; there {
		h.doubt = false
		now.paths[hash] = h
	}
	if whole {
		w.settled(now, hash)
	}
}

// pull reads a path as Nix does, and compares every byte. found is false when the
// cache does not have it, or does not have it any more.
func (w *world) pull(s *shelf, hash string) (found bool, end outcome) {
	tok, amid := "", w.others
	if !s.public {
		tok = w.token(s.name)
	}
	rec, ok := w.ask("GET", "/"+s.name+"/"+hash+".narinfo", tok, nil, nil)
	if w.failed(rec, ok, "narinfo") {
		return false, gone
	}
	if rec.Code == http.StatusNotFound {
		return false, done
	}
	if rec.Code != http.StatusOK {
		w.wrong("narinfo %s of %s: %d %s", hash, s.name, rec.Code, rec.Body)
	}
	info := w.checkInfo(s, hash, rec.Body.Bytes())
	rec, ok = w.ask("GET", "/"+s.name+"/"+info.URL, tok, nil, nil)
	if w.failed(rec, ok, "NAR of "+w.forge.all[hash].path.Base()) {
		return false, gone
	}
	if rec.Code == http.StatusNotFound && amid != w.others {
		return false, done
	}
	want := w.forge.all[hash].nar
	got, err := w.unzip(rec.Body.Bytes())
	if rec.Code != http.StatusOK || err != nil || !bytes.Equal(got, want) {
		w.wrong("NAR of %s in %s: status %d, %d bytes of %d are there, %v: %.200s; log: %s", w.forge.all[hash].path.Base(), s.name, rec.Code, len(got), len(want), err, rec.Body, w.p.errors())
	}
	if uint64(rec.Body.Len()) != info.FileSize {
		w.wrong("NAR of %s in %s: %d bytes, narinfo says %d", hash, s.name, rec.Body.Len(), info.FileSize)
	}
	return true, done
}

func (w *world) checkInfo(s *shelf, hash string, text []byte) *nix.NarInfo {
	info, err := nix.ParseNarInfo(bytes.NewReader(text))
	if err != nil {
		w.wrong("narinfo of %s in %s: %v", hash, s.name, err)
	}
	p := w.forge.all[hash]
	var refs []string
	for _, ref := range info.References {
		refs = append(refs, ref.Base())
	}
	slices.Sort(refs)
	want := slices.Sorted(slices.Values(p.base))
	if info.StorePath != p.path || info.NarHash != p.sum || info.NarSize != uint64(len(p.nar)) || !slices.Equal(refs, want) {
		w.wrong("narinfo of %s in %s:\n%s", p.path, s.name, text)
	}
	key, err := nix.ParsePublicKey(s.key)
	w.must(err)
	if !slices.ContainsFunc(info.Sigs, func(sig string) bool { return key.Verify(info.Fingerprint(), sig) }) {
		w.wrong("narinfo of %s in %s is not signed by %s:\n%s", p.path, s.name, s.key, text)
	}
	if !strings.HasPrefix(info.URL, "nar/") {
		w.wrong("narinfo of %s: URL %s", p.path, info.URL)
	}
	return info
}

func (w *world) unzip(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("an empty body")
	}
	return unzstd.DecodeAll(b, nil)
}

func pinPath(cache, name string) string {
	return "/_api/v1/cache/" + url.PathEscape(cache) + "/pins/" + url.PathEscape(name)
}
