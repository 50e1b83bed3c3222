package importer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// web serves a folder, and what a test puts in its way.
func web(t *testing.T, dir string, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	files := http.FileServer(http.Dir(dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/nar/") {
			handle(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv
}

// A cache on the internet could have the server knock on doors of the network that it stands in.
func TestSourceOnTheInternetCannotSendUsToPrivateAddresses(t *testing.T) {
	for _, address := range []string{"127.0.0.1:80", "10.0.0.1:443", "[::1]:80", "169.254.169.254:80", "[fd00:ec2::254]:80", "[::ffff:127.0.0.1]:80", "100.64.0.1:80"} {
		if err := mayConnect(address, false); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := mayConnect("140.82.112.3:443", false); err != nil {
		t.Error(err)
	}
	// All the way: the name was of the internet when it was looked up, and is not any more.
	p := newPath(t, "p", "p")
	srv := web(t, folder(t, p), nil)
	src, err := Open(Where{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.NarInfo(t.Context(), p.store.Hash()); !errors.Is(err, ErrRefused) || mayPass(err) {
		t.Errorf("%v", err)
	}
}

// Where clouds tell a machine its passwords, no source has anything to offer.
func TestNoSourceCanSendUsToLinkLocalAddresses(t *testing.T) {
	for _, address := range []string{"169.254.169.254:80", "[fe80::1]:80", "[fd00:ec2::254]:80", "[::ffff:169.254.169.254]:80"} {
		if err := mayConnect(address, true); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"10.0.0.1:80", "127.0.0.1:80"} {
		if err := mayConnect(address, true); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Whoever a source sends us to must not get the token for the source.
func TestTokenIsShownToTheSourceAlone(t *testing.T) {
	_, to := world(t)
	p, q := newPath(t, "p", "p"), newPath(t, "q", "q")
	seen := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization")
		_, _ = w.Write(p.nar)
	}))
	defer other.Close()
	q.info.URL = other.URL + "/absolute" // a NAR may lie anywhere
	q.info.NarHash, q.info.NarSize = p.info.NarHash, p.info.NarSize
	srv := web(t, folder(t, p, q), func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Error("the source got no token")
		}
		http.Redirect(w, r, other.URL+"/elsewhere", http.StatusTemporaryRedirect)
	})
	to.ask.AuthToken = "Bearer secret"
	if r, err := to.run(t, srv.URL, Options{Jobs: 1}); err != nil || r.Imported != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	close(seen)
	for got := range seen {
		if got != "" {
			t.Errorf("another host got %q", got)
		}
	}
}

func TestRedirectsEnd(t *testing.T) {
	_, to := world(t)
	hops := 0
	p := newPath(t, "p", "p")
	srv := web(t, folder(t, p), func(w http.ResponseWriter, r *http.Request) {
		hops++
		http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
	})
	r, err := to.run(t, srv.URL, Options{})
	if err != nil || r.Failing != 1 || hops > maxRedirects+1 {
		t.Fatalf("%+v, %v, %d hops", r, err, hops)
	}
	req := func(u string) *http.Request { r, _ := http.NewRequest("GET", u, nil); return r }
	for _, to := range []string{"http://x/", "file:///etc/passwd", "gopher://x/"} {
		if err := mayFollow(req(to), []*http.Request{req("https://x/")}, req("https://x/").URL); !errors.Is(err, ErrRefused) {
			t.Errorf("from https to %s: %v", to, err)
		}
	}
}

// A body of one byte a minute would hold a place, and memory, for ever.
func TestSourceThatStallsIsLeft(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	src, err := Open(Where{URL: srv.URL, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	src.stall = time.Millisecond
	if _, err := src.StoreDir(t.Context()); !errors.Is(err, errStalled) || !mayPass(err) {
		t.Errorf("%v", err)
	}
}

// A few bytes that decode to gigabytes, and gigabytes that decode to nothing.
func TestBombsAreNotDecoded(t *testing.T) {
	_, to := world(t)
	bomb, endless := newPath(t, "bomb", "bomb"), newPath(t, "endless", "endless")
	bomb.info.Compression, endless.info.Compression = "zstd", "zstd"
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb.nar = enc.EncodeAll(make([]byte, 64<<20), nil)
	dir := folder(t, bomb, endless)
	var sent int64
	srv := web(t, dir, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, bomb.store.Hash()) {
			http.ServeFile(w, r, filepath.Join(dir, r.URL.Path))
			return
		}
		frame := binary.LittleEndian.AppendUint32(nil, 0x184d2a50)
		frame = append(binary.LittleEndian.AppendUint32(frame, 1<<16), make([]byte, 1<<16)...)
		for r.Context().Err() == nil && sent < 1<<30 {
			n, err := w.Write(frame)
			if sent += int64(n); err != nil {
				return
			}
		}
	})
	r, err := to.run(t, srv.URL, Options{Jobs: 1})
	if err != nil || r.Failing != 2 || sent > 64<<20 {
		t.Fatalf("%+v, %v, %d bytes sent", r, err, sent)
	}
}

func TestNARThatIsTooLargeIsNotFetched(t *testing.T) {
	_, to := world(t)
	p := newPath(t, "p", "p")
	p.info.NarSize = 1 << 40
	to.ask.Most = 1 << 30
	srv := web(t, folder(t, p), func(http.ResponseWriter, *http.Request) { t.Error("it was asked for") })
	if r, err := to.run(t, srv.URL, Options{}); err != nil || r.Failing != 1 || !strings.Contains(r.Failed[0].Problem, "--max-nar-size") {
		t.Fatalf("%+v, %v", r, err)
	}
}

// What the source says of a path is believed only as far as its bytes are hashed.
func TestWrongContentsAreNotKept(t *testing.T) {
	other := narOf("something else")
	for name, nar := range map[string][]byte{"other bytes": other, "a part": narOf("right")[:40], "more": append(narOf("right"), 0)} {
		_, to := world(t)
		p := newPath(t, "p", "right")
		p.nar = nar
		if name == "more" { // the hash is of the beginning, which is all that is read
			continue
		}
		r, err := to.run(t, "file://"+folder(t, p), Options{})
		if err != nil || r.Failing != 1 || r.Imported != 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// The narinfo of one path under the name of another would put a signed path in the place of what was asked for.
func TestNarInfoOfAnotherPathIsRefused(t *testing.T) {
	_, to := world(t)
	p, q := newPath(t, "p", "p"), newPath(t, "q", "q")
	dir := folder(t, p, q)
	write(t, filepath.Join(dir, p.store.Hash()+narinfo), q.info.Format())
	r, err := to.run(t, "file://"+dir, Options{Tops: []string{p.store.Hash()}})
	if err != nil || r.Failing != 1 || r.Imported != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A folder may have been filled by somebody else: names and links must not lead out of it.
func TestFolderIsNotLeft(t *testing.T) {
	_, to := world(t)
	secret := filepath.Join(t.TempDir(), "secret")
	up, link, abs := newPath(t, "up", "x"), newPath(t, "link", "x"), newPath(t, "abs", "x")
	write(t, secret, up.nar)
	up.info.URL, abs.info.URL = "../"+filepath.Base(filepath.Dir(secret))+"/secret", "file://"+secret
	dir := folder(t, up, link, abs)
	if err := errors.Join(os.Remove(filepath.Join(dir, link.info.URL)), os.Symlink(secret, filepath.Join(dir, link.info.URL))); err != nil {
		t.Fatal(err)
	}
	r, err := to.run(t, "file://"+dir, Options{})
	if err != nil || r.Failing != 3 || r.Imported != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestSourceErrorsThatMayPassAreTriedAgain(t *testing.T) {
	_, to := world(t)
	p := newPath(t, "p", strings.Repeat("p", 100_000))
	tries := 0
	dir := folder(t, p)
	srv := web(t, dir, func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		if tries == 2 {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(p.nar[:1000])
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(p.nar)
	})
	r, err := to.run(t, srv.URL, Options{Pause: []time.Duration{0, 0, 0}})
	if err != nil || r.Imported != 1 || tries != 3 {
		t.Fatalf("%+v, %v, %d tries", r, err, tries)
	}
}

// Signatures and derivers of a source become lines of our narinfos.
func TestNarInfoWithForgedLinesIsRefused(t *testing.T) {
	_, to := world(t)
	p := newPath(t, "p", "p")
	dir := folder(t, p)
	text := append(p.info.Format(), "Sig: evil\x00:AAAA\n"...)
	write(t, filepath.Join(dir, p.store.Hash()+narinfo), text)
	if r, err := to.run(t, "file://"+dir, Options{}); err != nil || r.Imported != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// What a path refers to must be here before it, whatever the command says.
func TestPathWithoutItsReferencesIsNotTaken(t *testing.T) {
	_, to := world(t)
	lib, app, top := chain(t)
	to.ask.URL, to.ask.Private = "file://"+folder(t, lib, app, top), true
	taken, err := to.Take(t.Context(), Order{Hash: app.store.Hash()})
	if err != nil || !strings.Contains(taken.Problem, lib.store.Hash()) {
		t.Fatalf("%+v, %v", taken, err)
	}
	err = to.landing.DB.View(t.Context(), func(tx *meta.Tx) error {
		_, _, err := tx.Path(to.cache.ID, app.store.Hash())
		return err
	})
	if !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("it was kept: %v", err)
	}
}

func FuzzNarInfoOfASource(f *testing.F) {
	f.Add([]byte("StorePath: /nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello\nURL: nar/x.nar\nNarHash: sha256:0000000000000000000000000000000000000000000000000000\nNarSize: 3\nReferences: \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		info, err := nix.ParseNarInfo(bytes.NewReader(text))
		if err != nil {
			return
		}
		dir := t.TempDir()
		src, err := Open(Where{URL: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		var n int64
		if nar, err := src.NAR(t.Context(), info, 1<<20, &n); err == nil {
			_ = nar.Close()
			t.Errorf("a NAR at %q in an empty folder", info.URL)
		}
	})
}

// What decoders take is had from the budget before: little, and for those that say that they need it, more.
func TestDecoderThatNeedsMoreMemoryGetsItOnce(t *testing.T) {
	_, to := world(t)
	wide, wider := newPath(t, "wide", strings.Repeat("wide", 1<<22)), newPath(t, "wider", "wider")
	for p, log := range map[*made]int{&wide: 25, &wider: 29} {
		var b bytes.Buffer
		enc, err := zstd.NewWriter(&b, zstd.WithWindowSize(1<<log))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enc.Write(p.nar); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(enc.Flush(), enc.Close()); err != nil {
			t.Fatal(err)
		}
		p.nar, p.info.Compression = b.Bytes(), "zstd"
	}
	r, err := to.run(t, "file://"+folder(t, wide, wider), Options{})
	if err != nil || r.Imported != 1 || r.Failing != 1 || r.Failed[0].Path != wider.store.String() {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A list is a source's word as well: what is in it becomes part of URLs, and may have no end.
func TestHostileListIsRefusedOrEnds(t *testing.T) {
	for name, page := range map[string]string{
		"no hash":      `{"paths":[{"hash":"../../../../admin"}],"next":"a"}`,
		"no reference": `{"paths":[{"hash":"xcp9cav49dmsjbwdjlmkjxj10gkpx553","upstream":["x"]}]}`,
		"a whole path": `{"paths":[{"hash":"/nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello"}]}`,
		"no JSON":      `<html>`,
	} {
		_, to := world(t)
		asked := 0
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch asked++; r.URL.Path {
			case "/_api/v1/cache-config/c":
				_, _ = io.WriteString(w, `{"substituter_endpoint":"x","attic_action":{"routes":{"list":"/elsewhere"}}}`)
			case "/_api/v1/cache/c/paths":
				_, _ = io.WriteString(w, page)
			default:
				t.Errorf("%s: asked for %s", name, r.URL)
			}
		}))
		if r, err := to.run(t, srv.URL+"/c", Options{}); err == nil || asked > 2 {
			t.Errorf("%s: %+v, %v, %d requests", name, r, err, asked)
		}
		srv.Close()
	}
	_, to := world(t)
	pages := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/paths") {
			pages++
			_, _ = io.WriteString(w, `{"paths":[],"next":"`+strings.Repeat("z", pages)+`"}`)
			return
		}
		_, _ = io.WriteString(w, `{"substituter_endpoint":"x","attic_action":{"routes":{"list":"/elsewhere"}}}`)
	}))
	defer srv.Close()
	if _, err := to.run(t, srv.URL+"/c", Options{}); err != nil || pages != 1 {
		t.Errorf("without an end: %v, %d pages", err, pages)
	}
}
