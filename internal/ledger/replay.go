package ledger

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/org/attic-action/internal/blob"
)

// Pos is the place of a record's batch in the log.
type Pos struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Compare orders positions as the log does.
func (p Pos) Compare(q Pos) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Seq, q.Seq))
}

// String is the position as it begins a key's names.
func (p Pos) String() string { return fmt.Sprintf("%d/%d", p.Epoch, p.Seq) }

// ObjectError is an object of the ledger that could not be used.
type ObjectError struct {
	Key string
	Err error
}

func (e *ObjectError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Err) }
func (e *ObjectError) Unwrap() error { return e.Err }

// Report is what a replay met beside what it replayed. Lists hold the first
// maxListed of what is counted: a bucket full of rubbish is one number.
type Report struct {
	Objects int // of the log that were replayed
	Last    Pos // of the last batch that was; the position it began from when none was

	// Lost is what was acknowledged, or may have been, and cannot be read.
	Lost      []*ObjectError
	LostCount int
	// Unacknowledged are objects of batches that failed: whoever sent them was told so.
	Unacknowledged      []string
	UnacknowledgedCount int
	// Foreign are objects whose keys are not of the log.
	Foreign      []string
	ForeignCount int
	MaxEpoch     uint64 // of any key
}

const maxListed = 1000

func (r *Report) lost(key string, err error) {
	if r.LostCount++; len(r.Lost) < maxListed {
		r.Lost = append(r.Lost, &ObjectError{key, err})
	}
}

func (r *Report) void(objects []object) {
	for _, o := range objects {
		if r.UnacknowledgedCount++; len(r.Unacknowledged) < maxListed {
			r.Unacknowledged = append(r.Unacknowledged, o.key)
		}
	}
}

func (r *Report) foreign(key string) {
	if r.ForeignCount++; len(r.Foreign) < maxListed {
		r.Foreign = append(r.Foreign, key)
	}
}

// object is one key of the ledger, taken apart.
type object struct {
	key    string
	prefix string
	pos    Pos
	sum    [32]byte
	size   int64 // as listed
}

// Replay calls each for every object of the log behind a checkpoint (nil: for the
// whole log), in the order of (epoch, seq) and of a batch's parts. What cannot be
// used, and what was never acknowledged, is passed over and told by the report,
// which is never nil. An error is one of each, of ctx or of the bucket; it ends
// the replay.
//
// Which batches were acknowledged, their After lines say: a batch is good if the
// next good one names it, and the last one is good. So those are held back whose
// successor is not known yet; usually that is one.
func (l *Log) Replay(ctx context.Context, base *Manifest, each func(p Pos, key string, recs []Record) error) (*Report, error) {
	r := &replay{blobs: l.Blobs, each: each}
	if base == nil {
		base = &Manifest{}
	}
	r.report.Last, r.report.MaxEpoch = base.Position, base.Position.Epoch
	if err := r.run(ctx, base); err != nil {
		return &r.report, fmt.Errorf("replay log: %w", err)
	}
	return &r.report, nil
}

type replay struct {
	blobs interface {
		blob.Getter
		blob.Lister
	}
	each    func(Pos, string, []Record) error
	report  Report
	pending []*batch // in order; all behind report.Last
}

// batch is the objects of one position.
type batch struct {
	pos     Pos
	objects []object // in the order of their parts
	broken  map[string]error
	partial error  // parts are missing
	prev    *batch // the pending one that it came after; nil: what is replayed already
	after   *Pos
	recs    []Record // of the only object, while it is the newest
}

func (r *replay) run(ctx context.Context, base *Manifest) error {
	replaced := map[string]bool{}
	for _, key := range base.Replaces {
		replaced[key] = true
	}
	var objects []object
	err := r.blobs.List(ctx, LogPrefix, func(info blob.Info) error {
		o, err := parseKey(info.Key)
		if err != nil {
			r.report.foreign(info.Key)
			return nil
		}
		o.size = info.Size
		r.report.MaxEpoch = max(r.report.MaxEpoch, o.pos.Epoch)
		if o.pos.Compare(base.Position) > 0 {
			objects = append(objects, o)
		} else if !replaced[o.key] {
			r.report.void([]object{o}) // the checkpoint was made without it
		}
		return nil
	})
	if err != nil {
		return err
	}
	if objects, err = r.fenced(ctx, objects, base.Position.Epoch); err != nil {
		return err
	}
	reader := newFetcher(ctx, r.blobs, objects)
	defer reader.close()
	for len(objects) > 0 {
		n := 1
		for n < len(objects) && objects[n].pos == objects[0].pos {
			n++
		}
		b, err := r.load(reader, objects[:n])
		if err != nil {
			return err
		}
		objects = objects[n:]
		if err := r.arrive(ctx, b); err != nil {
			return err
		}
	}
	if len(r.pending) == 0 {
		return nil
	}
	return r.settle(ctx, r.pending[len(r.pending)-1])
}

// fenced leaves out what a server wrote after another one had recovered from the
// bucket: the first batch of each epoch names the last batch of the epochs before it
// that counts.
func (r *replay) fenced(ctx context.Context, objects []object, epoch uint64) ([]object, error) {
	for i := 0; i < len(objects); i++ {
		first := objects[i]
		if first.pos.Epoch == epoch {
			continue
		}
		epoch = first.pos.Epoch
		h, _, err := r.again(ctx, first)
		var damaged *ObjectError
		if errors.As(err, &damaged) || err == nil && h.After == nil {
			continue // it is read once more, and named then
		}
		if err != nil {
			return nil, err
		}
		end := i
		for end > 0 && objects[end-1].pos.Compare(*h.After) > 0 {
			end--
		}
		r.report.void(objects[end:i])
		objects = slices.Delete(objects, end, i)
		i = end
	}
	return objects, nil
}

// load reads the objects of a position. Several are the parts of a batch: they
// are read once for their places and later once more, so that one at a time is in
// memory.
func (r *replay) load(reader *fetcher, objects []object) (*batch, error) {
	b := &batch{pos: objects[0].pos, objects: slices.Clone(objects), broken: map[string]error{}}
	places := map[string]Part{}
	parts := 0
	for _, o := range objects {
		h, recs, err := reader.next()
		if o.key != reader.at.key {
			return nil, fmt.Errorf("read %s: out of order", o.key)
		}
		var damaged *ObjectError
		if errors.As(err, &damaged) {
			b.broken[o.key] = damaged.Err
			continue
		}
		if err != nil {
			return nil, err
		}
		places[o.key], b.after = h.Part, h.After
		parts = max(parts, h.Part.Of)
		if len(objects) == 1 {
			b.recs = recs
		}
	}
	slices.SortStableFunc(b.objects, func(x, y object) int { return cmp.Compare(places[x.key].N, places[y.key].N) })
	if parts > 1 && parts != len(places) {
		b.partial = fmt.Errorf("%d of %d parts of a batch are there", len(places), parts)
	}
	return b, nil
}

// maxPending bounds the batches that are held back: more than a few in a row only
// fail when a bucket is down, and then their objects are not there.
const maxPending = 10_000

func (r *replay) arrive(ctx context.Context, b *batch) error {
	if n := len(r.pending); n > 0 {
		r.pending[n-1].recs = keepIfNext(r.pending[n-1], b)
	}
	switch before, err := r.before(b); {
	case err != nil:
		return err
	case before != nil && (!b.unreadable() || len(r.pending) > maxPending):
		if err := r.settle(ctx, before); err != nil {
			return err
		}
	default:
		b.prev = before
	}
	r.pending = append(r.pending, b)
	return nil
}

// keepIfNext keeps a batch's records in memory when it is about to be replayed.
func keepIfNext(last, b *batch) []Record {
	if !b.unreadable() && (b.after == nil || *b.after == last.pos) {
		return last.recs
	}
	return nil
}

// unreadable says that nothing is known of what came before the batch. A readable
// one without an After line is from before there were such lines: those followed
// one another.
func (b *batch) unreadable() bool { return len(b.broken) == len(b.objects) }

// before finds the pending batch that b came after. If b names one that is not
// there, something acknowledged is lost; it then follows what there is.
func (r *replay) before(b *batch) (*batch, error) {
	var newest *batch
	for _, p := range r.pending {
		if b.after != nil && p.pos.Compare(*b.after) > 0 {
			break
		}
		newest = p
	}
	if b.after == nil || newest != nil && newest.pos == *b.after {
		return newest, nil
	}
	if b.after.Compare(r.report.Last) <= 0 {
		return nil, nil
	}
	r.report.lost(LogPrefix+b.after.prefix(), errors.New("the batch is gone; the one after it names it"))
	return newest, nil
}

// settle replays the batches that led to one, it included, and gives up those
// between them.
func (r *replay) settle(ctx context.Context, last *batch) error {
	good := map[*batch]bool{}
	for b := last; b != nil; b = b.prev {
		good[b] = true
	}
	rest := slices.IndexFunc(r.pending, func(b *batch) bool { return b.pos.Compare(last.pos) > 0 })
	if rest < 0 {
		rest = len(r.pending)
	}
	settled := r.pending[:rest]
	r.pending = slices.Clone(r.pending[rest:])
	for _, b := range r.pending {
		if b.prev != nil && b.prev.pos.Compare(last.pos) <= 0 {
			b.prev = nil
		}
	}
	for _, b := range settled {
		if !good[b] {
			r.report.void(b.objects)
			continue
		}
		if err := r.apply(ctx, b); err != nil {
			return err
		}
		r.report.Last = b.pos
	}
	return nil
}

func (r *replay) apply(ctx context.Context, b *batch) error {
	if b.partial != nil && len(b.broken) == 0 {
		r.report.lost(b.objects[0].key, b.partial)
	}
	for _, o := range b.objects {
		err, recs := b.broken[o.key], b.recs
		if err == nil && recs == nil {
			_, recs, err = r.again(ctx, o)
		}
		var damaged *ObjectError
		if errors.As(err, &damaged) || b.broken[o.key] != nil {
			r.report.lost(o.key, cmp.Or(b.broken[o.key], err))
			continue
		}
		if err != nil {
			return err
		}
		if err := r.each(b.pos, o.key, recs); err != nil {
			return err
		}
		r.report.Objects++
	}
	return nil
}

// again reads one object by itself.
func (r *replay) again(ctx context.Context, o object) (head, []Record, error) {
	reader := newFetcher(ctx, r.blobs, []object{o})
	defer reader.close()
	return reader.next()
}

// Prefixes of keys.
const (
	LogPrefix      = "log/"
	ManifestPrefix = "checkpoints/"
	ShardPrefix    = "shards/"
)

// prefix is how keys of the position begin.
func (p Pos) prefix() string { return fmt.Sprintf("%0*d/%020d", epochDigits, p.Epoch, p.Seq) }

// epochDigits is the width of an epoch; a wider one would sort before narrower.
const epochDigits = 10

func objectKey(prefix string, pos Pos, sum [32]byte) string {
	return fmt.Sprintf("%s%s-%x", prefix, pos.prefix(), sum)
}

var errKey = errors.New("not a name of the ledger's")

// ParseKey gives the position in the key of a log object, a manifest or a shard.
func ParseKey(key string) (Pos, error) {
	o, err := parseKey(key)
	if err != nil {
		return Pos{}, fmt.Errorf("%w: %q", err, key)
	}
	return o.pos, nil
}

// parseKey is objectKey's inverse and takes nothing else: a number that is
// written otherwise would sort otherwise.
func parseKey(key string) (object, error) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 || !slices.Contains([]string{LogPrefix, ManifestPrefix, ShardPrefix}, parts[0]+"/") {
		return object{}, errKey
	}
	seq, sum, _ := strings.Cut(parts[2], "-")
	o := object{key: key, prefix: parts[0] + "/"}
	var err1, err2 error
	o.pos.Epoch, err1 = strconv.ParseUint(parts[1], 10, 64)
	o.pos.Seq, err2 = strconv.ParseUint(seq, 10, 64)
	if err1 != nil || err2 != nil || len(parts[1]) != epochDigits || len(sum) != 64 {
		return object{}, errKey
	}
	if _, err := hex.Decode(o.sum[:], []byte(sum)); err != nil || objectKey(o.prefix, o.pos, o.sum) != key {
		return object{}, errKey
	}
	return o, nil
}
