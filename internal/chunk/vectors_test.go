package chunk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the vectors in testdata/format anew")

// golden compares v as JSON with a file of vectors. A difference means that a format changed, which
// it must not: -update is for vectors that were added.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	var got bytes.Buffer
	enc := json.NewEncoder(&got)
	enc.SetIndent("", " ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "testdata", "format", name)
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is not what this code makes: a format changed", file)
	}
}

func TestGearVectors(t *testing.T) {
	table := make([]string, len(gear))
	for i, g := range gear {
		table[i] = fmt.Sprintf("%016x", g)
	}
	golden(t, "gear.json", table)
}

// part is a step of the recipe of a NAR: docs/format.md, Vectors.
type part struct {
	Text   string `json:"text,omitempty"`
	Hex    string `json:"hex,omitempty"`
	Pseudo int    `json:"pseudo,omitempty"`
	Seed   string `json:"seed,omitempty"`
	Repeat int    `json:"repeat,omitempty"`
}

func (p part) bytes(t *testing.T) []byte {
	b, err := hex.DecodeString(p.Hex)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, p.Text...)
	var pseudo []byte
	for i := 0; len(pseudo) < p.Pseudo; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s:%d", p.Seed, i))
		pseudo = append(pseudo, sum[:]...)
	}
	b = append(b, pseudo[:p.Pseudo]...)
	return bytes.Repeat(b, max(1, p.Repeat))
}

type cutVector struct {
	Name   string   `json:"name"`
	Min    int      `json:"min"`
	Avg    int      `json:"avg"`
	Max    int      `json:"max"`
	Hashes []string `json:"hashes"`
	NAR    []part   `json:"nar"`

	Size   int      `json:"size"`
	SHA256 string   `json:"sha256"`
	Pieces []cutOut `json:"pieces"`
	List   string   `json:"list_sha256"` // of the piece list
}

type cutOut struct {
	Kind   string `json:"kind"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

func cutVectors() []cutVector {
	const a, b = "0123456789abcdfghijklmnpqrsvwxyz", "zyxwvsrqpnmlkjihgfdcba9876543210"
	def, small := DefaultParams, Params{64, 256, 1024}
	noise := func(n int, seed string) part { return part{Pseudo: n, Seed: seed} }
	v := func(name string, p Params, hashes []string, nar ...part) cutVector {
		return cutVector{Name: name, Min: p.Min, Avg: p.Avg, Max: p.Max, Hashes: hashes, NAR: nar}
	}
	both := []string{a, b}
	return []cutVector{
		v("empty", def, both),
		v("one byte", def, both, part{Text: "x"}),
		v("4096 bytes", def, nil, noise(4096, "a")),
		v("4096 bytes with a hash", def, both, noise(1000, "a"), part{Text: a}, noise(3064, "b")),
		v("4097 bytes", def, nil, noise(4097, "a")),
		v("4097 bytes with a hash are dense", def, both, noise(1000, "a"), part{Text: a}, noise(3065, "b")),
		v("no hashes, default sizes", def, nil, noise(2<<20, "c")),
		v("no cut before max", def, nil, part{Hex: "00", Repeat: 1200000}),
		v("default sizes around hashes", def, both, noise(700000, "d"), part{Text: a}, noise(300, "e"), part{Text: b},
			noise(400000, "f"), part{Text: b}, noise(4095, "g"), part{Text: a}, noise(900000, "h")),
		v("stretches of 4095 at both ends", small, both, noise(4095, "a"), part{Text: a}, noise(4096, "b"), part{Text: b}, noise(4095, "c")),
		v("stretches of 4096 at both ends", small, both, noise(4096, "a"), part{Text: a}, noise(4095, "b"), part{Text: b}, noise(4096, "c")),
		v("region of 4096 bytes", small, both, noise(5000, "a"), part{Text: a}, noise(4032, "b"), part{Text: b}, noise(5000, "c")),
		v("region of 4097 bytes", small, both, noise(5000, "a"), part{Text: a}, noise(4033, "b"), part{Text: b}, noise(5000, "c")),
		v("overlapping hashes", small, []string{strings.Repeat("a", 32), strings.Repeat("a", 31) + "b"},
			noise(5000, "a"), part{Text: strings.Repeat("a", 62) + "b"}, noise(5000, "c")),
		v("dense longer than max", Params{1024, 4096, 16384}, both, part{Text: a + " " + b + "\n", Repeat: 600}, noise(5000, "a")),
		v("smallest sizes", Params{64, 64, 64}, both, noise(4100, "a"), part{Text: a}, noise(4100, "b")),
		v("average is no power of two", Params{100, 300, 900}, both, noise(9000, "a"), part{Text: a}, noise(4100, "b")),
		v("strings that are no hashes", small, []string{strings.Repeat("e", 32), a[1:], a + "0"}, noise(4100, "a"), part{Text: strings.Repeat("e", 32) + a}, noise(100, "b")),
	}
}

func TestCutVectors(t *testing.T) {
	vectors := cutVectors()
	for i := range vectors {
		v := &vectors[i]
		var nar []byte
		for _, p := range v.NAR {
			nar = append(nar, p.bytes(t)...)
		}
		v.Size, v.SHA256 = len(nar), Sum(nar).String()
		p := Params{v.Min, v.Avg, v.Max}
		out := cutWith(t, p, v.Hashes, string(nar), whole)
		valid := slices.DeleteFunc(slices.Clone(v.Hashes), func(h string) bool {
			return len(h) != hashLen || strings.Trim(h, alphabet) != ""
		})
		if d := diffPieces(out, naiveCut(p, valid, string(nar))); d != "" {
			t.Errorf("%s: %s", v.Name, d)
		}
		var list []byte
		v.Pieces = []cutOut{}
		for _, piece := range out {
			id := Sum([]byte(piece.data))
			v.Pieces = append(v.Pieces, cutOut{piece.kind.String(), len(piece.data), id.String()})
			if piece.kind == Literal {
				list = AppendLiteral(list, []byte(piece.data))
			} else {
				list = AppendChunk(list, id)
			}
		}
		v.List = Sum(list).String()
	}
	golden(t, "cuts.json", vectors)
}

type listVector struct {
	Name   string     `json:"name"`
	List   string     `json:"list"`
	Pieces []listItem `json:"pieces,omitempty"`
	Error  bool       `json:"error,omitempty"`
}

type listItem struct {
	Literal string `json:"literal,omitempty"`
	Chunk   string `json:"chunk,omitempty"`
}

func TestPieceListVectors(t *testing.T) {
	id := Sum([]byte("chunk"))
	lit := func(n int) Piece { return Piece{Kind: Literal, Literal: bytes.Repeat([]byte("l"), n)} }
	chunk := Piece{Kind: Chunk, ID: id}
	var vectors []listVector
	for _, tt := range []struct {
		name   string
		pieces []Piece
	}{
		{"empty", nil},
		{"one literal", []Piece{lit(1)}},
		{"one chunk", []Piece{chunk}},
		{"literals of 127 and 128 bytes around chunks", []Piece{lit(127), chunk, chunk, lit(128)}},
		{"longest literal", []Piece{chunk, lit(4096)}},
	} {
		b := format(tt.pieces)
		got, err := parseAll(b)
		if err != nil || len(got) != len(tt.pieces) {
			t.Errorf("%s: %d pieces, %v", tt.name, len(got), err)
		}
		v := listVector{Name: tt.name, List: hex.EncodeToString(b)}
		for _, p := range got {
			if p.Kind == Literal {
				v.Pieces = append(v.Pieces, listItem{Literal: hex.EncodeToString(p.Literal)})
			} else {
				v.Pieces = append(v.Pieces, listItem{Chunk: p.ID.String()})
			}
		}
		vectors = append(vectors, v)
	}
	for _, tt := range []struct {
		name string
		list []byte
	}{
		{"empty literal", []byte{0, 0}},
		{"literal of 4097 bytes", AppendLiteral(nil, make([]byte, 4097))},
		{"length that is not minimal", []byte{0, 0x81, 0, 'l'}},
		{"literal cut off", []byte{0, 2, 'l'}},
		{"chunk cut off", AppendChunk(nil, id)[:32]},
		{"literal behind literal", []byte{0, 1, 'l', 0, 1, 'l'}},
		{"reserved tag", append([]byte{2}, id[:]...)},
		{"unknown tag", []byte{3}},
	} {
		if _, err := parseAll(tt.list); !errors.Is(err, ErrPieces) {
			t.Errorf("%s: error %v, want ErrPieces", tt.name, err)
		}
		vectors = append(vectors, listVector{Name: tt.name, List: hex.EncodeToString(tt.list), Error: true})
	}
	golden(t, "pieces.json", vectors)
}
