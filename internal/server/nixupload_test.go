package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/unpack"
)

// A copied is a path as nix copy sends it.
type copied struct {
	servertest.NAR
	file        []byte
	ext         string
	compression string
}

var compressors = map[string][]string{"none": {"cat"}, "xz": {"xz", "-c"}, "zstd": {"zstd", "-c"}, "bzip2": {"bzip2", "-c"}}

func copyOf(t testing.TB, n servertest.NAR, compression string) copied {
	t.Helper()
	cmd := exec.Command(compressors[compression][0], compressors[compression][1:]...)
	cmd.Stdin = bytes.NewReader(n.Bytes)
	file, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return copied{n, file, map[string]string{"none": "", "xz": ".xz", "zstd": ".zst", "bzip2": ".bz2"}[compression], compression}
}

// url is the NAR's, as the narinfo has it.
func (c copied) url() string {
	sum := sha256.Sum256(c.file)
	return "nar/" + nix.EncodeBase32(sum[:]) + ".nar" + c.ext
}

func (c copied) text() string {
	sum := sha256.Sum256(c.file)
	return fmt.Sprintf("StorePath: %s\nURL: %s\nCompression: %s\nFileHash: sha256:%s\nFileSize: %d\nNarHash: sha256:%x\nNarSize: %d\nReferences: %s\n",
		c.Path, c.url(), c.compression, nix.EncodeBase32(sum[:]), len(c.file), sha256.Sum256(c.Bytes), len(c.Bytes), strings.Join(c.References, " "))
}

// as sends a request as Nix does, with the token as the password of a netrc.
func (h *house) as(t testing.TB, tok, method, path string, body []byte, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, h.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if tok != "" {
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(":"+tok)))
	}
	for i := 0; i+1 < len(header); i += 2 {
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

// want is as, with the status that it must have.
func (h *house) want(t testing.TB, status int, tok, method, path string, body []byte, header ...string) string {
	t.Helper()
	resp, text := h.as(t, tok, method, path, body, header...)
	if resp.StatusCode != status {
		t.Errorf("%s %s: got %s: %s, want %d", method, path, resp.Status, text, status)
	}
	return text
}

func (h *house) copy(t testing.TB, tok, cache string, c copied) {
	t.Helper()
	h.want(t, 200, tok, "PUT", "/"+cache+"/"+c.url(), c.file)
	h.want(t, 200, tok, "PUT", "/"+cache+"/"+c.Path.Hash()+".narinfo", []byte(c.text()))
}

// stored is how many bytes of packs there are.
func (h *house) stored(t testing.TB) (n int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(h.Dir, "storage", "packs"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		n += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// early is a server that does not wait long for what comes in the wrong order.
func early(t *testing.T) *house {
	t.Helper()
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Limits.Early = 50 * time.Millisecond }), tokens: map[string]string{}}
	h.CreateCache(t, "pub", true)
	h.CreateCache(t, "priv", false)
	h.tokens["push"] = h.Token(t, servertest.Grant{Caches: "*", Perm: token.Push})
	return h
}

func TestCopiedPathIsTheSameInEveryCompression(t *testing.T) {
	h := newHouse(t)
	dep := servertest.NewNAR(t, "dep", []byte("a dependency"))
	h.copy(t, h.Root, "pub", copyOf(t, dep, "none"))
	contents := random(t, 6<<20)
	for compression := range compressors {
		n := servertest.NewNAR(t, "app-"+compression, contents, dep.Path.Base())
		h.copy(t, h.Root, "pub", copyOf(t, n, compression))
		info := h.narinfo(t, "pub", n)
		if info.Compression != "zstd" || len(info.Sigs) != 1 || len(info.References) != 1 || info.References[0] != dep.Path {
			t.Errorf("%s: narinfo %+v", compression, info)
		}
		_, body := h.Do(t, "GET", "/pub/"+info.URL, "", "")
		if !bytes.Equal(unzstd(t, body), contents) {
			t.Errorf("%s: the NAR came back other than it went in", compression)
		}
		c := copyOf(t, n, compression)
		if compression == "bzip2" {
			h.want(t, 404, "", "GET", "/pub/"+c.url(), nil)
			continue
		}
		// Nix asks by the narinfo that it wrote itself, for a month.
		resp, body := h.as(t, "", "GET", "/pub/"+c.url(), nil)
		if got := unpacked(t, compression, body); resp.StatusCode != 200 || !bytes.Equal(got, contents) {
			t.Errorf("%s: by its own name the NAR came back with %s and %d bytes", compression, resp.Status, len(got))
		}
		h.want(t, 404, h.Root, "HEAD", "/pub/"+c.url(), nil) // no other narinfo may rely on it
	}
}

func unpacked(t *testing.T, compression, body string) []byte {
	t.Helper()
	r, err := unpack.NewReader(compression, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", compression, err)
	}
	return b
}

// What nix copy and the stock client send must be cut alike, or nothing is shared between them.
func TestCopiedPathSharesItsChunksWithUploadedOnes(t *testing.T) {
	h := newHouse(t)
	dep := servertest.NewNAR(t, "dep", []byte("a dependency"))
	h.copy(t, h.Root, "pub", copyOf(t, dep, "none"))
	contents := random(t, 3<<20)
	copy(contents[1<<20:], dep.Path.Hash()) // a reference, that cuts go around
	n := servertest.NewNAR(t, "app", contents, dep.Path.Base())
	h.Upload(t, h.Root, "pub", n)
	before := h.stored(t)
	contents = bytes.Clone(contents)
	contents[0]++ // another NAR, that differs in its first chunk
	m := servertest.NewNAR(t, "other", contents, dep.Path.Base())
	h.copy(t, h.Root, "pub", copyOf(t, m, "zstd"))
	if grown := h.stored(t) - before; grown > 1<<20 {
		t.Errorf("%d bytes more are stored for one other chunk", grown)
	}
}

func TestNARWaitsForItsNarinfo(t *testing.T) {
	h := early(t)
	c := copyOf(t, servertest.NewNAR(t, "x", random(t, 1<<20)), "xz")
	h.want(t, 404, h.Root, "HEAD", "/pub/"+c.url(), nil)
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.url(), c.file)
	resp, _ := h.as(t, h.Root, "HEAD", "/pub/"+c.url(), nil)
	if resp.StatusCode != 200 || resp.ContentLength != int64(len(c.file)) {
		t.Errorf("HEAD of a NAR that waits: %s, %d bytes", resp.Status, resp.ContentLength)
	}
	h.want(t, 404, h.Root, "GET", "/pub/"+c.url(), nil)
	h.want(t, 404, h.Root, "GET", "/pub/"+c.Path.Hash()+".narinfo", nil)
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", []byte(c.text()))
	h.want(t, 200, h.Root, "GET", "/pub/"+c.Path.Hash()+".narinfo", nil)
	// The answer was lost, so Nix sends the narinfo again.
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", []byte(c.text()))
}

func TestNarinfoWaitsForItsNARAndItsReferences(t *testing.T) {
	h := newHouse(t)
	dep := copyOf(t, servertest.NewNAR(t, "dep", []byte("dep")), "none")
	app := copyOf(t, servertest.NewNAR(t, "app", []byte("app"), dep.Path.Base()), "zstd")
	var all sync.WaitGroup
	for _, c := range []copied{app, dep} {
		all.Go(func() { h.want(t, 200, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", []byte(c.text())) })
	}
	for _, c := range []copied{app, dep} {
		h.want(t, 200, h.Root, "PUT", "/pub/"+c.url(), c.file)
	}
	all.Wait()
	h.narinfo(t, "pub", app.NAR)

	e := early(t)
	e.want(t, 200, e.Root, "PUT", "/pub/"+app.url(), app.file)
	text := e.want(t, 409, e.Root, "PUT", "/pub/"+app.Path.Hash()+".narinfo", []byte(app.text()))
	if !strings.Contains(text, dep.Path.Base()) {
		t.Errorf("the missing reference is not named: %s", text)
	}
	text = e.want(t, 409, e.Root, "PUT", "/pub/"+dep.Path.Hash()+".narinfo", []byte(dep.text()))
	if !strings.Contains(text, "send it before the narinfo") {
		t.Errorf("the missing NAR is not spoken of: %s", text)
	}
	e.copy(t, e.Root, "pub", dep)
	e.want(t, 200, e.Root, "PUT", "/pub/"+app.Path.Hash()+".narinfo", []byte(app.text())) // its NAR still waits
}

// The attack: a file that another user or another cache has sent, named by a narinfo of one's own, comes back
// from a cache that one may read.
func TestNarinfoCannotNameAnothersNAR(t *testing.T) {
	h := early(t)
	secret := copyOf(t, servertest.NewNAR(t, "secret", random(t, 1<<20)), "xz")
	h.want(t, 200, h.Root, "PUT", "/priv/"+secret.url(), secret.file)
	h.want(t, 409, h.Root, "PUT", "/pub/"+secret.Path.Hash()+".narinfo", []byte(secret.text()))
	h.want(t, 404, h.Root, "HEAD", "/pub/"+secret.url(), nil)

	exp := time.Now().Add(time.Hour)
	claims := token.Claims{Subject: "mallory", Expires: &exp}
	if err := claims.Caches.Add("*", token.Push|token.Pull); err != nil {
		t.Fatal(err)
	}
	mallory, err := h.Authority.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	h.want(t, 404, mallory, "HEAD", "/priv/"+secret.url(), nil)
	h.want(t, 409, mallory, "PUT", "/priv/"+secret.Path.Hash()+".narinfo", []byte(secret.text()))

	for _, url := range []string{"/priv/", "/pub/"} { // nor may a stranger read it by that name, now or later
		h.want(t, 404, "", "GET", url+secret.url(), nil)
	}
	// Nor one that is stored: by the NAR hash alone, without the file.
	h.copy(t, h.Root, "priv", secret)
	h.want(t, 404, "", "GET", "/priv/"+secret.url(), nil)
	h.want(t, 404, mallory, "GET", "/pub/"+secret.url(), nil)
	h.want(t, 409, mallory, "PUT", "/pub/"+secret.Path.Hash()+".narinfo", []byte(secret.text()))
}

func TestNARWhoseHashLiesIsRefused(t *testing.T) {
	h := early(t)
	c := copyOf(t, servertest.NewNAR(t, "x", random(t, 100_000)), "zstd")
	h.want(t, 400, h.Root, "PUT", "/pub/"+c.url(), append([]byte("x"), c.file[1:]...))
	h.want(t, 404, h.Root, "HEAD", "/pub/"+c.url(), nil)

	h.want(t, 200, h.Root, "PUT", "/pub/"+c.url(), c.file)
	for name, change := range map[string][2]string{
		"NAR hash": {fmt.Sprintf("NarHash: sha256:%x", sha256.Sum256(c.Bytes)), "NarHash: sha256:" + strings.Repeat("0", 64)},
		"size":     {"NarSize: 100000", "NarSize: 100001"},
		"smaller":  {"NarSize: 100000", "NarSize: 99999"},
	} {
		resp, text := h.as(t, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", []byte(strings.Replace(c.text(), change[0], change[1], 1)))
		if resp.StatusCode != 400 {
			t.Errorf("%s: %s: %s", name, resp.Status, text)
		}
	}
	// A content address that the path does not follow from is left out, as of any upload.
	text := strings.Replace(c.text(), "References: ", "CA: fixed:sha256:"+strings.Repeat("0", 52)+"\nReferences: ", 1)
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", []byte(text))
	if info := h.narinfo(t, "pub", c.NAR); info.CA != "" {
		t.Errorf("it is believed: %s", info.CA)
	}
}

func TestUploadsOfNixThatAreNoneAreRefused(t *testing.T) {
	h := early(t)
	c := copyOf(t, servertest.NewNAR(t, "x", []byte("contents")), "zstd")
	narinfo := "/pub/" + c.Path.Hash() + ".narinfo"
	replace := func(old, new string) []byte {
		if !strings.Contains(c.text(), old) {
			t.Fatalf("no %q in %s", old, c.text())
		}
		return []byte(strings.Replace(c.text(), old, new, 1))
	}
	digits := strings.TrimSuffix(strings.TrimPrefix(c.url(), "nar/"), ".nar.zst")
	for name, p := range map[string]struct {
		status int
		path   string
		body   []byte
	}{
		"traversal in nar/":        {400, "/pub/nar/..%2f..%2fetc%2fpasswd", []byte("x")},
		"slash in nar/":            {404, "/pub/nar/x/" + digits + ".nar", []byte("x")},
		"hash of a path in nar/":   {400, "/pub/nar/" + c.Path.Hash() + ".nar", []byte("x")},
		"brotli":                   {415, "/pub/nar/" + digits + ".nar.br", []byte("x")},
		"no narinfo":               {400, narinfo, []byte("hello")},
		"huge narinfo":             {413, narinfo, bytes.Repeat([]byte("X: y\n"), 1<<20)},
		"narinfo of another path":  {400, "/pub/" + strings.Repeat("0", 32) + ".narinfo", []byte(c.text())},
		"another store":            {400, narinfo, replace("/nix/store/", "/gnu/store/")},
		"URL out of nar/":          {400, narinfo, replace("URL: nar/", "URL: ../priv/nar/")},
		"URL elsewhere":            {400, narinfo, replace("URL: ", "URL: http://169.254.169.254/")},
		"URL of a path":            {400, narinfo, replace(digits, c.Path.Hash())},
		"compression of another":   {400, narinfo, replace("Compression: zstd", "Compression: xz")},
		"unknown compression":      {400, narinfo, replace("Compression: zstd", "Compression: br")},
		"another FileHash":         {400, narinfo, replace("FileHash: sha256:"+digits, "FileHash: sha256:"+strings.Repeat("1", 52))},
		"size beyond any NAR":      {400, narinfo, replace("NarSize: 8", "NarSize: 9223372036854775807")},
		"reference that escapes":   {400, narinfo, replace("References: ", "References: ../x")},
		"traversal in log/":        {400, "/pub/log/..%2f..%2fetc%2fpasswd.drv", []byte("x")},
		"log of no derivation":     {400, "/pub/log/" + c.Path.Base(), []byte("x")},
		"traversal in realisation": {400, "/pub/realisations/..%2fx.doi", []byte("{}")},
		"settings":                 {400, "/pub/nix-cache-info", []byte("StoreDir: /nix/store\n")},
	} {
		resp, text := h.as(t, h.Root, "PUT", p.path, p.body)
		if resp.StatusCode != p.status {
			t.Errorf("%s: got %s: %s, want %d", name, resp.Status, text, p.status)
		}
	}
	h.want(t, 404, "", "GET", narinfo, nil)
}

// The attack: some kilobytes of xz or zstd that unfold to what no disk and no memory holds.
func TestNARThatUnfoldsToMoreThanItClaimsIsCutOff(t *testing.T) {
	h := early(t)
	for _, compression := range []string{"xz", "zstd", "bzip2"} {
		bomb := copyOf(t, servertest.NewNAR(t, "bomb", make([]byte, 64<<20)), compression)
		bomb.Bytes = bomb.Bytes[:1000] // what the narinfo says
		h.want(t, 200, h.Root, "PUT", "/pub/"+bomb.url(), bomb.file)
		h.want(t, 400, h.Root, "PUT", "/pub/"+bomb.Path.Hash()+".narinfo", []byte(bomb.text()))
	}
	torn := copyOf(t, servertest.NewNAR(t, "torn", random(t, 100_000)), "xz")
	torn.file = torn.file[:len(torn.file)/2]
	h.want(t, 200, h.Root, "PUT", "/pub/"+torn.url(), torn.file)
	text := h.want(t, 400, h.Root, "PUT", "/pub/"+torn.Path.Hash()+".narinfo", []byte(torn.text()))
	if !strings.Contains(text, "decompress") {
		t.Errorf("got %s", text)
	}
}

func TestUploadsOfNixNeedTheRightToPush(t *testing.T) {
	h := newHouse(t)
	c := copyOf(t, servertest.NewNAR(t, "x", []byte("contents")), "none")
	drv := strings.Repeat("0", 32) + "-x.drv"
	for _, path := range []string{c.url(), c.Path.Hash() + ".narinfo", "log/" + drv, c.Path.Hash() + ".ls", "debuginfo/abcdef0123456789",
		"realisations/sha256:" + strings.Repeat("0", 64) + "!out.doi"} {
		for tok, status := range map[string]int{"": 401, "pull": 403, "other": 401, "bad": 401} {
			h.want(t, status, h.tokens[tok], "PUT", "/priv/"+path, []byte(c.text()))
		}
		h.want(t, 401, "", "PUT", "/none/"+path, []byte(c.text()))
	}
}

// Nobody may learn from logs and listings which private caches there are.
func TestWhatNixReadsOfAPrivateCacheIsNotThereForStrangers(t *testing.T) {
	h := newHouse(t)
	drv := strings.Repeat("0", 32) + "-x.drv"
	h.want(t, 200, h.Root, "PUT", "/priv/log/"+drv, []byte("secret"))
	for _, path := range []string{"log/" + drv, h.nar.Path.Hash() + ".ls", "debuginfo/abcdef0123456789", "realisations/sha256:" + strings.Repeat("0", 64) + "!out.doi"} {
		for _, tok := range []string{"", "other", "bad", "config"} {
			there, missing := h.want(t, 404, h.tokens[tok], "GET", "/priv/"+path, nil), h.want(t, 404, h.tokens[tok], "GET", "/none/"+path, nil)
			if there != missing {
				t.Errorf("%s tells: %q and %q", path, there, missing)
			}
		}
	}
}

func TestNARsThatWaitAreBounded(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) {
		s.Limits.Waiting, s.Limits.Queue, s.Limits.Early = 1<<20, 100*time.Millisecond, 50*time.Millisecond
	})}
	h.CreateCache(t, "pub", true)
	c := copyOf(t, servertest.NewNAR(t, "x", random(t, 700_000)), "none")
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.url(), c.file)
	d := copyOf(t, servertest.NewNAR(t, "y", random(t, 700_000)), "none")
	h.want(t, 503, h.Root, "PUT", "/pub/"+d.url(), d.file)
	text := h.want(t, 413, h.Root, "PUT", "/pub/"+d.url(), make([]byte, 1<<20+1))
	if !strings.Contains(text, "attic-action push") {
		t.Errorf("got %s", text)
	}
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", []byte(c.text()))
	h.want(t, 200, h.Root, "PUT", "/pub/"+d.url(), d.file) // there is room again
}

func TestPasswordOfNetrcIsInNoLog(t *testing.T) {
	var log lockedBuffer
	h := &house{Server: servertest.Start(t, func(s *server.Server) {
		s.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		s.Limits.Early = time.Millisecond
	})}
	h.CreateCache(t, "pub", true)
	c := copyOf(t, servertest.NewNAR(t, "x", []byte("x")), "none")
	h.want(t, 409, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", []byte(c.text()))
	h.copy(t, h.Root, "pub", c)
	h.want(t, 403, "bad."+h.Root, "PUT", "/pub/"+c.url(), c.file)
	h.Stop(t)
	text := log.String()
	basic := base64.StdEncoding.EncodeToString([]byte(":" + h.Root))
	if !strings.Contains(text, c.Path.Hash()) && !strings.Contains(text, ".narinfo") {
		t.Errorf("nothing of it is in the log:\n%s", text)
	}
	for _, secret := range []string{h.Root, basic, strings.Split(h.Root, ".")[2]} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}

// Nix 2.34 encodes bodies where the URL of the cache says so.
func TestEncodedBodiesAreDecoded(t *testing.T) {
	h := newHouse(t)
	c := copyOf(t, servertest.NewNAR(t, "x", []byte("contents")), "none")
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.url(), c.file)
	info := copyOf(t, servertest.NAR{Bytes: []byte(c.text())}, "xz").file
	h.want(t, 415, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", info, "Content-Encoding", "br")
	h.want(t, 400, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", info[:len(info)/2], "Content-Encoding", "xz")
	h.want(t, 200, h.Root, "PUT", "/pub/"+c.Path.Hash()+".narinfo", info, "Content-Encoding", "xz")
	drv := strings.Repeat("0", 32) + "-x.drv"
	log := bytes.Repeat([]byte("a line of a log\n"), 100_000)
	h.want(t, 200, h.Root, "PUT", "/pub/log/"+drv, copyOf(t, servertest.NAR{Bytes: log}, "zstd").file, "Content-Encoding", "zstd")
	resp, body := h.as(t, "", "GET", "/pub/log/"+drv, nil)
	if body != string(log) || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.ContentLength != int64(len(log)) {
		t.Errorf("%d of %d bytes, %v", len(body), len(log), resp.Header)
	}
	if resp, body := h.as(t, "", "HEAD", "/pub/log/"+drv, nil); resp.StatusCode != 200 || body != "" {
		t.Error(resp.Status, body)
	}
	h.want(t, 200, h.Root, "PUT", "/pub/log/"+drv, nil) // a build that said nothing
	if body := h.want(t, 200, "", "GET", "/pub/log/"+drv, nil); body != "" {
		t.Errorf("got %q", body)
	}
	bomb := copyOf(t, servertest.NAR{Bytes: make([]byte, 80<<20)}, "zstd").file
	h.want(t, 400, h.Root, "PUT", "/pub/log/"+drv, bomb, "Content-Encoding", "zstd")
}

func TestRealisationIsKeptWhileItsPathIs(t *testing.T) {
	h := newHouse(t)
	id := "sha256:" + strings.Repeat("ab", 32) + "!out"
	url := "/pub/realisations/" + strings.Replace(id, "!", "%21", 1) + ".doi"
	text := func(path string, sigs ...string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"outPath":%q,"signatures":[%s],"dependentRealisations":{%q:%q}}`,
			id, path, strings.Join(sigs, ","), id, path)
	}
	h.want(t, 409, h.Root, "PUT", url, text(strings.Repeat("1", 32)+"-nothing"))
	sig := `"k:` + base64.StdEncoding.EncodeToString(make([]byte, 64)) + `"`
	h.want(t, 200, h.Root, "PUT", url, text(h.nar.Path.Base()))
	h.want(t, 200, h.Root, "PUT", url, text(h.nar.Path.Base(), sig))
	if got := h.want(t, 200, "", "GET", url, nil); !strings.Contains(got, sig) || !strings.Contains(got, h.nar.Path.Base()) {
		t.Errorf("got %s", got)
	}
	kept, err := api.DecodeRealisation([]byte(h.want(t, 200, "", "GET", url, nil)), id, nix.StoreDir)
	if err != nil || len(kept.Signatures) != 2 || !h.publicKey(t, "pub").Verify(kept.Fingerprint(), kept.Signatures[1]) {
		t.Errorf("the cache has not signed it: %+v, %v", kept, err)
	}
	h.want(t, 400, h.Root, "PUT", url, text("../../etc/passwd"))
	h.want(t, 400, h.Root, "PUT", url, bytes.Replace(text(h.nar.Path.Base()), []byte("sha256:ab"), []byte("sha256:cd"), 1))
	other := servertest.NewNAR(t, "other", []byte("other"))
	h.Upload(t, h.Root, "pub", other)
	h.want(t, 200, h.Root, "PUT", url, text(other.Path.Base())) // the first one stays
	if got := h.want(t, 200, "", "GET", url, nil); !strings.Contains(got, h.nar.Path.Base()) {
		t.Errorf("got %s", got)
	}
}

func TestListingAndDebugLinksFollowFromTheNAR(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	for _, line := range [][]string{{"mkdir", "-p", dir + "/x/lib/debug/.build-id/ab"}, {"sh", "-c", "echo debug > " + dir + "/x/lib/debug/.build-id/ab/cdef0123456789.debug"}} {
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	out, err := exec.CommandContext(context.Background(), "nix-store", "--dump", dir+"/x").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := servertest.NewNAR(t, "dbg", out)
	h.copy(t, h.Root, "pub", copyOf(t, n, "zstd"))
	h.Upload(t, h.Root, "priv", n)
	for _, cache := range []string{"pub", "priv"} {
		got := h.want(t, 200, h.Root, "GET", "/"+cache+"/"+n.Path.Hash()+".ls", nil)
		if !strings.HasPrefix(got, `{"version":1,"root":{"type":"directory","entries":{"lib":`) || !strings.Contains(got, `"cdef0123456789.debug":{"type":"regular","size":6,"narOffset":`) {
			t.Errorf("listing: %s", got)
		}
		link := h.want(t, 200, h.Root, "GET", "/"+cache+"/debuginfo/abcdef0123456789", nil)
		want := `{"archive":"../` + h.narinfo(t, cache, n).URL + `","member":"lib/debug/.build-id/ab/cdef0123456789.debug"}`
		if link != want {
			t.Errorf("debug link %s, want %s", link, want)
		}
	}
	h.want(t, 404, h.Root, "GET", "/pub/debuginfo/0000000000000000", nil)
	h.want(t, 404, h.Root, "GET", "/pub/debuginfo/..%2f..", nil)
	h.want(t, 404, h.Root, "GET", "/pub/"+h.nar.Path.Hash()+".ls", nil) // whose bytes are no NAR
}
