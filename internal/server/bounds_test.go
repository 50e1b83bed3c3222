package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
)

// closes waits for the server to hang up and returns what it said before. It fails the
// test if the server holds on for a minute: a busy machine is slow.
func closes(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("the server holds the connection; it said %q", text)
	}
	return string(text) // a reset is an end, too
}

// The attack: many connections that send a header for ever.
func TestSlowHeaderIsCutOff(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Limits.Header = 200 * time.Millisecond })}
	for name, first := range map[string]string{"nothing": "", "half a line": "GET / HT", "one header after the other": "GET / HTTP/1.1\r\nHost: x\r\n"} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			go func() {
				_, err := io.WriteString(c, first)
				for err == nil && first != "" {
					time.Sleep(20 * time.Millisecond)
					_, err = io.WriteString(c, "X-A: b\r\n")
				}
			}()
			if text := closes(t, c); strings.Contains(text, " 200 ") {
				t.Errorf("got %q", text)
			}
		})
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Limits.Idle = 200 * time.Millisecond })}
	c := h.dial(t)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if text := closes(t, c); !strings.HasPrefix(text, "HTTP/1.1 200") {
		t.Errorf("got %q", text)
	}
}

func TestHeaderOverTheBoundIsRefused(t *testing.T) {
	h := &house{Server: servertest.Start(t)}
	c := h.dial(t)
	go func() { // net/http answers before it has read everything
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX-A: %s\r\n\r\n", strings.Repeat("a", 80<<10))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s", resp.Status)
	}
}

// The attack: more connections than there is memory for. Those over the bound wait in the
// kernel, and are served when others end.
func TestConnectionsAreBounded(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Limits.Connections = 2; s.Limits.Header = time.Minute })}
	first, second := h.dial(t), h.dial(t)
	for _, c := range []net.Conn{first, second} { // both have been accepted
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	}
	third := h.dial(t)
	fmt.Fprint(third, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if err := third.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := third.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatal("a third connection is served while two are open")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if text := closes(t, third); !strings.HasPrefix(text, "HTTP/1.1 200") {
		t.Errorf("after one has ended: got %q", text)
	}
}

// Bodies, by who sends them.
func TestBodiesAreBounded(t *testing.T) {
	h := &house{Server: servertest.Start(t)}
	h.CreateCache(t, "c", false)
	const missing = "/_api/v1/get-missing-paths"
	for _, c := range []struct {
		name, method, path, tok string
		length                  int64
		want                    int
	}{
		{"JSON of a stranger", "POST", missing, "", 2<<20 + 1, 413},
		{"JSON", "POST", missing, h.Root, 32<<20 + 1, 413},
		{"hashes of chunks", "POST", "/_api/v1/cache/c/chunks/missing", h.Root, 2<<20 + 1, 413},
		{"closure", "POST", "/_api/v1/cache/c/closure", h.Root, 32<<20 + 1, 413},
		{"pack", "PUT", "/_api/v1/cache/c/packs/" + strings.Repeat("0", 64), h.Root, 96<<20 + 1, 413},
		{"settings of a cache", "PATCH", "/_api/v1/cache-config/c", h.Root, 32<<20 + 1, 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := h.dial(t)
			auth := ""
			if c.tok != "" {
				auth = "Authorization: bearer " + c.tok + "\r\n"
			}
			// Announced only: it must be refused before it is read.
			fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n", c.method, c.path, auth, c.length)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("got %s, want %d", resp.Status, c.want)
			}
		})
	}
}
