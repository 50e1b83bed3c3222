package chunk

import "encoding/binary"

const (
	hashLen  = 32 // letters of a store path hash
	alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
)

// scanner finds store path hashes of a given set in bytes.
type scanner struct {
	letter [256]bool
	set    map[[hashLen]byte]struct{}
	filter []uint64 // one bit for the first 8 letters of each hash: most windows end here
	shift  uint
}

// newScanner takes hashes of 32 letters of Nix's alphabet. Others are in no NAR that anybody refers
// to, and are ignored.
func newScanner(hashes []string) *scanner {
	s := &scanner{set: make(map[[hashLen]byte]struct{}, len(hashes))}
	for i := range len(alphabet) {
		s.letter[alphabet[i]] = true
	}
	for _, h := range hashes {
		if len(h) == hashLen && s.windowEnd([]byte(h), 0) == 0 {
			s.set[[hashLen]byte([]byte(h))] = struct{}{}
		}
	}
	bits := uint(12) // 16 bits a hash, 512 bytes at least, 128 KiB at most
	for bits < 20 && 1<<bits < 16*len(s.set) {
		bits++
	}
	s.shift = 64 - bits
	s.filter = make([]uint64, 1<<bits/64)
	for h := range s.set {
		i := s.slot(h[:])
		s.filter[i/64] |= 1 << (i % 64)
	}
	return s
}

func (s *scanner) slot(window []byte) uint64 {
	return binary.LittleEndian.Uint64(window) * 0x9E3779B97F4A7C15 >> s.shift
}

// find looks for the first hash in b that starts at byte i or later. When there is none, it returns
// the first byte where one might still start if b went on.
func (s *scanner) find(b []byte, i int) (at int, ok bool) {
	if len(s.set) == 0 {
		return max(i, len(b)), false
	}
	for i+hashLen <= len(b) {
		// A byte that is no letter rules out every window that holds it, so look at a window's
		// last byte first: in binary data this skips 28 bytes a look.
		if next := s.windowEnd(b, i); next > i {
			i = next
			continue
		}
		for { // b[i:i+hashLen] are letters
			if s.has(b[i : i+hashLen]) {
				return i, true
			}
			i++
			if i+hashLen > len(b) {
				return i, false
			}
			if !s.letter[b[i+hashLen-1]] {
				i += hashLen
				break
			}
		}
	}
	return i, false
}

// windowEnd returns i when b[i:i+hashLen] are all letters, else the byte after the last that is none.
func (s *scanner) windowEnd(b []byte, i int) int {
	w := b[i : i+hashLen]
	for j := hashLen - 1; j >= 0; j-- {
		if !s.letter[w[j]] {
			return i + j + 1
		}
	}
	return i
}

// has looks the window up. The map is seeded, so that no choice of references makes it slow.
func (s *scanner) has(window []byte) bool {
	if i := s.slot(window); s.filter[i/64]&(1<<(i%64)) == 0 {
		return false
	}
	_, ok := s.set[[hashLen]byte(window)]
	return ok
}
