package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// packed is a pack with the chunks of one NAR, and its piece list.
type packed struct {
	file   []byte
	sum    [32]byte
	ids    []chunk.ID
	pieces []byte
}

func newPack(t *testing.T, nar []byte, size int) packed {
	t.Helper()
	var p packed
	var file bytes.Buffer
	w, enc := pack.NewWriter(&file, 0), pack.NewEncoder()
	for raw := nar; len(raw) > 0; raw = raw[min(size, len(raw)):] {
		data := raw[:min(size, len(raw))]
		id := chunk.Sum(data)
		if err := w.Add(chunk.Chunk, id, enc.Frame(nil, data), len(data)); err != nil {
			t.Fatal(err)
		}
		p.ids = append(p.ids, id)
		p.pieces = chunk.AppendChunk(p.pieces, id)
	}
	var err error
	if p.sum, _, err = w.Finish(); err != nil {
		t.Fatal(err)
	}
	p.file = file.Bytes()
	return p
}

func (h *house) put(t *testing.T, tok, method, path string, body []byte, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, h.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if tok != "" {
		req.Header.Set("Authorization", "bearer "+tok)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

const ours = "/_api/v1/cache/pub/"

func hashes(ids ...chunk.ID) (b []byte) {
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func header(n servertest.NAR) api.PathHeader {
	return api.PathHeader{StorePath: n.Path.String(), NARHash: fmt.Sprintf("sha256:%x", sha256.Sum256(n.Bytes)),
		NARSize: uint64(len(n.Bytes)), References: n.References}
}

func (h *house) commit(t *testing.T, tok, cache string, hdr api.PathHeader, pieces []byte) (*http.Response, string) {
	t.Helper()
	body, err := api.AppendPath(nil, hdr, pieces)
	if err != nil {
		t.Fatal(err)
	}
	return h.put(t, tok, "POST", "/_api/v1/cache/"+cache+"/paths", body, "Content-Type", api.PathsType)
}

func TestPackRoad(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "packed", random(t, 300_000))
	p := newPack(t, n.Bytes, 100_000)
	unknown := chunk.Sum([]byte("nowhere"))

	resp, body := h.put(t, h.Root, "POST", ours+"chunks/missing", hashes(append(p.ids, unknown)...))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/octet-stream" || body != "\x0f" {
		t.Fatalf("before: %s: %x", resp.Status, body)
	}
	resp, body = h.commit(t, h.Root, "pub", header(n), p.pieces)
	var e api.Error
	if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != 409 || e.Name != api.UnknownChunks || len(e.Chunks) != 3 {
		t.Fatalf("commit before the pack: %s: %s", resp.Status, body)
	}
	resp, body = h.put(t, h.Root, "PUT", ours+fmt.Sprintf("packs/%x", p.sum), p.file)
	if want := fmt.Sprintf(`{"size":%d,"chunks":3}`, len(p.file)); resp.StatusCode != 200 || body != want {
		t.Fatalf("pack: %s: %s, want %s", resp.Status, body, want)
	}
	if _, body = h.put(t, h.Root, "POST", ours+"chunks/missing", hashes(append(p.ids, unknown)...)); body != "\x08" {
		t.Fatalf("after: %x", body)
	}
	resp, body = h.commit(t, h.Root, "pub", header(n), p.pieces)
	if resp.StatusCode != 200 || !strings.Contains(body, `"result":"stored"`) {
		t.Fatalf("commit: %s: %s", resp.Status, body)
	}
	info := h.narinfo(t, "pub", n)
	if _, body = h.get(t, "/pub/"+info.URL); !bytes.Equal(unzstd(t, body), n.Bytes) {
		t.Error("the NAR came back other than it was pushed")
	}
	// The stock client's upload of the same path finds it.
	if _, body = h.Upload(t, h.Root, "pub", n); !strings.Contains(body, "Deduplicated") {
		t.Errorf("stock upload of the same path: %s", body)
	}
}

// What another cache has is unknown to who may not pull from it (design §4).
func TestChunksOfAnInvisibleCacheAreMissing(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "secret", random(t, 300_000))
	p := newPack(t, n.Bytes, 100_000)
	if resp, body := h.put(t, h.Root, "PUT", fmt.Sprintf("/_api/v1/cache/priv/packs/%x", p.sum), p.file); resp.StatusCode != 200 {
		t.Fatalf("pack: %s: %s", resp.Status, body)
	}
	stranger := h.Token(t, servertest.Grant{Caches: "pub", Perm: token.Push | token.Pull})
	friend := h.Token(t, servertest.Grant{Caches: "pub", Perm: token.Push}, servertest.Grant{Caches: "priv", Perm: token.Pull})
	if _, body := h.put(t, stranger, "POST", ours+"chunks/missing", hashes(p.ids...)); body != "\x07" {
		t.Errorf("stranger: %x", body)
	}
	if resp, body := h.commit(t, stranger, "pub", header(n), p.pieces); resp.StatusCode != 409 {
		t.Errorf("stranger's commit: %s: %s", resp.Status, body)
	}
	if _, body := h.put(t, friend, "POST", ours+"chunks/missing", hashes(p.ids...)); body != "\x00" {
		t.Errorf("who may pull there: %x", body)
	}
}

func TestPackRoadRefusals(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "x", random(t, 10_000))
	p := newPack(t, n.Bytes, 10_000)
	url := ours + fmt.Sprintf("packs/%x", p.sum)
	bomb, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token, method, path string
		body                      []byte
		header                    []string
		status                    int
		want                      string
	}{
		{"pack of another name", "root", "PUT", ours + "packs/" + strings.Repeat("0", 64), p.file, nil, 400, "RequestError"},
		{"name in upper case", "root", "PUT", ours + fmt.Sprintf("packs/%X", p.sum), p.file, nil, 400, "RequestError"},
		{"name too short", "root", "PUT", ours + "packs/00", p.file, nil, 400, "RequestError"},
		{"truncated", "root", "PUT", url, p.file[:len(p.file)-1], nil, 400, "RequestError"},
		{"empty", "root", "PUT", url, nil, nil, 400, "RequestError"},
		{"after nothing", "root", "PUT", url + "?after=" + strings.Repeat("0", 64), p.file, nil, 400, "RequestError"},
		{"after nonsense", "root", "PUT", url + "?after=x", p.file, nil, 400, "RequestError"},
		{"pack without the right", "pull", "PUT", url, p.file, nil, 403, "AccessError"},
		{"pack to nowhere", "push", "PUT", strings.Replace(url, "pub", "none", 1), p.file, nil, 404, "NoSuchCache"},
		{"pack by nobody", "", "PUT", strings.Replace(url, "pub", "none", 1), p.file, nil, 401, "Unauthorized"},
		{"half a hash", "root", "POST", ours + "chunks/missing", make([]byte, 33), nil, 400, "RequestError"},
		{"too many hashes", "root", "POST", ours + "chunks/missing", make([]byte, 32*(64<<10)+32), nil, 413, "RequestError"},
		{"paths that are none", "root", "POST", ours + "paths", []byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), nil, 400, "RequestError"},
		{"unknown encoding", "root", "POST", ours + "paths", nil, []string{"Content-Encoding", "br"}, 415, "RequestError"},
		{"zstd that is none", "root", "POST", ours + "paths", []byte("xxxxxxxx"), []string{"Content-Encoding", "zstd"}, 400, "RequestError"},
		{"a bomb", "root", "POST", ours + "paths", bomb.EncodeAll(make([]byte, 64<<20), nil), []string{"Content-Encoding", "zstd"}, 400, "RequestError"},
		{"paths without the right", "pull", "POST", ours + "paths", nil, nil, 403, "AccessError"},
		{"closure by nobody", "", "POST", ours + "closure", []byte(`{"store_path_hashes":[]}`), []string{"Content-Type", "application/json"}, 401, "Unauthorized"},
		{"closure without the right", "config", "POST", ours + "closure", []byte(`{"store_path_hashes":[]}`), []string{"Content-Type", "application/json"}, 403, "AccessError"},
		{"list of two closures", "pull", "POST", ours + "closure", []byte(`{"store_path_hashes":["` + strings.Repeat("a", 32) + `","` + strings.Repeat("b", 32) + `"],"list":true}`), []string{"Content-Type", "application/json"}, 400, "RequestError"},
		{"closure of nonsense", "root", "POST", ours + "closure", []byte(`{"store_path_hashes":["x"]}`), []string{"Content-Type", "application/json"}, 422, "RequestError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := h.put(t, h.tokens[c.token], c.method, c.path, c.body, c.header...)
			if resp.StatusCode != c.status || !strings.Contains(body, `"error":"`+c.want+`"`) {
				t.Errorf("got %s: %s, want %d %s", resp.Status, body, c.status, c.want)
			}
		})
	}
	chunked := h.raw(t, "PUT "+url+" HTTP/1.1\r\nHost: x\r\nAuthorization: bearer "+h.Root+"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n")
	if !strings.HasPrefix(chunked, "HTTP/1.1 411") {
		t.Errorf("without a length: %s", chunked)
	}
	large := h.raw(t, "PUT "+url+" HTTP/1.1\r\nHost: x\r\nAuthorization: bearer "+h.Root+"\r\nContent-Length: 100663297\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(large, "HTTP/1.1 413") {
		t.Errorf("too large: %s", large)
	}
}

func TestCommitNamesMissingReferences(t *testing.T) {
	h := newHouse(t)
	dep := servertest.NewNAR(t, "dep", []byte("dep"))
	n := servertest.NewNAR(t, "top", []byte("small"), dep.Path.Base())
	pieces := chunk.AppendLiteral(nil, n.Bytes)
	resp, body := h.commit(t, h.Root, "pub", header(n), pieces)
	var e api.Error
	if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != 409 || e.Name != api.MissingReferences ||
		len(e.References) != 1 || e.References[0] != dep.Path.Base() {
		t.Fatalf("got %s: %s", resp.Status, body)
	}
	declared := header(n)
	declared.Upstream = []string{dep.Path.Base()}
	if resp, body := h.commit(t, h.Root, "pub", declared, pieces); resp.StatusCode != 200 {
		t.Errorf("declared upstream's: %s: %s", resp.Status, body)
	}
	_, body = h.Do(t, "POST", ours+"closure", h.Root, fmt.Sprintf(`{"store_path_hashes":[%q,%q]}`, n.Path.Hash(), dep.Path.Hash()))
	if want := fmt.Sprintf(`{"complete":[%q],"missing":[%q],"absent":[%q]}`, n.Path.Hash(), dep.Path.Hash(), dep.Path.Hash()); body != want {
		t.Errorf("closure: got %s, want %s", body, want)
	}
}
