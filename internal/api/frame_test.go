package api

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func someHeader() PathHeader {
	return PathHeader{
		StorePath: "/nix/store/" + hash + "-hello-2.10", NARHash: "sha256:" + strings.Repeat("0", 64), NARSize: 7,
		References: []string{hash + "-hello-2.10"}, Upstream: []string{"0" + hash[1:] + "-glibc"}, Deriver: "d", System: "s", CA: "c",
		Sigs: []string{"k:x"}, Offset: 3, More: true,
	}
}

func framed(t *testing.T, items ...PathItem) []byte {
	t.Helper()
	var b []byte
	for _, item := range items {
		var err error
		if b, err = AppendPath(b, item.Header, item.Pieces); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func readAll(r io.Reader, max int64) (items []PathItem, err error) {
	for item, e := range ReadPaths(r, max) {
		if e != nil {
			return items, e
		}
		items = append(items, item)
	}
	return items, nil
}

func TestReadPathsReadsWhatAppendPathWrote(t *testing.T) {
	want := []PathItem{{someHeader(), []byte("pieces")}, {PathHeader{StorePath: "/nix/store/" + hash + "-x", NARHash: someHeader().NARHash, References: []string{}}, nil}}
	b := framed(t, want...)
	got, err := readAll(iotest.OneByteReader(bytes.NewReader(b)), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, err := readAll(strings.NewReader(""), 10); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

func TestReadPathsRefusesMoreThanTheLimit(t *testing.T) {
	b := framed(t, PathItem{someHeader(), make([]byte, 5000)})
	for _, max := range []int64{int64(len(b)) - 1, 4000, 10, 0} {
		if _, err := readAll(bytes.NewReader(b), max); status(t, err) != 413 {
			t.Errorf("limit %d of %d: %v", max, len(b), err)
		}
	}
}

func TestReadPathsRefusesEveryCut(t *testing.T) {
	b := framed(t, PathItem{someHeader(), []byte("pieces")})
	for n := 1; n < len(b); n++ {
		if _, err := readAll(bytes.NewReader(b[:n]), 1<<20); status(t, err) != 400 {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
}

func TestReadPathsRefusesMalformedFraming(t *testing.T) {
	long := binary.AppendUvarint(nil, MaxPathHeader+1)
	for name, b := range map[string][]byte{
		"a varint in two ways":        {0x80, 0x00},
		"a varint of eleven bytes":    bytes.Repeat([]byte{0xff}, 11),
		"a varint beyond 64 bits":     append(bytes.Repeat([]byte{0xff}, 9), 0x02),
		"a header of more than 1 MiB": append(long, make([]byte, MaxPathHeader+1)...),
		"an empty header":             {0, 0},
		"no JSON":                     {1, 'x', 0},
		"a huge promise":              append(binary.AppendUvarint(nil, 1<<62), 'x'),
	} {
		if _, err := readAll(bytes.NewReader(b), 16<<20); status(t, err) != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadPathsChecksHeaders(t *testing.T) {
	for name, change := range map[string]func(*PathHeader){
		"no store path":         func(h *PathHeader) { h.StorePath = hash },
		"no hash":               func(h *PathHeader) { h.NARHash = "" },
		"a full reference":      func(h *PathHeader) { h.References = []string{h.StorePath} },
		"a line in a reference": func(h *PathHeader) { h.References = []string{hash + "-x\nSig: y"} },
		"a line in a signature": func(h *PathHeader) { h.Sigs = []string{"x\ny"} },
		"an upstream path":      func(h *PathHeader) { h.Upstream = []string{"x"} },
		"a line in the ca":      func(h *PathHeader) { h.CA = "x\ny" },
		"a negative offset":     func(h *PathHeader) { h.Offset = -1 },
	} {
		h := someHeader()
		change(&h)
		if _, err := readAll(bytes.NewReader(framed(t, PathItem{Header: h})), 1<<20); status(t, err) != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadPathsPassesOnErrorsOfTheBody(t *testing.T) {
	b := framed(t, PathItem{someHeader(), make([]byte, 9000)})
	gone := errors.New("gone")
	_, err := readAll(io.MultiReader(bytes.NewReader(b[:500]), iotest.ErrReader(gone)), 1<<20)
	var e *Error
	if !errors.Is(err, gone) || errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
}

func TestReadPathsStopsWhenAsked(t *testing.T) {
	b := framed(t, PathItem{Header: someHeader()}, PathItem{Header: someHeader()})
	n := 0
	for range ReadPaths(bytes.NewReader(b), 1<<20) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d items", n)
	}
}

// FuzzReadPaths: what is read is written back to the same items.
func FuzzReadPaths(f *testing.F) {
	b, _ := AppendPath(nil, someHeader(), []byte("x"))
	f.Add(b)
	f.Add(append(b, b...))
	f.Fuzz(func(t *testing.T, data []byte) {
		items, err := readAll(bytes.NewReader(data), 1<<16)
		if err != nil {
			status(t, err)
			return
		}
		again, err := readAll(bytes.NewReader(framed(t, items...)), 1<<20)
		if err != nil || len(items) > 0 && !reflect.DeepEqual(items, again) {
			t.Errorf("%+v became %+v, %v", items, again, err)
		}
	})
}
