package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// maxDict is the dictionary of xz -9. The format's limit is 4 GiB, and the library's own reader of the
// container would allocate what a header says, before it has seen a byte of contents.
const maxDict = 64 << 20

// ErrXZ is what every error about the bytes of an xz file wraps.
var ErrXZ = errors.New("not xz, or a kind that is not read")

// xzReader reads the container, and has the library decode the blocks in it.
//
//	stream  magic, flags, CRC │ block │ block … │ 0, index │ footer
//	block   size, flags, filters, CRC │ LZMA2 │ zeros up to 4 │ check
//
// One stream, with LZMA2 alone, is what xz and Nix write. Checks and index are passed over: what is
// read here is hashed as a NAR. What lies behind the index is not read.
type xzReader struct {
	in     *countingReader
	limit  int64 // bytes of a dictionary
	opened bool
	check  int64 // bytes behind each block
	from   int64 // where the block's contents began
	block  *lzma.Reader2
	err    error
}

// countingReader is where a block must begin and end.
type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (x *xzReader) Read(b []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(b)
		if err == io.EOF {
			x.block = nil
			err = x.skip((4-(x.in.n-x.from)%4)%4 + x.check)
		} else if err != nil {
			err = fmt.Errorf("%w: %w", ErrXZ, err)
		}
		x.err = err
		if n > 0 {
			return n, nil // an error comes again with the next read
		}
	}
	return 0, x.err
}

var streamMagic = [6]byte{0xfd, '7', 'z', 'X', 'Z', 0}

// checkSizes are the bytes of a check by its number in the stream's flags.
var checkSizes = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

func (x *xzReader) open() error {
	var head [12]byte
	if err := x.full(head[:]); err != nil {
		return err
	}
	if [6]byte(head[:6]) != streamMagic || head[6] != 0 || head[7] > 15 {
		return fmt.Errorf("%w: it begins with other bytes", ErrXZ)
	}
	x.opened, x.check = true, checkSizes[head[7]]
	return nil
}

// next goes on to the next block; io.EOF says that there is none.
func (x *xzReader) next() error {
	if !x.opened {
		if err := x.open(); err != nil {
			return err
		}
	}
	var head [1024]byte
	if err := x.full(head[:1]); err != nil {
		return err
	}
	if head[0] == 0 {
		return io.EOF // the index
	}
	rest := head[1 : 4*(int(head[0])+1)]
	if err := x.full(rest); err != nil {
		return err
	}
	dict, err := dictionary(rest[:len(rest)-4], x.limit)
	if err != nil {
		return err
	}
	x.from = x.in.n
	if x.block, err = (lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}).NewReader2(x.in); err != nil {
		return fmt.Errorf("%w: %w", ErrXZ, err)
	}
	return nil
}

// dictionary reads a block's header, without its size and CRC, for the dictionary that LZMA2 needs.
func dictionary(head []byte, limit int64) (int64, error) {
	const (
		filters, reserved, compressed, uncompressed = 0x03, 0x3c, 0x40, 0x80
		lzma2                                       = 0x21
	)
	flags := head[0]
	head = head[1:]
	if flags&(filters|reserved) != 0 {
		return 0, fmt.Errorf("%w: it has filters before LZMA2", ErrXZ)
	}
	for _, size := range []byte{compressed, uncompressed} {
		if flags&size == 0 {
			continue
		}
		_, n := binary.Uvarint(head)
		if n <= 0 {
			return 0, fmt.Errorf("%w: a broken header of a block", ErrXZ)
		}
		head = head[n:]
	}
	if len(head) < 3 || head[0] != lzma2 || head[1] != 1 {
		return 0, fmt.Errorf("%w: a filter other than LZMA2", ErrXZ)
	}
	dict, err := lzma.DecodeDictCap(head[2])
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrXZ, err)
	}
	if dict > limit {
		return 0, fmt.Errorf("%w: %w: it wants %d MiB, at most %d are given", ErrXZ, errMemory, dict>>20, limit>>20)
	}
	return dict, nil
}

func (x *xzReader) full(b []byte) error {
	_, err := io.ReadFull(x.in, b)
	return early(err)
}

func (x *xzReader) skip(n int64) error {
	_, err := io.CopyN(io.Discard, x.in, n)
	return early(err)
}

func early(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
