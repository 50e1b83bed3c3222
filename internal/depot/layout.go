package depot

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/pack"
)

// A layout says where the bytes of a NAR's stream lie: spans of packs and literals, in order. It is
// what the database keeps of a NAR's pieces: two gigabytes are a handful of runs, so the first byte
// costs one row. Its row, before compression:
//
//	0x00  uvarint length, bytes                                       a literal
//	0x01  uvarint pack, first entry, entry count, offset, length      a run of entries of one pack
//	0x02  uvarint pack, offset, length                                a pack's index frame
//
// Packs are named by their row here; the ledger names them by their key and the form by their
// SHA-256, so that neither depends on this database.
type layout []span

type span struct {
	kind         spanKind
	literal      []byte
	pack         int64
	first, count int   // entries of the pack; of a run
	off, size    int64 // bytes of the pack file
}

type spanKind byte

const (
	literalSpan spanKind = iota
	runSpan
	trailerSpan
)

// add appends a span, joined with the last one where both are neighbours in one pack.
func (l *layout) add(s span) {
	if n := len(*l); n > 0 && s.kind == runSpan {
		last := &(*l)[n-1]
		if last.kind == runSpan && last.pack == s.pack && last.first+last.count == s.first {
			last.count += s.count
			last.size += s.size
			return
		}
	}
	*l = append(*l, s)
}

// streamSize is the number of bytes that a span is in the NAR's stream.
func (s span) streamSize() int64 {
	if s.kind == literalSpan {
		return int64(pack.LiteralFrameSize(len(s.literal)))
	}
	return s.size
}

func (l layout) size() (n int64) {
	for _, s := range l {
		n += s.streamSize()
	}
	return n
}

// packs returns the packs of the layout, each once, in order of their first use.
func (l layout) packs() (ids []int64) {
	seen := map[int64]bool{}
	for _, s := range l {
		if s.kind != literalSpan && !seen[s.pack] {
			seen[s.pack] = true
			ids = append(ids, s.pack)
		}
	}
	return ids
}

// rowCodec compresses layouts and pack indexes for their database rows.
type rowCodec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// maxRow bounds what a row may decompress to: the literals and runs of a NAR of some terabytes.
const maxRow = 256 << 20

func newRowCodec() (c rowCodec) {
	// The options are constants that the library accepts, so no error is possible.
	c.enc, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	c.dec, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxRow))
	return c
}

func (c rowCodec) encode(row []byte) []byte { return c.enc.EncodeAll(row, nil) }

func (c rowCodec) decode(row []byte) ([]byte, error) { return c.dec.DecodeAll(row, nil) }

func (l layout) encode() []byte {
	var b []byte
	for _, s := range l {
		b = append(b, byte(s.kind))
		switch s.kind {
		case literalSpan:
			b = binary.AppendUvarint(b, uint64(len(s.literal)))
			b = append(b, s.literal...)
		case runSpan:
			b = appendUvarints(b, uint64(s.pack), uint64(s.first), uint64(s.count), uint64(s.off), uint64(s.size))
		case trailerSpan:
			b = appendUvarints(b, uint64(s.pack), uint64(s.off), uint64(s.size))
		}
	}
	return b
}

func appendUvarints(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

var errLayout = errors.New("layout row is damaged")

func decodeLayout(b []byte) (l layout, err error) {
	for len(b) > 0 {
		var s span
		s, b, err = decodeSpan(b)
		if err != nil {
			return nil, err
		}
		l = append(l, s)
	}
	return l, nil
}

func decodeSpan(b []byte) (s span, rest []byte, err error) {
	s.kind, b = spanKind(b[0]), b[1:]
	next := func() (v int64) {
		u, n := binary.Uvarint(b)
		if n <= 0 || u > 1<<62 {
			err = errLayout
			return 0
		}
		b = b[n:]
		return int64(u)
	}
	switch s.kind {
	case literalSpan:
		n := next()
		if err != nil || n > int64(len(b)) {
			return s, nil, errLayout
		}
		s.literal, b = b[:n:n], b[n:]
	case runSpan:
		s.pack, s.first, s.count, s.off, s.size = next(), int(next()), int(next()), next(), next()
	case trailerSpan:
		s.pack, s.off, s.size = next(), next(), next()
	default:
		return s, nil, errLayout
	}
	return s, b, err
}

// form is the SHA-256 of the NAR's form (docs/format.md): its spans and literals in order, packs named
// by their content, so that equal forms are equal bytes.
func (l layout) form(sums map[int64][32]byte) [32]byte {
	h := sha256.New()
	io.WriteString(h, "AFRM1")
	for _, s := range l {
		head := []byte{byte(s.kind)}
		sum := sums[s.pack]
		switch s.kind {
		case literalSpan:
			h.Write(binary.AppendUvarint(head, uint64(len(s.literal))))
			h.Write(s.literal)
		case runSpan:
			h.Write(appendUvarints(append(head, sum[:]...), uint64(s.first), uint64(s.count)))
		case trailerSpan:
			h.Write(append(head, sum[:]...))
		}
	}
	return [32]byte(h.Sum(nil))
}

// record is the layout as the ledger keeps it, packs named by their keys.
func (l layout) record(keys map[int64]string) []ledger.Span {
	out := make([]ledger.Span, 0, len(l))
	for _, s := range l {
		switch s.kind {
		case literalSpan:
			out = append(out, ledger.Span{Literal: s.literal})
		case runSpan:
			out = append(out, ledger.Span{Pack: keys[s.pack], First: s.first, Count: s.count})
		case trailerSpan:
			out = append(out, ledger.Span{Pack: keys[s.pack], Trailer: true})
		}
	}
	return out
}
