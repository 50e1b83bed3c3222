package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// ErrPieces is wrapped by every error of ParsePieces.
var ErrPieces = errors.New("malformed piece list")

const tagPatched = 2 // reserved: a chunk with references put in anew

// Piece is one step of a piece list: the literal's bytes, or the chunk's ID.
type Piece struct {
	Kind    Kind
	Literal []byte // 1 to LiteralMax bytes, a part of the parsed list
	ID      ID
}

// AppendLiteral appends a literal of 1 to LiteralMax bytes to a piece list. It must not follow
// another literal: ParsePieces refuses such a list, as it refuses a literal of any other length.
func AppendLiteral(dst, b []byte) []byte {
	dst = append(dst, byte(Literal))
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// AppendChunk appends a chunk to a piece list.
func AppendChunk(dst []byte, id ID) []byte {
	dst = append(dst, byte(Chunk))
	return append(dst, id[:]...)
}

// ParsePieces reads a piece list, and stops at the first error, which says at which byte. The list
// must be canonical: what it yields, appended again, gives the same bytes.
func ParsePieces(b []byte) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		literal := false
		for at := 0; at < len(b); {
			p, n, err := parsePiece(b[at:])
			if err == nil && literal && p.Kind == Literal {
				// Two in a row could be split in many ways, and the cutter never makes them.
				err = errors.New("literal follows literal")
			}
			if err != nil {
				yield(Piece{}, fmt.Errorf("%w: at byte %d: %w", ErrPieces, at, err))
				return
			}
			if !yield(p, nil) {
				return
			}
			literal = p.Kind == Literal
			at += n
		}
	}
}

// parsePiece reads the first piece of b, which is not empty, and returns its length in b.
func parsePiece(b []byte) (Piece, int, error) {
	switch tag := b[0]; tag { // a tag is a varint too, so far of one byte
	case byte(Literal):
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || n > 1 && b[n] == 0 {
			return Piece{}, 0, errors.New("length of literal is cut off or not minimal")
		}
		if size < 1 || size > LiteralMax {
			return Piece{}, 0, fmt.Errorf("literal of %d bytes, want 1 to %d", size, LiteralMax)
		}
		b = b[1+n:]
		if uint64(len(b)) < size {
			return Piece{}, 0, fmt.Errorf("literal of %d bytes is cut off after %d", size, len(b))
		}
		return Piece{Kind: Literal, Literal: b[:size:size]}, 1 + n + int(size), nil
	case byte(Chunk):
		p := Piece{Kind: Chunk}
		if copy(p.ID[:], b[1:]) < len(p.ID) {
			return Piece{}, 0, fmt.Errorf("chunk id is cut off after %d bytes", len(b)-1)
		}
		return p, 1 + len(p.ID), nil
	case tagPatched:
		return Piece{}, 0, fmt.Errorf("tag %d is reserved for a later version", tag)
	default:
		return Piece{}, 0, fmt.Errorf("unknown tag %d", tag)
	}
}
