package push_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/push"
	"github.com/org/attic-action/internal/server/servertest"
)

// listed is a store of paths that are all pushed, dependencies first.
type listed []nixcli.PathInfo

func (l listed) Resolve(context.Context, []string) ([]nix.StorePath, error) { return nil, nil }
func (l listed) Closure(context.Context, []nix.StorePath) ([]nixcli.PathInfo, error) {
	return l, nil
}
func (l listed) Infos(context.Context, []nix.StorePath) ([]nixcli.PathInfo, error) { return l, nil }

// makeStore writes paths of all sizes, each with a reference to the one before.
func makeStore(t *testing.T, dir, salt string, sizes ...int) listed {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7)) // the same contents for each salt
	var all listed
	for i, size := range sizes {
		sum := sha256.Sum256(fmt.Append(nil, salt, i))
		path, err := nix.ParseBaseName(dir, fmt.Sprintf("%s-p%d", nix.EncodeBase32(sum[:20]), i))
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(rng.Uint32()) & 0x3f
		}
		var refs []nix.StorePath
		if i > 0 {
			refs = append(refs, all[i-1].Path)
			copy(data[size/2:], refs[0].String())
		}
		if err := os.MkdirAll(path.String(), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path.String(), "file"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		if err := nar.Dump(&buf, path.String()); err != nil {
			t.Fatal(err)
		}
		all = append(all, nixcli.PathInfo{Path: path, NarHash: sha256.Sum256(buf.Bytes()), NarSize: uint64(buf.Len()), References: refs})
	}
	return all
}

// TestPushToOurServerAndReadBack walks the road from a store to what another
// Nix would download, and once more after a rebuild of everything.
func TestPushToOurServerAndReadBack(t *testing.T) {
	srv, dir := servertest.Start(t), t.TempDir()
	body := fmt.Sprintf(`{"keypair":"Generate","is_public":false,"store_dir":%q,"priority":41,"upstream_cache_key_names":[]}`, dir)
	if resp, text := srv.Do(t, http.MethodPost, "/_api/v1/cache-config/main", srv.Root, body); resp.StatusCode != 200 {
		t.Fatalf("create cache: %s: %s", resp.Status, text)
	}
	c, err := client.New(client.Options{Endpoint: srv.URL, Token: client.StaticToken(srv.Root)})
	if err != nil {
		t.Fatal(err)
	}
	var first *push.Result
	for _, salt := range []string{"one", "two"} {
		store := makeStore(t, dir, salt, 200, 100<<10, 3<<20, 5<<20, 12<<20, 400)
		p := &push.Pusher{Client: c, Nix: store, TempDir: t.TempDir(), Workers: 2}
		res, err := p.Push(t.Context(), push.Request{Cache: "main", Paths: []string{"all"}})
		if err != nil || res.Pushed != len(store) {
			t.Fatalf("push: %+v, %v", res, err)
		}
		for _, info := range store {
			readBack(t, srv, info)
		}
		if first == nil {
			first = res
		} else if res.NewChunks > 5 || res.BytesSent > first.BytesSent/10 {
			t.Errorf("a rebuild with unchanged contents sent %d bytes and %d chunks after %d bytes", res.BytesSent, res.NewChunks, first.BytesSent)
		}
	}
}

func readBack(t *testing.T, srv *servertest.Server, info nixcli.PathInfo) {
	t.Helper()
	resp, text := srv.Do(t, http.MethodGet, "/main/"+info.Path.Hash()+".narinfo", srv.Root, "")
	if resp.StatusCode != 200 {
		t.Fatalf("narinfo of %s: %s", info.Path, resp.Status)
	}
	got, err := nix.ParseNarInfo(strings.NewReader(text))
	if err != nil || got.NarHash != info.NarHash || got.StorePath != info.Path || len(got.References) != len(info.References) || len(got.Sigs) == 0 {
		t.Fatalf("narinfo of %s: %v\n%s", info.Path, err, text)
	}
	resp, packed := srv.Do(t, http.MethodGet, "/main/"+got.URL, srv.Root, "")
	if resp.StatusCode != 200 {
		t.Fatalf("NAR of %s: %s", info.Path, resp.Status)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	raw, err := dec.DecodeAll([]byte(packed), nil)
	if err != nil || nix.Hash(sha256.Sum256(raw)) != info.NarHash {
		t.Errorf("NAR of %s: %d bytes, want %d: %v", info.Path, len(raw), info.NarSize, err)
	}
}
