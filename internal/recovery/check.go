package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// Difference is what Check found. Lists hold the first maxDifferences of what is
// counted.
type Difference struct {
	Packs      int `json:"packs"`          // rows that have their object
	LogObjects int `json:"log_objects"`    // of the log, the same
	Shards     int `json:"shards"`         // of the checkpoint
	Recent     int `json:"recent_objects"` // too new to say: somebody may be about to use them

	Missing      []string `json:"missing"` // what was acknowledged and is not in the bucket, a line each
	MissingCount int      `json:"missing_count"`
	Keys         []string `json:"-"` // of Missing, one by one

	Orphans      []Orphan `json:"orphans"` // objects that nothing needs
	OrphanCount  int      `json:"orphan_count"`
	OrphanBytes  int64    `json:"orphan_bytes"`
	ForeignCount int      `json:"foreign_count"` // keys that are not ours
}

// Orphan is an object of the bucket that nothing needs.
type Orphan struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
	Why  string `json:"why"`
}

const (
	maxDifferences = 10_000
	// underWay is how long an object may be in the bucket before it is in the
	// database.
	underWay = time.Hour
)

// Check compares a database with its bucket and changes nothing. The server may run:
// what it changes meanwhile is looked at twice before it is called missing.
func Check(ctx context.Context, db *meta.DB, blobs Blobs, now time.Time) (*Difference, error) {
	c := &checker{db: db, blobs: blobs, now: now, Difference: Difference{Missing: []string{}, Orphans: []Orphan{}}}
	for _, step := range []func(context.Context) error{c.checkPacks, c.checkLog, c.checkCheckpoint} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("compare database and bucket: %w", err)
		}
	}
	return &c.Difference, nil
}

type checker struct {
	Difference
	db    *meta.DB
	blobs Blobs
	now   time.Time
}

func (c *checker) missing(key, format string, args ...any) {
	if c.MissingCount++; len(c.Missing) < maxDifferences {
		c.Missing = append(c.Missing, key+" "+fmt.Sprintf(format, args...))
		c.Keys = append(c.Keys, key)
	}
}

func (c *checker) orphan(i blob.Info, why string) {
	if c.now.Sub(i.Modified) < underWay {
		c.Recent++
		return
	}
	c.OrphanCount++
	c.OrphanBytes += i.Size
	if len(c.Orphans) < maxDifferences {
		c.Orphans = append(c.Orphans, Orphan{i.Key, i.Size, why})
	}
}

// rows gives the packs of the database in the order of their keys.
type rows struct {
	db    *meta.DB
	keys  []string
	sizes []int64
	last  string
	end   bool
}

// peek is the next pack; an empty key is the end.
func (r *rows) peek(ctx context.Context) (key string, size int64, err error) {
	if len(r.keys) == 0 && !r.end {
		err := r.db.View(ctx, func(tx *meta.Tx) (err error) {
			r.keys, r.sizes, err = tx.FilePacks(r.last)
			return err
		})
		if err != nil {
			return "", 0, err
		}
		r.end = len(r.keys) == 0
	}
	if r.end {
		return "", 0, nil
	}
	return r.keys[0], r.sizes[0], nil
}

func (r *rows) next() { r.last, r.keys, r.sizes = r.keys[0], r.keys[1:], r.sizes[1:] }

// checkPacks goes along the listing and the rows at once: both are sorted.
func (c *checker) checkPacks(ctx context.Context) error {
	r := &rows{db: c.db}
	// upTo passes over the rows before a key, which have no object; empty: all.
	upTo := func(listed string) error {
		for {
			key, size, err := r.peek(ctx)
			if err != nil || key == "" || listed != "" && key >= listed {
				return err
			}
			r.next()
			if err := c.packGone(ctx, key, size); err != nil {
				return err
			}
		}
	}
	err := c.blobs.List(ctx, "packs/", func(i blob.Info) error {
		if _, err := meta.PackSHA256(i.Key); err != nil {
			c.ForeignCount++
			return nil
		}
		if err := upTo(i.Key); err != nil {
			return err
		}
		key, size, err := r.peek(ctx)
		switch {
		case err != nil:
			return err
		case key != i.Key:
			return c.packAlone(ctx, i)
		case size != i.Size:
			c.missing(key, "has %d bytes and should have %d", i.Size, size)
		default:
			c.Packs++
		}
		r.next()
		return nil
	})
	if err != nil {
		return err
	}
	return upTo("")
}

// packGone looks again at a pack that was not listed: it may have come, or its row
// gone, since.
func (c *checker) packGone(ctx context.Context, key string, size int64) error {
	rc, err := c.blobs.Get(ctx, key, size-1, 1)
	if err == nil {
		c.Packs++
		return rc.Close()
	}
	if !errors.Is(err, blob.ErrNotFound) && !errors.Is(err, blob.ErrRange) {
		return err
	}
	if has, err := c.hasRow(ctx, key); err != nil || !has {
		return err
	}
	c.missing(key, "is not in the bucket")
	return nil
}

func (c *checker) packAlone(ctx context.Context, i blob.Info) error {
	has, err := c.hasRow(ctx, i.Key)
	if err != nil {
		return err
	}
	if has {
		c.Packs++
	} else {
		c.orphan(i, "a pack that is in no row")
	}
	return nil
}

func (c *checker) hasRow(ctx context.Context, key string) (bool, error) {
	err := c.db.View(ctx, func(tx *meta.Tx) error { _, err := tx.PackID(key); return err })
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// noted are the objects of the log that the database has and no checkpoint replaces.
func (c *checker) noted(ctx context.Context) (noted map[string]bool, checkpoint string, err error) {
	noted = map[string]bool{}
	err = c.db.View(ctx, func(tx *meta.Tx) error {
		manifest, err := tx.Fact(meta.FactCheckpoint)
		if err != nil {
			return err
		}
		checkpoint = string(manifest)
		for after := ""; ; {
			keys, err := tx.LogObjects(after, 1000)
			if err != nil || len(keys) == 0 {
				return err
			}
			for _, key := range keys {
				noted[key] = true
			}
			after = keys[len(keys)-1]
		}
	})
	return noted, checkpoint, err
}

func (c *checker) checkLog(ctx context.Context) error {
	before, _, err := c.noted(ctx)
	if err != nil {
		return err
	}
	listed := map[string]blob.Info{}
	err = c.blobs.List(ctx, ledger.LogPrefix, func(i blob.Info) error {
		if _, err := ledger.ParseKey(i.Key); err != nil {
			c.ForeignCount++
		} else {
			listed[i.Key] = i
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, checkpoint, err := c.noted(ctx)
	if err != nil {
		return err
	}
	replaced := map[string]bool{}
	if checkpoint != "" {
		if m, err := ledger.ReadManifest(ctx, c.blobs, checkpoint); err == nil {
			for _, key := range m.Replaces {
				replaced[key] = true
			}
		}
	}
	for key := range before {
		if _, there := listed[key]; there {
			c.LogObjects++
		} else if after[key] && !replaced[key] { // else a checkpoint took its place, meanwhile or when its server was killed
			c.missing(key, "is not in the bucket")
		}
	}
	for _, i := range listed {
		if !before[i.Key] && !after[i.Key] && !replaced[i.Key] {
			c.orphan(i, "an object of the log that was never acknowledged")
		}
	}
	slices.Sort(c.Missing)
	slices.Sort(c.Keys) // each line begins with its key
	return nil
}

func (c *checker) checkCheckpoint(ctx context.Context) error {
	sizes := map[string]blob.Info{}
	err := c.blobs.List(ctx, ledger.ShardPrefix, func(i blob.Info) error { sizes[i.Key] = i; return nil })
	if err != nil {
		return err
	}
	_, checkpoint, err := c.noted(ctx)
	if err != nil || checkpoint == "" {
		return err
	}
	m, err := ledger.ReadManifest(ctx, c.blobs, checkpoint)
	var damaged *ledger.ObjectError
	if errors.As(err, &damaged) {
		c.missing(damaged.Key, "is damaged: %v", damaged.Err)
		return nil
	}
	if err != nil {
		return err
	}
	for _, s := range m.Shards {
		if i, there := sizes[s.Key]; !there {
			c.missing(s.Key, "is not in the bucket")
		} else if i.Size != s.Size {
			c.missing(s.Key, "has %d bytes and should have %d", i.Size, s.Size)
		} else {
			c.Shards++
		}
		delete(sizes, s.Key)
	}
	return nil
}
