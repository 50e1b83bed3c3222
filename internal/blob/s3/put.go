package s3

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/org/attic-action/internal/blob"
)

// putID is the name of the metadata that holds the random id of a Put.
const putID = "put-id"

// Put implements blob.Putter. A source that is no blob.Summed is read twice: once for its SHA-256,
// which is signed, so that the service refuses a body that was garbled or cut.
func (s *Store) Put(ctx context.Context, key string, src blob.Source) error {
	if err := s.put(ctx, key, src); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, src blob.Source) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	sum, err := sumOf(ctx, src)
	if err != nil {
		return err
	}
	p := &upload{Store: s, key: key, src: src, sum: sum, id: rand.Text()}
	return s.retry(ctx, s.patience, p.attempt)
}

// upload is one Put with all its attempts.
type upload struct {
	*Store
	key     string
	src     blob.Source
	sum, id string
	// unknown says that an attempt ended without an answer that can be trusted:
	// the object may be there, and be ours.
	unknown bool
}

func (u *upload) attempt(ctx context.Context, w *watch) error {
	if u.plain.Load() {
		if err := u.absent(ctx); err != nil {
			return u.taken(ctx, err)
		}
	}
	conditional := !u.plain.Load()
	err := u.send(ctx, w, conditional)
	if conditional && unsupported(err) {
		if err := u.absent(ctx); err != nil {
			return u.taken(ctx, err)
		}
		if err = u.send(ctx, w, false); err == nil {
			u.plain.Store(true) // for good: services learn this, but not while we run
		}
	}
	return u.taken(ctx, err)
}

// taken answers for a key that is in use: it is ours if an earlier attempt of
// ours put it there.
func (u *upload) taken(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, blob.ErrExists) {
		u.unknown = true
		return err
	}
	if !u.unknown {
		return err
	}
	head, herr := u.head(ctx, u.key)
	if isNotFound(herr) {
		return &refusal{transient: true, err: errors.New("the key was taken, and is free again")}
	}
	if herr != nil {
		return herr
	}
	if head.Metadata[putID] == u.id && aws.ToInt64(head.ContentLength) == u.src.Size() {
		return nil
	}
	return err
}

// absent is ErrExists unless the key is free.
func (u *upload) absent(ctx context.Context) error {
	_, err := u.head(ctx, u.key)
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		return &refusal{err: blob.ErrExists}
	}
	return err
}

func (u *upload) send(ctx context.Context, w *watch, conditional bool) error {
	body := newBody(u.src, w)
	// The HTTP client may still read after it has answered; the source is the
	// caller's again when Put returns.
	defer body.stop()
	in := &awss3.PutObjectInput{Bucket: &u.bucket, Key: &u.key, Body: body, ContentLength: aws.Int64(u.src.Size()),
		Metadata: map[string]string{putID: u.id}}
	if conditional {
		in.IfNoneMatch = aws.String("*")
	}
	_, err := u.client.PutObject(ctx, in, signBody(u.sum))
	if berr := body.stop(); berr != nil {
		return berr
	}
	// 304 is what MinIO answered before it learned 412.
	if status := statusOf(err); conditional && (status == http.StatusPreconditionFailed || status == http.StatusNotModified) {
		return &refusal{err: blob.ErrExists}
	}
	return err
}

// unsupported tells whether the service knows no conditional put.
func unsupported(err error) bool { return statusOf(err) == http.StatusNotImplemented }

// signBody hands the SDK the body's SHA-256, which it would compute for every
// attempt anew.
func signBody(sum string) func(*awss3.Options) {
	known := middleware.FinalizeMiddlewareFunc("KnownPayloadHash",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			return next.HandleFinalize(v4.SetPayloadHash(ctx, sum), in)
		})
	return func(o *awss3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error { return stack.Finalize.Add(known, middleware.Before) })
	}
}

// sourceError is the caller's own: no attempt helps.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read source: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// sumOf reads the whole source, if it must.
func sumOf(ctx context.Context, src blob.Source) (string, error) {
	if known, ok := src.(blob.Summed); ok {
		return hex.EncodeToString(known.SHA256[:]), ctx.Err()
	}
	h := sha256.New()
	buf := make([]byte, min(src.Size(), 256<<10))
	for off := int64(0); off < src.Size(); {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		part := buf[:min(int64(len(buf)), src.Size()-off)]
		if err := readFull(src, part, off); err != nil {
			return "", &sourceError{err}
		}
		h.Write(part)
		off += int64(len(part))
	}
	return hex.EncodeToString(h.Sum(nil)), ctx.Err()
}

func readFull(src io.ReaderAt, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// body is a source on its way out: every read is progress.
type body struct {
	watch *watch

	mu      sync.Mutex
	src     *io.SectionReader
	err     error // of the source
	stopped bool
}

func newBody(src blob.Source, w *watch) *body {
	return &body{watch: w, src: io.NewSectionReader(src, 0, src.Size())}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return 0, io.ErrClosedPipe
	}
	n, err := b.src.Read(p)
	switch {
	case err == io.EOF:
		b.watch.sent()
	case err != nil:
		b.err = &sourceError{err}
	default:
		b.watch.moved()
	}
	return n, err
}

// Seek implements io.Seeker, by which the SDK learns the size.
func (b *body) Seek(off int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.src.Seek(off, whence)
}

// stop ends reading and returns the source's error.
func (b *body) stop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	return b.err
}
