// Package unpack decodes the compressions in which binary caches and clients send NARs, with bounded
// memory, whoever sends them.
//
//	Compression  decoder                     memory
//	none         –                           none
//	zstd         klauspost                   a window of at most 128 MiB
//	xz           ulikunitz, container here   a dictionary of at most 64 MiB (xz -9)
//	bzip2, gzip  standard library            4 MiB, 64 KiB
//
// What comes out is not bounded here: whoever reads it knows how long a NAR should be, and stops there.
package unpack

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow is what zstd -22 asks for, and the most that its command line decodes without being told.
	maxWindow = 128 << 20
	readAhead = 64 << 10
)

// ErrUnknown says that nothing here decodes such a compression.
var ErrUnknown = errors.New("unknown compression")

// names are the compressions by the names that narinfos have for them.
var names = []string{"none", "zstd", "xz", "bzip2", "gzip"}

// Known reports whether NewReader decodes a compression, by its name in a narinfo. The empty name is none.
func Known(compression string) bool { return compression == "" || slices.Contains(names, compression) }

// NewReader returns a reader of what r decodes to. Close ends the decoder, and leaves r open. An unknown
// compression is ErrUnknown.
func NewReader(compression string, r io.Reader) (io.ReadCloser, error) {
	return NewReaderWithin(compression, r, maxWindow)
}

// NewReaderWithin is NewReader with a decoder whose window or dictionary has at most memory bytes: what wants
// more, wherever in it, is an error. It is for those who asked Memory before.
func NewReaderWithin(compression string, r io.Reader, memory int64) (io.ReadCloser, error) {
	switch compression {
	case "none", "":
		return io.NopCloser(r), nil
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(min(max(memory, zstd.MinWindowSize), maxWindow))), zstd.WithDecoderMaxMemory(1<<62))
		if err != nil {
			return nil, fmt.Errorf("read zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	case "xz":
		return io.NopCloser(&xzReader{in: &countingReader{r: bufio.NewReaderSize(r, readAhead)}, limit: min(memory, maxDict)}), nil
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(bufio.NewReaderSize(r, readAhead))), nil
	case "gzip":
		z, err := gzip.NewReader(bufio.NewReaderSize(r, readAhead))
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		return z, nil
	}
	return nil, fmt.Errorf("%w %.40q: known are %v", ErrUnknown, compression, names)
}
