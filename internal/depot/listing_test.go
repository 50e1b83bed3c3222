package depot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
)

// narOf is the NAR of a directory with one file, as a small path that is all literal.
func narOf(t *testing.T, name, file, contents string) testNAR {
	t.Helper()
	var b []byte
	for _, s := range []string{"nix-archive-1", "(", "type", "directory", "entry", "(", "name", file, "node",
		"(", "type", "regular", "contents", contents, ")", ")", ")"} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(append(b, s...), make([]byte, -len(s)&7)...)
	}
	n := newNAR(t, name, 100, 0)
	n.data = b
	return n
}

func (h *house) listing(s Scope, n testNAR) string {
	h.t.Helper()
	var out strings.Builder
	err := h.DB.View(h.t.Context(), func(tx *meta.Tx) error {
		_, nar, err := tx.Path(s.Cache.ID, n.path.Hash())
		if err != nil {
			return err
		}
		skeleton, err := tx.Listing(nar.ID)
		if err != nil {
			return err
		}
		return WriteListing(&out, skeleton)
	})
	if errors.Is(err, meta.ErrNotFound) {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return out.String()
}

// skeleton is the listing that a client would send.
func (h *house) skeleton(n testNAR) []byte {
	h.init()
	s := h.newListing()
	_, _ = s.Write(n.data) // never fails
	return s.Bytes()
}

func TestListingIsTheSameOnBothRoads(t *testing.T) {
	h := newHouse(t)
	n := narOf(t, "x", "file", "contents")
	if _, err := h.Ingest(t.Context(), h.a, n.upload(), bytes.NewReader(n.data), true); err != nil {
		t.Fatal(err)
	}
	header := n.header()
	header.Listing = h.skeleton(n)
	list := chunk.AppendLiteral(nil, n.data)
	if _, err := h.CommitPaths(t.Context(), h.b, items(api.PathItem{Header: header, Pieces: list})); err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"root":{"type":"directory","entries":{"file":{"type":"regular","size":8,"narOffset":232}}}}`
	for _, s := range []Scope{h.a, h.b} {
		if got := h.listing(s, n); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// A client says what is in a NAR that is put together from chunks. What it can be held to, it is.
func TestListingThatIsNotTheNARsIsRefused(t *testing.T) {
	h := newHouse(t)
	n := narOf(t, "x", "file", "contents")
	frame := func(raw []byte) []byte {
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return z.EncodeAll(raw, nil)
	}
	list := chunk.AppendLiteral(nil, n.data)
	for name, listing := range map[string][]byte{
		"another NAR's": h.skeleton(narOf(t, "y", "file", "longer contents")),
		"escapes":       h.skeleton(narOf(t, "y", "..", "contents")),
		"no NAR":        frame([]byte("hello")),
		"not zstd":      []byte("hello"),
		"bomb":          frame(make([]byte, 256<<20)),
		"cut off":       h.skeleton(n)[:10],
		"too long":      make([]byte, api.MaxListing+1),
	} {
		if name == "escapes" { // nobody makes one: it is a NAR's with another name in it
			raw := bytes.Replace(n.data, []byte("file\x00"), []byte("..\x00\x00\x00"), 1)
			binary.LittleEndian.PutUint64(raw[bytes.Index(raw, []byte(".."))-8:], 2)
			listing = frame(bytes.Replace(raw, []byte("contents\x01"), []byte("\x01"), 1))
		}
		header := n.header()
		header.Listing = listing
		_, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: header, Pieces: list}))
		var bad *BadRequest
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := h.listing(h.a, n); got != "" {
		t.Errorf("kept: %s", got)
	}
	// The first one stays: who pushes the same again changes nothing in it.
	header := n.header()
	for _, listing := range [][]byte{nil, h.skeleton(n), h.skeleton(narOf(t, "x", "name", "contents"))} {
		header.Listing = listing
		if _, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: header, Pieces: list})); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.listing(h.a, n); !strings.Contains(got, `"file"`) {
		t.Errorf("got %s", got)
	}
}

func FuzzReadListing(f *testing.F) {
	f.Add([]byte("\x28\xb5\x2f\xfd"), uint64(100))
	f.Fuzz(func(t *testing.T, listing []byte, size uint64) {
		up := Upload{Listing: listing, NARSize: size, NARHash: sha256.Sum256(nil)}
		_ = readListing(&up)
	})
}
