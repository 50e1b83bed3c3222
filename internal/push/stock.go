package push

import (
	"context"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/nar"
)

// pushStock sends whole NARs, as the stock client does. The server checks their
// hashes and takes them in any order.
func (p *Pusher) pushStock(ctx context.Context, plan *plan, res *Result) error {
	var mu sync.Mutex
	done := map[*item]string{} // reason, empty when pushed
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.jobs()) // bound by the network
	for _, it := range plan.items {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			err := p.uploadStock(gctx, plan, it)
			if err != nil && !refused(err) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			done[it] = ""
			if err != nil {
				done[it] = reasonOf(err)
			}
			p.progress().PathsDone.Add(1)
			return nil
		})
	}
	err := g.Wait()
	for _, it := range plan.items {
		reason, ended := done[it]
		switch {
		case !ended && ctx.Err() != nil:
			reason = "interrupted"
		case !ended && err != nil:
			reason = err.Error()
		case reason == "":
			res.Pushed++
			res.NARBytes += int64(it.info.NarSize)
			continue
		}
		res.Failed = append(res.Failed, Failure{it.info.Path.String(), reason})
	}
	return err
}

func (p *Pusher) uploadStock(ctx context.Context, plan *plan, it *item) error {
	h := it.header()
	_, err := plan.api.UploadPath(ctx, api.UploadInfo{
		Cache: plan.cache, StorePathHash: it.info.Path.Hash(), StorePath: h.StorePath,
		References: h.References, Sigs: h.Sigs, CA: h.CA, NARHash: it.info.NarHash, NARSize: h.NARSize,
	}, func() (io.Reader, error) {
		return &narReader{path: h.StorePath, read: func(n int) { p.progress().Scanned.Add(int64(n)) }}, nil
	})
	return err
}

// narReader reads the NAR of a store path. It starts with the first Read,
// because a request that is repeated makes readers that nobody reads.
type narReader struct {
	path string
	read func(int)

	start sync.Once
	pipe  *io.PipeReader
	ended chan struct{} // closed when the store path is not read any more
}

func (r *narReader) Read(b []byte) (int, error) {
	r.start.Do(func() {
		var w *io.PipeWriter
		r.pipe, w = io.Pipe()
		r.ended = make(chan struct{})
		go func() {
			defer close(r.ended)
			w.CloseWithError(nar.Dump(w, r.path)) // nil is io.EOF
		}()
	})
	if r.pipe == nil {
		return 0, io.ErrClosedPipe
	}
	n, err := r.pipe.Read(b)
	r.read(n)
	return n, err
}

// Close stops the reading and waits for it.
func (r *narReader) Close() error {
	r.start.Do(func() {})
	if r.pipe == nil {
		return nil
	}
	_ = r.pipe.Close() // always nil; the writer sees ErrClosedPipe
	<-r.ended
	return nil
}
