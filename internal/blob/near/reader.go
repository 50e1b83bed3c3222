package near

import (
	"context"
	"io"
)

// reader reads a stretch of one pack.
type reader struct {
	c       *Cache
	e       *entry
	ctx     context.Context // of the one request that this reader serves
	at, end int64

	slice  int // whose bytes are in buf; -1: none
	buf    *[]byte
	bytes  []byte
	direct io.ReadCloser // of the bucket, when the volume is of no use
}

// tries is how often a reader has a slice fetched that then is not there, before it goes to the bucket itself.
const tries = 2

func (r *reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if r.at >= r.end {
		return 0, io.EOF
	}
	if r.direct == nil {
		if err := r.turn(int(r.at / slice)); err != nil {
			return 0, err
		}
	}
	if rest := r.end - r.at; int64(len(b)) > rest {
		b = b[:rest]
	}
	var n int
	var err error
	if r.direct != nil {
		if n, err = r.direct.Read(b); err == io.EOF {
			err = nil
			if n == 0 {
				err = io.ErrUnexpectedEOF
			}
		}
	} else {
		n = copy(b, r.bytes[r.at%slice:])
	}
	r.at += int64(n)
	return n, err
}

// turn has slice i in r.bytes, or r.direct.
func (r *reader) turn(i int) error {
	if r.slice == i {
		return nil
	}
	if r.buf == nil {
		r.buf = buffers.Get().(*[]byte)
	}
	for range tries {
		there, err := r.await(i)
		if err != nil {
			return err
		}
		if !there {
			break
		}
		if r.bytes, err = readSlice(r.c.path(r.e), r.e.object, i, *r.buf); err == nil {
			r.slice = i
			return nil
		}
		r.c.mu.Lock()
		r.e.have[i] = false // damaged, or deleted by somebody
		r.c.mu.Unlock()
	}
	var err error
	r.direct, err = r.c.Blobs.Get(r.ctx, r.e.object.Key, r.at, r.end-r.at)
	return err
}

// await waits until slice i should be in the file. It is not there when the volume takes nothing.
func (r *reader) await(i int) (there bool, err error) {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	var f *flight
	for !r.e.have[i] {
		if f != nil && f.err != nil {
			if _, ours := f.err.(errStore); ours {
				return false, nil
			}
			return false, f.err
		}
		if f = r.e.flight(i); f == nil {
			c.want(r.e, i, int((r.end-1)/slice))
			if f = r.e.flight(i); f == nil {
				return false, nil
			}
		}
		progress := f.progress
		c.mu.Unlock()
		select {
		case <-progress:
		case <-r.ctx.Done():
			err = r.ctx.Err()
		}
		c.mu.Lock()
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

func (r *reader) Close() error {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf, r.slice = nil, -1
	}
	if r.direct == nil {
		return nil
	}
	direct := r.direct
	r.direct = nil
	return direct.Close()
}
