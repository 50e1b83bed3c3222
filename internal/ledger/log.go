package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
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

// Append stores records under a sequence number, durably when there is no error,
// and gives the keys of their objects. after is the position of the batch that was
// stored before this one, or nil where that is not known. The caller never uses a
// number twice. After an error some of the batch may be in the log: a number that
// failed is used up.
func (l *Log) Append(ctx context.Context, seq uint64, after *Pos, recs []Record) (keys []string, err error) {
	objects, err := encode(recs, objectSize)
	if err != nil {
		return nil, fmt.Errorf("append to log at %d: %w", seq, err)
	}
	for i, lines := range objects {
		h := head{Part: Part{N: i + 1, Of: len(objects)}, After: after}
		object := l.encoder().EncodeAll(append(h.lines(), lines...), nil)
		key := objectKey(LogPrefix, Pos{l.Epoch, seq}, sha256.Sum256(object))
		if err := l.Blobs.Put(ctx, key, blob.Bytes(object)); err != nil {
			return nil, fmt.Errorf("append to log at %d: %w", seq, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// head is what the first lines of an object say.
type head struct {
	Part  Part // 1 of 1 when nothing is said
	After *Pos // nil when nothing is said
}

func (h head) lines() []byte {
	var b []byte
	if h.Part.Of > 1 {
		b = fmt.Appendf(b, `{"part":{"n":%d,"of":%d}}`+"\n", h.Part.N, h.Part.Of)
	}
	if h.After != nil {
		b = fmt.Appendf(b, `{"after":{"epoch":%d,"seq":%d}}`+"\n", h.After.Epoch, h.After.Seq)
	}
	return b
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
	for _, member := range reflect.ValueOf(r).Fields() {
		if !member.IsNil() {
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
func decode(lines []byte) (head, []Record, error) {
	h := head{Part: Part{N: 1, Of: 1}}
	var recs []Record
	rr := newRecordReader(bytes.NewReader(lines))
	for n := 0; ; n++ {
		r, err := rr.next()
		if errors.Is(err, io.EOF) {
			return h, recs, nil
		}
		switch {
		case err != nil:
		case r.Part != nil && (n > 0 || r.Part.N < 1 || r.Part.N > r.Part.Of):
			err = errors.New("a part line that is not the first, or makes no sense")
		case r.Part != nil:
			h.Part = *r.Part
		case r.After != nil && (len(recs) > 0 || h.After != nil):
			err = errors.New("an after line that is not at the beginning")
		case r.After != nil:
			h.After = r.After
		default:
			recs = append(recs, r)
		}
		if err != nil {
			return h, nil, fmt.Errorf("line %d: %w", n+1, err)
		}
	}
}

// recordReader reads records one after the other.
type recordReader struct{ dec *json.Decoder }

func newRecordReader(r io.Reader) recordReader {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	return recordReader{dec}
}

// next is io.EOF at the end.
func (rr recordReader) next() (Record, error) {
	var r Record
	err := rr.dec.Decode(&r)
	if err == nil {
		err = r.check()
	}
	return r, err
}
