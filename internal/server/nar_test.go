package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
)

func (h *house) get(t *testing.T, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", h.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
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

// Nix resumes a cut download with Range and nothing else (protocol §18.3).
func TestNARResumesAtAnyByte(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "ranges", append(bytes.Repeat([]byte("compressible "), 50_000), random(t, 1<<20)...))
	if resp, body := h.Upload(t, h.Root, "pub", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	path := "/pub/" + h.narinfo(t, "pub", n).URL
	whole, body := h.get(t, path)
	etag := whole.Header.Get("ETag")
	if whole.Header.Get("Accept-Ranges") != "bytes" || len(etag) != 66 || !strings.Contains(path, "?f="+etag[1:17]) {
		t.Fatalf("headers %v for %s", whole.Header, path)
	}
	for _, from := range []int{0, 1, 1000, len(body) / 2, len(body) - 1} {
		resp, rest := h.get(t, path, "Range", "bytes="+strconv.Itoa(from)+"-")
		if resp.StatusCode != 206 || body[:from]+rest != body {
			t.Errorf("from %d: %s, %d bytes", from, resp.Status, len(rest))
		}
	}
	for _, c := range []struct {
		name    string
		header  []string
		status  int
		content string
	}{
		{"past the end", []string{"Range", "bytes=" + strconv.Itoa(len(body)) + "-"}, 416, ""},
		{"the same entity", []string{"If-None-Match", etag}, 304, ""},
		{"If-Range fits", []string{"Range", "bytes=5-", "If-Range", etag}, 206, body[5:]},
		{"If-Range of another form", []string{"Range", "bytes=5-", "If-Range", `"x"`}, 200, body},
		{"several ranges", []string{"Range", "bytes=0-1,3-4"}, 200, body},
		{"nonsense", []string{"Range", "lines=1-"}, 416, ""},
	} {
		resp, got := h.get(t, path, c.header...)
		if resp.StatusCode != c.status || c.status < 300 && got != c.content {
			t.Errorf("%s: got %s with %d bytes, want %d with %d", c.name, resp.Status, len(got), c.status, len(c.content))
		}
		if resp.Header.Get("X-Attic-Cache-Visibility") != "public" {
			t.Errorf("%s: no visibility header", c.name)
		}
	}
}

// losePacks deletes every pack behind the server's back.
func (h *house) losePacks(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(h.Dir, "storage", "packs")); err != nil {
		t.Fatal(err)
	}
}

// Bytes of another form after a cut would be "Data corruption detected".
func TestRangeOfAFormThatIsGoneIs412(t *testing.T) {
	h := newHouse(t)
	path := "/pub/nar/" + h.nar.Path.Hash() + ".nar?f=0123456789abcdef"
	if resp, _ := h.get(t, path, "Range", "bytes=1-"); resp.StatusCode != 412 {
		t.Errorf("ranged: got %s, want 412", resp.Status)
	}
	if resp, body := h.get(t, path); resp.StatusCode != 200 || !bytes.Equal(unzstd(t, body), h.nar.Bytes) {
		t.Errorf("whole: got %s", resp.Status)
	}
}

// A download writes nothing by itself; its last use is written later.
func TestLastUseIsWrittenInBatches(t *testing.T) {
	var srv *server.Server
	h := &house{Server: servertest.Start(t, func(s *server.Server) { srv = s })}
	h.CreateCache(t, "c", true)
	n := servertest.NewNAR(t, "used", []byte("x"))
	if resp, body := h.Upload(t, h.Root, "c", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	lastUse := func() (at time.Time) {
		err := h.DB.View(t.Context(), func(tx *meta.Tx) error {
			c, err := tx.Cache("c")
			if err != nil {
				return err
			}
			p, _, err := tx.Path(c.ID, n.Path.Hash())
			if err == nil {
				at = p.LastUsed
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	before := lastUse()
	h.get(t, "/c/nar/"+n.Path.Hash()+".nar")
	if !lastUse().Equal(before) {
		t.Error("a download wrote something")
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.WriteUses(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("uses were written for nobody: %v", err)
	}
	if err := srv.WriteUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !lastUse().After(before) {
		t.Errorf("last use stays at %v", before)
	}
}

// Nix is better off with another cache, or a build, than with a 500.
func TestNARWhosePackIsGoneIs404(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "lost", random(t, 1<<20))
	if resp, body := h.Upload(t, h.Root, "pub", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	h.losePacks(t)
	resp, body := h.get(t, "/pub/nar/"+n.Path.Hash()+".nar")
	if resp.StatusCode != 404 || !strings.Contains(body, "NoSuchObject") || resp.Header.Get("ETag") != "" {
		t.Errorf("got %s: %s", resp.Status, body)
	}
}
