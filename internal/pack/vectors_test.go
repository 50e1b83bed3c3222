package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/chunk"
)

// -update writes the vectors anew. Frames are compressed then, with whatever zstd library there is;
// the tests only read them, for no two libraries compress alike.
var update = flag.Bool("update", false, "write the vectors in testdata/format anew")

func vectors(t *testing.T, name string, make func() any, into any) {
	t.Helper()
	file := filepath.Join("..", "..", "testdata", "format", name)
	if *update {
		b, err := json.MarshalIndent(make(), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type frameVector struct {
	Name    string `json:"name"`
	Frame   string `json:"frame"`
	Raw     uint32 `json:"raw"`
	Bytes   string `json:"bytes,omitempty"`
	Literal bool   `json:"literal,omitempty"` // the literal frame of the bytes
	Error   bool   `json:"error,omitempty"`
}

func makeFrameVectors() any {
	enc := NewEncoder()
	var out []frameVector
	add := func(name string, raw []byte, literal bool) {
		frame := enc.Frame(nil, raw)
		if literal {
			frame = LiteralFrame(nil, raw)
		}
		out = append(out, frameVector{name, hex.EncodeToString(frame), uint32(len(raw)), hex.EncodeToString(raw), literal, false})
	}
	add("literal of 1 byte", []byte("x"), true)
	add("literal of 255 bytes", prose(255), true)
	add("literal of 256 bytes", prose(256), true)
	add("literal of 4096 bytes", prose(4096), true)
	add("1 byte", []byte("x"), false)
	add("256 bytes of noise", noise(256), false)
	add("5000 compressed bytes", prose(5000), false)
	out = append(out, frameVector{Name: "8 RLE blocks are 1 MiB", Raw: 1 << 20, Frame: hex.EncodeToString(
		frameOf(1<<20, bytes.Repeat(block(false, blockRLE, 128<<10, 0), 7), block(true, blockRLE, 128<<10, 0)))})
	raw := func(n int) []byte { return block(true, blockRaw, n, make([]byte, n)...) }
	for _, bad := range []struct {
		name  string
		frame []byte
		raw   uint32
	}{
		{"two frames", slices.Concat(frameOf(10, raw(10)), frameOf(10, raw(10))), 10},
		{"another content size", frameOf(10, raw(10)), 11},
		{"content size in a longer field", slices.Concat([]byte("\x28\xb5\x2f\xfd\xa0\x0a\x00\x00\x00"), raw(10)), 10},
		{"no content size, a window of 2^28", slices.Concat([]byte("\x28\xb5\x2f\xfd\x00\x90"), raw(10)), 10},
		{"checksum", slices.Concat([]byte("\x28\xb5\x2f\xfd\x24\x0a"), raw(10), make([]byte, 4)), 10},
		{"dictionary", slices.Concat([]byte("\x28\xb5\x2f\xfd\x21\x01\x0a"), raw(10)), 10},
		{"reserved bit", slices.Concat([]byte("\x28\xb5\x2f\xfd\x28\x0a"), raw(10)), 10},
		{"reserved block type", frameOf(10, block(true, blockNothing, 10, make([]byte, 10)...)), 10},
		{"empty block", frameOf(10, block(false, blockRaw, 0), raw(10)), 10},
		{"no last block", frameOf(10, block(false, blockRaw, 10, make([]byte, 10)...)), 10},
		{"byte behind the last block", append(frameOf(10, raw(10)), 0), 10},
		{"more than a MiB", frameOf(1<<20+1, bytes.Repeat(block(false, blockRLE, 128<<10, 0), 8), block(true, blockRLE, 1, 0)), 1<<20 + 1},
		{"more than announced", frameOf(1<<20, bytes.Repeat(block(false, blockRLE, 128<<10, 0), 8), block(true, blockRLE, 1, 0)), 1 << 20},
		{"less than announced", frameOf(11, raw(10)), 11},
	} {
		out = append(out, frameVector{Name: bad.name, Frame: hex.EncodeToString(bad.frame), Raw: bad.raw, Error: true})
	}
	return out
}

func TestFrameVectors(t *testing.T) {
	var all []frameVector
	vectors(t, "frames.json", makeFrameVectors, &all)
	dec := NewDecoder()
	for _, v := range all {
		frame, want := unhex(t, v.Frame), unhex(t, v.Bytes)
		raw, err := dec.Frame(nil, frame, v.Raw)
		switch {
		case v.Error != errors.Is(err, ErrFormat):
			t.Errorf("%s: error %v", v.Name, err)
		case v.Bytes != "" && !bytes.Equal(raw, want):
			t.Errorf("%s: decodes to other bytes", v.Name)
		case v.Literal && !bytes.Equal(LiteralFrame(nil, want), frame):
			t.Errorf("%s: literal frame is another", v.Name)
		}
	}
}

type packVectors struct {
	Packs []packVector `json:"packs"`
	Forms []formVector `json:"forms"`
}

type packVector struct {
	Name    string        `json:"name"`
	Pack    string        `json:"pack"`
	SHA256  string        `json:"sha256"`
	Own     bool          `json:"own"`
	Entries []entryVector `json:"entries"`
}

type entryVector struct {
	Kind   string `json:"kind"`
	SHA256 string `json:"sha256"`
	Offset int64  `json:"offset"`
	Size   uint32 `json:"size"`
	Bytes  string `json:"bytes"`
}

type formVector struct {
	Items  []formItem `json:"items"`
	SHA256 string     `json:"sha256"`
}

// formItem is a literal, a run, or a trailer.
type formItem struct {
	Literal string `json:"literal,omitempty"`
	Pack    string `json:"pack,omitempty"`
	First   uint64 `json:"first,omitempty"`
	Count   uint64 `json:"count,omitempty"`
	Trailer bool   `json:"trailer,omitempty"`
}

// formSum is docs/format.md §6; servers have their own, which must agree.
func formSum(t *testing.T, items []formItem) string {
	b := []byte("AFRM1")
	for _, it := range items {
		switch {
		case it.Trailer:
			b = append(append(b, 2), unhex(t, it.Pack)...)
		case it.Pack != "":
			b = append(append(b, 1), unhex(t, it.Pack)...)
			b = binary.AppendUvarint(binary.AppendUvarint(b, it.First), it.Count)
		default:
			lit := unhex(t, it.Literal)
			b = append(binary.AppendUvarint(append(b, 0), uint64(len(lit))), lit...)
		}
	}
	return chunk.Sum(b).String()
}

func makePackVectors(t *testing.T) any {
	enc := NewEncoder()
	one, two := chunkPart(enc, prose(5000)), chunkPart(enc, noise(300))
	lit := literalPart([]byte("0123456789abcdfghijklmnpqrsvwxyz-hello"))
	var out packVectors
	for _, p := range []struct {
		name  string
		flags uint16
		parts []part
	}{
		{"shared", 0, []part{one, two}},
		{"own, with a literal and a repeated chunk", FlagOwn, []part{one, lit, two, two}},
	} {
		b, ix := writePack(t, p.flags, p.parts)
		v := packVector{Name: p.name, Pack: hex.EncodeToString(b), SHA256: chunk.Sum(b).String(), Own: ix.Own()}
		for i, e := range ix.Entries {
			v.Entries = append(v.Entries, entryVector{e.Kind.String(), e.ID.String(), ix.Offset(i), e.Size, hex.EncodeToString(p.parts[i].raw)})
		}
		out.Packs = append(out.Packs, v)
	}
	shared, own := out.Packs[0].SHA256, out.Packs[1].SHA256
	for _, items := range [][]formItem{
		{{Literal: hex.EncodeToString([]byte("a NAR of one literal"))}},
		{{Pack: own, Count: 4}, {Pack: own, Trailer: true}},
		{{Pack: shared, Count: 2}, {Literal: hex.EncodeToString(prose(200))}, {Pack: own, First: 2, Count: 1}, {Pack: shared, First: 1, Count: 1}},
	} {
		out.Forms = append(out.Forms, formVector{items, formSum(t, items)})
	}
	return out
}

func TestPackVectors(t *testing.T) {
	var all packVectors
	vectors(t, "packs.json", func() any { return makePackVectors(t) }, &all)
	for _, v := range all.Packs {
		b := unhex(t, v.Pack)
		ix, err := ReadIndex(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		var again bytes.Buffer
		w := NewWriter(&again, ix.Flags)
		offs := ix.Offsets()
		err = Verify(bytes.NewReader(b), ix, NewDecoder(), func(i int, e Entry, raw []byte) error {
			got := entryVector{e.Kind.String(), e.ID.String(), offs[i], e.Size, hex.EncodeToString(raw)}
			if i >= len(v.Entries) || got != v.Entries[i] {
				t.Errorf("%s: entry %d is another", v.Name, i)
			}
			return w.Add(e.Kind, e.ID, b[offs[i]:offs[i+1]], int(e.Raw))
		})
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		sum, _, err := w.Finish()
		if err != nil || !bytes.Equal(again.Bytes(), b) || hex.EncodeToString(sum[:]) != v.SHA256 {
			t.Errorf("%s: written anew it is another file: %v", v.Name, err)
		}
		if len(ix.Entries) != len(v.Entries) || ix.Own() != v.Own || sha256.Sum256(b) != sum {
			t.Errorf("%s: index of %d entries, own %t", v.Name, len(ix.Entries), ix.Own())
		}
	}
	for i, f := range all.Forms {
		if got := formSum(t, f.Items); got != f.SHA256 {
			t.Errorf("form %d has the SHA-256 %s, want %s", i, got, f.SHA256)
		}
	}
	if len(all.Packs) < 2 || len(all.Forms) < 3 || !strings.HasPrefix(all.Packs[0].Pack, "28b52ffd") {
		t.Error("vectors are missing")
	}
}
