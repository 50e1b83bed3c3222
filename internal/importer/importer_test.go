package importer

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server/servertest"
)

// local is a Cache in this process.
type local struct {
	landing *Landing
	cache   meta.Cache
	ask     Ask
	whole   bool

	mu    sync.Mutex
	takes []string
}

func (l *local) Have(ctx context.Context, hashes []string) (map[string][]string, error) {
	return l.landing.Have(ctx, l.cache, hashes, l.whole)
}

func (l *local) Take(ctx context.Context, o Order) (Taken, error) {
	l.mu.Lock()
	l.takes = append(l.takes, o.Hash)
	l.mu.Unlock()
	return l.landing.Take(ctx, l.cache, l.ask, o)
}

// made is a path of a cache that a test makes.
type made struct {
	store nix.StorePath
	nar   []byte
	info  *nix.NarInfo
}

func narOf(contents string) []byte {
	var b []byte
	word := func(s string) {
		b = append(b, byte(len(s)), byte(len(s)>>8), byte(len(s)>>16), 0, 0, 0, 0, 0)
		b = append(b, s...)
		b = append(b, make([]byte, (8-len(s)%8)%8)...)
	}
	for _, w := range []string{"nix-archive-1", "(", "type", "regular", "contents", contents, ")"} {
		word(w)
	}
	return b
}

func newPath(t *testing.T, name, contents string, refs ...made) made {
	t.Helper()
	sum := sha256.Sum256([]byte(name + contents))
	store, err := nix.ParseStorePath("/nix/store/" + nix.EncodeBase32(sum[:20]) + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	p := made{store: store, nar: narOf(contents)}
	p.info = &nix.NarInfo{StorePath: store, URL: "nar/" + store.Hash() + ".nar", Compression: "none", NarHash: nix.Hash(sha256.Sum256(p.nar)), NarSize: uint64(len(p.nar))}
	for _, r := range refs {
		p.info.References = append(p.info.References, r.store)
	}
	return p
}

// folder is a binary cache in a folder.
func folder(t *testing.T, paths ...made) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /nix/store\n"))
	for _, p := range paths {
		write(t, filepath.Join(dir, p.store.Hash()+narinfo), p.info.Format())
		write(t, filepath.Join(dir, "nar", p.store.Hash()+".nar"), p.nar)
	}
	return dir
}

func write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// world is a server with a cache to import into.
func world(t *testing.T) (*servertest.Server, *local) {
	t.Helper()
	srv := servertest.Start(t)
	srv.CreateCache(t, "to", false)
	return srv, into(t, srv, "to")
}

func into(t *testing.T, srv *servertest.Server, name string) *local {
	t.Helper()
	l := &local{landing: &Landing{DB: srv.DB, Depot: srv.Depot}, ask: Ask{Cache: name, By: "test"}}
	err := srv.DB.View(t.Context(), func(tx *meta.Tx) error {
		c, err := tx.Cache(name)
		if err == nil {
			l.cache = *c
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *local) run(t *testing.T, from string, o Options) (Result, error) {
	t.Helper()
	l.ask.URL, l.ask.Private = from, true
	src, err := Open(l.ask.Where)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	o.From = src
	if o.Pause == nil {
		o.Pause = []time.Duration{time.Millisecond}
	}
	l.takes = nil
	return Run(t.Context(), l, o)
}

func chain(t *testing.T) (lib, app, top made) {
	t.Helper()
	lib = newPath(t, "lib", strings.Repeat("lib", 10_000))
	app = newPath(t, "app", "app uses lib", lib)
	top = newPath(t, "top", "top", app, lib)
	return lib, app, top
}

func TestWholeFolderIsTakenReferencesFirst(t *testing.T) {
	_, to := world(t)
	lib, app, top := chain(t)
	dir := folder(t, lib, app, top)
	r, err := to.run(t, "file://"+dir, Options{Jobs: 1})
	if err != nil || r.Imported != 3 || r.Failing != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if want := []string{lib.store.Hash(), app.store.Hash(), top.store.Hash()}; !slices.Equal(to.takes, want) {
		t.Errorf("taken in the order %v, want %v", to.takes, want)
	}
	r, err = to.run(t, "file://"+dir, Options{})
	if err != nil || r.Imported != 0 || r.Present != 3 || len(to.takes) != 0 {
		t.Errorf("again: %+v, %v, %d taken", r, err, len(to.takes))
	}
}

// A web server's page of a folder is a list too.
func TestFolderBehindAWebServerIsListed(t *testing.T) {
	_, to := world(t)
	lib, app, top := chain(t)
	web := httptest.NewServer(http.FileServer(http.Dir(folder(t, lib, app, top))))
	defer web.Close()
	if r, err := to.run(t, web.URL, Options{}); err != nil || r.Imported != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestOnlyTheClosureOfWhatIsNamedIsTaken(t *testing.T) {
	_, to := world(t)
	lib, app, top := chain(t)
	r, err := to.run(t, "file://"+folder(t, lib, app, top), Options{Tops: []string{app.store.Hash()}})
	if err != nil || r.Imported != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestServerOfOursIsTakenWholeWithItsUpstreams(t *testing.T) {
	from := servertest.Start(t)
	from.CreateCache(t, "from", false)
	there := into(t, from, "from")
	lib, app, top := chain(t)
	elsewhere := newPath(t, "glibc", "elsewhere")
	app.info.References = append(app.info.References, elsewhere.store)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := *elsewhere.info
		info.Sigs = []string{"cache.nixos.org-1:" + strings.Repeat("A", 86) + "=="}
		if r.URL.Path != "/"+elsewhere.store.Hash()+narinfo {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(info.Format())
	}))
	defer upstream.Close()
	up, err := Open(Where{URL: upstream.URL, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t, lib, app, top)
	r, err := there.run(t, "file://"+dir, Options{})
	if err != nil || r.Imported != 3 || r.Elsewhere != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	// With the upstream named, what was taken before is found whole.
	there.whole = true
	r, err = there.run(t, "file://"+dir, Options{Upstreams: []*Source{up}, KeyNames: []string{"cache.nixos.org-1"}})
	if err != nil || r.Upstream != 1 || r.Elsewhere != 0 || r.Imported != 1 || r.Fetched != 0 {
		t.Fatalf("with an upstream: %+v, %v", r, err)
	}
	_, to := world(t)
	to.ask.AuthToken = "Bearer " + from.Root
	r, err = to.run(t, from.URL+"/from", Options{})
	if err != nil || r.Imported != 3 || r.Upstream != 1 || r.Elsewhere != 0 {
		t.Fatalf("from a server: %+v, %v", r, err)
	}
	to.ask.AuthToken = ""
	if _, err := to.run(t, from.URL+"/from", Options{}); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without a token: %v", err)
	}
}

// The stock server has no list; the message says what to do.
func TestSourceWithoutAListSaysWhatToDo(t *testing.T) {
	_, to := world(t)
	attic := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_api/v1/cache-config/") {
			_, _ = io.WriteString(w, `{"substituter_endpoint":"http://x/system","api_endpoint":"http://x/","public_key":"k","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[],"retention_period":"Global"}`)
			return
		}
		http.NotFound(w, r)
	}))
	defer attic.Close()
	_, err := to.run(t, attic.URL+"/system", Options{})
	if err == nil || !strings.Contains(err.Error(), "--paths-from") || !strings.Contains(err.Error(), "Attic") {
		t.Errorf("%v", err)
	}
}

func TestFailedPathKeepsBackWhatNeedsIt(t *testing.T) {
	_, to := world(t)
	lib, app, top := chain(t)
	other := newPath(t, "other", "other")
	lib.nar = narOf(strings.Repeat("bad", 10_000))
	r, err := to.run(t, "file://"+folder(t, lib, app, top, other), Options{})
	if err != nil || r.Imported != 1 || r.Failing != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	have, err := to.Have(t.Context(), []string{lib.store.Hash(), app.store.Hash(), other.store.Hash()})
	if err != nil || len(have) != 1 {
		t.Errorf("%v, %v", have, err)
	}
}

// An import that ends between two paths goes on with the next run.
func TestStoppedImportGoesOn(t *testing.T) {
	_, to := world(t)
	lib, app, top := chain(t)
	dir := folder(t, lib, app, top)
	if err := os.Remove(filepath.Join(dir, "nar", app.store.Hash()+".nar")); err != nil {
		t.Fatal(err)
	}
	if r, err := to.run(t, "file://"+dir, Options{}); err != nil || r.Imported != 1 || r.Failing != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	write(t, filepath.Join(dir, "nar", app.store.Hash()+".nar"), app.nar)
	if r, err := to.run(t, "file://"+dir, Options{}); err != nil || r.Imported != 2 || r.Present != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestCircleOfReferencesEnds(t *testing.T) {
	_, to := world(t)
	a, b := newPath(t, "a", "a"), newPath(t, "b", "b")
	a.info.References, b.info.References = []nix.StorePath{b.store}, []nix.StorePath{a.store, b.store}
	good := newPath(t, "good", "good")
	r, err := to.run(t, "file://"+folder(t, a, b, good), Options{})
	if err != nil || r.Imported != 1 || r.Failing != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestUnsignedPathsAreRefusedWhereKeysAreRequired(t *testing.T) {
	_, to := world(t)
	pair, err := nix.GenerateKeypair("good-1", zeros{})
	if err != nil {
		t.Fatal(err)
	}
	signed, unsigned, forged := newPath(t, "signed", "1"), newPath(t, "unsigned", "2"), newPath(t, "forged", "3")
	signed.info.Sigs = []string{pair.Sign(signed.info.Fingerprint())}
	forged.info.Sigs = []string{pair.Sign(signed.info.Fingerprint())}
	to.ask.Keys = []nix.PublicKey{pair.Public()}
	r, err := to.run(t, "file://"+folder(t, signed, unsigned, forged), Options{})
	if err != nil || r.Imported != 1 || r.Failing != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	err = to.landing.DB.View(t.Context(), func(tx *meta.Tx) error {
		p, _, err := tx.Path(to.cache.ID, signed.store.Hash())
		if err == nil && !slices.Equal(p.Sigs, signed.info.Sigs) {
			t.Errorf("signatures %v were kept of %v", p.Sigs, signed.info.Sigs)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestHashReadsWhatPeopleHave(t *testing.T) {
	const h = "xcp9cav49dmsjbwdjlmkjxj10gkpx553"
	for _, s := range []string{h, h + "-hello-2.10", "/nix/store/" + h + "-hello-2.10"} {
		if got, err := Hash(s); err != nil || got != h {
			t.Errorf("%s: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "hello", "/nix/store/", "/nix/store/" + h, h + "-", "https://x/" + h} {
		if got, err := Hash(s); err == nil {
			t.Errorf("%q: %q", s, got)
		}
	}
}

func TestNetrcIsReadAsNixReadsIt(t *testing.T) {
	u, _ := Parse("https://cache.example.org/system")
	for text, want := range map[string]string{
		"machine cache.example.org\nlogin me\npassword secret\n":                          basic("me", "secret"),
		"machine other password no machine cache.example.org password yes":                basic("", "yes"),
		"machine other.example.org password no\ndefault login any password all":           basic("any", "all"),
		"machine other.example.org password no":                                           "",
		"machine cache.example.org.evil password no machine login password machine login": "",
		"": "",
	} {
		if got := FromNetrc([]byte(text), u); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzFromNetrc(f *testing.F) {
	f.Add("machine cache.example.org\nlogin me\npassword secret\n")
	u, _ := Parse("https://cache.example.org/system")
	f.Fuzz(func(t *testing.T, text string) { FromNetrc([]byte(text), u) })
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"https://cache.example.org/system/", "file:///tmp/x", "/tmp/x", "http://[::1]:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q: %q, then %v, %v", s, u, again, err)
		}
	})
}
