package chunk

import (
	"errors"
	"fmt"
)

const (
	fold      = LiteralMax // a stretch this long is kept out of regions
	step      = 32 << 10   // bytes looked at a time: they stay in the processor's cache
	firstSize = 16 << 10   // of the buffer: most NARs are small
	// A Cutter holds a chunk that is not yet cut, the stretch behind a region that may still fold
	// into it, the start of a hash, and a step; 8 KiB more for a region that may stay a literal.
	lookahead = 2*fold + 2*fold + step
)

// Cutter cuts one NAR as it is written. The pieces depend on the bytes, the hashes and the sizes, and
// not on how the bytes are split into writes. It holds Max bytes and 48 KiB at most.
//
// It is in one of three states, and the scan for hashes runs ahead of everything:
//
//	       from        ref            scanned      end of buf
//	region  R───────────E┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄P──────────────┤   until P is 4 KiB past E
//	stretch     s───────────────────────P──────────────┤   until a hash starts at P
//
// At the NAR's start it is neither: the first 4 KiB decide.
type Cutter struct {
	emit func(k Kind, data []byte) error
	refs *scanner
	cdc  cdc

	buf     []byte // the NAR's bytes from base on
	base    int64  // all below are offsets in the NAR
	start   int64  // of the present piece
	scanned int64  // no hash starts before that is not accounted for
	ref     int64  // end of the last hash; 0 at the NAR's start
	state   state
	dense   bool // region: longer than a literal, some of it may be cut already

	maxBuf int
	err    error
}

type state uint8

const (
	atStart state = iota
	inStretch
	inRegion
)

var errClosed = errors.New("cut: written to after Close")

// NewCutter returns a Cutter for a NAR whose own store path and references have these hashes, of 32
// letters each. It calls emit with every piece in order; data is valid during the call only, and an
// error stops the Cutter. Sizes that Validate refuses are the error of the first Write.
func NewCutter(p Params, hashes []string, emit func(k Kind, data []byte) error) *Cutter {
	c := &Cutter{emit: emit, refs: newScanner(hashes)}
	if err := p.Validate(); err != nil {
		c.err = fmt.Errorf("cut: %w", err)
		return c
	}
	c.cdc = newCDC(p)
	c.maxBuf = p.Max + lookahead
	return c
}

// Reset makes the Cutter ready for another NAR, with the same sizes, emit and buffer.
func (c *Cutter) Reset(hashes []string) {
	n := NewCutter(Params{c.cdc.min, c.cdc.avg, c.cdc.max}, hashes, c.emit)
	n.buf = c.buf[:0]
	*c = *n
}

// Write cuts the next bytes of the NAR.
func (c *Cutter) Write(b []byte) (int, error) {
	written := 0
	for c.err == nil && written < len(b) {
		n := min(len(b)-written, step)
		c.makeRoom(n)
		c.buf = append(c.buf, b[written:written+n]...)
		written += n
		c.err = c.advance()
	}
	return written, c.err
}

// Close ends the NAR and emits what is left of it. It releases nothing: a Cutter that is thrown away
// need not be closed.
func (c *Cutter) Close() error {
	if c.err != nil {
		if errors.Is(c.err, errClosed) {
			return nil
		}
		return c.err
	}
	if c.err = c.finish(); c.err != nil {
		return c.err
	}
	c.err = errClosed
	return nil
}

// makeRoom lets n bytes be appended to buf: it drops what was emitted when that is half of it, else
// it grows.
func (c *Cutter) makeRoom(n int) {
	if len(c.buf)+n <= cap(c.buf) {
		return
	}
	live := c.slice(c.start, c.end())
	dst := c.buf[:0]
	if size := cap(c.buf); size < c.maxBuf && len(live)+n > size/2 {
		dst = make([]byte, 0, min(c.maxBuf, max(firstSize, 2*size, 2*n)))
	}
	c.buf = append(dst, live...) // moves down in place, or copies
	c.base = c.start
}

func (c *Cutter) end() int64 { return c.base + int64(len(c.buf)) }

func (c *Cutter) slice(from, to int64) []byte { return c.buf[from-c.base : to-c.base] }

// advance does what the bytes so far decide.
func (c *Cutter) advance() error {
	for {
		at, found := c.refs.find(c.buf, int(c.scanned-c.base))
		c.scanned = c.base + int64(at)
		if err := c.noHashBefore(c.scanned); err != nil || !found {
			return err
		}
		if err := c.hashAt(c.scanned); err != nil {
			return err
		}
	}
}

// noHashBefore takes notice that no hash starts between the last one and p.
func (c *Cutter) noHashBefore(p int64) error {
	if c.state != inStretch && p-c.ref >= fold {
		if c.state == atStart && c.end() <= LiteralMax {
			return nil // may be all there is: a literal
		}
		if c.state == inRegion {
			if err := c.endRegion(); err != nil {
				return err
			}
		}
		c.state = inStretch
	}
	if c.state == inStretch {
		return c.cut(p)
	}
	return nil
}

// hashAt takes the hash at p into the region before it, or starts one.
func (c *Cutter) hashAt(p int64) error {
	if c.state == inStretch {
		if err := c.endStretch(p); err != nil {
			return err
		}
	}
	c.state = inRegion
	c.ref = p + hashLen
	c.scanned = c.ref
	return c.growRegion()
}

// growRegion cuts a region that has become too long for a literal, as far as it is known to go.
func (c *Cutter) growRegion() error {
	c.dense = c.dense || c.ref-c.start > LiteralMax
	if !c.dense {
		return nil
	}
	return c.cut(c.ref)
}

// endRegion ends the region with the last hash, or where ref was set by finish.
func (c *Cutter) endRegion() error {
	if c.dense {
		c.dense = false
		return c.endStretch(c.ref)
	}
	err := c.emit(Literal, c.slice(c.start, c.ref))
	c.start = c.ref
	return err
}

// cut emits the chunks of the present stretch or dense region that end at to or before.
func (c *Cutter) cut(to int64) error {
	for {
		n := c.cdc.next(c.slice(c.start, to))
		if n == 0 {
			return nil
		}
		if err := c.emit(Chunk, c.slice(c.start, c.start+int64(n))); err != nil {
			return err
		}
		c.start += int64(n)
	}
}

// endStretch cuts up to to, where the rest is a chunk of any length.
func (c *Cutter) endStretch(to int64) error {
	if err := c.cut(to); err != nil {
		return err
	}
	c.cdc.restart()
	if c.start == to {
		return nil
	}
	err := c.emit(Chunk, c.slice(c.start, to))
	c.start = to
	return err
}

// finish decides what only the NAR's end can.
func (c *Cutter) finish() error {
	end := c.end()
	if end == 0 {
		return nil
	}
	if end <= LiteralMax {
		return c.emit(Literal, c.slice(0, end))
	}
	if err := c.noHashBefore(end); err != nil {
		return err
	}
	if c.state == inStretch {
		return c.endStretch(end)
	}
	c.ref = end // less than fold behind the last hash
	if err := c.growRegion(); err != nil {
		return err
	}
	return c.endRegion()
}
