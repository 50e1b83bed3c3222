package admin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/org/attic-action/internal/admin"
)

type greet struct {
	Name string `json:"name"`
}

type greeting struct {
	Text string `json:"text"`
}

func mux(records *[]admin.Record) *admin.Mux {
	m := &admin.Mux{Audit: func(_ context.Context, r admin.Record) { *records = append(*records, r) }}
	admin.Handle(m, "greet", func(_ context.Context, in greet) (greeting, error) {
		switch in.Name {
		case "":
			return greeting{}, errors.New("nobody is there")
		case "missing":
			return greeting{}, admin.As(admin.ErrNotFound, errors.New("no such guest"))
		case "twice":
			return greeting{}, admin.As(admin.ErrConflict, errors.New("came before"))
		case "bomb":
			panic("boom")
		}
		return greeting{"hello " + in.Name}, nil
	})
	return m
}

// serve serves on a socket until the test ends.
func serve(t *testing.T, h http.Handler) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s.sock")
	ln, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, ln, h, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket was left behind: %v", err)
		}
		os.RemoveAll(dir)
	})
	return socket
}

func TestRemoteAndLocalCallsAnswerAlike(t *testing.T) {
	var records []admin.Record
	m := mux(&records)
	remote, err := admin.Dial(t.Context(), serve(t, m))
	if err != nil {
		t.Fatal(err)
	}
	if local := admin.Local(m, os.Getuid()); local.Remote() || !remote.Remote() {
		t.Error("clients do not know where they call")
	}
	for name, c := range map[string]*admin.Client{"remote": remote, "local": admin.Local(m, os.Getuid())} {
		t.Run(name, func(t *testing.T) {
			records = nil
			got, err := admin.Call[greeting](t.Context(), c, "greet", greet{"you"})
			if err != nil || got.Text != "hello you" {
				t.Errorf("got %+v, %v", got, err)
			}
			for in, want := range map[string]struct {
				text string
				is   error
			}{"": {"nobody is there", nil}, "missing": {"no such guest", admin.ErrNotFound}, "twice": {"came before", admin.ErrConflict}, "bomb": {"boom", nil}} {
				_, err := admin.Call[greeting](t.Context(), c, "greet", greet{in})
				if err == nil || !strings.Contains(err.Error(), want.text) || want.is != nil && !errors.Is(err, want.is) {
					t.Errorf("%q: got %v, want %q, %v", in, err, want.text, want.is)
				}
				for _, other := range []error{admin.ErrNotFound, admin.ErrConflict} {
					if other != want.is && errors.Is(err, other) {
						t.Errorf("%q: %v is %v", in, err, other)
					}
				}
			}
			if _, err := admin.Call[greeting](t.Context(), c, "greet", map[string]string{"nmae": "you"}); !errors.Is(err, admin.ErrBadRequest) {
				t.Errorf("a misspelled member: got %v", err)
			}
			if _, err := admin.Call[greeting](t.Context(), c, "leave", nil); err == nil || !strings.Contains(err.Error(), `no verb "leave"`) {
				t.Errorf("an unknown verb: got %v", err)
			}
			for _, r := range records {
				if r.UID != os.Getuid() {
					t.Errorf("%s was called by %d, want %d", r.Verb, r.UID, os.Getuid())
				}
			}
			if out, ok := records[0].Output.(greeting); !ok || out.Text != "hello you" {
				t.Errorf("recorded output %+v", records[0].Output)
			}
			if len(records) != 7 {
				t.Errorf("%d calls were audited, want 7", len(records))
			}
			for _, r := range records {
				if r.ID == "" || r.Verb == "" || r.At.IsZero() {
					t.Errorf("got record %+v", r)
				}
			}
			if r := records[0]; r.Err != nil || r.Input != (greet{"you"}) {
				t.Errorf("got record %+v", r)
			}
		})
	}
}

// Other users of the machine must not add policies: neither through the socket nor in the
// moment in which it is made.
func TestSocketIsItsOwnersAlone(t *testing.T) {
	var records []admin.Record
	socket := serve(t, mux(&records))
	fi, err := os.Lstat(socket)
	if err != nil || fi.Mode().Perm() != 0o600 || fi.Mode().Type() != os.ModeSocket {
		t.Errorf("got %v, %v, want a socket of mode 0600", fi.Mode(), err)
	}
}

func TestSocketOfAKilledServerIsReplaced(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	old, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	old.Close()
	if _, err := admin.Dial(t.Context(), socket); !errors.Is(err, admin.ErrNobody) {
		t.Errorf("dial a dead socket: got %v, want ErrNobody", err)
	}
	ln, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			c.Close()
		}
	}()
	if _, err := admin.Dial(t.Context(), socket); err != nil {
		t.Errorf("dial the new socket: %v", err)
	}
}

// The address of a socket holds a hundred bytes; a data directory may be deeper.
func TestSocketInADeepDirectory(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // where a server says so and serves without
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "server.db.sock")
	ln, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	var records []admin.Record
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, ln, mux(&records), slog.New(slog.DiscardHandler)) }()
	c, err := admin.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := admin.Call[greeting](t.Context(), c, "greet", greet{"deep"}); err != nil || got.Text != "hello deep" {
		t.Errorf("got %+v, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestListenLeavesFilesAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := admin.Listen(file); err == nil {
		ln.Close()
		t.Error("a file was replaced by a socket")
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file holds %q now", text)
	}
	if _, err := admin.Dial(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, admin.ErrNobody) {
		t.Errorf("dial nothing: got %v, want ErrNobody", err)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	var records []admin.Record
	socket := serve(t, mux(&records))
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for name, body := range map[string]string{
		"huge": `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, "two values": `{"name":"a"}{"name":"b"}`, "none": "", "list": "[]",
	} {
		resp, err := c.Post("http://admin/greet", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), `"error"`) {
			t.Errorf("%s: got %d %s", name, resp.StatusCode, text)
		}
	}
	resp, err := c.Get("http://admin/greet")
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %v, %v", resp, err)
	}
}

func TestStreamIsWholeOrAnError(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	m := &admin.Mux{}
	admin.HandleStream(m, "bytes", func(_ context.Context, in struct{ Cut bool }) (io.ReadCloser, error) {
		if in.Cut {
			return io.NopCloser(io.MultiReader(bytes.NewReader(big[:1<<20]), iotest.ErrReader(errors.New("damaged")))), nil
		}
		return io.NopCloser(bytes.NewReader(big)), nil
	})
	admin.HandleStream(m, "none", func(context.Context, struct{}) (io.ReadCloser, error) {
		return nil, admin.As(admin.ErrNotFound, errors.New("there is none"))
	})
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, ln, m, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-done }()
	remote, err := admin.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*admin.Client{"remote": remote, "local": admin.Local(m, 0)} {
		for _, cut := range []bool{false, true} {
			body, err := admin.Stream(t.Context(), c, "bytes", struct{ Cut bool }{cut})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := io.ReadAll(body)
			if (err != nil) != cut || !cut && !bytes.Equal(got, big) {
				t.Errorf("%s, cut %v: %d bytes, %v", name, cut, len(got), err)
			}
			body.Close()
		}
		if _, err := admin.Stream(t.Context(), c, "none", struct{}{}); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		// Who has seen enough leaves, and the handler ends.
		body, err := admin.Stream(t.Context(), c, "bytes", struct{ Cut bool }{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		body.Close()
	}
}
