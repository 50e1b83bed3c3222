package depot

import (
	"context"
	"io"
	"time"
)

// Early is a NAR that comes from the bucket before anybody asks for it. Close it, or take its Reader and close
// that.
type Early struct {
	r      *narReader
	cancel context.CancelFunc
}

// Early begins to read the form, from its first byte on, as far as there is room. It is nil when there is no room,
// and for what needs none: a NAR that lies in the database, or on a disk. room tells one from the other.
func (n *NAR) Early() (e *Early, room bool) {
	if n.depot.Near == nil || len(n.packs) == 0 {
		return nil, true
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &narReader{nar: n, ctx: ctx, expect: n.Size, walk: planner{layout: n.layout, starts: n.starts}, early: true}
	if !r.begin() {
		cancel()
		return nil, false
	}
	return &Early{r: r, cancel: cancel}, true
}

// begin begins to fetch what comes first, if there is room for that.
func (r *narReader) begin() bool {
	s := r.prefetch()
	if s == nil {
		return false
	}
	r.head, r.pos = s, s.where().off
	for range maxAhead {
		if s = r.prefetch(); s == nil {
			break
		}
		r.queue.list = append(r.queue.list, s)
	}
	return true
}

// Failed tells whether some of what was fetched did not come. That may be seconds ago, and a new reader fare better.
func (e *Early) Failed() bool {
	for _, s := range append([]stretch{e.r.head}, e.r.queue.list...) {
		if b, ok := s.(*buffered); ok && b.failed() {
			return true
		}
	}
	return false
}

// Reader is that of a request for the form, and ends with ctx.
func (e *Early) Reader(ctx context.Context) io.ReadSeekCloser {
	e.r.early = false // what it fetches from now on was asked for
	e.r.queue.ahead, e.r.queue.turn = maxAhead, time.Now()
	stop := context.AfterFunc(ctx, e.cancel)
	return &earlyReader{narReader: e.r, early: e, stop: stop}
}

// Close ends what is under way.
func (e *Early) Close() error {
	e.cancel()
	return e.r.Close()
}

type earlyReader struct {
	*narReader
	early *Early
	stop  func() bool
}

func (r *earlyReader) Close() error {
	r.stop()
	return r.early.Close()
}
