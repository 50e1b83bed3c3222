package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/blob"
)

const (
	// objectSize is how many bytes of JSON begin another object.
	objectSize = 16 << 20
	// maxObject bounds an object that is read, compressed and not: the bucket
	// is ours, but what is in it need not be, and a replay must not be killed by
	// a few KiB that unpack to gigabytes.
	maxObject = 64 << 20
)

// Log appends records to a bucket and reads them back. It must not be copied.
type Log struct {
	Blobs interface {
		blob.Getter
		blob.Putter
		blob.Lister
	}
	Epoch uint64 // of what is appended; recovery raises it

	once sync.Once
	enc  *zstd.Encoder
}

// Append stores records under a sequence number, durably when it returns nil.
// The caller never uses a number twice. After an error some of the batch may be
// in the log: a number that failed is used up.
func (l *Log) Append(ctx context.Context, seq uint64, recs []Record) error {
	objects, err := encode(recs, objectSize)
	if err != nil {
		return fmt.Errorf("append to log at %d: %w", seq, err)
	}
	for i, lines := range objects {
		if len(objects) > 1 {
			head, err := json.Marshal(Record{Part: &Part{N: i + 1, Of: len(objects)}})
			if err != nil {
				return fmt.Errorf("append to log at %d: %w", seq, err)
			}
			lines = append(append(head, '\n'), lines...)
		}
		object := l.encoder().EncodeAll(lines, nil)
		key := objectKey(Pos{l.Epoch, seq}, sha256.Sum256(object))
		if err := l.Blobs.Put(ctx, key, blob.Bytes(object)); err != nil {
			return fmt.Errorf("append to log at %d: %w", seq, err)
		}
	}
	return nil
}

// encoder keeps one encoder: records are small and appended one batch at a time,
// and its tables are the largest thing here.
func (l *Log) encoder() *zstd.Encoder {
	l.once.Do(func() {
		// The options are constants that NewWriter takes.
		l.enc, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	})
	return l.enc
}

// encode writes records as lines, in stretches of about size bytes. No record
// may be so large that Replay would refuse it.
func encode(recs []Record, size int) ([][]byte, error) {
	var objects [][]byte
	var lines []byte
	for i, r := range recs {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		line, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		if len(line) > maxObject/2 {
			return nil, fmt.Errorf("record %d: %d bytes, at most %d fit", i, len(line), maxObject/2)
		}
		if len(lines) > 0 && len(lines)+len(line) >= size {
			objects, lines = append(objects, lines), nil
		}
		lines = append(append(lines, line...), '\n')
	}
	if len(lines) > 0 {
		objects = append(objects, lines)
	}
	return objects, nil
}

// check says whether a record has exactly one member.
func (r Record) check() error {
	n := 0
	for _, has := range []bool{r.Part != nil, r.Cache != nil, r.CacheDeleted != nil, r.NAR != nil,
		r.Path != nil, r.PathDeleted != nil, r.TokenIssued != nil, r.TokenRevoked != nil, r.KeyRotated != nil,
		r.Policy != nil, r.PolicyDeleted != nil, r.Pin != nil, r.PinDeleted != nil} {
		if has {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("%d members, want exactly 1", n)
	}
	return nil
}

// decode reads an object's lines. A member that this program does not know is
// an error: replaying without it would rebuild another state.
func decode(lines []byte) ([]Record, error) {
	dec := json.NewDecoder(bytes.NewReader(lines))
	dec.DisallowUnknownFields()
	var recs []Record
	for {
		var r Record
		err := dec.Decode(&r)
		if errors.Is(err, io.EOF) {
			return recs, nil
		}
		if err == nil {
			err = r.check()
		}
		if err == nil && r.Part != nil && len(recs) > 0 {
			err = errors.New("a part line that is not the first")
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", len(recs), err)
		}
		recs = append(recs, r)
	}
}
