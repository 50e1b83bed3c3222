package e2e

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wrongKey is a public key that is not the cache's.
const wrongKey = "main:Ko8Vn3oyLvVa+tGZX8ZyeJZHFq1kVUSmi5BaIYo7ZPo="

// netrc makes a file with which nix may read a private cache.
func netrc(t testing.TB, s *server, tok string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "netrc")
	host := must(url.Parse(s.url))(t).Hostname()
	if err := os.WriteFile(file, []byte("machine "+host+"\npassword "+tok+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestClosureIsPushedAndPulledWithSignatures(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", false)
	top := build(t, "", system)[0]
	paths := closure(t, top)
	result := filepath.Join(t.TempDir(), "result")
	if err := os.Symlink(top, result); err != nil {
		t.Fatal(err)
	}

	first := mustPush(t, s.url, tok, "main", result)
	t.Logf("first push: %+v", first.json)
	if j := first.json; j.Paths != len(paths) || j.Pushed != len(paths) || j.NARBytes < 350<<20 || j.BytesSent > j.NARBytes || j.Packs < 5 {
		t.Errorf("first push of %d paths: %+v", len(paths), j)
	}

	before := len(s.requests())
	second := mustPush(t, s.url, tok, "main", top)
	if j := second.json; j.Pushed != 0 || j.Present != len(paths) || j.Packs != 0 || j.BytesSent > 1<<10 || j.Requests != 2 {
		t.Errorf("second push: %+v", j)
	}
	for _, a := range s.requests()[before:] {
		if a.Method == "PUT" {
			t.Errorf("second push sent %s", a.Path)
		}
	}

	// Every hash changes and no contents do: what is left is to say where the chunks are, 65 bytes for each.
	stored := s.stored()
	rebuilt := build(t, "again", system)[0]
	third := mustPush(t, s.url, tok, "main", rebuilt)
	t.Logf("push after a rebuild: %+v", third.json)
	if j := third.json; j.Pushed != len(paths) || j.NewChunks != 0 || j.BytesSent > 200<<10 || s.stored() != stored {
		t.Errorf("push after a rebuild of everything: %+v, and packs have %d bytes more", j, s.stored()-stored)
	}

	eachNix(t, func(t *testing.T, nix string) {
		p := newPuller(t, nix)
		p.env = append(p.env, nixConfig("netrc-file = "+netrc(t, s, tok)))
		if end := p.copy(s.url+"/main", wrongKey, top); end.code == 0 || !strings.Contains(end.stderr, "signature") {
			t.Fatalf("a store with another key: exit %d\n%s", end.code, tail(end.stderr))
		}
		if end := p.copy(s.url+"/main", key, top); end.code != 0 {
			t.Fatalf("nix copy: exit %d\n%s", end.code, tail(end.stderr))
		}
		p.verify(top)
		if end := p.substitute(s.url+"/main", key, rebuilt); end.code != 0 {
			t.Fatalf("substitute: exit %d\n%s", end.code, tail(end.stderr))
		}
		p.verify(rebuilt)
	})
	if end := newPuller(t, rig.nixes[0]).copy(s.url+"/main", key, top); end.code == 0 {
		t.Error("a private cache was read without a token")
	}
	s.stopped()
}
