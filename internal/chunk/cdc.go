package chunk

import "math/bits"

// cdc finds the cuts of one stretch (FastCDC, normalised): a rolling hash over the bytes from the
// chunk's byte Min on, and a cut after the first byte where the hash's highest bits are zero, one
// bit more than log2 Avg before byte Avg, one less after it, so that sizes gather around Avg.
type cdc struct {
	min, avg, max int
	strict, loose uint64 // cut where the hash is below

	hash uint64
	pos  int // bytes of the chunk that are hashed or skipped
}

func newCDC(p Params) cdc {
	n := bits.Len(uint(p.Avg - 1)) // ceil(log2 Avg)
	return cdc{
		min: p.Min, avg: p.Avg, max: p.Max,
		strict: 1 << (64 - (n + 1)),
		loose:  1 << (64 - (n - 1)),
	}
}

// restart makes the next byte the first of a chunk.
func (c *cdc) restart() { c.hash, c.pos = 0, 0 }

// next returns the length of the chunk that b begins with, or 0 when b does not hold its end. It
// goes on where it stopped when b has grown since, and restarts after a cut.
func (c *cdc) next(b []byte) int {
	c.pos = max(c.pos, min(c.min, len(b)))
	cut := false
	if end := min(c.avg, len(b)); c.pos < end {
		c.pos, c.hash, cut = roll(b, c.pos, end, c.hash, c.strict)
	}
	if end := min(c.max, len(b)); !cut && c.pos >= c.avg && c.pos < end {
		c.pos, c.hash, cut = roll(b, c.pos, end, c.hash, c.loose)
	}
	if !cut && c.pos < c.max {
		return 0
	}
	n := c.pos
	c.restart()
	return n
}

// roll hashes b[i:end] and stops after the byte where the hash falls below limit. Four bytes a step:
// their hashes hang on the one before the step, not on each other, so the processor does them side
// by side.
func roll(b []byte, i, end int, h, limit uint64) (pos int, hash uint64, cut bool) {
	b = b[:end]
	for ; i+4 <= len(b); i += 4 {
		q := b[i : i+4 : i+4]
		t1 := gear[q[0]]
		t2 := t1<<1 + gear[q[1]]
		t3 := t2<<1 + gear[q[2]]
		t4 := t3<<1 + gear[q[3]]
		if h<<1+t1 < limit {
			return i + 1, 0, true
		}
		if h<<2+t2 < limit {
			return i + 2, 0, true
		}
		if h<<3+t3 < limit {
			return i + 3, 0, true
		}
		if h = h<<4 + t4; h < limit {
			return i + 4, 0, true
		}
	}
	for ; i < len(b); i++ {
		if h = h<<1 + gear[b[i]]; h < limit {
			return i + 1, 0, true
		}
	}
	return i, h, false
}
