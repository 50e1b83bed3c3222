package ledger

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/blob"
)

// Pos is the place of a record's batch in the log.
type Pos struct{ Epoch, Seq uint64 }

// ObjectError is an object of the log that Replay could not use.
type ObjectError struct {
	Key string
	Err error
}

func (e *ObjectError) Error() string { return fmt.Sprintf("log object %s: %v", e.Key, e.Err) }
func (e *ObjectError) Unwrap() error { return e.Err }

// DamageError lists what Replay passed over. All else was replayed. A caller
// that can live with the loss goes on; errors.As finds it.
type DamageError struct {
	Objects []*ObjectError // the first maxDamage of them
	Count   int            // all of them
}

// maxDamage bounds what is remembered: a bucket full of rubbish is one error.
const maxDamage = 1000

func (e *DamageError) Error() string {
	return fmt.Sprintf("%d objects of the log cannot be used, the first: %v", e.Count, e.Objects[0])
}

func (e *DamageError) add(key string, err error) {
	if e.Count++; len(e.Objects) < maxDamage {
		e.Objects = append(e.Objects, &ObjectError{key, err})
	}
}

// object is one key of the log, taken apart.
type object struct {
	key string
	pos Pos
	sum [32]byte
}

// Replay calls each for every record in the order of (epoch, seq) and, within a
// batch, in the order it was appended. A record may come twice. Objects that
// cannot be used (foreign names, wrong sums, broken contents, missing parts) are
// passed over and come as a *DamageError at the end; an error of each, of ctx or
// of the bucket itself ends the replay and is returned.
func (l *Log) Replay(ctx context.Context, each func(Pos, Record) error) error {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxObject),
		zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	defer dec.Close()
	r := &replay{blobs: l.Blobs, dec: dec, each: each}
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	if r.damage.Count > 0 {
		return fmt.Errorf("replay log: %w", &r.damage)
	}
	return nil
}

type replay struct {
	blobs  blob.Getter
	dec    *zstd.Decoder
	each   func(Pos, Record) error
	damage DamageError
	batch  []object // the objects of one position
}

func (r *replay) run(ctx context.Context) error {
	lister, ok := r.blobs.(blob.Lister)
	if !ok {
		return errors.New("the store cannot list")
	}
	// Keys have numbers of fixed width, so bytewise order is the log's order.
	err := lister.List(ctx, "log/", func(info blob.Info) error {
		o, err := parseKey(info.Key)
		if err != nil {
			r.damage.add(info.Key, err)
			return nil
		}
		if len(r.batch) > 0 && r.batch[0].pos != o.pos {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		r.batch = append(r.batch, o)
		return nil
	})
	if err != nil {
		return err
	}
	return r.flush(ctx)
}

// flush replays the objects of one position. Several are the parts of a batch:
// they are read once for their places and once more in that order, so that one
// at a time is in memory.
func (r *replay) flush(ctx context.Context) error {
	batch := r.batch
	r.batch = nil
	if len(batch) == 1 {
		recs, err := r.read(ctx, batch[0])
		if err != nil || recs == nil {
			return err
		}
		if p := recs[0].Part; p != nil && p.Of != 1 {
			r.damage.add(batch[0].key, fmt.Errorf("part %d of %d is alone: the batch was never acknowledged, or lost a part", p.N, p.Of))
		}
		return r.apply(batch[0].pos, recs)
	}
	places := map[object]Part{}
	for _, o := range batch {
		recs, err := r.read(ctx, o)
		if err != nil {
			return err
		}
		if recs != nil {
			places[o] = partOf(recs)
		}
	}
	batch = slices.DeleteFunc(batch, func(o object) bool { _, ok := places[o]; return !ok })
	slices.SortStableFunc(batch, func(a, b object) int { return cmp.Compare(places[a].N, places[b].N) })
	for i, o := range batch {
		if p := places[o]; p.Of > 1 && (p.Of != len(batch) || p.N != i+1) {
			r.damage.add(o.key, fmt.Errorf("part %d of %d lies among %d objects: the batch was never acknowledged, or lost a part", p.N, p.Of, len(batch)))
		}
		recs, err := r.read(ctx, o)
		if err != nil {
			return err
		}
		if err := r.apply(o.pos, recs); err != nil {
			return err
		}
	}
	return nil
}

// partOf is the place an object says it has; one that says none stands alone.
func partOf(recs []Record) Part {
	if recs[0].Part != nil {
		return *recs[0].Part
	}
	return Part{N: 1, Of: 1}
}

func (r *replay) apply(pos Pos, recs []Record) error {
	for _, rec := range recs {
		if rec.Part != nil {
			continue
		}
		if err := r.each(pos, rec); err != nil {
			return err
		}
	}
	return nil
}

// read gives an object's records. Nil without an error means that the object
// was of no use, which is noted. An error is one of the bucket or of ctx: going
// on would make every object look damaged.
func (r *replay) read(ctx context.Context, o object) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rc, err := r.blobs.Get(ctx, o.key, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		r.damage.add(o.key, err) // it went while we listed
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, maxObject+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.key, err)
	}
	recs, err := r.parse(data, o.sum)
	if err != nil {
		r.damage.add(o.key, err)
		return nil, nil
	}
	return recs, nil
}

// parse checks an object against its name before anything of it is decoded.
func (r *replay) parse(data []byte, sum [32]byte) ([]Record, error) {
	if len(data) > maxObject {
		return nil, fmt.Errorf("longer than %d bytes", maxObject)
	}
	if got := sha256.Sum256(data); got != sum {
		return nil, fmt.Errorf("its SHA-256 is %x, not the one in its name", got)
	}
	if err := r.dec.Reset(bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	lines, err := io.ReadAll(io.LimitReader(r.dec, maxObject+1))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(lines) > maxObject {
		return nil, fmt.Errorf("unpacks to more than %d bytes", maxObject)
	}
	recs, err := decode(lines)
	if err == nil && len(recs) == 0 {
		err = errors.New("no record in it")
	}
	return recs, err
}

// epochDigits is the width of an epoch; a wider one would sort before narrower.
const epochDigits = 10

func objectKey(pos Pos, sum [32]byte) string {
	return fmt.Sprintf("log/%0*d/%020d-%x", epochDigits, pos.Epoch, pos.Seq, sum)
}

var errKey = errors.New("not the name of a log object")

// parseKey is objectKey's inverse and takes nothing else: a number that is
// written otherwise would sort otherwise.
func parseKey(key string) (object, error) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 || parts[0] != "log" {
		return object{}, errKey
	}
	seq, sum, _ := strings.Cut(parts[2], "-")
	o := object{key: key}
	var err1, err2 error
	o.pos.Epoch, err1 = strconv.ParseUint(parts[1], 10, 64)
	o.pos.Seq, err2 = strconv.ParseUint(seq, 10, 64)
	if err1 != nil || err2 != nil || len(parts[1]) != epochDigits || len(sum) != 64 {
		return object{}, errKey
	}
	if _, err := hex.Decode(o.sum[:], []byte(sum)); err != nil || objectKey(o.pos, o.sum) != key {
		return object{}, errKey
	}
	return o, nil
}
