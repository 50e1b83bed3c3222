package push

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/pack"
)

// what a job asks of the writer.
type what uint8

const (
	jobFrame what = iota // add a frame to the pack
	jobOwn               // begin an own pack for the item
	jobEnd               // all of the item's frames have passed
	jobAbort             // the item could not be read to its end
	jobFlush             // nothing more will come for the shared pack
)

// job is one entry on its way through compression into a pack. The feeder makes
// them in order, and the writer takes them in that order.
type job struct {
	what what
	item *item
	kind chunk.Kind
	id   chunk.ID
	raw  []byte
	out  []byte        // the frame
	bad  bool          // raw does not hash to id
	done chan struct{} // holds a token when out is ready

	check bool   // raw was read a second time and shares a pack with others
	buf   []byte // raw's own memory, when it isn't the item's
}

// makeJobs makes the jobs there will ever be. They bound the memory between
// feeder and writer: two buffers of one chunk each.
func (r *run) makeJobs() {
	n := min(3*r.p.workers()+2, max(4, (24<<20)/r.road.cut.Max))
	r.free, r.work, r.order = make(chan *job, n), make(chan *job, n), make(chan *job, n)
	for range n {
		r.free <- &job{done: make(chan struct{}, 1)}
	}
}

// send hands a job to the writer.
func (r *run) send(ctx context.Context, j *job) error {
	select {
	case r.order <- j:
		return nil
	case <-r.done:
		return nil // nobody waits for it any more
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *run) compressAll(ctx context.Context) error {
	for {
		select {
		case j := <-r.work:
			j.bad = j.check && chunk.Sum(j.raw) != j.id
			j.out = r.encoder.Frame(j.out[:0], j.raw)
			j.done <- struct{}{}
		case <-r.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// feedAll takes items whose chunks are known or not, and has the missing ones
// packed; those of one item together.
func (r *run) feedAll(ctx context.Context) error {
	for {
		batch := r.feeds.take(ctx, r.done)
		if len(batch) == 0 {
			return ctx.Err()
		}
		for _, it := range batch {
			if err := r.feed(ctx, it); err != nil {
				return err
			}
		}
	}
}

func (r *run) feed(ctx context.Context, it *item) error {
	if r.track.over(it) {
		return r.send(ctx, &job{what: jobEnd, item: it})
	}
	f := &feeder{run: r, ctx: ctx, item: it}
	if it.info.NarSize >= ownLeast && it.repeated() <= it.info.NarSize/ownRepeats && r.book.allNew(it) {
		f.own = true
		if err := r.send(ctx, &job{what: jobOwn, item: it}); err != nil {
			return err
		}
	}
	next, stop := iter.Pull2(chunk.ParsePieces(it.pieces))
	defer stop()
	f.next = next
	err := f.feed()
	f.giveBack()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		r.track.fail(it, err.Error())
		return r.send(ctx, &job{what: jobAbort, item: it})
	}
	return r.send(ctx, &job{what: jobEnd, item: it})
}

// feeder walks over a NAR and its piece list side by side.
type feeder struct {
	run  *run
	ctx  context.Context
	item *item
	own  bool // every piece goes into the pack, else only chunks that are missing
	next func() (chunk.Piece, error, bool)

	piece chunk.Piece
	sizes int  // chunks so far
	left  int  // bytes of the present piece to come
	job   *job // of the present piece; nil when it is not packed
}

func (f *feeder) feed() error {
	if f.item.data != nil {
		return f.memory()
	}
	if f.nothing() {
		return nil
	}
	if err := nar.Dump(f, f.item.info.Path.String()); err != nil {
		return fmt.Errorf("read again: %w", err)
	}
	if more, err := f.advance(); err != nil || more || f.left > 0 {
		return errors.Join(err, errChanged)
	}
	return nil
}

// giveBack returns the job of a piece that did not come to its end.
func (f *feeder) giveBack() {
	if f.job == nil {
		return
	}
	f.run.book.forget([]chunk.ID{f.job.id}, onItsWay)
	f.job.raw, f.job.item = nil, nil
	f.run.free <- f.job
	f.job = nil
}

var errChanged = errors.New("the contents changed while they were read")

// nothing reports whether no chunk has to be sent, so that the NAR need not be
// read a second time.
func (f *feeder) nothing() bool {
	if f.own {
		return false
	}
	for id := range f.item.chunks() {
		if f.run.book.wants(id) {
			return false
		}
	}
	return true
}

// memory feeds a NAR that was kept.
func (f *feeder) memory() error {
	data := f.item.data
	for {
		more, err := f.advance()
		if err != nil || !more {
			return err
		}
		if f.job != nil {
			f.job.raw = data[:f.left:f.left]
			if err := f.submit(); err != nil {
				return err
			}
		}
		data = data[f.left:]
	}
}

// Write feeds a NAR as it is read again.
func (f *feeder) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if f.left == 0 {
			if more, err := f.advance(); err != nil || !more {
				return 0, errors.Join(err, errChanged)
			}
		}
		take := min(len(b), f.left)
		if f.job != nil {
			f.job.raw = append(f.job.raw, b[:take]...)
		}
		f.left -= take
		b = b[take:]
		if f.left == 0 && f.job != nil {
			if err := f.submit(); err != nil {
				return 0, err
			}
		}
	}
	return n, f.ctx.Err()
}

// advance goes to the next piece; it is false after the last.
func (f *feeder) advance() (bool, error) {
	piece, err, ok := f.next()
	if err != nil || !ok {
		return false, err
	}
	f.piece, f.job = piece, nil
	if piece.Kind == chunk.Literal {
		f.left = len(piece.Literal)
	} else {
		f.left = int(f.item.sizes[f.sizes])
		f.sizes++
	}
	claimed := piece.Kind == chunk.Chunk && f.run.book.claim(piece.ID)
	if !f.own && !claimed {
		return true, nil
	}
	select {
	case f.job = <-f.run.free:
	case <-f.ctx.Done():
		return false, f.ctx.Err()
	}
	j := f.job
	if j.buf == nil && f.item.data == nil {
		j.buf = make([]byte, 0, f.run.road.cut.Max)
	}
	j.what, j.item, j.kind, j.id, j.bad = jobFrame, f.item, piece.Kind, piece.ID, false
	j.raw, j.check = j.buf[:0], !f.own && f.item.data == nil
	return true, nil
}

// submit hands the present piece to a compressor and, in order, to the writer.
func (f *feeder) submit() error {
	j := f.job
	f.job = nil
	if j.kind == chunk.Literal {
		j.id = chunk.Sum(j.raw)
		j.out = pack.LiteralFrame(j.out[:0], j.raw)
		j.done <- struct{}{}
	} else {
		select {
		case f.run.work <- j:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
	}
	return f.run.send(f.ctx, j)
}
