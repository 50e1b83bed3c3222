// Package servertest runs a real server for the tests of what talks to one: a
// database and packs in a temporary directory, a free port, tokens on request.
//
//	srv := servertest.Start(t)
//	srv.CreateCache(t, "main", false)
//	tok := srv.Token(t, servertest.Grant{Caches: "main", Perm: token.Pull | token.Push})
package servertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/seal"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/spool"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/waiting"
)

// Server is a running server. It stops with its test.
type Server struct {
	URL       string // "http://127.0.0.1:<port>", without a slash at the end
	Root      string // a token that may do everything
	Dir       string // what the server stores
	DB        *meta.DB
	Depot     *depot.Depot
	Authority *token.Authority

	statements *statements
	stop       func() error
}

// Secret is the HS256 secret that signs the server's tokens.
var Secret = []byte("a secret for tests alone")

// Start runs a server. Each change may alter it before it starts.
func Start(t testing.TB, change ...func(*server.Server)) *Server {
	t.Helper()
	return StartIn(t, t.TempDir(), change...)
}

// StartIn runs a server on what an earlier one left in dir.
func StartIn(t testing.TB, dir string, change ...func(*server.Server)) *Server {
	t.Helper()
	ctx := context.Background()
	store := must(disk.New(filepath.Join(dir, "storage")))(t)
	key := must(token.HS256(Secret))(t)
	statements := &statements{}
	db := must(meta.Open(ctx, filepath.Join(dir, "meta.db"), meta.Options{Journal: &ledger.Log{Blobs: store, Epoch: 1}, Trace: statements.add}))(t)
	s := &Server{statements: statements, Dir: dir, DB: db, Authority: &token.Authority{Keys: []token.Key{key}, Now: time.Now}}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s.Depot = &depot.Depot{DB: db, Blobs: store, Cut: chunk.DefaultParams, Log: log,
		Spool: &spool.Dir{Path: dir, Budget: 512 << 20}}
	h := &server.Server{DB: db, Depot: s.Depot, Waiting: &waiting.Room{Spool: s.Depot.Spool}, Auth: s.Authority, Cut: chunk.DefaultParams, Log: log,
		Root: must(seal.Load(ctx, store, [][]byte{Secret}, rand.Reader))(t)}
	for _, f := range change {
		f(h)
	}
	ln := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s.URL = "http://" + ln.Addr().String()
	s.Root = s.Token(t, Grant{"*", token.All})
	s.stop = run(h, ln, db)
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// run serves until the function it returns is called for the first time.
func run(h *server.Server, ln net.Listener, db *meta.DB) func() error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, ln) }()
	return func() error {
		cancel()
		if err := <-done; err != nil {
			return err
		}
		return db.Close()
	}
}

// Stop ends the server as SIGTERM does. Only the first call does something.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	stop := s.stop
	s.stop = nil
	if stop == nil {
		return
	}
	if err := stop(); err != nil {
		t.Errorf("stop server: %v", err)
	}
}

// Grant is what a token may do with the caches that a pattern matches.
type Grant struct {
	Caches string
	Perm   token.Perm
}

// Token makes a token for subject "test" that lives an hour.
func (s *Server) Token(t testing.TB, grants ...Grant) string {
	t.Helper()
	return s.PinToken(t, nil, grants...)
}

// PinToken makes a Token that may also set the pins that patterns allow.
func (s *Server) PinToken(t testing.TB, pins []string, grants ...Grant) string {
	t.Helper()
	exp := time.Now().Add(time.Hour)
	claims := token.Claims{Subject: "test", Expires: &exp, Pins: pins}
	for _, g := range grants {
		if err := claims.Caches.Add(g.Caches, g.Perm); err != nil {
			t.Fatalf("grant on %s: %v", g.Caches, err)
		}
	}
	return must(s.Authority.Sign(claims))(t)
}

// CreateCache makes a cache with a new key, through the API.
func (s *Server) CreateCache(t testing.TB, name string, public bool) {
	t.Helper()
	body := `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["cache.nixos.org-1"]}`
	if public {
		body = `{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["cache.nixos.org-1"]}`
	}
	resp, text := s.Do(t, http.MethodPost, api.Expand(api.CacheConfigRoute, "cache", name), s.Root, body)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("create cache %s: %s: %s", name, resp.Status, text)
	}
}

// Do sends a request with a JSON body and reads the answer. An empty token is
// an anonymous request.
func (s *Server) Do(t testing.TB, method, path, tok, body string) (*http.Response, string) {
	t.Helper()
	req := must(http.NewRequest(method, s.URL+path, bytes.NewReader([]byte(body))))(t)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if tok != "" {
		req.Header.Set("Authorization", "bearer "+tok)
	}
	resp := must(http.DefaultTransport.RoundTrip(req))(t) // redirects are shown, not followed
	defer resp.Body.Close()
	return resp, string(must(io.ReadAll(resp.Body))(t))
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
