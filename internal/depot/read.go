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

	depot  *Depot
	layout layout
	packs  map[int64]meta.PackFile
	starts []int64 // of each span in the stream
}

// Open finds a path's NAR: meta.ErrNotFound if the cache has no such path, or one that is damaged.
func (d *Depot) Open(ctx context.Context, cacheID int64, hash string) (*NAR, error) {
	d.init()
	out := &NAR{depot: d}
	err := d.DB.View(ctx, func(tx *meta.Tx) error {
		path, nar, err := tx.Path(cacheID, hash)
		if err == nil && nar.Damaged {
			err = fmt.Errorf("%w: NAR %d is damaged", meta.ErrNotFound, nar.ID)
		}
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
		out.packs, err = tx.PackFiles(out.layout.packs())
		return err
	})
	if err != nil {
		return nil, err
	}
	out.starts = out.layout.starts()
	return out, nil
}

// starts are the places of the spans in the stream.
func (l layout) starts() []int64 {
	starts := make([]int64, len(l))
	at := int64(0)
	for i, s := range l {
		starts[i] = at
		at += s.streamSize()
	}
	return starts
}

// Object is the key of the object that is the form, byte for byte, if there is one: an own pack that is all of
// the NAR.
func (n *NAR) Object() (key string, ok bool) {
	if len(n.layout) != 2 {
		return "", false
	}
	run, trailer := n.layout[0], n.layout[1]
	file := n.packs[run.pack]
	whole := run.kind == runSpan && trailer.kind == trailerSpan && run.pack == trailer.pack &&
		run.off == 0 && trailer.off == run.size && trailer.off+trailer.size == file.Size
	return file.Key, whole && file.Own
}

// Reader reads the form from any offset on; close it after use. What is read ahead of the caller ends at the
// offset end, which is not a limit: reading goes on behind it.
func (n *NAR) Reader(ctx context.Context, end int64) io.ReadSeekCloser {
	return &narReader{nar: n, ctx: ctx, expect: min(end, n.Size), walk: planner{layout: n.layout, starts: n.starts, i: -1}}
}

// narReader goes through the layout. Literals are made on the way; the rest comes out of parts, which are
// planned by walk in the very order in which they are read here.
type narReader struct {
	nar    *NAR
	ctx    context.Context // of the one request that this reader serves
	at     int64
	ended  int64 // where the last read did
	expect int64 // where the caller is expected to stop
	size   int64 // of parts in memory; 0: not known yet
	early  bool  // nobody has asked for it yet

	walk   planner
	head   stretch // of what is read now; nil: nothing
	pos    int64   // bytes of the head's pack that are behind
	queue  queue   // what comes next and is on its way
	frame  []byte  // of literal span framed
	framed int
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
	r.at = offset // what is under way stays: the end is looked at, and then the beginning read
	return offset, nil
}

func (r *narReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if r.at >= r.nar.Size {
		return 0, io.EOF
	}
	if r.at != r.ended {
		r.ended = r.at
		if err := r.drop(); err != nil {
			return 0, err
		}
	}
	i := sort.Search(len(r.nar.starts), func(i int) bool { return r.nar.starts[i] > r.at }) - 1
	s, skip := r.nar.layout[i], r.at-r.nar.starts[i]
	if rest := s.streamSize() - skip; int64(len(b)) > rest {
		b = b[:rest]
	}
	var n int
	var err error
	if s.kind == literalSpan {
		n = copy(b, r.literal(i)[skip:])
	} else {
		n, err = r.pack(i, skip, b)
	}
	r.at += int64(n)
	r.ended = r.at
	if n > 0 {
		return n, nil // an error comes again with the next read
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the pack is shorter than its row says
	}
	if d := r.nar.depot; d.Suspect != nil && lost(err) != "" && r.ctx.Err() == nil {
		d.Suspect(s.pack)
	}
	return 0, fmt.Errorf("read pack %s: %w", r.nar.packs[s.pack].Key, err)
}

// literal is the frame of span i.
func (r *narReader) literal(i int) []byte {
	if r.frame == nil || r.framed != i {
		r.frame, r.framed = pack.LiteralFrame(r.frame[:0], r.nar.layout[i].literal), i
	}
	return r.frame
}

// pack reads of span i, which lies in a pack, from byte skip on.
func (r *narReader) pack(i int, skip int64, b []byte) (int, error) {
	s := r.nar.layout[i]
	off := s.off + skip
	if !r.holds(s.pack, off) {
		if err := r.advance(i, skip); err != nil {
			return 0, err
		}
	}
	n, err := r.head.readAt(b, off)
	r.pos = off + int64(n)
	return n, err
}

// holds tells whether the head still brings a byte: one that repeats comes in a later part.
func (r *narReader) holds(pack, off int64) bool {
	return r.head != nil && r.pos <= off && r.head.where().holds(pack, off)
}

// advance makes the head the part that holds byte skip of span i.
func (r *narReader) advance(i int, skip int64) error {
	if r.head != nil {
		if err := r.shut(); err != nil {
			return err
		}
	} else if r.walk.i < 0 {
		r.walk.i, r.walk.skip = i, skip // the first read, or the first one after a seek
	}
	if r.expect <= r.at {
		r.expect = r.nar.Size // the caller goes on all the same
	}
	if err := r.next(); err != nil {
		return err
	}
	r.pos = r.head.where().off
	if s := r.nar.layout[i]; !r.holds(s.pack, s.off+skip) {
		return errLayout // the plan and the reading disagree
	}
	return nil
}

func (r *narReader) shut() error {
	head := r.head
	r.head = nil
	return head.close()
}

// drop ends all that is open or under way; the next read begins anew.
func (r *narReader) drop() (err error) {
	if r.head != nil {
		err = r.shut()
	}
	r.walk.i, r.size = -1, 0
	return errors.Join(err, r.queue.drop())
}

func (r *narReader) Close() error { return r.drop() }
