// Package chunk cuts a NAR into pieces: chunks, which are stored once and named by their hash, and
// literals, the few bytes around store path hashes, which travel in the NAR's own piece list.
//
//	NAR     ───────────────R──────────────────────R─R───────────────  R: hash of a reference
//	pieces  chunk│chunk│ch.│l│chunk│chunk│chunk│ch│lit│chunk│chunk│c
//
// When a dependency is rebuilt, only the references in the paths above it change. No reference lies
// inside a chunk, so those paths keep all their chunks. The exception is a dense region, where
// references follow one another for more than LiteralMax bytes: it is cut as it is.
//
// The rule is cut version 1 of docs/format.md. It decides what deduplicates against what is already
// stored, so it can never change; a better rule would be a version 2 beside it.
package chunk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

const (
	// Version is the cut version that a server publishes and a client must know.
	Version = 1
	// MaxSize is the most bytes that a chunk of any parameters may have.
	MaxSize = 1 << 20
	// LiteralMax is the most bytes of a literal, and the length of the stretch without a
	// reference that ends a region.
	LiteralMax = 4096

	minSize = 64 // a chunk's entry in an index has 41 bytes; smaller ones make no sense
)

// ID is the SHA-256 of a chunk's raw bytes.
type ID [32]byte

// Sum returns the ID of b.
func Sum(b []byte) ID { return sha256.Sum256(b) }

// String returns the ID as 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what String returns, and nothing else.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("parse chunk id: %d characters, want %d", len(s), 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("parse chunk id %q: not lower-case hexadecimal", s)
	}
	return id, nil
}

// Kind says what a piece or an entry of a pack is. The values are those of the formats.
type Kind uint8

const (
	Literal Kind = 0
	Chunk   Kind = 1
)

// String returns "literal", "chunk" or, for what no format knows, the number.
func (k Kind) String() string {
	switch k {
	case Literal:
		return "literal"
	case Chunk:
		return "chunk"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Params are the sizes of chunks in bytes. Only the last chunk of a stretch may be shorter than Min.
type Params struct{ Min, Avg, Max int }

// DefaultParams are the sizes of a server whose configuration names none.
var DefaultParams = Params{Min: 32 << 10, Avg: 128 << 10, Max: 512 << 10}

// Validate reports sizes that cut version 1 does not allow: 64 ≤ Min ≤ Avg ≤ Max ≤ 1 MiB.
func (p Params) Validate() error {
	switch {
	case p.Min < minSize:
		return fmt.Errorf("chunk sizes %d/%d/%d: min is below %d", p.Min, p.Avg, p.Max, minSize)
	case p.Min > p.Avg, p.Avg > p.Max:
		return fmt.Errorf("chunk sizes %d/%d/%d: want min ≤ avg ≤ max", p.Min, p.Avg, p.Max)
	case p.Max > MaxSize:
		return fmt.Errorf("chunk sizes %d/%d/%d: max is above %d", p.Min, p.Avg, p.Max, MaxSize)
	}
	return nil
}
