package server_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

func TestUploadedPathIsSignedAndServed(t *testing.T) {
	h := newHouse(t)
	dep := servertest.NewNAR(t, "dep", bytes.Repeat([]byte("dep"), 10_000))
	big := servertest.NewNAR(t, "big", random(t, 6<<20), dep.Path.Base())
	for _, n := range []servertest.NAR{dep, big} {
		resp, body := h.Upload(t, h.Root, "pub", n)
		if resp.StatusCode != 200 || !strings.Contains(body, `"kind":"Uploaded"`) || !strings.Contains(body, `"frac_deduplicated"`) {
			t.Fatalf("upload: %s: %s", resp.Status, body)
		}
	}
	info := h.narinfo(t, "pub", big)
	key := h.publicKey(t, "pub")
	if len(info.Sigs) != 1 || !key.Verify(info.Fingerprint(), info.Sigs[0]) {
		t.Errorf("signatures %q do not verify with %s", info.Sigs, key)
	}
	if info.Compression != "zstd" || info.NarSize != uint64(len(big.Bytes)) || len(info.References) != 1 || info.References[0] != dep.Path {
		t.Errorf("narinfo: %+v", info)
	}
	resp, body := h.Do(t, "GET", "/pub/"+info.URL, "", "")
	if resp.Header.Get("Content-Type") != "application/x-nix-nar" || resp.ContentLength != int64(info.FileSize) {
		t.Errorf("NAR: %v, length %d, FileSize %d", resp.Header, resp.ContentLength, info.FileSize)
	}
	if got := unzstd(t, body); !bytes.Equal(got, big.Bytes) {
		t.Errorf("the NAR came back other than it went in (%d bytes, want %d)", len(got), len(big.Bytes))
	}
}

func (h *house) narinfo(t *testing.T, cache string, n servertest.NAR) *nix.NarInfo {
	t.Helper()
	resp, body := h.Do(t, "GET", "/"+cache+"/"+n.Path.Hash()+".narinfo", h.Root, "")
	if resp.StatusCode != 200 {
		t.Fatalf("narinfo: %s: %s", resp.Status, body)
	}
	info, err := nix.ParseNarInfo(strings.NewReader(body))
	if err != nil {
		t.Fatalf("narinfo: %v\n%s", err, body)
	}
	return info
}

func (h *house) publicKey(t *testing.T, cache string) nix.PublicKey {
	t.Helper()
	_, body := h.Do(t, "GET", "/_api/v1/cache-config/"+cache, h.Root, "")
	var config struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal([]byte(body), &config); err != nil {
		t.Fatal(err)
	}
	key, err := nix.ParsePublicKey(config.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func unzstd(t *testing.T, body string) []byte {
	t.Helper()
	dec, err := zstd.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	b, err := io.ReadAll(dec)
	if err != nil {
		t.Fatalf("decompress: %v", err)
	}
	return b
}

func TestUploadAgainIsDeduplicated(t *testing.T) {
	h := newHouse(t)
	resp, body := h.Upload(t, h.Root, "pub", h.nar)
	if want := `{"kind":"Deduplicated","frac_deduplicated":null}`; resp.StatusCode != 200 || body != want {
		t.Errorf("got %s: %s, want %s", resp.Status, body, want)
	}
}

// The stock client is told a share of what was here for NARs that Attic would
// have cut, and for no others, however they are cut here.
func TestShareIsToldAboveTheThreshold(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.TellShareFrom = 10_000 })}
	h.CreateCache(t, "c", true)
	dep := servertest.NewNAR(t, "dep", nil)
	for size, want := range map[int]string{9_999: `"frac_deduplicated":null}`, 10_000: `"frac_deduplicated":0}`, 30_000: `"frac_deduplicated":0}`} {
		content := random(t, size)
		copy(content[size/2:], dep.Path.Hash()) // cuts the NAR in two
		n := servertest.NewNAR(t, strconv.Itoa(size), content, dep.Path.Base())
		if resp, body := h.Upload(t, h.Root, "c", n); resp.StatusCode != 200 || !strings.HasSuffix(body, want) {
			t.Errorf("%d bytes: got %s: %s, want %s", size, resp.Status, body, want)
		}
	}
}

// Attic takes any signature and content address. Those that cannot be upheld are
// left out: a client would believe the path by its address alone.
func TestUnfoundedClaimsAreLeftOut(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "claims", []byte("another NAR"))
	resp, body := h.UploadInfo(t, h.Root, n.Info(t, "pub", map[string]any{
		"sigs": []string{"", "x", "k:x"}, "deriver": "hello.drv", "system": "a b", "ca": "fixed:r:sha256:" + strings.Repeat("0", 52)}), n.Bytes)
	if resp.StatusCode != 200 {
		t.Fatalf("got %s: %s", resp.Status, body)
	}
	if info := h.narinfo(t, "pub", n); info.CA+info.Deriver+info.System != "" || len(info.Sigs) != 1 {
		t.Errorf("narinfo: %+v", info)
	}
}

func TestPreambleWinsOverHeader(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "preamble", []byte("a NAR after its preamble"))
	info := n.Info(t, "pub", nil)
	for _, size := range []string{strconv.Itoa(len(info)), "+" + strconv.Itoa(len(info)), "00" + strconv.Itoa(len(info))} {
		resp, body := h.preamble(t, size, info+string(n.Bytes), map[string]string{"X-Attic-Nar-Info": "not JSON"})
		if resp.StatusCode != 200 {
			t.Errorf("size %q: %s: %s", size, resp.Status, body)
		}
	}
	h.narinfo(t, "pub", n)
}

func (h *house) preamble(t *testing.T, size, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("PUT", h.URL+"/_api/v1/upload-path", struct{ io.Reader }{strings.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Attic-Nar-Info-Preamble-Size", size)
	req.Header.Set("Authorization", "bearer "+h.Root)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestPreamblesThatDoNotFitAreRefused(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct{ name, size, body string }{
		{"no number", "ten", "{}"},
		{"negative", "-1", "{}"},
		{"body ends early", "100", "{}"},
		{"larger than max-nar-info-size", "1048577", strings.Repeat(" ", 1<<20+1)},
		{"a gigabyte claimed", "1000000000", "{}"},
		{"not JSON", "2", "xx"},
		{"empty", "0", ""},
	} {
		resp, body := h.preamble(t, c.size, c.body, nil)
		if resp.StatusCode != 400 || !strings.Contains(body, `"RequestError"`) {
			t.Errorf("%s: got %s: %s", c.name, resp.Status, body)
		}
	}
}

// Attic takes all of these; some crash its narinfo, some forge lines of it.
func TestUploadInfosThatCouldNotBeServedAreRefused(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "hostile", []byte("content"))
	for name, change := range map[string]map[string]any{
		"empty store path":             {"store_path": ""},
		"root as store path":           {"store_path": "/"},
		"bare name":                    {"store_path": n.Path.Base()},
		"another store":                {"store_path": "/gnu/store/" + n.Path.Base()},
		"hash of another path":         {"store_path_hash": strings.Repeat("0", 32)},
		"newline in the path":          {"store_path": n.Path.String() + "\nSig: forged"},
		"newline in a reference":       {"references": []string{n.Path.Base() + "\nSig: forged"}},
		"space in a reference":         {"references": []string{n.Path.Base() + " x"}},
		"reference without a hash":     {"references": []string{"x"}},
		"full path as reference":       {"references": []string{n.Path.String()}},
		"newline in the CA":            {"ca": "fixed:r:sha256:x\nSig: forged"},
		"newline in the deriver":       {"deriver": "x.drv\nSig: forged"},
		"newline in the system":        {"system": "x\nSig: forged"},
		"signature that is none":       {"sigs": []string{"x\ny"}},
		"NAR hash of another kind":     {"nar_hash": "sha512:00"},
		"NAR hash without a kind":      {"nar_hash": strings.Repeat("0", 64)},
		"no size":                      {"nar_size": 0},
		"negative size":                {"nar_size": -1},
		"a size that overflows":        {"nar_size": uint64(1) << 63},
		"wrong hash":                   {"nar_hash": "sha256:" + strings.Repeat("0", 64)},
		"size larger than the body":    {"nar_size": len(n.Bytes) + 1},
		"size smaller than the body":   {"nar_size": len(n.Bytes) - 1},
		"references of the wrong type": {"references": "x"},
		"references missing":           {"references": nil},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := h.UploadInfo(t, h.Root, n.Info(t, "pub", change), n.Bytes)
			if resp.StatusCode != 400 || !strings.Contains(body, `"error":"RequestError"`) {
				t.Errorf("got %s: %s", resp.Status, body)
			}
		})
	}
	if resp, _ := h.Do(t, "GET", "/pub/"+n.Path.Hash()+".narinfo", "", ""); resp.StatusCode != 404 {
		t.Errorf("something of it was kept: narinfo %s", resp.Status)
	}
}

func TestUploadRightsFollowTheMatrix(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		token, cache string
		status       int
		name         string
	}{
		{"", "priv", 401, "Unauthorized"}, {"", "pub", 403, "AccessError"}, {"pull", "pub", 403, "AccessError"},
		{"push", "none", 404, "NoSuchCache"}, {"", "none", 401, "Unauthorized"},
	} {
		resp, body := h.Upload(t, h.tokens[c.token], c.cache, h.nar)
		if resp.StatusCode != c.status || !strings.Contains(body, `"error":"`+c.name+`"`) {
			t.Errorf("%q to %s: got %s: %s", c.token, c.cache, resp.Status, body)
		}
	}
}

// The stock client streams on while it is being refused; a reset connection
// would take the reason away from it (protocol §9.6).
func TestRefusedUploadReadsTheReason(t *testing.T) {
	h := newHouse(t)
	big := servertest.NewNAR(t, "big", random(t, 8<<20))
	for range 20 {
		resp, body := h.Upload(t, h.tokens["pull"], "pub", big)
		if resp.StatusCode != 403 || !strings.Contains(body, "AccessError") {
			t.Fatalf("got %s: %s", resp.Status, body)
		}
	}
}

func TestProofCanBeWaived(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.WaivePossession = true })}
	h.CreateCache(t, "pub", true)
	n := servertest.NewNAR(t, "x", []byte("contents"))
	if resp, body := h.Upload(t, h.Root, "pub", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	resp, body := h.UploadInfo(t, h.Root, n.Info(t, "pub", nil), random(t, 1<<20))
	if resp.StatusCode != 200 || !strings.Contains(body, "Deduplicated") {
		t.Errorf("got %s: %s", resp.Status, body)
	}
}

// A hash alone must not give access to what another cache has.
func TestUploadOfAPrivateCachesNARIsNotDeduplicated(t *testing.T) {
	h := newHouse(t)
	h.CreateCache(t, "mine", false)
	secret := servertest.NewNAR(t, "secret", random(t, 2<<20))
	if resp, body := h.Upload(t, h.Root, "priv", secret); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	mine := h.Token(t, servertest.Grant{Caches: "mine", Perm: token.Pull | token.Push})
	_, body := h.Upload(t, mine, "mine", secret)
	if strings.Contains(body, "Deduplicated") || !strings.Contains(body, `"frac_deduplicated":0`) {
		t.Errorf("the answer tells that somebody else has the NAR: %s", body)
	}
}

func TestMissingPathsAnswersTensOfThousands(t *testing.T) {
	h := newHouse(t)
	hashes := []string{h.nar.Path.Hash()}
	for i := range 60_000 {
		hashes = append(hashes, fmt.Sprintf("%032d", i))
	}
	hashes = append(hashes, hashes[1]) // repeated: answered once
	in, err := json.Marshal(map[string]any{"cache": "pub", "store_path_hashes": hashes})
	if err != nil {
		t.Fatal(err)
	}
	resp, body := h.Do(t, "POST", "/_api/v1/get-missing-paths", h.Root, string(in))
	var out struct {
		MissingPaths []string `json:"missing_paths"`
	}
	if err := json.Unmarshal([]byte(body), &out); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	if len(out.MissingPaths) != 60_000 {
		t.Errorf("got %d missing, want 60000", len(out.MissingPaths))
	}
	if _, body := h.Do(t, "POST", "/_api/v1/get-missing-paths", h.Root, `{"cache":"pub","store_path_hashes":[]}`); body != `{"missing_paths":[]}` {
		t.Errorf("empty request: got %s", body)
	}
}
