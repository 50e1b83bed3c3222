package depot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
)

// NAR is a NAR of a cache, ready to be read in its present form.
type NAR struct {
	Path *meta.Path
	Form [32]byte // the ETag; equal forms are equal bytes
	Size int64    // bytes of the form

	blobs  blobs
	layout layout
	keys   map[int64]string
	starts []int64 // of each span in the stream
}

// Open finds a path's NAR: meta.ErrNotFound if the cache has no such path.
func (d *Depot) Open(ctx context.Context, cacheID int64, hash string) (*NAR, error) {
	d.init()
	out := &NAR{blobs: d.Blobs}
	err := d.DB.View(ctx, func(tx *meta.Tx) error {
		path, nar, err := tx.Path(cacheID, hash)
		if err != nil {
			return err
		}
		row, err := tx.NARLayout(nar.ID)
		if err != nil {
			return err
		}
		if out.layout, err = d.layout(row); err != nil {
			return fmt.Errorf("NAR %d: %w", nar.ID, err)
		}
		out.Path, out.Form, out.Size = path, nar.Form, out.layout.size()
		out.keys, err = tx.PackKeys(out.layout.packs())
		return err
	})
	if err != nil {
		return nil, err
	}
	out.starts = make([]int64, len(out.layout))
	at := int64(0)
	for i, s := range out.layout {
		out.starts[i] = at
		at += s.streamSize()
	}
	return out, nil
}

// Reader reads the form from any offset on. It opens packs when it gets to them; close it after use.
func (n *NAR) Reader(ctx context.Context) io.ReadSeekCloser {
	return &narReader{nar: n, ctx: ctx}
}

// maxGap is how many unused bytes of a pack are read over rather than asked for anew (design §9).
const maxGap = 256 << 10

type narReader struct {
	nar *NAR
	ctx context.Context // of the one request that this reader serves
	at  int64

	// The range of a pack that is open: it may reach over several spans.
	open io.ReadCloser
	pack int64
	pos  int64 // offset in the pack of the next byte
	end  int64
}

func (r *narReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.nar.Size
	}
	if offset < 0 {
		return 0, errors.New("seek before the NAR's first byte")
	}
	r.at = offset
	return offset, nil
}

func (r *narReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if r.at >= r.nar.Size {
		return 0, io.EOF
	}
	i := sort.Search(len(r.nar.starts), func(i int) bool { return r.nar.starts[i] > r.at }) - 1
	s, skip := r.nar.layout[i], r.at-r.nar.starts[i]
	if rest := s.streamSize() - skip; int64(len(b)) > rest {
		b = b[:rest]
	}
	var n int
	var err error
	if s.kind == literalSpan {
		n = copy(b, pack.LiteralFrame(nil, s.literal)[skip:])
	} else if err = r.position(i, s.off+skip); err == nil {
		n, err = r.open.Read(b)
		r.pos += int64(n)
	}
	r.at += int64(n)
	if n > 0 {
		return n, nil // an error comes again with the next read
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the pack is shorter than its row says
	}
	return 0, fmt.Errorf("read pack %s: %w", r.nar.keys[s.pack], err)
}

// position makes r.open stand at offset off of span i's pack.
func (r *narReader) position(i int, off int64) error {
	id := r.nar.layout[i].pack
	if r.open != nil && r.pack == id && off >= r.pos && off-r.pos <= maxGap && off < r.end {
		skipped, err := io.CopyN(io.Discard, r.open, off-r.pos)
		r.pos += skipped
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	end := r.reach(i)
	open, err := r.nar.blobs.Get(r.ctx, r.nar.keys[id], off, end-off)
	if err != nil {
		return err
	}
	r.open, r.pack, r.pos, r.end = open, id, off, end
	return nil
}

// reach is where a range read that begins in span i should end: after the last span that follows in
// the same pack with small gaps between them, literals in between left out.
func (r *narReader) reach(i int) int64 {
	id := r.nar.layout[i].pack
	end := r.nar.layout[i].off + r.nar.layout[i].size
	for _, s := range r.nar.layout[i+1:] {
		if s.kind == literalSpan {
			continue
		}
		if s.pack != id || s.off < end || s.off-end > maxGap {
			break
		}
		end = s.off + s.size
	}
	return end
}

func (r *narReader) Close() error {
	if r.open == nil {
		return nil
	}
	open := r.open
	r.open = nil
	return open.Close()
}
