package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/blob"
)

// A thousand small objects one after the other would be a minute of round trips;
// so some are read ahead, as long as they are few bytes.
const (
	aheadObjects = 16
	aheadBytes   = 16 << 20
)

// fetcher reads objects of the log in order, some ahead.
type fetcher struct {
	ctx    context.Context // of the one replay that it reads for
	cancel func()
	blobs  blob.Getter
	dec    *zstd.Decoder
	todo   []object // not begun
	begun  []*fetch // in order
	bytes  int64    // of begun
	wg     sync.WaitGroup

	at object // that next read last
}

type fetch struct {
	object
	data []byte
	err  error
	done chan struct{}
}

func newFetcher(ctx context.Context, blobs blob.Getter, objects []object) *fetcher {
	ctx, cancel := context.WithCancel(ctx)
	return &fetcher{ctx: ctx, cancel: cancel, blobs: blobs, dec: newDecoder(), todo: objects}
}

func (f *fetcher) close() {
	f.cancel()
	f.wg.Wait()
	f.dec.Close()
}

// next reads the next object. An *ObjectError says that the object is of no use;
// any other error is one of the bucket or of ctx: going on would make every object
// look damaged.
func (f *fetcher) next() (head, []Record, error) {
	for len(f.todo) > 0 && (len(f.begun) == 0 || len(f.begun) < aheadObjects && f.bytes+f.todo[0].size <= aheadBytes) {
		one := &fetch{object: f.todo[0], done: make(chan struct{})}
		f.todo, f.begun, f.bytes = f.todo[1:], append(f.begun, one), f.bytes+one.size
		f.wg.Go(func() {
			one.data, one.err = readObject(f.ctx, f.blobs, one.key, maxObject)
			close(one.done)
		})
	}
	one := f.begun[0]
	<-one.done
	f.begun, f.bytes, f.at = f.begun[1:], f.bytes-one.size, one.object
	if one.err != nil {
		return head{}, nil, one.err
	}
	h, recs, err := parse(f.dec, one.data, one.sum)
	if err != nil {
		return h, nil, &ObjectError{one.key, err}
	}
	return h, recs, nil
}

// readObject reads an object of at most limit bytes. One that is not there, or is
// longer, is an *ObjectError.
func readObject(ctx context.Context, blobs blob.Getter, key string, limit int64) ([]byte, error) {
	rc, err := blobs.Get(ctx, key, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, &ObjectError{key, blob.ErrNotFound}
	}
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(data)) > limit {
		return nil, &ObjectError{key, fmt.Errorf("longer than %d bytes", limit)}
	}
	return data, nil
}

func newDecoder() *zstd.Decoder {
	// The options are constants that NewReader takes.
	dec, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxObject),
		zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	return dec
}

// parse checks an object against its name before anything of it is decoded.
func parse(dec *zstd.Decoder, data []byte, sum [32]byte) (head, []Record, error) {
	if got := sha256.Sum256(data); got != sum {
		return head{}, nil, fmt.Errorf("its SHA-256 is %x, not the one in its name", got)
	}
	if err := dec.Reset(bytes.NewReader(data)); err != nil {
		return head{}, nil, fmt.Errorf("decompress: %w", err)
	}
	lines, err := io.ReadAll(io.LimitReader(dec, maxObject+1))
	if err != nil {
		return head{}, nil, fmt.Errorf("decompress: %w", err)
	}
	if len(lines) > maxObject {
		return head{}, nil, fmt.Errorf("unpacks to more than %d bytes", maxObject)
	}
	h, recs, err := decode(lines)
	if err == nil && len(recs) == 0 {
		err = errors.New("no record in it")
	}
	return h, recs, err
}
