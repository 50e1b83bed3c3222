package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/org/attic-action/internal/blob"
)

const (
	// maxBarren is how many bodies in a row may break with little to show, and
	// littleProgress is what counts as little.
	maxBarren      = 8
	littleProgress = 64 << 10
)

// Get implements blob.Getter. A body that breaks, stalls or ends early is
// continued by another request from the byte it reached.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := s.get(ctx, key, off, n)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return r, nil
}

func (s *Store) get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	const most = 1 << 50 // no service has larger objects, and sums don't overflow
	if n == 0 || off < 0 || off > most || n > most {
		return s.nothing(ctx, key, off, n)
	}
	r := &reader{store: s, ctx: ctx, key: key, pos: off, end: -1}
	if n > 0 {
		r.end = off + n
	}
	err := r.open()
	if errors.Is(err, blob.ErrRange) && n < 0 {
		return s.nothing(ctx, key, off, 0) // of a range that begins at the very end S3 says the same
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// nothing is the answer for ranges without a byte: S3 has none such.
func (s *Store) nothing(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	size, err := s.size(ctx, key)
	if err != nil {
		return nil, err
	}
	if n != 0 || off < 0 || off > size {
		return nil, fmt.Errorf("%w: %d bytes from %d of %d", blob.ErrRange, n, off, size)
	}
	return http.NoBody, nil
}

func (s *Store) size(ctx context.Context, key string) (size int64, err error) {
	err = s.retry(ctx, s.patience, func(ctx context.Context, _ *watch) error {
		head, err := s.head(ctx, key)
		if err == nil {
			size = aws.ToInt64(head.ContentLength)
		}
		return err
	})
	return size, err
}

func (s *Store) head(ctx context.Context, key string) (*awss3.HeadObjectOutput, error) {
	return s.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &s.bucket, Key: &key})
}

// reader is a stretch of an object, over as many requests as it takes.
type reader struct {
	store *Store
	ctx   context.Context // of the one Get
	key   string
	pos   int64  // of the next byte
	end   int64  // one past the last; -1 before the first answer if it was not given
	etag  string // of the first answer

	body   io.ReadCloser // nil between two requests
	watch  *watch        // of body
	opened int64         // pos when body began
	broke  error         // what ended the last body before its time
	barren int           // bodies in a row that brought little
}

// open asks for what is left.
func (r *reader) open() error {
	return r.store.retryOpen(r.ctx, r.store.patience, func(ctx context.Context, w *watch) error {
		in := &awss3.GetObjectInput{Bucket: &r.store.bucket, Key: &r.key}
		if r.pos > 0 || r.end >= 0 {
			in.Range = aws.String(rangeHeader(r.pos, r.end))
		}
		if r.etag != "" {
			in.IfMatch = &r.etag
		}
		out, err := r.store.client.GetObject(ctx, in)
		if err != nil {
			return err
		}
		end, err := endOf(out, r.pos, r.end)
		if err != nil {
			_ = out.Body.Close() // it is not what was asked for
			return err
		}
		w.pause()
		r.body, r.watch, r.opened, r.end = out.Body, w, r.pos, end
		if tag := aws.ToString(out.ETag); !strings.HasPrefix(tag, "W/") {
			r.etag = tag
		}
		return nil
	})
}

func rangeHeader(pos, end int64) string {
	h := "bytes=" + strconv.FormatInt(pos, 10) + "-"
	if end >= 0 {
		h += strconv.FormatInt(end-1, 10)
	}
	return h
}

// endOf returns where the asked stretch ends, and ErrRange if the object is shorter.
func endOf(out *awss3.GetObjectOutput, pos, end int64) (int64, error) {
	if out.ContentRange == nil {
		if out.ContentLength == nil || pos > 0 || end >= 0 && end != *out.ContentLength {
			return 0, &refusal{err: errors.New("the service ignored the range asked for")}
		}
		return *out.ContentLength, nil
	}
	first, last, size, ok := parseContentRange(*out.ContentRange)
	if !ok || first != pos {
		return 0, &refusal{err: fmt.Errorf("the service answered another range: %s", line(*out.ContentRange))}
	}
	if end < 0 {
		end = size
	}
	if end < 0 || last >= end { // the size is unknown, or it is more than was asked for
		return 0, &refusal{err: fmt.Errorf("the service answered another range: %s", line(*out.ContentRange))}
	}
	if size >= 0 && size < end {
		return 0, &refusal{err: fmt.Errorf("%w: it has %d bytes", blob.ErrRange, size)}
	}
	return end, nil
}

// parseContentRange reads "bytes 0-9/10". The size is -1 for "*".
func parseContentRange(s string) (first, last, size int64, ok bool) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	stretch, total, slash := strings.Cut(rest, "/")
	from, to, dash := strings.Cut(stretch, "-")
	if !ok || !slash || !dash {
		return 0, 0, 0, false
	}
	size = -1
	for _, n := range []struct {
		text string
		to   *int64
	}{{from, &first}, {to, &last}, {total, &size}} {
		if n.text == "*" && n.to == &size {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 62)
		if err != nil {
			return 0, 0, 0, false
		}
		*n.to = int64(v)
	}
	return first, last, size, first <= last && (size < 0 || last < size)
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for r.pos != r.end {
		if len(p) == 0 {
			return 0, nil
		}
		if r.body == nil {
			if err := r.resume(); err != nil {
				return 0, fmt.Errorf("get %s from byte %d: %w", r.key, r.pos, err)
			}
		}
		if n := r.read(p[:min(int64(len(p)), r.end-r.pos)]); n > 0 {
			return n, nil
		}
	}
	r.drop()
	return 0, io.EOF
}

// read takes what the body has, and drops a body that breaks or ends before the
// stretch does.
func (r *reader) read(p []byte) int {
	r.watch.moved()
	n, err := r.body.Read(p)
	r.watch.pause()
	r.pos += int64(n)
	if err == io.EOF && r.pos < r.end {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		if r.broke = err; r.watch.stalled() {
			r.broke = errStalled
		}
		r.drop()
	}
	return n
}

// resume goes on after a body that broke.
func (r *reader) resume() error {
	if r.pos-r.opened >= littleProgress {
		r.barren = 0
	}
	if r.barren++; r.barren > maxBarren {
		return fmt.Errorf("%w: the body broke %d times in a row: %s", blob.ErrUnavailable, r.barren, line(innermost(r.broke).Error()))
	}
	if r.barren > 1 {
		pause, _ := r.store.pauseAfter(&refusal{transient: true, err: r.broke}, r.barren-2)
		if err := sleep(r.ctx, pause); err != nil {
			return err
		}
	}
	return r.open()
}

func (r *reader) drop() {
	if r.body == nil {
		return
	}
	r.watch.end()
	_ = r.body.Close() // nothing is written to it
	r.body = nil
}

// Close implements io.Closer. A body that was not read to its end costs its
// connection.
func (r *reader) Close() error {
	r.drop()
	r.end = r.pos
	return nil
}
