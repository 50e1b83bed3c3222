// Package recovery rebuilds a database from its bucket, and compares the two.
//
//	checkpoints/ ── newest whole one ──┐
//	shards/  packs, NARs, paths, … ────┼──► rows, a few thousand a transaction
//	log/     what came after ──────────┘        (its packs: one read of each one's end)
//	packs/   listed ──► which are gone
//	                                   ──► what each cache sees, by the runs of its paths
//	log/<epoch+1>/1 ◄── a record: this epoch begins
//
// What it cannot read it names, and leaves out. A path whose pack is gone is left out
// as well: clients are told that it is missing, so the next push heals it.
package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// ErrChanged says that the database was begun from another checkpoint than the
// newest: it must be begun anew.
var ErrChanged = errors.New("the bucket has a newer checkpoint than the one that was begun with")

// Blobs is what a recovery needs of a bucket: it deletes nothing.
type Blobs interface {
	blob.Getter
	blob.Putter
	blob.Lister
}

// Recovery rebuilds a database.
type Recovery struct {
	Blobs   Blobs
	DB      *meta.DB // opened with Layouts and without a journal; empty, or begun by an earlier Run
	Layouts *depot.Layouts
	Now     func() time.Time // nil means time.Now

	Progress func(stage string, done, of int) // nil means nobody asks
	Lost     func(line string)                // told of each thing as it is found lost; nil means nobody asks
}

// Result is what a recovery found.
type Result struct {
	Counts     meta.Counts `json:"restored"`
	Checkpoint string      `json:"checkpoint,omitempty"` // key of the manifest; empty: there is none
	Position   string      `json:"position"`             // of the last batch, epoch/sequence
	Epoch      uint64      `json:"epoch"`                // that begins now
	Objects    int         `json:"objects_read"`         // of the bucket
	LogObjects int         `json:"log_objects"`          // of them, of the log
	Seconds    float64     `json:"seconds"`

	// Lost is what was acknowledged and could not be brought back, a line each. The
	// first maxLines; LostCount has all.
	Lost      []string `json:"lost"`
	LostCount int      `json:"lost_count"`

	// What was never acknowledged: objects of the log whose batch failed, and packs
	// that no path needs.
	Unacknowledged int   `json:"unacknowledged_log_objects"`
	StrayPacks     int64 `json:"unreferenced_packs"`
	StrayBytes     int64 `json:"unreferenced_pack_bytes"`
	Foreign        int   `json:"foreign_objects"` // keys in the log that are not the log's
}

const (
	maxLines = 10_000
	// batchRows is how many records make a transaction.
	batchRows = 2000
)

// state is how far a recovery is; a fact.
type state struct {
	Manifest string `json:"manifest"`
	Shard    int    `json:"shard"`
	Record   int    `json:"record"` // the first of the shard that is not applied
}

type job struct {
	*Recovery
	result Result
	state  state
	packs  packReader

	// Packs whose ends cannot be read, a line each. They are lost if a path needs them: the log may speak of what was
	// pushed again since.
	unread  []string
	needsIt bool
}

// Run rebuilds the database. If it is broken off, it goes on where it was when it
// is called again with the same database.
func (r *Recovery) Run(ctx context.Context) (*Result, error) {
	j := &job{Recovery: r, packs: packReader{blobs: r.Blobs, layouts: r.Layouts}}
	j.result.Lost = []string{}
	start := time.Now()
	if err := j.run(ctx); err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	j.result.Objects += j.packs.read
	j.result.Seconds = time.Since(start).Seconds()
	return &j.result, nil
}

func (j *job) run(ctx context.Context) error {
	j.progress("look at the bucket", 0, 0)
	base, err := j.begin(ctx)
	if err != nil {
		return err
	}
	if err := j.listPacks(ctx); err != nil {
		return err
	}
	if base != nil {
		if err := j.shards(ctx, base); err != nil {
			return err
		}
	}
	report, err := j.replay(ctx, base)
	if err != nil {
		return err
	}
	if err := j.settle(ctx); err != nil {
		return err
	}
	return j.end(ctx, report)
}

// begin finds the checkpoint, and where the last attempt stopped.
func (j *job) begin(ctx context.Context) (*ledger.Manifest, error) {
	key, base, passed, err := ledger.NewestCheckpoint(ctx, j.Blobs)
	if err != nil {
		return nil, err
	}
	for _, p := range passed {
		j.lost("checkpoint %s: %v; what only it had is gone", p.Key, p.Err)
	}
	var text []byte
	err = j.DB.View(ctx, func(tx *meta.Tx) (err error) {
		text, err = tx.Fact(meta.FactRecovery)
		return err
	})
	if err != nil {
		return nil, err
	}
	if text != nil {
		if err := json.Unmarshal(text, &j.state); err != nil || j.state.Manifest != key {
			return nil, ErrChanged
		}
	}
	j.state.Manifest, j.result.Checkpoint = key, key
	if base != nil {
		j.result.Objects++
	}
	return base, j.DB.Update(ctx, j.save)
}

func (j *job) save(tx *meta.Tx) error {
	text, err := json.Marshal(j.state)
	if err != nil {
		return err
	}
	return tx.SetFact(meta.FactRecovery, text)
}

// listPacks notes which packs there are: a listing is a request for a thousand.
func (j *job) listPacks(ctx context.Context) error {
	type pack struct {
		key  string
		size int64
	}
	var page []pack
	total := 0
	flush := func() error {
		total += len(page)
		j.progress("list packs", total, 0)
		err := j.DB.Update(ctx, func(tx *meta.Tx) error {
			for _, p := range page {
				if err := tx.ListPack(p.key, p.size); err != nil {
					return err
				}
			}
			return nil
		})
		page = page[:0]
		return err
	}
	if err := j.DB.Update(ctx, (*meta.Tx).ForgetListedPacks); err != nil {
		return err
	}
	err := j.Blobs.List(ctx, "packs/", func(i blob.Info) error {
		if page = append(page, pack{i.Key, i.Size}); len(page) < batchRows {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// shards applies a checkpoint.
func (j *job) shards(ctx context.Context, base *ledger.Manifest) error {
	for ; j.state.Shard < len(base.Shards); j.state.Shard, j.state.Record = j.state.Shard+1, 0 {
		j.progress("checkpoint", j.state.Shard, len(base.Shards))
		shard := base.Shards[j.state.Shard]
		b := &batch{job: j, ctx: ctx, pos: base.Position, at: j.state.Record, from: shard.Key}
		err := ledger.ReadShard(ctx, j.Blobs, shard, j.state.Record, func(_ int, r ledger.Record) error { return b.add(r) })
		var damaged *ledger.ObjectError
		if errors.As(err, &damaged) {
			j.lost("%s: %v; it has %d records, those that can be read are used", damaged.Key, damaged.Err, shard.Records)
			err = nil
		}
		if err == nil {
			err = b.flush()
		}
		if err != nil {
			return err
		}
		j.result.Objects++
	}
	return nil
}

// replay applies the log behind the checkpoint.
func (j *job) replay(ctx context.Context, base *ledger.Manifest) (*ledger.Report, error) {
	log := &ledger.Log{Blobs: j.Blobs}
	report, err := log.Replay(ctx, base, func(pos ledger.Pos, key string, recs []ledger.Record) error {
		j.result.LogObjects++
		j.progress("log", j.result.LogObjects, 0)
		b := &batch{job: j, ctx: ctx, pos: pos, from: key}
		for _, r := range recs {
			if err := b.add(r); err != nil {
				return err
			}
		}
		if err := b.flush(); err != nil {
			return err
		}
		return j.DB.Update(ctx, func(tx *meta.Tx) error { return tx.AddLogObjects([]string{key}) })
	})
	if err != nil {
		return nil, err
	}
	for _, o := range report.Lost {
		j.lost("%s: %v", o.Key, o.Err)
	}
	j.result.LostCount += report.LostCount - len(report.Lost)
	j.result.Objects += j.result.LogObjects
	j.result.Unacknowledged, j.result.Foreign = report.UnacknowledgedCount, report.ForeignCount
	return report, nil
}

// end begins the next epoch: first in the bucket, where it makes worthless what a
// server that still runs may write, and what an earlier attempt began.
func (j *job) end(ctx context.Context, report *ledger.Report) error {
	epoch := report.MaxEpoch
	if keys, err := ledger.Manifests(ctx, j.Blobs); err != nil {
		return err
	} else if len(keys) > 0 {
		if pos, err := ledger.ParseKey(keys[0]); err == nil {
			epoch = max(epoch, pos.Epoch)
		}
	}
	epoch++
	at := j.now().UTC().Truncate(time.Microsecond)
	record := ledger.Record{Recovered: &ledger.Recovered{At: at}}
	log := &ledger.Log{Blobs: j.Blobs, Epoch: epoch}
	keys, err := log.Append(ctx, 1, &report.Last, []ledger.Record{record})
	if err != nil {
		return err
	}
	j.result.Epoch, j.result.Position = epoch, report.Last.String()
	return j.DB.Update(ctx, func(tx *meta.Tx) error {
		err := tx.Apply(ledger.Pos{Epoch: epoch, Seq: 1}, record)
		if err == nil {
			err = tx.BeginEpoch(keys[0])
		}
		if err == nil && j.state.Manifest != "" {
			err = tx.SetFact(meta.FactCheckpoint, []byte(j.state.Manifest))
		}
		if err == nil {
			err = tx.SetFact(meta.FactRecovery, nil)
		}
		if err == nil {
			j.result.Counts, err = tx.Count()
		}
		return err
	})
}

func (j *job) lost(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if j.result.LostCount++; len(j.result.Lost) < maxLines {
		j.result.Lost = append(j.result.Lost, line)
		if j.Lost != nil {
			j.Lost(line)
		}
	}
}

func (j *job) progress(stage string, done, of int) {
	if j.Progress != nil {
		j.Progress(stage, done, of)
	}
}

func (j *job) now() time.Time {
	if j.Now == nil {
		return time.Now()
	}
	return j.Now()
}

// batch gathers records for a transaction.
type batch struct {
	*job
	ctx  context.Context // of the one Run that this batch is a part of
	pos  ledger.Pos
	from string // key of the object that they are from
	at   int    // how many records of a shard are applied
	recs []ledger.Record
	size int // of their layouts
}

func (b *batch) add(r ledger.Record) error {
	b.recs = append(b.recs, r)
	if r.NAR != nil {
		b.size += len(r.NAR.Layout)
	}
	if r.Pack != nil {
		b.size += len(r.Pack.Index) / 64
	}
	if len(b.recs) >= batchRows || b.size >= 100*batchRows {
		return b.flush()
	}
	return nil
}

// flush applies what was gathered, once the packs it speaks of have rows. A record
// that can't be applied is lost, and no reason to lose the others.
func (b *batch) flush() error {
	packs, err := b.unknownPacks()
	if err != nil {
		return err
	}
	for part := range slices.Chunk(packs, 256) {
		recs, err := b.packs.fetch(b.ctx, part, func(key string, err error) {
			if len(b.unread) < maxLines {
				b.unread = append(b.unread, fmt.Sprintf("pack %s: %v", key, err))
			}
		})
		if err != nil {
			return err
		}
		err = b.DB.Update(b.ctx, func(tx *meta.Tx) error {
			for _, r := range recs {
				if err := tx.Apply(b.pos, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	next := b.at + len(b.recs)
	err = b.DB.Update(b.ctx, func(tx *meta.Tx) error {
		for i, r := range b.recs {
			if err := tx.Apply(b.pos, r); err != nil {
				if tx.Broken() {
					return err
				}
				b.lost("%s: record %d: %v", b.from, b.at+i+1, err)
			}
		}
		if b.state.Manifest != "" && b.pos == b.basePos() {
			b.state.Record = next
			return b.save(tx)
		}
		return nil
	})
	b.at, b.recs, b.size = next, b.recs[:0], 0
	return err
}

func (b *batch) basePos() ledger.Pos {
	pos, _ := ledger.ParseKey(b.state.Manifest) // it was read by this key
	return pos
}

// unknownPacks lists the packs of the batch's NARs that have no row, with their
// sizes.
func (b *batch) unknownPacks() (packs []listed, err error) {
	coming := map[string]bool{}
	for _, r := range b.recs {
		if r.Pack != nil {
			coming[r.Pack.Key] = true
		}
	}
	err = b.DB.View(b.ctx, func(tx *meta.Tx) error {
		for _, r := range b.recs {
			if r.NAR == nil {
				continue
			}
			for _, s := range r.NAR.Layout {
				if s.Pack == "" || coming[s.Pack] {
					continue
				}
				coming[s.Pack] = true
				_, err := tx.PackID(s.Pack)
				if !errors.Is(err, meta.ErrNotFound) {
					if err != nil {
						return err
					}
					continue
				}
				size, err := tx.ListedPack(s.Pack)
				if errors.Is(err, meta.ErrNotFound) {
					continue // its paths are named at the end, if they are still there
				}
				if err != nil {
					return err
				}
				packs = append(packs, listed{s.Pack, size})
			}
		}
		return nil
	})
	return packs, err
}
