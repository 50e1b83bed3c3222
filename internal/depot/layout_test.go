package depot

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// The form's serialisation is part of the format: docs/format.md, with vectors that anybody can check
// an implementation against.
func TestFormVectors(t *testing.T) {
	text, err := os.ReadFile("../../testdata/format/packs.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Forms []struct {
			Items []struct {
				Literal, Pack string
				First, Count  int
				Trailer       bool
			}
			SHA256 string
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Forms) == 0 {
		t.Fatal("no vectors")
	}
	for i, v := range vectors.Forms {
		var l layout
		ids, sums := map[string]int64{}, map[int64][32]byte{}
		for _, item := range v.Items {
			if item.Pack == "" {
				l.add(span{kind: literalSpan, literal: unhex(t, item.Literal)})
				continue
			}
			id, known := ids[item.Pack]
			if !known {
				id = int64(len(ids) + 1)
				ids[item.Pack], sums[id] = id, [32]byte(unhex(t, item.Pack))
			}
			kind := runSpan
			if item.Trailer {
				kind = trailerSpan
			}
			l.add(span{kind: kind, pack: id, first: item.First, count: item.Count})
		}
		if got := l.form(sums); hex.EncodeToString(got[:]) != v.SHA256 {
			t.Errorf("form %d is %x, want %s", i, got, v.SHA256)
		}
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

func TestLayoutRowReadsBack(t *testing.T) {
	want := layout{
		{kind: literalSpan, literal: []byte("abc")},
		{kind: runSpan, pack: 7, first: 3, count: 200, off: 1 << 33, size: 99},
		{kind: trailerSpan, pack: 7, off: 1<<33 + 99, size: 24},
	}
	got, err := decodeLayout(want.encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A row that was damaged on the volume must not take the server down.
func FuzzDecodeLayout(f *testing.F) {
	f.Add(layout{{kind: runSpan, pack: 1, count: 2, size: 3}, {kind: literalSpan, literal: []byte("x")}}.encode())
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, row []byte) {
		l, err := decodeLayout(row)
		if err != nil {
			return
		}
		again, err := decodeLayout(l.encode())
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("reads back as %+v (%v), want %+v", again, err, l)
		}
	})
}
