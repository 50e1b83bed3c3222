package ledger

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/blob"
)

const (
	// ShardSize is the most bytes that a shard should have.
	ShardSize = 16 << 20
	// maxLine bounds a record, as in the log.
	maxLine = maxObject / 2

	manifestVersion = 1
)

// Manifest is a checkpoint: the shards that hold the state at a position, and the
// objects of the log that they replace. It is written when its shards are there,
// so one that is there is whole.
//
// The state is read in pieces while it goes on changing: a shard may hold what is
// newer than the position. That does no harm, since the log behind the position
// has all such changes, and applying them again changes nothing.
type Manifest struct {
	Version   int       `json:"version"`
	Position  Pos       `json:"position"`
	CreatedAt time.Time `json:"created_at"`
	Shards    []Shard   `json:"shards"`   // in the order in which they apply
	Replaces  []string  `json:"replaces"` // keys of the log's objects, sorted
}

// Shard is an object of a checkpoint: records, as in an object of the log.
type Shard struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"` // bytes
	SHA256  Hex    `json:"sha256"`
	Records int    `json:"records"`
}

// ShardWriter writes records as a shard to W and hashes it.
type ShardWriter struct {
	w       io.Writer
	enc     *zstd.Encoder
	sum     hash.Hash
	size    int64
	records int
}

// NewShardWriter begins a shard.
func NewShardWriter(w io.Writer) *ShardWriter {
	s := &ShardWriter{w: w, sum: sha256.New()}
	// The options are constants that NewWriter takes.
	s.enc, _ = zstd.NewWriter(countTo{s}, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	return s
}

type countTo struct{ s *ShardWriter }

func (c countTo) Write(b []byte) (int, error) {
	n, err := c.s.w.Write(b)
	c.s.sum.Write(b[:n])
	c.s.size += int64(n)
	return n, err
}

// Add appends a record.
func (s *ShardWriter) Add(r Record) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("write shard: %w", err)
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write shard: %w", err)
	}
	if len(line) >= maxLine {
		return fmt.Errorf("write shard: a record of %d bytes, at most %d fit", len(line), maxLine)
	}
	s.records++
	if _, err := s.enc.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write shard: %w", err)
	}
	return nil
}

// Size is how many bytes were written so far; up to a window's worth is still to
// come.
func (s *ShardWriter) Size() int64 { return s.size }

// Finish ends the shard and gives its place in a checkpoint at a position.
func (s *ShardWriter) Finish(at Pos) (Shard, error) {
	if err := s.enc.Close(); err != nil {
		return Shard{}, fmt.Errorf("write shard: %w", err)
	}
	sum := [32]byte(s.sum.Sum(nil))
	return Shard{Key: objectKey(ShardPrefix, at, sum), Size: s.size, SHA256: sum, Records: s.records}, nil
}

// Encode is the object of a manifest, and its key.
func (m *Manifest) Encode() (key string, object []byte, err error) {
	m.Version = manifestVersion
	text, err := json.Marshal(m)
	if err != nil {
		return "", nil, fmt.Errorf("write manifest: %w", err)
	}
	if len(text) > maxObject {
		return "", nil, fmt.Errorf("write manifest: %d bytes, at most %d fit", len(text), maxObject)
	}
	enc, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	object = enc.EncodeAll(text, nil)
	return objectKey(ManifestPrefix, m.Position, sha256.Sum256(object)), object, nil
}

// Manifests lists the keys of all manifests, the newest first.
func Manifests(ctx context.Context, blobs blob.Lister) ([]string, error) {
	return newestFirst(ctx, blobs, ManifestPrefix)
}

func newestFirst(ctx context.Context, blobs blob.Lister, prefix string) ([]string, error) {
	var keys []string
	err := blobs.List(ctx, prefix, func(i blob.Info) error {
		if _, err := parseKey(i.Key); err == nil {
			keys = append(keys, i.Key)
		}
		return nil
	})
	slices.Reverse(keys)
	return keys, err
}

// ReadManifest reads and checks a manifest. One that is of no use is an
// *ObjectError.
func ReadManifest(ctx context.Context, blobs blob.Getter, key string) (*Manifest, error) {
	o, err := parseKey(key)
	if err != nil || o.prefix != ManifestPrefix {
		return nil, &ObjectError{key, errKey}
	}
	data, err := readObject(ctx, blobs, key, maxObject)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(data, o)
	if err != nil {
		return nil, &ObjectError{key, err}
	}
	return m, nil
}

func decodeManifest(data []byte, o object) (*Manifest, error) {
	if got := sha256.Sum256(data); got != o.sum {
		return nil, fmt.Errorf("its SHA-256 is %x, not the one in its name", got)
	}
	dec := newDecoder()
	defer dec.Close()
	if err := dec.Reset(bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(dec, maxObject+1))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	var m Manifest
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&m); err != nil {
		return nil, err
	}
	switch {
	case m.Version != manifestVersion:
		return nil, fmt.Errorf("version %d; this program knows %d", m.Version, manifestVersion)
	case m.Position != o.pos:
		return nil, fmt.Errorf("it is of position %s", m.Position)
	}
	for _, s := range m.Shards {
		if so, err := parseKey(s.Key); err != nil || so.prefix != ShardPrefix || so.sum != s.SHA256 || s.Size > maxObject {
			return nil, fmt.Errorf("%.100q is no shard", s.Key)
		}
	}
	for _, key := range m.Replaces {
		if lo, err := parseKey(key); err != nil || lo.prefix != LogPrefix || lo.pos.Compare(m.Position) > 0 {
			return nil, fmt.Errorf("%.100q is no object of the log that it can replace", key)
		}
	}
	return &m, nil
}

// NewestCheckpoint finds the newest checkpoint whose shards are all there, by
// their sizes; if there is none such, the newest that can be read; if there is none
// at all, nil. What was passed over is told: newer checkpoints may have replaced
// log that is gone.
func NewestCheckpoint(ctx context.Context, blobs interface {
	blob.Getter
	blob.Lister
}) (key string, m *Manifest, passed []*ObjectError, err error) {
	keys, err := Manifests(ctx, blobs)
	if err != nil || len(keys) == 0 {
		return "", nil, nil, err
	}
	sizes := map[string]int64{}
	err = blobs.List(ctx, ShardPrefix, func(i blob.Info) error { sizes[i.Key] = i.Size; return nil })
	if err != nil {
		return "", nil, nil, err
	}
	for _, k := range keys {
		read, err := ReadManifest(ctx, blobs, k)
		var damaged *ObjectError
		if errors.As(err, &damaged) {
			passed = append(passed, damaged)
			continue
		}
		if err != nil {
			return "", nil, nil, err
		}
		whole := !slices.ContainsFunc(read.Shards, func(s Shard) bool { return sizes[s.Key] != s.Size })
		if whole {
			return k, read, passed, nil
		}
		if m == nil {
			key, m = k, read
		} else {
			passed = append(passed, &ObjectError{k, errors.New("a shard of it is not there")})
		}
	}
	return key, m, passed, nil
}

// CheckShard reads a shard back and compares its size and sum; *ObjectError when
// they are not right.
func CheckShard(ctx context.Context, blobs blob.Getter, s Shard) error {
	rc, err := blobs.Get(ctx, s.Key, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		return &ObjectError{s.Key, blob.ErrNotFound}
	}
	if err != nil {
		return err
	}
	defer rc.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(rc, maxObject+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", s.Key, err)
	}
	if n != s.Size || [32]byte(sum.Sum(nil)) != s.SHA256 {
		return &ObjectError{s.Key, errors.New("what was read back is not what was written")}
	}
	return nil
}

// ReadShard calls each for the records of a shard from a number on, once its sum
// is right. A shard that is of no use is an *ObjectError, if need be after some of
// its records; any other error is one of each, of ctx or of the bucket.
func ReadShard(ctx context.Context, blobs blob.Getter, s Shard, from int, each func(n int, r Record) error) error {
	data, err := readObject(ctx, blobs, s.Key, maxObject)
	if err != nil {
		return err
	}
	if int64(len(data)) != s.Size || sha256.Sum256(data) != s.SHA256 {
		return &ObjectError{s.Key, errors.New("it is not what its manifest says")}
	}
	dec := newDecoder()
	defer dec.Close()
	if err := dec.Reset(bytes.NewReader(data)); err != nil {
		return &ObjectError{s.Key, fmt.Errorf("decompress: %w", err)}
	}
	lines := bufio.NewScanner(dec)
	lines.Buffer(nil, maxLine)
	for n := 0; lines.Scan(); n++ {
		if n < from {
			continue
		}
		r, err := newRecordReader(bytes.NewReader(lines.Bytes())).next()
		if err != nil {
			return &ObjectError{s.Key, fmt.Errorf("line %d: %w", n+1, err)}
		}
		if err := each(n, r); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return &ObjectError{s.Key, err}
	}
	return nil
}

// Newer says whether the bucket has anything of a later epoch: then another server
// has rebuilt its database from this bucket, and this one's writes count for nothing.
func Newer(ctx context.Context, blobs blob.Lister, epoch uint64) (bool, error) {
	keys, err := Manifests(ctx, blobs)
	if err != nil {
		return false, err
	}
	if len(keys) > 0 {
		if pos, err := ParseKey(keys[0]); err == nil && pos.Epoch > epoch {
			return true, nil
		}
	}
	// A recovery raises the epoch by one, and the log of it stays until a checkpoint.
	found := false
	err = blobs.List(ctx, fmt.Sprintf("%s%0*d/", LogPrefix, epochDigits, epoch+1), func(blob.Info) error {
		found = true
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return false, err
	}
	return found, nil
}

var errStop = errors.New("stop")
