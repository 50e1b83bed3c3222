package chunk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestGearTable(t *testing.T) {
	for i := range 256 {
		if want := naiveGears[i]; gear[i] != want {
			t.Errorf("gear[%d] = %#016x, want %#016x", i, gear[i], want)
		}
	}
}

func parseAll(b []byte) (out []Piece, err error) {
	for p, err := range ParsePieces(b) {
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	return out, nil
}

func format(ps []Piece) (b []byte) {
	for _, p := range ps {
		if p.Kind == Literal {
			b = AppendLiteral(b, p.Literal)
		} else {
			b = AppendChunk(b, p.ID)
		}
	}
	return b
}

func TestParsePiecesReadsWhatWasAppended(t *testing.T) {
	id := Sum([]byte("x"))
	for name, want := range map[string][]Piece{
		"nothing":         nil,
		"a literal":       {{Kind: Literal, Literal: []byte("a")}},
		"longest literal": {{Kind: Literal, Literal: bytes.Repeat([]byte("a"), 4096)}},
		"127 and 128":     {{Kind: Literal, Literal: make([]byte, 127)}, {Kind: Chunk, ID: id}, {Kind: Literal, Literal: make([]byte, 128)}},
		"chunks in a row": {{Kind: Chunk, ID: id}, {Kind: Chunk, ID: id}, {Kind: Chunk, ID: Sum(nil)}},
	} {
		b := format(want)
		got, err := parseAll(b)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d pieces, %v, want %d", name, len(got), err, len(want))
		}
		for i := range got {
			if got[i].Kind != want[i].Kind || got[i].ID != want[i].ID || !bytes.Equal(got[i].Literal, want[i].Literal) {
				t.Errorf("%s: piece %d = %v, want %v", name, i, got[i], want[i])
			}
		}
	}
}

func TestParsePiecesRefusesWhatIsNotCanonical(t *testing.T) {
	lit := func(b string) string { return hex.EncodeToString(AppendLiteral(nil, []byte(b))) }
	for _, tt := range []struct{ name, hex, says string }{
		{"reserved tag", "02" + strings.Repeat("00", 40), "tag 2 is reserved"},
		{"unknown tag", "03", "unknown tag 3"},
		{"tag of two bytes", "8000", "unknown tag 128"},
		{"no length", "00", "length of literal"},
		{"length that is not minimal", "00810041", "length of literal"},
		{"length that never ends", "00" + strings.Repeat("ff", 20), "length of literal"},
		{"length above 64 bits", "00ffffffffffffffffff7f", "length of literal"},
		{"empty literal", "0000", "literal of 0 bytes"},
		{"literal too long", "008120" + strings.Repeat("41", 4097), "literal of 4097 bytes"},
		{"huge literal", "00ffffffffffffffffff01", "literal of 18446744073709551615 bytes"},
		{"literal cut off", "000341", "cut off after 1"},
		{"chunk cut off", "01" + strings.Repeat("00", 31), "cut off after 31"},
		{"literal after literal", lit("a") + lit("b"), "at byte 3: literal follows literal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseAll(b)
			if !errors.Is(err, ErrPieces) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want one that says %q", err, tt.says)
			}
		})
	}
}

func TestParsePiecesStopsWhenTheCallerDoes(t *testing.T) {
	b := AppendChunk(AppendChunk(nil, ID{1}), ID{2})
	for p := range ParsePieces(append(b, 9)) {
		if p.ID != (ID{1}) {
			t.Fatalf("went on to %v", p.ID)
		}
		break
	}
}

func TestParseIDReadsOnlyWhatStringWrites(t *testing.T) {
	id := Sum([]byte("x"))
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("ParseID(%s) = %v, %v", id, got, err)
	}
	for _, s := range []string{"", id.String()[1:], id.String() + "0", strings.ToUpper(id.String()), strings.Repeat("g", 64)} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = nil error", s)
		}
	}
}

func FuzzParsePieces(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendLiteral(nil, []byte("abc")))
	f.Add(AppendChunk(AppendLiteral(AppendChunk(nil, ID{1}), make([]byte, 200)), ID{2}))
	f.Add(binary.AppendUvarint([]byte{0}, 1<<63))
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseAll(b)
		if err != nil {
			if !errors.Is(err, ErrPieces) {
				t.Fatalf("error %v is no ErrPieces", err)
			}
			return
		}
		if again := format(got); !bytes.Equal(again, b) {
			t.Fatalf("formats back to %x, read from %x", again, b)
		}
	})
}
