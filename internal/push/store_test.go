package push

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
)

// testStore is a store directory with what Nix would say of it.
type testStore struct {
	t     *testing.T
	dir   string
	rng   *rand.Rand
	infos map[nix.StorePath]nixcli.PathInfo
	order []nix.StorePath // of adding: dependencies first
}

func newStore(t *testing.T) *testStore {
	return &testStore{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(1, 2)), infos: map[nix.StorePath]nixcli.PathInfo{}}
}

// random returns n bytes that do not compress.
func (s *testStore) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rng.Uint32())
	}
	return b
}

// add writes a store path with one file in it, which names the references.
func (s *testStore) add(name string, data []byte, refs ...nix.StorePath) nix.StorePath {
	s.t.Helper()
	sum := sha256.Sum256([]byte(fmt.Sprint(name, len(s.order))))
	path, err := nix.ParseBaseName(s.dir, nix.EncodeBase32(sum[:20])+"-"+name)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, ref := range refs {
		data = append(bytes.Clone(data), ref.String()...)
	}
	if err := os.Mkdir(path.String(), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path.String(), "file"), data, 0o644); err != nil {
		s.t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := nar.Dump(&buf, path.String()); err != nil {
		s.t.Fatal(err)
	}
	s.infos[path] = nixcli.PathInfo{Path: path, NarHash: sha256.Sum256(buf.Bytes()), NarSize: uint64(buf.Len()), References: refs}
	s.order = append(s.order, path)
	return path
}

// sign notes a signature of an upstream cache.
func (s *testStore) sign(path nix.StorePath, key string) {
	info := s.infos[path]
	info.Sigs = append(info.Sigs, key+":c2ln")
	s.infos[path] = info
}

func (s *testStore) Resolve(_ context.Context, paths []string) ([]nix.StorePath, error) {
	var out []nix.StorePath
	for _, p := range paths {
		path, err := nix.ParseStorePath(p)
		if err != nil {
			return nil, err
		}
		out = append(out, path)
	}
	return out, nil
}

func (s *testStore) Closure(_ context.Context, paths []nix.StorePath) ([]nixcli.PathInfo, error) {
	in := map[nix.StorePath]bool{}
	var visit func(nix.StorePath)
	visit = func(p nix.StorePath) {
		if !in[p] {
			in[p] = true
			for _, ref := range s.infos[p].References {
				visit(ref)
			}
		}
	}
	for _, p := range paths {
		visit(p)
	}
	var out []nixcli.PathInfo
	for _, p := range s.order {
		if in[p] {
			out = append(out, s.infos[p])
		}
	}
	return out, nil
}

func (s *testStore) Infos(_ context.Context, paths []nix.StorePath) ([]nixcli.PathInfo, error) {
	var out []nixcli.PathInfo
	for _, p := range paths {
		out = append(out, s.infos[p])
	}
	return out, nil
}

// pusher returns a Pusher of the store to the server, with short waits.
func (s *testStore) pusher(f *fakeServer, change ...func(*client.Options)) *Pusher {
	f.storeDir = s.dir
	o := client.Options{
		Endpoint: f.url, Token: client.StaticToken("secret-token"), Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
		RetryWait: time.Millisecond, MaxRetryWait: 5 * time.Millisecond,
	}
	for _, ch := range change {
		ch(&o)
	}
	c, err := client.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return &Pusher{Client: c, Nix: s, Log: o.Log, TempDir: s.t.TempDir(), Workers: 2}
}

func request(paths ...nix.StorePath) Request {
	r := Request{Cache: "main"}
	for _, p := range paths {
		r.Paths = append(r.Paths, p.String())
	}
	return r
}

// mustPush pushes and wants everything to be there afterwards.
func mustPush(t *testing.T, p *Pusher, req Request) *Result {
	t.Helper()
	res, err := p.Push(t.Context(), req)
	if err != nil {
		t.Fatalf("push: %v", err)
	}
	if len(res.Failed) > 0 {
		t.Fatalf("failed paths: %+v", res.Failed)
	}
	return res
}
