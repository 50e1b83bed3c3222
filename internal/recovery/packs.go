package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
)

// listed is a pack in the bucket.
type listed struct {
	key  string
	size int64
}

const (
	// tailSize has the whole index of nearly every pack: 1,600 entries.
	tailSize = 64 << 10
	// readAhead is how many packs are asked at a time.
	readAhead = 16
)

// packReader makes records of packs that no checkpoint has, from their ends.
type packReader struct {
	blobs   blob.Getter
	layouts *depot.Layouts

	mu   sync.Mutex
	read int // requests
}

// fetch reads the indexes of packs. One that is damaged is told of and left out.
func (r *packReader) fetch(ctx context.Context, packs []listed, damaged func(key string, err error)) ([]ledger.Record, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	recs, errs := make([]*ledger.Pack, len(packs)), make([]error, len(packs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, readAhead)
	for i, p := range packs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if recs[i], errs[i] = r.one(ctx, p); errs[i] != nil && !errors.Is(errs[i], pack.ErrFormat) && !errors.Is(errs[i], errName) {
				cancel()
			}
		})
	}
	wg.Wait()
	var out []ledger.Record
	var first error
	for i, err := range errs {
		switch {
		case err == nil:
			out = append(out, ledger.Record{Pack: recs[i]})
		case errors.Is(err, pack.ErrFormat) || errors.Is(err, errName):
			damaged(packs[i].key, err)
		case first == nil || errors.Is(first, context.Canceled):
			first = err
		}
	}
	return out, first
}

var errName = errors.New("not the key of a pack")

func (r *packReader) one(ctx context.Context, p listed) (*ledger.Pack, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := meta.PackSHA256(p.key); err != nil {
		return nil, fmt.Errorf("%w: %w", errName, err)
	}
	t := &tail{ctx: ctx, r: r, pack: p}
	ix, err := pack.ReadIndex(t, p.size)
	if t.err != nil {
		return nil, t.err // the bucket's, and not the pack's
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", pack.ErrFormat, err)
	}
	// The time of its upload is not known any more.
	return &ledger.Pack{Key: p.key, Size: p.size, Own: ix.Flags&pack.FlagOwn != 0, Index: r.layouts.EncodeIndex(ix), CreatedAt: time.Now()}, nil
}

// tail reads a pack from its end, in one request if its index is no longer than
// most.
type tail struct {
	ctx  context.Context // of the one read
	r    *packReader
	pack listed
	off  int64 // where data begins in the pack
	data []byte
	err  error
}

// ReadAt implements io.ReaderAt.
func (t *tail) ReadAt(b []byte, off int64) (int, error) {
	if t.data == nil || off < t.off {
		start := max(0, min(off, t.pack.size-tailSize))
		if t.data, t.err = t.get(start, t.pack.size-start); t.err != nil {
			return 0, t.err
		}
		t.off = start
	}
	n := copy(b, t.data[min(off-t.off, int64(len(t.data))):])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (t *tail) get(off, n int64) ([]byte, error) {
	t.r.mu.Lock()
	t.r.read++
	t.r.mu.Unlock()
	rc, err := t.r.blobs.Get(t.ctx, t.pack.key, off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data := make([]byte, n)
	if _, err := io.ReadFull(rc, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", t.pack.key, err)
	}
	return data, nil
}
