package pack

import (
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/chunk"
)

// Encoder makes frames. It may be used by many goroutines; so many as it was made for encode at a time,
// with about 2 MiB each, the others wait.
type Encoder struct{ z *zstd.Encoder }

// NewEncoder returns an Encoder for as many at a time as there are processors.
func NewEncoder() *Encoder { return NewEncoderFor(runtime.GOMAXPROCS(0)) }

// NewEncoderFor returns an Encoder for so many at a time, at least one. Its level is the fastest: chunks are
// small, and a CI runner's time is worth more than the last percents.
func NewEncoderFor(jobs int) *Encoder {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithSingleSegment(true), // the grammar of a pack: see CheckFrame
		zstd.WithEncoderCRC(false),
		zstd.WithZeroFrames(true),
		zstd.WithWindowSize(chunk.MaxSize),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderConcurrency(max(jobs, 1)),
	)
	if err != nil {
		panic("pack: options of encoder: " + err.Error()) // constants: only a new library can do this
	}
	return &Encoder{z: z}
}

// Frame appends a frame for raw, which has 1 to chunk.MaxSize bytes, to dst. For other lengths it
// appends what CheckFrame and Writer.Add refuse.
func (e *Encoder) Frame(dst, raw []byte) []byte { return e.z.EncodeAll(raw, dst) }

// Decoder decodes frames. It may be used by many goroutines; so many as it was made for decode at a time,
// the others wait.
type Decoder struct{ z *zstd.Decoder }

// decodeSlack is what the zstd decoder likes to have behind its output to copy in steps of 16 bytes.
const decodeSlack = 16

// NewDecoder returns a Decoder for as many at a time as there are processors.
func NewDecoder() *Decoder { return NewDecoderFor(runtime.GOMAXPROCS(0)) }

// NewDecoderFor returns a Decoder for so many at a time, at least one.
func NewDecoderFor(jobs int) *Decoder {
	z, err := zstd.NewReader(nil,
		zstd.WithDecoderMaxMemory(chunk.MaxSize),
		zstd.WithDecoderMaxWindow(chunk.MaxSize),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderConcurrency(max(jobs, 1)),
	)
	if err != nil {
		panic("pack: options of decoder: " + err.Error()) // constants: only a new library can do this
	}
	return &Decoder{z: z}
}

// Frame checks span and decodes it into dst[:0], which grows when it must. What it returns has raw
// bytes, neither more nor less. The content size in the header, checked before, caps the decoder.
func (d *Decoder) Frame(dst, span []byte, raw uint32) ([]byte, error) {
	if err := CheckFrame(span, raw); err != nil {
		return nil, err
	}
	need := int(raw) + decodeSlack
	if cap(dst) < need {
		dst = make([]byte, 0, need)
	}
	out, err := d.z.DecodeAll(span, dst[:0:need])
	if err != nil {
		return nil, fmt.Errorf("%w: decode frame: %w", ErrFormat, err)
	}
	if len(out) != int(raw) {
		return nil, fmt.Errorf("%w: frame decodes to %d bytes, want %d", ErrFormat, len(out), raw)
	}
	return out, nil
}
