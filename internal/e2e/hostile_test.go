package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/pack"
)

// aPack is a shared pack of one chunk, whose entry may claim another hash.
func aPack(t testing.TB, raw []byte, id chunk.ID) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pack.NewWriter(&b, 0)
	if err := w.Add(chunk.Chunk, id, pack.NewEncoder().Frame(nil, raw), len(raw)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (s *server) putPack(tok string, body []byte, name [32]byte) *http.Request {
	return s.request(http.MethodPut, fmt.Sprintf("/_api/v1/cache/main/packs/%x", name), tok, bytes.NewReader(body))
}

// raw sends bytes as they are, and returns the status of the answer; 0 is none.
func (s *server) raw(text string) int {
	s.t.Helper()
	c := must(net.Dial("tcp", s.addr()))(s.t)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // of a TCP connection, never fails
	go io.WriteString(c, text)                          // the server may answer before it has read all
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestHostileRequestsAreRefusedAndLeaveNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	stored := s.stored()

	t.Run("packs", func(t *testing.T) { hostilePacks(t, s, tok) })
	t.Run("commits", func(t *testing.T) { hostileCommits(t, s, tok) })
	t.Run("addresses", func(t *testing.T) { hostileAddresses(t, s, tok) })
	t.Run("headers", func(t *testing.T) { hostileHeaders(t, s, tok, closure(t, top)[0]) })
	t.Run("bodies cut half way", func(t *testing.T) { cutBodies(t, s, tok, closure(t, top)) })
	t.Run("connections that vanish", func(t *testing.T) { vanish(t, s, tok) })

	if now := s.stored(); now != stored {
		t.Errorf("%d bytes of refused packs were stored", now-stored)
	}
	s.quiet()
	if n := s.openFiles(".spool"); n > 0 {
		t.Errorf("%d spooled files are open", n)
	}
	if log := s.proc.err.String(); strings.Contains(log, `"msg":"panic"`) || strings.Contains(log, "goroutine ") {
		t.Errorf("the server panicked:\n%s", tail(remarkable(log)))
	}
	for _, a := range s.requests() {
		if a.Status >= 500 {
			t.Errorf("%s %s was answered %d: %s", a.Method, a.Path, a.Status, a.Error)
		}
	}
	again := build(t, "after", network)[0]
	mustPush(t, s.url, tok, "main", again)
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, again) })
	t.Logf("the server's memory was %s at most", s.peakMemory())
	s.stopped()
}

func hostilePacks(t *testing.T, s *server, tok string) {
	raw := bytes.Repeat([]byte("some bytes"), 5000)
	good := aPack(t, raw, chunk.Sum(raw))
	wrong := aPack(t, raw, chunk.Sum([]byte("other bytes")))
	random := make([]byte, 1<<20)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	huge := slices.Clone(good)
	copy(huge[len(huge)-12:], "\xff\xff\xff\xff") // the count of entries in its trailer
	for name, c := range map[string]struct {
		body []byte
		name [32]byte
	}{
		"truncated":               {good[:len(good)/2], sha256.Sum256(good[:len(good)/2])},
		"without its last byte":   {good[:len(good)-1], sha256.Sum256(good[:len(good)-1])},
		"with a byte more":        {append(slices.Clone(good), 0), sha256.Sum256(append(slices.Clone(good), 0))},
		"under another name":      {good, sha256.Sum256(wrong)},
		"with a wrong chunk hash": {wrong, sha256.Sum256(wrong)},
		"with a forged count":     {huge, sha256.Sum256(huge)},
		"noise":                   {random, sha256.Sum256(random)},
		"empty":                   {nil, sha256.Sum256(nil)},
	} {
		if status, text := s.send(s.putPack(tok, c.body, c.name)); status != http.StatusBadRequest {
			t.Errorf("a pack %s: %d %s", name, status, text)
		}
	}
	endless := s.putPack(tok, good, sha256.Sum256(good))
	endless.Body, endless.ContentLength = io.NopCloser(bytes.NewReader(good)), -1
	s.want(http.StatusLengthRequired, endless)
	head := fmt.Sprintf("PUT /_api/v1/cache/main/packs/%064d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n", 0, tok)
	for length, want := range map[string]int{"200000000": 413, "9223372036854775807": 413, "9223372036854775808": 400, "-1": 400, "1\r\nContent-Length: 2": 400} {
		if got := s.raw(head + "Content-Length: " + length + "\r\n\r\n"); got != want {
			t.Errorf("a pack with Content-Length %q: %d, want %d", length, got, want)
		}
	}
	for _, tok := range []string{"", "garbage", unsigned()} {
		if status, text := s.send(s.putPack(tok, good, sha256.Sum256(good))); status != http.StatusForbidden {
			t.Errorf("a pack with the token %.20q: %d %s", tok, status, text)
		}
	}
}

// unsigned is a token that may do everything and that nobody signed.
func unsigned() string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none","typ":"JWT"}`)) + "." +
		part([]byte(`{"sub":"x","https://jwt.attic.rs/v1":{"caches":{"*":{"r":1,"w":1}}}}`)) + "."
}

func hostileCommits(t *testing.T, s *server, tok string) {
	commit := func(body []byte, encoding string) (int, string) {
		req := s.request(http.MethodPost, "/_api/v1/cache/main/paths", tok, bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/x-attic-paths")
		if encoding != "" {
			req.Header.Set("Content-Encoding", encoding)
		}
		return s.send(req)
	}
	path := "/nix/store/" + strings.Repeat("0", 32) + "-hostile"
	frame := func(pieces []byte, refs ...string) []byte {
		return must(api.AppendPath(nil, api.PathHeader{
			StorePath: path, NARHash: "sha256:" + strings.Repeat("0", 64), NARSize: 1 << 20, References: refs,
		}, pieces))(t)
	}
	var pieces []byte
	var ids []string
	for i := range 3 {
		id := chunk.Sum([]byte{byte(i)})
		pieces, ids = chunk.AppendChunk(pieces, id), append(ids, hex.EncodeToString(id[:]))
	}
	status, text := commit(frame(pieces), "")
	var answer struct {
		Error  string
		Chunks []string
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusConflict {
		t.Errorf("a commit of unknown chunks: %d %s", status, text)
	}
	slices.Sort(ids)
	slices.Sort(answer.Chunks)
	if answer.Error != "UnknownChunks" || !slices.Equal(answer.Chunks, ids) {
		t.Errorf("got %+v, want the chunks %v", answer, ids)
	}
	if status, text := commit(frame(chunk.AppendLiteral(nil, []byte("x")), strings.Repeat("1", 32)+"-nowhere"), ""); status != http.StatusConflict || !strings.Contains(text, "-nowhere") {
		t.Errorf("a commit of an unknown reference: %d %s", status, text)
	}
	zeros := must(zstd.NewWriter(nil))(t).EncodeAll(make([]byte, 256<<20), nil)
	for name, c := range map[string]struct {
		body     []byte
		encoding string
	}{
		"of 256 MiB in few bytes":   {zeros, "zstd"},
		"of broken zstd":            {[]byte("zstd it is not"), "zstd"},
		"that ends in the middle":   {frame(pieces)[:40], ""},
		"that claims an exabyte":    {bytes.Repeat([]byte{0xff}, 8), ""},
		"with an unknown kind":      {frame([]byte{9, 9, 9}), ""},
		"whose hash does not match": {frame(chunk.AppendLiteral(nil, bytes.Repeat([]byte("x"), 4096))), ""},
		"of another store":          {bytes.ReplaceAll(frame(nil), []byte("/nix/store"), []byte("/etc/store")), ""},
	} {
		if status, text := commit(c.body, c.encoding); status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge {
			t.Errorf("a commit %s: %d %s", name, status, text)
		}
	}
	deep := strings.Repeat("[", 1<<20)
	req := s.request(http.MethodPost, "/_api/v1/get-missing-paths", tok, strings.NewReader(`{"cache":`+deep))
	req.Header.Set("Content-Type", "application/json")
	if status, text := s.send(req); status != http.StatusBadRequest && status != http.StatusUnprocessableEntity {
		t.Errorf("JSON a million deep: %d %s", status, tail(text))
	}
}

// hostileAddresses puts what could leave the directory of packs, or the cache, in place of each
// parameter of each route.
func hostileAddresses(t *testing.T, s *server, tok string) {
	evil := []string{
		"..", "%2e%2e", "../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "..%5c..%5cx", ".%00", "main%00",
		"main%2f..%2fmain", "%c0%ae%c0%ae", "%", "%zz", "'%20OR%20'1'%3d'1", strings.Repeat("a", 20_000), "*", "%0d%0aX-Injected:%201",
	}
	sum, hash := strings.Repeat("0", 64), strings.Repeat("0", 32)
	for _, bad := range evil {
		for method, paths := range map[string][]string{
			"GET": {"/" + bad + "/nix-cache-info", "/" + bad + "/" + hash + ".narinfo", "/main/" + bad + ".narinfo", "/main/" + bad,
				"/main/nar/" + bad + ".nar", "/main/nar/" + bad, "/" + bad + "/nar/" + hash + ".nar", "/main/nar/" + hash + ".nar?f=" + bad,
				"/_api/v1/cache-config/" + bad, "/" + bad},
			"PUT":    {"/_api/v1/cache/" + bad + "/packs/" + sum, "/_api/v1/cache/main/packs/" + bad, "/_api/v1/cache/main/packs/" + sum + "?after=" + bad},
			"POST":   {"/_api/v1/cache/" + bad + "/paths", "/_api/v1/cache/" + bad + "/chunks/missing", "/_api/v1/cache/" + bad + "/closure", "/_api/v1/cache-config/" + bad},
			"PATCH":  {"/_api/v1/cache-config/" + bad},
			"DELETE": {"/_api/v1/cache-config/" + bad},
		} {
			for _, path := range paths {
				status := s.raw(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + tok + "\r\nContent-Length: 0\r\n\r\n")
				if status < 400 || status >= 500 {
					t.Errorf("%s %.120s: %d", method, path, status)
				}
			}
		}
	}
}

func hostileHeaders(t *testing.T, s *server, tok, path string) {
	get := "GET /main/" + hashOf(path) + ".narinfo HTTP/1.1\r\nHost: x\r\n"
	many := strings.Repeat("X-A: b\r\n", 200_000)
	for name, c := range map[string]struct {
		text string
		want []int
	}{
		"a header of a megabyte":      {get + "X-A: " + strings.Repeat("b", 1<<20) + "\r\n\r\n", []int{431}},
		"200,000 headers":             {get + many + "\r\n", []int{431, 0}}, // 0: reset while it still sent
		"a request line of 1 MiB":     {"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", []int{431, 414, 0}},
		"no host":                     {"GET / HTTP/1.1\r\n\r\n", []int{400}},
		"length and chunks":           {"PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}},
		"another transfer encoding":   {"PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", []int{400, 501}},
		"a chunk of no number":        {"PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + tok + "\r\nX-Attic-Nar-Info-Preamble-Size: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", []int{400}},
		"a preamble of 2^63":          {"PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nX-Attic-Nar-Info-Preamble-Size: 9223372036854775808\r\nContent-Length: 0\r\n\r\n", []int{400}},
		"ranges without end":          {get[:len(get)-9] + "Host: x\r\nRange: bytes=" + strings.Repeat("0-0,", 10_000) + "1-1\r\n\r\n", []int{200, 416, 400}},
		"a line feed in a header":     {get + "X-A: b\nX-C: d\r\n\r\n", []int{200, 400}},
		"not HTTP":                    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n", []int{400, 0}},
		"HTTP/2 that goes on as dust": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1000), []int{0, 400}},
	} {
		if got := s.raw(c.text); !slices.Contains(c.want, got) {
			t.Errorf("%s: %d, want one of %v", name, got, c.want)
		}
	}
	nar := s.request(http.MethodGet, "/main/nar/"+hashOf(path)+".nar", "", nil)
	nar.Header.Set("Range", "bytes=18446744073709551615-,"+strings.Repeat("0-,", 5000)+"-1")
	if status, _ := s.send(nar); status != 200 && status != 416 && status != 400 {
		t.Errorf("5,000 ranges of a NAR: %d", status)
	}
}

// cutBodies breaks off every kind of upload in the middle.
func cutBodies(t *testing.T, s *server, tok string, paths []string) {
	raw := make([]byte, 900_000)
	for i := range raw {
		raw[i] = byte(rand.Uint32())
	}
	whole := aPack(t, raw, chunk.Sum(raw))
	info, nar := stockPath(t, "main", paths[0])
	info.StorePath = strings.Replace(info.StorePath, info.StorePathHash, strings.Repeat("2", 32), 1)
	info.StorePathHash = strings.Repeat("2", 32)
	text := string(must(json.Marshal(info))(t))
	head := "Host: x\r\nAuthorization: bearer " + tok + "\r\n"
	requests := []string{
		fmt.Sprintf("PUT /_api/v1/cache/main/packs/%x HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", sha256.Sum256(whole), head, len(whole), whole),
		fmt.Sprintf("PUT /_api/v1/upload-path HTTP/1.1\r\n%sX-Attic-Nar-Info: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, text, len(nar), nar),
		fmt.Sprintf("PUT /_api/v1/upload-path HTTP/1.1\r\n%sX-Attic-Nar-Info-Preamble-Size: %d\r\nContent-Length: %d\r\n\r\n%s%s", head, len(text), len(text)+len(nar), text, nar),
		fmt.Sprintf("POST /_api/v1/cache/main/chunks/missing HTTP/1.1\r\n%sContent-Length: 3200\r\n\r\n%s", head, strings.Repeat("x", 3200)),
		fmt.Sprintf("POST /_api/v1/get-missing-paths HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: 3200\r\n\r\n%s", head, strings.Repeat(" ", 3200)),
	}
	for _, whole := range requests {
		for range 8 {
			c := must(net.Dial("tcp", s.addr()))(t)
			_, _ = io.WriteString(c, whole[:rand.N(len(whole)-7)]) // all that matters is that it ends too early
			if rand.N(2) == 0 {
				_ = c.(*net.TCPConn).SetLinger(0)
			}
			_ = c.Close()
		}
	}
	if status, _ := s.send(s.request(http.MethodGet, "/main/"+info.StorePathHash+".narinfo", tok, nil)); status != http.StatusNotFound {
		t.Errorf("the narinfo of an upload that was cut off: %d", status)
	}
}

// vanish opens 200 connections at once that go away at different points of different requests.
func vanish(t *testing.T, s *server, tok string) {
	texts := []string{
		"", "GET", "GET / HTTP/1.1\r\nHo", "GET /main/nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n",
		"PUT /_api/v1/cache/main/packs/" + strings.Repeat("0", 64) + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + tok + "\r\nContent-Length: 90000000\r\n\r\n",
		"PUT /_api/v1/cache/main/packs/" + strings.Repeat("0", 64) + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + tok + "\r\nContent-Length: 90000000\r\n\r\n" + strings.Repeat("x", 100_000),
		"POST /_api/v1/get-missing-paths HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000000\r\nAuthorization: Bearer " + tok + "\r\n\r\n{",
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			c, err := net.Dial("tcp", s.addr())
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, texts[i%len(texts)]) // it goes away anyhow
			time.Sleep(time.Duration(i%10) * 10 * time.Millisecond)
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		})
	}
	wg.Wait()
}

// Those who send nothing must not keep others from working: neither with connections nor with uploads
// that stand still.
func TestClientsThatSendNothingKeepNobodyFromWorking(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", true)
	other, _ := s.cache("other", false)
	head := "Host: x\r\nAuthorization: Bearer " + other + "\r\n"
	for text, n := range map[string]int{
		"":                              200,
		"GET / HTTP/1.1\r\nHost: x\r\n": 200,
		"PUT /_api/v1/cache/other/packs/" + strings.Repeat("0", 64) + " HTTP/1.1\r\n" + head + "Content-Length: 90000000\r\n\r\n":   20,
		"PUT /_api/v1/cache/other/packs/" + strings.Repeat("1", 64) + " HTTP/1.1\r\n" + head + "Content-Length: 90000000\r\n\r\nx":  20,
		"PUT /_api/v1/upload-path HTTP/1.1\r\n" + head + "X-Attic-Nar-Info-Preamble-Size: 500\r\nContent-Length: 90000000\r\n\r\n{": 20,
		"POST /_api/v1/get-missing-paths HTTP/1.1\r\n" + head + "Content-Type: application/json\r\nContent-Length: 30000\r\n\r\n{":  50,
	} {
		for range n {
			c := must(net.Dial("tcp", s.addr()))(t)
			t.Cleanup(func() { _ = c.Close() })
			must(io.WriteString(c, text))(t)
		}
	}
	until(t, "all are connected", func() bool { return s.openFiles("socket:") >= 510 })
	top := build(t, "", network)[0]
	if p := mustPush(t, s.url, tok, "main", top); p.json.Seconds > 45 {
		t.Errorf("the push took %v s: it waited until one of them was cut off", p.json.Seconds)
	}
	s.stockPush("main", tok, closure(t, build(t, "again", network)[0]), false)
	pull(t, rig.nixes[0], s.url+"/main", key, top)
}

// peakMemory is the most that the server ever held.
func (s *server) peakMemory() string {
	s.t.Helper()
	text := string(must(os.ReadFile("/proc/" + strconv.Itoa(s.proc.cmd.Process.Pid) + "/status"))(s.t))
	_, rest, _ := strings.Cut(text, "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
