package chunk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// cutWith cuts nar, written in the sizes that split returns.
func cutWith(t testing.TB, p Params, hashes []string, nar string, split func(left int) int) []testPiece {
	t.Helper()
	var out []testPiece
	c := NewCutter(p, hashes, func(k Kind, data []byte) error {
		out = append(out, testPiece{k, string(data)})
		return nil
	})
	for rest := nar; rest != ""; {
		n := split(len(rest))
		if got, err := c.Write([]byte(rest[:n])); got != n || err != nil {
			t.Fatalf("Write of %d bytes = %d, %v", n, got, err)
		}
		rest = rest[n:]
	}
	if err := c.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if most := c.maxBuf; cap(c.buf) > most {
		t.Fatalf("holds %d bytes, more than %d", cap(c.buf), most)
	}
	return out
}

func whole(left int) int { return left }

func diffPieces(got, want []testPiece) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("ends before piece %d, a %v of %d bytes", i, want[i].kind, len(want[i].data))
		case i >= len(want):
			return fmt.Sprintf("piece %d is one too many, a %v of %d bytes", i, got[i].kind, len(got[i].data))
		case got[i] != want[i]:
			return fmt.Sprintf("piece %d is a %v of %d bytes, want a %v of %d", i,
				got[i].kind, len(got[i].data), want[i].kind, len(want[i].data))
		}
	}
	return ""
}

func join(ps []testPiece) string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString(p.data)
	}
	return b.String()
}

var smallParams = []Params{{64, 64, 64}, {64, 100, 300}, {64, 256, 1024}, {512, 2048, 8192}, {64, 4096, 100000}, {4096, 4096, 4097}}

func TestCutterAgreesWithTheRuleWrittenNaively(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 30
	}
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 1))
		hashes := make([]string, 1+r.IntN(5))
		for i := range hashes {
			hashes[i] = randomHash(r)
		}
		p := smallParams[r.IntN(len(smallParams))]
		nar := randomNAR(r, hashes)
		want := naiveCut(p, hashes, nar)
		for name, split := range map[string]func(int) int{
			"whole":  whole,
			"random": func(left int) int { return min(left, 1+r.IntN(5000)) },
			"tiny":   func(left int) int { return min(left, 1+r.IntN(3)) },
		} {
			got := cutWith(t, p, hashes, nar, split)
			if d := diffPieces(got, want); d != "" {
				t.Fatalf("seed %d, sizes %v, %d bytes, writes %s: %s", seed, p, len(nar), name, d)
			}
		}
		if join(want) != nar {
			t.Fatalf("seed %d: pieces put together are not the input", seed)
		}
	}
}

// Hashes at every distance around 4 KiB from the start, the end and each other.
func TestCutterFoldsStretchesShorterThan4KiB(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	h := randomHash(r)
	p := Params{64, 256, 1024}
	around := []int{0, 1, 31, 4094, 4095, 4096, 4097, 4098, 9000}
	for _, before := range around {
		for _, between := range around {
			for _, after := range around {
				nar := fill(r, before) + h + fill(r, between) + h + fill(r, after)
				for _, split := range []int{1 << 20, 4095, 31} {
					got := cutWith(t, p, []string{h}, nar, func(left int) int { return min(left, split) })
					if d := diffPieces(got, naiveCut(p, []string{h}, nar)); d != "" {
						t.Fatalf("hash after %d, another after %d, end after %d, writes of %d: %s", before, between, after, split, d)
					}
				}
			}
		}
	}
}

func kinds(ps []testPiece) (s string) {
	for _, p := range ps {
		s += map[Kind]string{Literal: "l", Chunk: "c"}[p.kind]
	}
	return s
}

func TestCutterByHand(t *testing.T) {
	h := strings.Repeat("a", 31) + "b"
	dot := func(n int) string { return strings.Repeat(".", n) } // never cut before Max
	p := Params{64 << 10, 128 << 10, 256 << 10}
	for _, tt := range []struct {
		name, nar, want string
	}{
		{"nothing", "", ""},
		{"one byte", ".", "l"},
		{"4 KiB is a literal", dot(4096), "l"},
		{"a byte more is a chunk", dot(4097), "c"},
		{"4 KiB of a hash is a literal", h + dot(4064), "l"},
		{"a byte more is dense", h + dot(4065), "c"},
		{"a byte more at the end stays outside", h + dot(4096), "lc"},
		{"start folds", dot(4095) + h + dot(4096), "cc"},
		{"start does not fold", dot(4096) + h + dot(4096), "clc"},
		{"a region of 4 KiB is a literal", dot(5000) + h + dot(4032) + h + dot(5000), "clc"},
		{"a region of a byte more is dense", dot(5000) + h + dot(4033) + h + dot(5000), "ccc"},
		{"two regions", dot(5000) + h + dot(4096) + h + dot(5000), "clclc"},
		{"hashes without gap", dot(4096) + h + h + h + dot(4096), "clc"},
		{"hash not whole at the end", dot(5000) + h[:31], "c"},
		{"dense longer than Max", strings.Repeat(h+dot(32), 8193), "ccc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := cutWith(t, p, []string{h}, tt.nar, whole)
			if kinds(got) != tt.want {
				t.Errorf("kinds = %q, want %q", kinds(got), tt.want)
			}
			if join(got) != tt.nar {
				t.Error("pieces put together are not the input")
			}
		})
	}
}

// Without overlap, left to right: in a run of one letter the first 32 are the hash, not the last.
func TestCutterTakesTheLeftmostOfOverlappingHashes(t *testing.T) {
	a, b := strings.Repeat("a", 32), strings.Repeat("a", 31)+"b"
	nar := strings.Repeat(".", 5000) + strings.Repeat("a", 63) + "b" + strings.Repeat(".", 5000)
	got := cutWith(t, DefaultParams, []string{a, b}, nar, whole)
	if len(got) != 3 || got[1].data != strings.Repeat("a", 63)+"b" {
		t.Fatalf("pieces %q, want the literal to hold both hashes", kinds(got))
	}
	nar = strings.Repeat(".", 5000) + strings.Repeat("a", 62) + "b" + strings.Repeat(".", 5000)
	got = cutWith(t, DefaultParams, []string{a, b}, nar, whole)
	if len(got) != 3 || got[1].data != a {
		t.Fatalf("pieces %q, want only the leftmost hash in the literal", kinds(got))
	}
}

// The promise of the whole scheme: after a rebuild that changes references alone, whatever is not
// dense is stored already.
func TestNoNewChunkAfterAChangeOfReferences(t *testing.T) {
	dense := 0 // new chunks in dense regions, of which there have to be some
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		var old, renamed []string
		for range 1 + r.IntN(6) {
			old, renamed = append(old, randomHash(r)), append(renamed, randomHash(r))
		}
		p := smallParams[r.IntN(len(smallParams))]
		var a, b strings.Builder
		for range 20 {
			// no letters in the filler: nothing but the references may look like one
			gap := strings.Map(func(c rune) rune { return c%31 + 1 }, fill(r, r.IntN(15000)))
			i := r.IntN(len(old))
			a.WriteString(gap + old[i])
			b.WriteString(gap + renamed[i])
		}
		have := map[string]bool{}
		for _, piece := range cutWith(t, p, old, a.String(), whole) {
			if piece.kind == Chunk {
				have[piece.data] = true
			}
		}
		regions := naiveRegions(renamed, b.String())
		at, fresh := 0, 0
		for i, piece := range cutWith(t, p, renamed, b.String(), whole) {
			inRegion := slices.ContainsFunc(regions, func(s span) bool { return at >= s.from && at < s.to })
			if piece.kind == Chunk && !have[piece.data] {
				fresh++
				if !inRegion {
					t.Errorf("seed %d, sizes %v: piece %d at %d is a new chunk outside dense regions", seed, p, i, at)
				}
			}
			at += len(piece.data)
		}
		dense += fresh
	}
	if dense == 0 {
		t.Error("no dense region in any input: the test shows less than it should")
	}
}

func TestCutterEmitsADenseRegionWhileItGoesOn(t *testing.T) {
	h := randomHash(rand.New(rand.NewPCG(3, 3)))
	var emitted int
	c := NewCutter(Params{1 << 10, 4 << 10, 16 << 10}, []string{h}, func(_ Kind, data []byte) error {
		emitted += len(data)
		return nil
	})
	block := []byte(strings.Repeat(h+strings.Repeat("\x00", 68), 1000))
	for i := 1; i <= 100; i++ {
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
		if held := i*len(block) - emitted; held > 16<<10+3*4096 {
			t.Fatalf("holds %d bytes after %d", held, i*len(block))
		}
	}
}

func TestCutterDoesNotAllocatePerChunk(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	h := randomHash(r)
	nar := []byte(strings.Repeat(fill(r, 9000)+h, 100))
	c := NewCutter(Params{64, 256, 1024}, []string{h}, func(Kind, []byte) error { return nil })
	if _, err := c.Write(nar); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(5, func() {
		if _, err := c.Write(nar); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for %d bytes, want none", n, len(nar))
	}
}

func TestCutterStopsAtAnErrorOfEmit(t *testing.T) {
	boom := errors.New("boom")
	calls := 0
	c := NewCutter(Params{64, 64, 64}, nil, func(Kind, []byte) error { calls++; return boom })
	if _, err := c.Write(make([]byte, 10000)); !errors.Is(err, boom) {
		t.Errorf("Write: %v, want boom", err)
	}
	if _, err := c.Write([]byte("more")); !errors.Is(err, boom) {
		t.Errorf("second Write: %v, want boom", err)
	}
	if err := c.Close(); !errors.Is(err, boom) {
		t.Errorf("Close: %v, want boom", err)
	}
	if calls != 1 {
		t.Errorf("emit called %d times, want once", calls)
	}
}

func TestCutterRefusesSizesOutOfBounds(t *testing.T) {
	for _, p := range []Params{{}, {63, 64, 64}, {64, 63, 64}, {64, 65, 64}, {64, 64, 1<<20 + 1}, {-1, 64, 64}} {
		if err := p.Validate(); err == nil {
			t.Errorf("Validate(%v) = nil", p)
		}
		c := NewCutter(p, nil, func(Kind, []byte) error { t.Error("emit called"); return nil })
		if _, err := c.Write([]byte("x")); err == nil {
			t.Errorf("Write with sizes %v = nil", p)
		}
		if err := c.Close(); err == nil {
			t.Errorf("Close with sizes %v = nil", p)
		}
	}
	for _, p := range []Params{DefaultParams, {64, 64, 64}, {1 << 20, 1 << 20, 1 << 20}} {
		if err := p.Validate(); err != nil {
			t.Errorf("Validate(%v) = %v", p, err)
		}
	}
}

func TestCutterIgnoresWhatIsNoHash(t *testing.T) {
	nar := strings.Repeat("e", 10000)
	odd := []string{"", "short", strings.Repeat("e", 32), strings.Repeat("a", 33), strings.Repeat("A", 32)}
	if got := kinds(cutWith(t, DefaultParams, odd, nar, whole)); got != "c" {
		t.Errorf("kinds = %q, want one chunk", got)
	}
}

func TestCutterIsUsedAgainAfterReset(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	h := []string{randomHash(r), randomHash(r)}
	p := Params{64, 256, 1024}
	var got []testPiece
	c := NewCutter(p, h[:1], func(k Kind, data []byte) error {
		got = append(got, testPiece{k, string(data)})
		return nil
	})
	for i, hashes := range [][]string{h[:1], h[1:], h} {
		if i > 0 {
			c.Reset(hashes)
		}
		got = nil
		nar := randomNAR(r, h) + fill(r, 4097)
		if _, err := c.Write([]byte(nar)); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if d := diffPieces(got, naiveCut(p, hashes, nar)); d != "" {
			t.Fatalf("NAR %d: %s", i, d)
		}
		if err := c.Close(); err != nil {
			t.Fatalf("second Close: %v", err)
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Fatal("Write after Close = nil")
		}
	}
}

func FuzzCutter(f *testing.F) {
	h := "0123456789abcdfghijklmnpqrsvwxyz"
	f.Add([]byte(strings.Repeat("x", 5000)+h+strings.Repeat("y", 5000)), uint8(1), uint16(7))
	f.Add([]byte(strings.Repeat(h, 300)), uint8(3), uint16(4096))
	f.Add([]byte(h), uint8(0), uint16(0))
	f.Add([]byte{}, uint8(0), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, size uint8, split uint16) {
		p := smallParams[int(size)%len(smallParams)]
		hashes := []string{h}
		if len(data) > 64 {
			hashes = append(hashes, string(data[len(data)/2:][:hashLen]))
		}
		// Let short inputs reach the 4 KiB rules.
		nar := strings.Repeat(string(data[:min(len(data), 12000)]), 1+int(split)%4)
		got := cutWith(t, p, hashes, nar, func(left int) int { return min(left, 1+int(split)) })
		if join(got) != nar {
			t.Fatal("pieces put together are not the input")
		}
		valid := hashes[:1]
		if len(hashes) > 1 && strings.Trim(hashes[1], alphabet) == "" {
			valid = hashes
		}
		if d := diffPieces(got, naiveCut(p, valid, nar)); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkCutter(b *testing.B) {
	r := rand.New(rand.NewPCG(6, 6))
	hashes := make([]string, 40)
	for i := range hashes {
		hashes[i] = randomHash(r)
	}
	random := make([]byte, 32<<20)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	text := []byte(strings.Repeat("a plain text of the sort that licenses and headers have; /nix/store/", 1<<19))[:32<<20]
	withRefs := slices.Clone(random)
	for at := 0; at+32 < len(withRefs); at += 20000 + r.IntN(100000) {
		copy(withRefs[at:], hashes[r.IntN(len(hashes))])
	}
	for _, bb := range []struct {
		name string
		nar  []byte
	}{{"random", random}, {"text", text}, {"references", withRefs}} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.nar)))
			b.ReportAllocs()
			c := NewCutter(DefaultParams, hashes, func(Kind, []byte) error { return nil })
			for b.Loop() {
				if _, err := c.Write(bb.nar); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bb.name+"/scan", func(b *testing.B) {
			b.SetBytes(int64(len(bb.nar)))
			s := newScanner(hashes)
			for b.Loop() {
				for i, ok := s.find(bb.nar, 0); ok; i, ok = s.find(bb.nar, i+hashLen) {
				}
			}
		})
	}
}
