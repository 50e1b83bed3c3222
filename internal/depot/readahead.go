package depot

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob/near"
	"github.com/org/attic-action/internal/budget"
)

// A stretch is a part that is being read, front to back.
type stretch interface {
	where() part
	// readAt reads some bytes at offset off of the pack, which must not be before those read last.
	readAt(b []byte, off int64) (int, error)
	close() error
}

// With a bucket, the parts behind the one that the client gets now are on their way already, each over a
// connection of its own: that hides both the way there and what one connection gives. How many depends on how
// fast the client is; one that takes longer for a part than the bucket does needs none.
const (
	maxPart  = 4 << 20
	minPart  = 256 << 10
	fairPart = 1 << 20 // what is longer than that is worth another request
	maxAhead = 7       // parts; so many too before anything is known about the client
	// maxNear is what is read through the volume at once. It takes no memory.
	maxNear = 16 << 20
	// A part takes what is behind it too if that is at most a slack-th of it.
	slack = 4
)

// readAhead is what all readers of a depot share: memory for parts, of the depot's budget and at most half of it.
// Of that, half at most is for what nobody has asked for yet.
type readAhead struct {
	memory *budget.Bytes // the depot's
	share  *budget.Bytes
	early  *budget.Bytes
	size   int64                // of the largest parts, without slack
	spare  [partSizes]sync.Pool // buffers for parts of size, of half of it, of a quarter
}

const partSizes = 3

func newReadAhead(memory *budget.Bytes) *readAhead {
	const most = 24 << 20
	share := min(memory.Total()/2, most)
	return &readAhead{memory: memory, share: budget.New(share), early: budget.New(share / 2), size: max(minPart, min(share/8, maxPart))}
}

// part is how long parts are of which n bytes would do.
func (a *readAhead) part(n int64) int64 {
	size := a.size
	for i := 1; i < partSizes && n <= size/2; i++ {
		size /= 2
	}
	return size
}

// take gets memory for a part of n bytes if that needs no waiting.
func (a *readAhead) take(n int64, early bool) (buf []byte, release func(), ok bool) {
	class, size := 0, a.size+a.size/slack
	for class+1 < partSizes && n <= size/2 {
		class, size = class+1, size/2
	}
	if n > size {
		return nil, nil, false
	}
	from := []*budget.Bytes{a.share, a.memory}
	if early {
		from = append(from, a.early)
	}
	give, ok := takeOf(from, size)
	if !ok {
		return nil, nil, false
	}
	spare, _ := a.spare[class].Get().(*[]byte)
	if spare == nil {
		b := make([]byte, size)
		spare = &b
	}
	return (*spare)[:n], func() {
		a.spare[class].Put(spare)
		give()
	}, true
}

// takeOf takes n bytes of each of the budgets, or of none.
func takeOf(from []*budget.Bytes, n int64) (give func(), ok bool) {
	give = func() {}
	for _, b := range from {
		release, ok := b.TryAcquire(n)
		if !ok || b.Total() < n { // a budget gives to one what is more than all of it
			if ok {
				release()
			}
			give()
			return nil, false
		}
		before := give
		give = func() { release(); before() }
	}
	return give, true
}

// queue is what a reader has under way, in order, and what it knows about its client.
type queue struct {
	list  []stretch
	ahead int           // how many parts to have under way
	fetch time.Duration // what a part took last
	turn  time.Time     // when the head became the head
}

func (q *queue) drop() (err error) {
	for _, s := range q.list {
		err = errors.Join(err, s.close())
	}
	*q = queue{}
	return err
}

// next makes the next part the head, and begins to fetch those behind it.
func (r *narReader) next() error {
	q := &r.queue
	q.adapt(time.Now())
	if len(q.list) > 0 {
		r.head, q.list = q.list[0], q.list[1:]
	} else {
		head, err := r.first()
		if err != nil {
			return err
		}
		r.head = head
	}
	if r.nar.depot.Near == nil {
		return nil // a disk
	}
	for len(q.list) < q.ahead {
		s := r.prefetch()
		if s == nil {
			return nil
		}
		q.list = append(q.list, s)
	}
	return nil
}

// first is the part that comes next, when nothing is under way. With a bucket it comes by way of memory if there
// is some, so that those behind it need not wait for its first byte.
func (r *narReader) first() (stretch, error) {
	if r.nar.depot.Near != nil {
		if s := r.prefetch(); s != nil {
			return s, nil
		}
	}
	p, ok := r.walk.next(r.expect, r.most)
	if !ok {
		return nil, errLayout
	}
	return r.direct(p)
}

// adapt sets how many parts to have under way. As long as the client waits for the bucket, it takes parts as fast
// as they come, and one more is tried; if it takes four times as long for a part as the bucket does, then reading
// ahead is of no use to it, and the memory is of use to others.
func (q *queue) adapt(now time.Time) {
	took := now.Sub(q.turn)
	switch {
	case q.turn.IsZero():
		q.ahead = maxAhead
	case q.fetch == 0: // nothing is known yet
	case took > 4*q.fetch:
		q.ahead = 0
	default:
		q.ahead = int(min(1+q.fetch/max(took, 1), maxAhead))
	}
	q.turn = now
}

// most is the longest part of a pack.
func (r *narReader) most(pack int64) int64 {
	d := r.nar.depot
	switch {
	case d.Near == nil:
		return 1 << 62
	case r.nar.near(pack):
		return maxNear
	}
	if r.size == 0 { // even a NAR of a few MiB comes over several connections
		const parts = maxAhead + 1
		r.size = d.ahead.part(max(fairPart, (r.expect-r.at)/parts))
	}
	return r.size
}

// prefetch begins to fetch the part that comes next: onto the volume, or into memory. It returns nil if there is
// none, or no memory.
func (r *narReader) prefetch() stretch {
	mark := r.walk
	p, ok := r.walk.next(r.expect, r.most)
	if !ok {
		return nil
	}
	if r.nar.near(p.pack) {
		if s, err := r.direct(p); err == nil {
			return s
		}
	} else if buf, release, ok := r.nar.depot.ahead.take(p.end-p.off, r.early); ok {
		return r.buffer(p, buf, release)
	}
	r.walk = mark // it will be read, or fail, when it is its turn
	return nil
}

func (r *narReader) buffer(p part, buf []byte, release func()) *buffered {
	ctx, cancel := context.WithCancel(r.ctx)
	b := &buffered{part: p, queue: &r.queue, ctx: r.ctx, cancel: cancel, release: release, buf: buf,
		more: make(chan struct{}, 1), done: make(chan struct{})}
	go b.fill(&retried{nar: r.nar, ctx: ctx, part: p})
	return b
}

// direct is a part whose bytes come from their place as they are read.
func (r *narReader) direct(p part) (stretch, error) {
	body := &retried{nar: r.nar, ctx: r.ctx, part: p}
	if err := body.begin(); err != nil {
		return nil, err
	}
	return &straight{part: p, body: body}, nil
}

// near tells whether a pack is read through the volume. One that belongs to a NAR alone is not: it is large, and
// who reads it once does not come again. Of other NARs' own packs it is little that a NAR has in common with them,
// and often the same little for many.
func (n *NAR) near(pack int64) bool {
	return n.depot.Near != nil && n.depot.Near.Keeps() && (!n.packs[pack].Own || n.takesLittle(pack))
}

func (n *NAR) takesLittle(pack int64) bool {
	most := min(fairPart, n.packs[pack].Size/4)
	for _, s := range n.layout {
		if s.kind != literalSpan && s.pack == pack {
			if most -= s.size; most < 0 {
				return false
			}
		}
	}
	return true
}

// open opens a part where it lies.
func (n *NAR) open(ctx context.Context, p part) (io.ReadCloser, error) {
	file := n.packs[p.pack]
	if n.near(p.pack) {
		return n.depot.Near.Open(ctx, near.Object{Key: file.Key, Size: file.Size, Sparse: file.Own}, p.off, p.end-p.off)
	}
	return n.depot.Blobs.Get(ctx, file.Key, p.off, p.end-p.off)
}

// straight is a part that is read as it comes.
type straight struct {
	part
	body io.ReadCloser
	pos  int64 // bytes of the part that were read
}

func (s *straight) where() part { return s.part }

func (s *straight) readAt(b []byte, off int64) (int, error) {
	skip := off - s.off - s.pos
	if skip < 0 {
		return 0, errLayout
	}
	skipped, err := io.CopyN(io.Discard, s.body, skip)
	if s.pos += skipped; err != nil {
		return 0, err
	}
	n, err := s.body.Read(b)
	s.pos += int64(n)
	return n, err
}

func (s *straight) close() error { return s.body.Close() }

// buffered is a part that comes into memory while something else is read.
type buffered struct {
	part
	queue   *queue
	ctx     context.Context // of the reader
	cancel  context.CancelFunc
	release func()
	more    chan struct{} // has an element when there is more than before
	done    chan struct{} // closed when nothing more comes

	mu   sync.Mutex
	buf  []byte
	n    int // bytes of buf that are there
	err  error
	took time.Duration
}

// fill reads the part. It ends by itself, or with the part's context.
func (b *buffered) fill(body io.ReadCloser) {
	defer close(b.done)
	begun := time.Now()
	var err error
	for n := 0; n < len(b.buf) && err == nil; {
		var m int
		m, err = body.Read(b.buf[n:])
		n += m
		b.mu.Lock()
		b.n, b.err, b.took = n, err, time.Since(begun)
		b.mu.Unlock()
		select {
		case b.more <- struct{}{}:
		default:
		}
	}
	_ = body.Close() // was only read from
}

func (b *buffered) where() part { return b.part }

func (b *buffered) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && b.n < len(b.buf)
}

func (b *buffered) readAt(to []byte, off int64) (int, error) {
	at := int(off - b.off)
	for {
		b.mu.Lock()
		n, err := b.n, b.err
		if b.took > 0 && b.n == len(b.buf) {
			b.queue.fetch = b.took
		}
		b.mu.Unlock()
		switch {
		case at < n:
			return copy(to, b.buf[at:n]), nil // what is there does not change any more
		case err != nil:
			return 0, err
		}
		select {
		case <-b.more:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
}

// close gives the memory back when nobody writes to it any more, which is at once.
func (b *buffered) close() error {
	b.cancel()
	<-b.done
	b.release()
	return nil
}
