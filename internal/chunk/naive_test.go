package chunk

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
)

// What a reader of docs/format.md would write first: the whole NAR in memory, one rule after another.
// It shares nothing with the Cutter but the names of the constants.

type testPiece struct {
	kind Kind
	data string
}

func naiveCut(p Params, hashes []string, nar string) (out []testPiece) {
	if len(nar) == 0 {
		return nil
	}
	if len(nar) <= 4096 {
		return []testPiece{{Literal, nar}}
	}
	regions := naiveRegions(hashes, nar)
	pos := 0
	for _, r := range append(regions, span{len(nar), len(nar)}) {
		out = naiveCDC(out, p, nar[pos:r.from])
		if region := nar[r.from:r.to]; len(region) > 4096 {
			out = naiveCDC(out, p, region)
		} else if len(region) > 0 {
			out = append(out, testPiece{Literal, region})
		}
		pos = r.to
	}
	return out
}

type span struct{ from, to int }

// naiveRegions returns the regions of a NAR of more than 4 KiB.
func naiveRegions(hashes []string, nar string) (regions []span) {
	for _, at := range naiveFind(hashes, nar) {
		if n := len(regions); n > 0 && at-regions[n-1].to < 4096 {
			regions[n-1].to = at + 32
		} else if n == 0 && at < 4096 {
			regions = append(regions, span{0, at + 32})
		} else {
			regions = append(regions, span{at, at + 32})
		}
	}
	if n := len(regions); n > 0 && len(nar)-regions[n-1].to < 4096 {
		regions[n-1].to = len(nar)
	}
	return regions
}

func naiveFind(hashes []string, nar string) (at []int) {
	for i := 0; i+32 <= len(nar); i++ {
		if slices.Contains(hashes, nar[i:i+32]) {
			at = append(at, i)
			i += 31
		}
	}
	return at
}

func naiveCDC(out []testPiece, p Params, s string) []testPiece {
	for len(s) > 0 {
		n := naiveChunk(p, s)
		out = append(out, testPiece{Chunk, s[:n]})
		s = s[n:]
	}
	return out
}

func naiveChunk(p Params, s string) int {
	bits := 0
	for 1<<bits < p.Avg {
		bits++
	}
	var h uint64
	for i := p.Min; i < len(s) && i < p.Max; i++ {
		h = 2*h + naiveGears[s[i]]
		zeros := bits + 1
		if i >= p.Avg {
			zeros = bits - 1
		}
		if h>>(64-zeros) == 0 {
			return i + 1
		}
	}
	return min(len(s), p.Max)
}

var naiveGears = func() (table [256]uint64) {
	for i := range table {
		sum := sha256.Sum256(append([]byte("attic-action gear 1"), byte(i)))
		table[i] = binary.BigEndian.Uint64(sum[:8])
	}
	return table
}()

// randomHash returns a store path hash.
func randomHash(r *rand.Rand) string {
	var b strings.Builder
	for range hashLen {
		b.WriteByte(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

// fill returns n bytes: random, or letters of the hash alphabet, or words, or one letter.
func fill(r *rand.Rand, n int) string {
	b := make([]byte, n)
	switch r.IntN(4) {
	case 0:
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	case 1:
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
	case 2:
		words := []string{"store", "/nix/", "lib", "0123456789abcdfghijklmnpqrsvwxyz", "\x00\x00\x00", " "}
		for i := 0; i < n; {
			i += copy(b[i:], words[r.IntN(len(words))])
		}
	case 3:
		c := byte(r.Uint32())
		for i := range b {
			b[i] = c
		}
	}
	return string(b)
}

var awkward = []int{0, 1, 31, 32, 33, 100, 4063, 4064, 4065, 4095, 4096, 4097, 4127, 4128, 4129, 5000, 8191, 8192, 20000}

// randomNAR returns bytes with hashes at awkward distances, and some that are cut off or doubled.
func randomNAR(r *rand.Rand, hashes []string) string {
	var b strings.Builder
	for range r.IntN(12) {
		gap := awkward[r.IntN(len(awkward))]
		if r.IntN(3) == 0 {
			gap = r.IntN(12000)
		}
		b.WriteString(fill(r, gap))
		for range 1 + r.IntN(2)*r.IntN(200) {
			h := hashes[r.IntN(len(hashes))]
			switch r.IntN(10) {
			case 0:
				b.WriteString(h[:r.IntN(hashLen)])
			case 1:
				b.WriteString(h[r.IntN(hashLen):])
			}
			b.WriteString(h)
			if r.IntN(2) == 0 {
				b.WriteString(fill(r, r.IntN(100)))
			}
		}
	}
	b.WriteString(fill(r, awkward[r.IntN(len(awkward))]))
	return b.String()
}
