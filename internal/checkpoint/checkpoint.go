// Package checkpoint keeps the log short. A recovery reads the newest checkpoint
// and the log behind it, so that a million paths are a handful of objects and not
// a hundred thousand.
//
//	begin ── P: the last position in the database
//	write ── a shard a step: rows of the database as records ──► shards/…
//	seal  ── shards, P, the objects up to P ───────────────────► checkpoints/…
//	check ── a shard a step is read back
//	sweep ── objects up to P, older checkpoints, their shards ──► deleted
//
// How far it is lies in the database, so a process that is killed goes on where it
// was. Killed between any two requests to the bucket, what is there is either the
// old checkpoint with all of its log, or the new one with all of its own; what is
// neither's is deleted by the next sweep.
//
// The rows are read a stretch at a time, each in a transaction of its own, while
// the server goes on writing; so the shards hold no single moment. One snapshot for
// all of them would be simpler to think about, but it would last for minutes on a
// quiet machine's spare seconds, keep the WAL from being reset for as long, and be
// gone with the process. It is not needed either: what changes after P is in the log
// behind P, each record says all there is about its key, and applying the same
// twice changes nothing. So whatever state a row was caught in, the log behind P
// leaves it as it is at the log's end; and rows that nothing behind P speaks of were
// as they are at P.
package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/spool"
)

// ErrSuperseded says that another server has rebuilt its database from the bucket:
// what this one writes counts for nothing, and it must delete nothing.
var ErrSuperseded = errors.New("another server has recovered from this bucket; stop this one")

// Keeper makes checkpoints. Its Step is for package chores.
type Keeper struct {
	DB    *meta.DB
	Blobs blob.Store
	Spool *spool.Dir
	Log   *slog.Logger     // nil means none
	Now   func() time.Time // nil means time.Now

	Objects int           // of the log make a checkpoint due; 0 means 1,000
	Age     time.Duration // of the last checkpoint, if there is any log; 0 means a day

	ShardBytes   int64 // of a shard, about; 0 means 12 MiB
	ShardRecords int   // of a shard, at most; 0 means no limit

	mu sync.Mutex // one at a time: the clock's, or one that somebody waits for
}

const (
	// stepTime is how long a step reads rows. Chores has two seconds for all of it.
	stepTime = 800 * time.Millisecond
	// leastRecords is what a step does although it was asked to stop: on a server
	// that is never quiet it would get nowhere otherwise, or make a shard a row.
	leastRecords = 500
	// sendTime bounds a transfer. It is not broken off for a request: it costs no CPU
	// to speak of, and one that is broken off again and again never ends.
	sendTime = 20 * time.Second
	// shardRoom is what a shard may be longer than planned: the encoder holds some
	// back, and the last record is as long as it is.
	shardRoom = ledger.ShardSize/4 + 48<<20
)

// run is how far a checkpoint is. It is kept as a fact.
type run struct {
	Position ledger.Pos     `json:"position"`
	Last     string         `json:"last"` // key of the last object that it replaces
	Begun    time.Time      `json:"begun"`
	Cursor   meta.Cursor    `json:"cursor"`
	Done     bool           `json:"done,omitempty"` // all rows are in shards
	Shards   []ledger.Shard `json:"shards,omitempty"`
	Manifest string         `json:"manifest,omitempty"` // its key, once it is stored
	Checked  int            `json:"checked,omitempty"`  // shards that were read back
	Verified bool           `json:"verified,omitempty"`
}

// Step does a part of a checkpoint, if one is under way or due.
func (k *Keeper) Step(ctx context.Context) (more bool, err error) {
	if !k.mu.TryLock() {
		return false, nil
	}
	defer k.mu.Unlock()
	more, err = k.step(ctx)
	if err != nil {
		return false, fmt.Errorf("make checkpoint: %w", err)
	}
	return more, nil
}

// Make makes a checkpoint now, due or not, if the log has anything.
func (k *Keeper) Make(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, err := k.load(ctx)
	if err == nil && r == nil {
		r, err = k.begin(ctx)
	}
	for r != nil && err == nil {
		if err = ctx.Err(); err == nil {
			r, err = k.advance(ctx, r)
		}
	}
	if err != nil {
		return fmt.Errorf("make checkpoint: %w", err)
	}
	return nil
}

func (k *Keeper) step(ctx context.Context) (more bool, err error) {
	r, err := k.load(ctx)
	if err != nil {
		return false, err
	}
	if r == nil {
		if due, err := k.due(ctx); err != nil || !due {
			return false, err
		}
		r, err = k.begin(ctx)
		return r != nil, err
	}
	r, err = k.advance(ctx, r)
	return r != nil, err
}

func (k *Keeper) advance(ctx context.Context, r *run) (*run, error) {
	switch {
	case !r.Done:
		return k.write(ctx, r)
	case r.Manifest == "":
		return k.seal(ctx, r)
	case !r.Verified:
		return k.check(ctx, r)
	}
	return k.sweep(ctx, r)
}

func (k *Keeper) load(ctx context.Context) (*run, error) {
	var text []byte
	err := k.DB.View(ctx, func(tx *meta.Tx) (err error) {
		text, err = tx.Fact(meta.FactCheckpointRun)
		return err
	})
	if err != nil || text == nil {
		return nil, err
	}
	var r run
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read how far it is: %w", err)
	}
	return &r, nil
}

func (k *Keeper) save(ctx context.Context, r *run, also func(*meta.Tx) error) (*run, error) {
	var text []byte // nil: it is over
	if r != nil {
		var err error
		if text, err = json.Marshal(r); err != nil {
			return nil, err
		}
	}
	// What was done in the bucket is noted even if a request has come meanwhile.
	err := k.DB.Update(context.WithoutCancel(ctx), func(tx *meta.Tx) error {
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		return tx.SetFact(meta.FactCheckpointRun, text)
	})
	return r, err
}

// due counts, and starts the clock for a server that never made one.
func (k *Keeper) due(ctx context.Context) (due bool, err error) {
	objects, age := k.Objects, k.Age
	if objects == 0 {
		objects = 1000
	}
	if age == 0 {
		age = 24 * time.Hour
	}
	var keys []string
	var at []byte
	err = k.DB.View(ctx, func(tx *meta.Tx) (err error) {
		if keys, err = tx.LogObjects("", objects); err == nil {
			at, err = tx.Fact(meta.FactCheckpointAt)
		}
		return err
	})
	if err != nil || len(keys) == 0 {
		return false, err
	}
	last, err := time.Parse(time.RFC3339, string(at))
	if err != nil { // there was none, or it is unreadable
		return len(keys) >= objects, k.DB.Update(ctx, k.wound)
	}
	return len(keys) >= objects || k.now().Sub(last) >= age, nil
}

// wound notes that the clock for the next checkpoint begins now.
func (k *Keeper) wound(tx *meta.Tx) error {
	return tx.SetFact(meta.FactCheckpointAt, []byte(k.now().UTC().Format(time.RFC3339)))
}

func (k *Keeper) begin(ctx context.Context) (*run, error) {
	r := &run{Begun: k.now().UTC().Truncate(time.Second)}
	var epoch uint64
	err := k.DB.View(ctx, func(tx *meta.Tx) (err error) {
		if r.Last, err = tx.LastLogObject(); err == nil {
			epoch, err = tx.Epoch()
		}
		return err
	})
	if err != nil || r.Last == "" {
		return nil, err
	}
	if r.Position, err = ledger.ParseKey(r.Last); err != nil {
		return nil, err
	}
	newer, err := ledger.Newer(ctx, k.Blobs, epoch)
	if err == nil && newer {
		err = ErrSuperseded
	}
	if err != nil {
		return nil, err
	}
	return k.save(ctx, r, nil)
}

// write makes one shard.
func (k *Keeper) write(ctx context.Context, r *run) (*run, error) {
	file, err := k.Spool.Create(ctx, shardRoom)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size := k.ShardBytes
	if size == 0 {
		size = ledger.ShardSize * 3 / 4
	}
	w := ledger.NewShardWriter(file)
	cursor, records, start := r.Cursor, 0, time.Now()
	more := func() bool {
		records++
		late := ctx.Err() != nil || time.Since(start) >= stepTime
		return w.Size() < size && records != k.ShardRecords && (!late || records < leastRecords)
	}
	var done bool
	err = k.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
		done, err = tx.Snapshot(&cursor, w.Add, more)
		return err
	})
	if err != nil {
		return nil, err
	}
	shard, err := w.Finish(r.Position)
	if err != nil {
		return nil, err
	}
	if shard.Records > 0 {
		if err := k.put(ctx, shard.Key, file); err != nil {
			return nil, err
		}
		r.Shards = append(r.Shards, shard)
	}
	r.Cursor, r.Done = cursor, done
	return k.save(ctx, r, nil)
}

// put stores an object whose key says what is in it: one that is there is it.
func (k *Keeper) put(ctx context.Context, key string, src blob.Source) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	if err := k.Blobs.Put(ctx, key, src); err != nil && !errors.Is(err, blob.ErrExists) {
		return err
	}
	return nil
}

// seal stores the manifest. What it holds is the same at every attempt, and so is
// its key.
func (k *Keeper) seal(ctx context.Context, r *run) (*run, error) {
	m := &ledger.Manifest{Position: r.Position, CreatedAt: r.Begun, Shards: r.Shards, Replaces: []string{}}
	err := k.DB.View(ctx, func(tx *meta.Tx) error {
		for after := ""; ; {
			keys, err := tx.LogObjects(after, 1000)
			if err != nil || len(keys) == 0 {
				return err
			}
			for _, key := range keys {
				if key > r.Last {
					return nil
				}
				m.Replaces = append(m.Replaces, key)
			}
			after = keys[len(keys)-1]
		}
	})
	if err != nil {
		return nil, err
	}
	key, object, err := m.Encode()
	if err == nil {
		err = k.put(ctx, key, blob.Bytes(object))
	}
	if err != nil {
		return nil, err
	}
	r.Manifest = key
	return k.save(ctx, r, nil)
}

// check reads back what was stored, the manifest first. If anything is not as it
// was written, this checkpoint is given up, and the one before it still stands with
// all its log.
func (k *Keeper) check(ctx context.Context, r *run) (*run, error) {
	wide, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	var err error
	if r.Checked == 0 {
		_, err = ledger.ReadManifest(wide, k.Blobs, r.Manifest)
	}
	if err == nil && r.Checked < len(r.Shards) {
		err = ledger.CheckShard(wide, k.Blobs, r.Shards[r.Checked])
		r.Checked++
	}
	var damaged *ledger.ObjectError
	if errors.As(err, &damaged) {
		k.log().Error("a checkpoint is not what was written; it is made again", "object", damaged.Key, "error", damaged.Err)
		if err := k.Blobs.Delete(wide, r.Manifest); err != nil {
			return nil, err
		}
		_, err := k.save(ctx, nil, nil)
		return nil, errors.Join(damaged, err)
	}
	if err != nil {
		return nil, err
	}
	if r.Checked < len(r.Shards) {
		return k.save(ctx, r, nil)
	}
	r.Verified = true
	return k.save(ctx, r, func(tx *meta.Tx) error { return tx.SetFact(meta.FactCheckpoint, []byte(r.Manifest)) })
}

// sweepBatch is how many objects are deleted between two looks at the clock.
const sweepBatch = 50

// sweep deletes what the checkpoint has replaced: the log's objects, older
// checkpoints, and shards of no checkpoint, in this order, so that what is left is
// whole whenever it stops.
func (k *Keeper) sweep(ctx context.Context, r *run) (*run, error) {
	var keys []string
	err := k.DB.View(ctx, func(tx *meta.Tx) (err error) {
		keys, err = tx.LogObjects("", sweepBatch)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, key := range keys {
		if key > r.Last {
			keys = keys[:i]
			break
		}
	}
	if len(keys) > 0 {
		deleted := 0
		for _, key := range keys {
			if err = k.delete(ctx, key); err != nil {
				break
			}
			deleted++
		}
		if deleted == 0 {
			return nil, err
		}
		// If it was broken off, the next step meets the reason again.
		return k.save(ctx, r, func(tx *meta.Tx) error { return tx.DropLogObjects(keys[deleted-1]) })
	}
	if err := k.sweepOlder(ctx, r); err != nil {
		return nil, err
	}
	k.log().Info("made a checkpoint", "position", r.Position.String(), "shards", len(r.Shards), "took", k.now().Sub(r.Begun).Round(time.Second))
	if _, err := k.save(ctx, nil, k.wound); err != nil {
		return nil, err
	}
	return nil, nil
}

func (k *Keeper) sweepOlder(ctx context.Context, r *run) error {
	manifests, err := ledger.Manifests(ctx, k.Blobs)
	if err != nil {
		return err
	}
	for _, key := range manifests {
		if pos, err := ledger.ParseKey(key); err == nil && pos.Compare(r.Position) > 0 {
			return ErrSuperseded // and perhaps these shards are that one's
		}
	}
	for _, key := range manifests {
		if key != r.Manifest {
			if err := k.delete(ctx, key); err != nil {
				return err
			}
		}
	}
	keep := map[string]bool{}
	for _, s := range r.Shards {
		keep[s.Key] = true
	}
	var old []string
	err = k.Blobs.List(ctx, ledger.ShardPrefix, func(i blob.Info) error {
		pos, err := ledger.ParseKey(i.Key)
		if err == nil && pos.Compare(r.Position) <= 0 && !keep[i.Key] && strings.HasPrefix(i.Key, ledger.ShardPrefix) {
			old = append(old, i.Key)
		}
		return nil
	})
	for _, key := range old {
		if err == nil {
			err = k.delete(ctx, key)
		}
	}
	return err
}

func (k *Keeper) delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return k.Blobs.Delete(ctx, key)
}

func (k *Keeper) now() time.Time {
	if k.Now == nil {
		return time.Now()
	}
	return k.Now()
}

func (k *Keeper) log() *slog.Logger {
	if k.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return k.Log
}
