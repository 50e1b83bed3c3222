package action

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
)

// upstreamCache serves one path, signed by key, under any hash.
func upstreamCache(t *testing.T, path string, key nix.Keypair) *httptest.Server {
	t.Helper()
	p, err := nix.ParseStorePath(path)
	if err != nil {
		t.Fatal(err)
	}
	info := &nix.NarInfo{StorePath: p, URL: "nar/x.nar", NarHash: nix.Hash{1}, NarSize: 1}
	info.Sigs = []string{key.Sign(info.Fingerprint())}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(info.Format()) }))
	t.Cleanup(srv.Close)
	return srv
}

func keypair(t *testing.T, name string) nix.Keypair {
	t.Helper()
	key, err := nix.GenerateKeypair(name, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Only a signature by a key that Nix trusts, and that the cache calls upstream's, makes a path one that need not be built.
func TestUpstreamHasWhatItSigned(t *testing.T) {
	trusted, other := keypair(t, "up-1"), keypair(t, "up-1")
	path, err := nix.ParseStorePath(outPath("hello"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		served string
		key    nix.Keypair
		names  []string
		want   bool
	}{
		"signed":                  {outPath("hello"), trusted, []string{"up-1"}, true},
		"by a key of that name":   {outPath("hello"), other, []string{"up-1"}, false},
		"not an upstream's":       {outPath("hello"), trusted, []string{"up-2"}, false},
		"another path":            {outPath("hell"), trusted, []string{"up-1"}, false},
		"no upstreams whatsoever": {outPath("hello"), trusted, nil, false},
	} {
		srv := upstreamCache(t, c.served, c.key)
		s := nixcli.Settings{Substituters: []string{"daemon", "http://127.0.0.1:1", srv.URL + "/"}, Keys: []string{trusted.Public().String(), "x"}}
		if got := newUpstream(http.DefaultClient, s, c.names, "http://own").has(t.Context(), []nix.StorePath{path})[path]; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHostsThatUpstreamHasAreNeitherBuiltNorPinned(t *testing.T) {
	key := keypair(t, "up-1")
	srv := upstreamCache(t, outPath("web"), key)
	s := newStage(t, map[string]string{"web": "x86_64-linux", "mail": "x86_64-linux"})
	s.nix.substituters, s.nix.keys = []string{srv.URL}, []string{key.Public().String()}
	s.pusher.config.UpstreamCacheKeyNames = []string{"up-1"}
	s.server.other = http.DefaultTransport
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	if got := s.outputs(t)["hosts"]; !reflect.DeepEqual(got, []any{"mail", "web"}) || len(s.nix.built) != 1 || len(s.pusher.pinned) != 1 {
		t.Errorf("hosts %v, built %q, pinned %q", got, s.nix.built, s.pusher.pinned)
	}
}

// A server refuses questions about closures that are too large together; it is asked about fewer then.
func TestCompleteAsksAboutFewerPathsIfTheServerSaysSo(t *testing.T) {
	most, status := 3, http.StatusBadRequest
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in api.ClosureRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		if len(in.StorePathHashes) > most {
			w.WriteHeader(status)
			return
		}
		_ = json.NewEncoder(w).Encode(api.ClosureResult{Complete: append(in.StorePathHashes, strings.Repeat("z", 32))})
	}))
	defer srv.Close()
	c, err := client.New(client.Options{Endpoint: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	var paths []nix.StorePath
	for i := range 14 {
		p, err := nix.ParseStorePath(outPath(strings.Repeat("x", i)))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	remote := &Remote{Client: c, Name: "system"}
	if got, err := remote.Complete(t.Context(), paths); err != nil || len(got) != len(paths) {
		t.Errorf("%d of %d, %v", len(got), len(paths), err)
	}
	most = 0 // even one is too many
	if got, err := remote.Complete(t.Context(), paths); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	status = http.StatusNotFound // a stock server
	if got, err := remote.Complete(t.Context(), paths); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	status = http.StatusGone
	if _, err := remote.Complete(t.Context(), paths); err == nil {
		t.Error("no error")
	}
}
