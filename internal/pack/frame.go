package pack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/chunk"
)

const (
	zstdMagic    = 0xFD2FB528
	maxBlock     = 128 << 10 // zstd: the most bytes that a block has, and that it decodes to
	blockHeader  = 3
	minSpan      = 10   // magic, descriptor, content size, block header, one byte
	maxOverhead  = 1024 // the most bytes by which a frame may be longer than what it decodes to
	singleSeg    = 1 << 5
	blockRaw     = 0
	blockRLE     = 1
	blockZstd    = 2
	blockNothing = 3 // reserved
)

// appendHeader appends the one frame header that a frame of raw bytes has in a pack: single segment,
// content size in its shortest field, and no other bit set.
func appendHeader(dst []byte, raw uint32) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, zstdMagic)
	switch {
	case raw < 256:
		return append(dst, singleSeg, byte(raw))
	case raw < 256+1<<16:
		return binary.LittleEndian.AppendUint16(append(dst, singleSeg|1<<6), uint16(raw-256))
	default:
		return binary.LittleEndian.AppendUint32(append(dst, singleSeg|2<<6), raw)
	}
}

// CheckFrame checks that span is exactly one zstd frame of a pack, for raw bytes, without decoding
// anything: the header is the only one allowed, and the blocks fill the span to its last byte.
//
// A span is stored and served as it came, for good, so what a decoder would shrug off is refused
// here: a second frame, a window of gigabytes, a checksum, a dictionary that nobody has, sizes that
// are not true.
func CheckFrame(span []byte, raw uint32) error {
	if raw < 1 || raw > chunk.MaxSize {
		return fmt.Errorf("%w: frame for %d bytes, want 1 to %d", ErrFormat, raw, chunk.MaxSize)
	}
	if n := uint32(min(len(span), 2*chunk.MaxSize)); n < minSpan || n > raw+maxOverhead {
		return fmt.Errorf("%w: frame of %d bytes for %d, want %d to %d", ErrFormat, len(span), raw, minSpan, raw+maxOverhead)
	}
	n, err := checkHeader(span, raw)
	if err != nil {
		return fmt.Errorf("%w: frame header: %w", ErrFormat, err)
	}
	if at, err := checkBlocks(span, n, raw); err != nil {
		return fmt.Errorf("%w: block at byte %d of frame: %w", ErrFormat, at, err)
	}
	return nil
}

// checkHeader returns the length of the header of span, which has at least minSpan bytes.
func checkHeader(span []byte, raw uint32) (int, error) {
	if m := binary.LittleEndian.Uint32(span); m != zstdMagic {
		return 0, fmt.Errorf("magic number %#08x, want %#08x", m, uint32(zstdMagic))
	}
	switch d := span[4]; {
	case d&3 != 0:
		return 0, errors.New("names a dictionary")
	case d&(1<<2) != 0:
		return 0, errors.New("announces a checksum")
	case d&(1<<3|1<<4) != 0:
		return 0, errors.New("sets a reserved bit")
	case d&singleSeg == 0:
		return 0, errors.New("is not single segment")
	}
	var want [9]byte
	h := appendHeader(want[:0], raw)
	if string(span[:len(h)]) != string(h) {
		return 0, fmt.Errorf("content size is not %d in its shortest form", raw)
	}
	return len(h), nil
}

// checkBlocks walks the blocks of span from byte at on. It returns the start of the block that the
// error is about.
func checkBlocks(span []byte, at int, raw uint32) (int, error) {
	limit := min(raw, maxBlock) // zstd: the window, which is the content size, or 128 KiB
	var sure, most uint32       // bytes decoded at least and at most; a frame has few blocks, no overflow
	for {
		if len(span)-at < blockHeader {
			return at, errors.New("is cut off")
		}
		h := uint32(span[at]) | uint32(span[at+1])<<8 | uint32(span[at+2])<<16
		last, kind, size := h&1 != 0, h>>1&3, h>>3
		if size < 1 || size > limit {
			return at, fmt.Errorf("has %d bytes, want 1 to %d", size, limit)
		}
		body := size
		switch kind {
		case blockRaw, blockRLE:
			sure, most = sure+size, most+size
			if kind == blockRLE {
				body = 1
			}
		case blockZstd:
			most += limit
		case blockNothing:
			return at, errors.New("has the reserved type")
		}
		if sure > raw {
			return at, fmt.Errorf("goes beyond the content size of %d", raw)
		}
		if uint32(len(span)-at-blockHeader) < body {
			return at, errors.New("is cut off")
		}
		next := at + blockHeader + int(body)
		switch {
		case last && next != len(span):
			return at, fmt.Errorf("is the last, %d bytes before the end", len(span)-next)
		case last && most < raw:
			return at, fmt.Errorf("is the last, and %d bytes at most are not %d", most, raw)
		case last:
			return 0, nil
		case next == len(span):
			return at, errors.New("is not marked as the last")
		}
		at = next
	}
}

// LiteralFrame appends the frame of one raw block that a literal of 1 to chunk.LiteralMax bytes gets
// in a stream. It depends on nothing but the bytes, so that a form is the same on every server.
func LiteralFrame(dst, raw []byte) []byte {
	dst = appendHeader(dst, uint32(len(raw)))
	h := uint32(len(raw))<<3 | blockRaw<<1 | 1
	dst = append(dst, byte(h), byte(h>>8), byte(h>>16))
	return append(dst, raw...)
}

// LiteralFrameSize is the bytes of LiteralFrame for n raw bytes.
func LiteralFrameSize(n int) int {
	var h [9]byte
	return len(appendHeader(h[:0], uint32(n))) + blockHeader + n
}
