package push

import (
	"bufio"
	"context"
	"fmt"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

// packFile is a pack that is being written, uploaded or stored.
type packFile struct {
	file *spool.File
	buf  *bufio.Writer
	w    *pack.Writer
	prev *packFile // own pack before this one of the same NAR
	own  *item

	ids      []chunk.ID // of the chunks first placed here
	sum      [32]byte
	settled  chan struct{} // closed when it is stored or refused
	refused  error         // set before settled is closed
	atServer bool          // guarded by the tracker, as is gone
	gone     bool          // refused
}

// writer is the only goroutine that puts frames into packs.
type writer struct {
	*run
	ctx     context.Context
	shared  *packFile // nil between packs
	own     *packFile
	after   *packFile // the own pack that the next one goes on from
	item    *item     // has own packs now
	written int64     // raw bytes of item in own packs
}

func (r *run) writeAll(ctx context.Context) error {
	w := &writer{run: r, ctx: ctx}
	defer w.drop(&w.shared)
	defer w.drop(&w.own)
	for {
		select {
		case j := <-r.order:
			if err := w.take(j); err != nil {
				return err
			}
		case <-r.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *writer) take(j *job) error {
	switch j.what {
	case jobOwn:
		w.item, w.after, w.written = j.item, nil, 0
		return nil
	case jobFrame:
		return w.frame(j)
	case jobFlush:
		return w.seal(&w.shared)
	case jobAbort:
		w.drop(&w.own) // what is sealed already stays, and is found by the next push
	case jobEnd:
		if err := w.seal(&w.own); err != nil {
			return err
		}
	}
	w.item = nil
	return w.end(j.item)
}

// frame waits for a compressor and adds what it made.
func (w *writer) frame(j *job) error {
	select {
	case <-j.done:
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	defer func() {
		j.raw, j.item = nil, nil
		w.free <- j // has room for every job
	}()
	if j.bad {
		w.book.forget([]chunk.ID{j.id}, onItsWay)
		w.track.fail(j.item, errChanged.Error())
		return nil
	}
	p, err := w.open(len(j.out))
	if err != nil {
		return err
	}
	if err := p.w.Add(j.kind, j.id, j.out, len(j.raw)); err != nil {
		return err
	}
	if j.kind == chunk.Chunk && w.book.place(j.id, p) {
		p.ids = append(p.ids, j.id)
	}
	if p.own != nil {
		w.written += int64(len(j.raw))
	}
	return nil
}

// indexEntry is about what an entry adds to a pack's index.
const indexEntry = 48

// open returns the pack that has room for a frame of size bytes.
func (w *writer) open(size int) (*packFile, error) {
	at, limit := &w.shared, min(sharedTarget, w.road.packBytes)
	if w.item != nil {
		at, limit = &w.own, min(ownTarget, w.road.packBytes)
	}
	if p := *at; p != nil && (!p.w.Fits(size) || p.w.Size()+int64(size)+int64(p.w.Len()+2)*indexEntry > limit) {
		if err := w.seal(at); err != nil {
			return nil, err
		}
	}
	if *at != nil {
		return *at, nil
	}
	room, flags := limit, uint16(0)
	if w.item != nil {
		// Twice the bytes to come, as if nothing compressed: a short literal takes more as a frame.
		flags, room = pack.FlagOwn, min(limit, 2*(int64(w.item.info.NarSize)-w.written)+1<<16)
	}
	file, err := w.spool.Create(w.ctx, room)
	if err != nil {
		return nil, fmt.Errorf("keep a pack on its way: %w", err)
	}
	p := &packFile{file: file, buf: bufio.NewWriterSize(file, 64<<10), own: w.item, settled: make(chan struct{})}
	p.w = pack.NewWriter(p.buf, flags)
	if w.item != nil {
		p.prev = w.after
	}
	*at = p
	return p, nil
}

// seal finishes the pack at p, if there is one, and has it uploaded.
func (w *writer) seal(at **packFile) error {
	p := *at
	if p == nil {
		return nil
	}
	*at = nil
	sum, _, err := p.w.Finish()
	if err == nil {
		err = p.buf.Flush()
	}
	if err != nil {
		p.file.Close()
		return fmt.Errorf("keep a pack on its way: %w", err)
	}
	p.sum, p.w, p.buf = sum, nil, nil
	if p.own != nil {
		w.after = p
	}
	w.progress.Packed.Add(p.file.Size())
	w.group.Go(func() error { return w.upload(w.ctx, p) })
	return nil
}

// drop forgets a pack that was not sealed.
func (w *writer) drop(at **packFile) {
	if p := *at; p != nil {
		w.book.forget(p.ids, p)
		p.file.Close()
		*at = nil
	}
}

// end notes where all of an item's chunks are.
func (w *writer) end(it *item) error {
	w.release(it)
	if !w.track.over(it) {
		packs, ok := w.book.packsOf(it)
		if !ok || !w.track.packed(it, packs) { // what it counted on went with another item
			if w.track.again(it, "its chunks could not be packed") {
				w.feeds.put(it)
				return nil
			}
		}
	}
	if w.last() {
		return w.seal(&w.shared) // not by through: the writer must not wait for itself
	}
	return nil
}

// upload sends a pack.
func (r *run) upload(ctx context.Context, p *packFile) error {
	defer p.file.Close()
	err := r.put(ctx, p)
	switch {
	case err == nil:
		r.packs.Add(1)
		r.newChunks.Add(int64(r.book.stored(p)))
		r.progress.Sent.Add(p.file.Size())
		close(p.settled)
		r.track.packStored(p)
		return nil
	case refused(err):
		r.p.log().Warn("pack refused", "err", err)
		p.refused = err
		r.book.forget(p.ids, p)
		close(p.settled)
		return r.refuse(ctx, p)
	}
	return err
}

func (r *run) put(ctx context.Context, p *packFile) error {
	out := client.Pack{SHA256: p.sum, Body: p.file, Size: p.file.Size()}
	if p.prev != nil {
		select {
		case <-p.prev.settled:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.prev.refused != nil {
			return p.prev.refused
		}
		out.After = &p.prev.sum
	}
	if err := r.uploads.Acquire(ctx, 1); err != nil {
		return err
	}
	defer r.uploads.Release(1)
	_, err := r.api.PutPack(ctx, r.cache, out)
	return err
}

// refuse settles who waited for a pack that the server did not take: the NAR it
// belongs to has failed, others have their chunks sent in another one.
func (r *run) refuse(ctx context.Context, p *packFile) error {
	if p.own != nil {
		r.track.fail(p.own, reasonOf(p.refused))
	}
	for _, it := range r.track.packRefused(p) {
		if err := r.repeat(ctx, it, reasonOf(p.refused)); err != nil {
			return err
		}
	}
	return nil
}

// repeat has the chunks of an item that was through packed again, unless that
// was done too often.
func (r *run) repeat(ctx context.Context, it *item, reason string) error {
	r.active.Add(1)
	if r.track.again(it, reason) {
		r.feeds.put(it)
		return nil
	}
	return r.through(ctx)
}
