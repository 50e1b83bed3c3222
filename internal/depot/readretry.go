package depot

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/org/attic-action/internal/blob"
)

// retried reads a part, and goes on where it was when that breaks off.
type retried struct {
	nar  *NAR
	ctx  context.Context // of the one request that this reader serves
	part part            // what is left of it
	body io.ReadCloser
	fail int // failures in a row
}

// A store may go on by itself, as that of S3 does, and longer than anybody here would. So these are few.
const (
	maxFails   = 2
	firstPause = 100 * time.Millisecond
)

// begin opens the part, so that what is missing shows before anything was promised.
func (r *retried) begin() (err error) {
	r.body, err = r.nar.open(r.ctx, r.part)
	return err
}

func (r *retried) Read(b []byte) (int, error) {
	for {
		if r.part.off >= r.part.end {
			return 0, io.EOF
		}
		n, err := r.read(b[:min(int64(len(b)), r.part.end-r.part.off)])
		if r.part.off += int64(n); n > 0 {
			r.fail = 0
			return n, nil
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		_ = r.Close()
		if r.fail++; r.fail > maxFails || r.nar.depot.Near == nil || !passes(err) || r.ctx.Err() != nil {
			return 0, err
		}
		select {
		case <-time.After(firstPause << r.fail):
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *retried) read(b []byte) (int, error) {
	if r.body == nil {
		if err := r.begin(); err != nil {
			return 0, err
		}
	}
	return r.body.Read(b)
}

// passes tells whether an error may be another one next time.
func passes(err error) bool {
	return !errors.Is(err, blob.ErrNotFound) && !errors.Is(err, blob.ErrRange) && !errors.Is(err, blob.ErrKey)
}

func (r *retried) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}
