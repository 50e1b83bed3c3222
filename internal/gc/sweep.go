package gc

import (
	"context"
	"errors"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// sweeper searches the bucket for objects that nothing knows of: packs whose upload ended between the object and its
// row, and objects of the log whose batch failed and that a checkpoint has passed by. What is younger than a day may
// be about to become known. Keys that are not ours are left alone.
type sweeper struct {
	prefixes []string // still to be searched
}

// sweepEvery is the time between two searches by the clock: a listing costs as much as an upload.
const sweepEvery = 24 * time.Hour

func (c *Collector) sweep(ctx context.Context, r *run) (done bool, err error) {
	if r.sweeper == nil {
		due, err := c.sweepDue(ctx, r)
		if err != nil || !due {
			return err == nil, err
		}
		r.sweeper = &sweeper{prefixes: []string{ledger.LogPrefix}}
		for _, digit := range "0123456789abcdef" {
			r.sweeper.prefixes = append(r.sweeper.prefixes, "packs/"+string(digit))
		}
	}
	s := r.sweeper
	for len(s.prefixes) > 0 {
		if err := c.sweepBelow(ctx, r, s.prefixes[0]); err != nil {
			return false, err
		}
		s.prefixes = s.prefixes[1:]
		if ctx.Err() != nil {
			return false, nil
		}
	}
	return true, c.update(ctx, func(tx *meta.Tx) error {
		return tx.SetFact(meta.FactSwept, []byte(c.now().UTC().Format(time.RFC3339)))
	})
}

func (c *Collector) sweepDue(ctx context.Context, r *run) (due bool, err error) {
	if r.Cache != "" {
		return false, nil
	}
	err = c.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) error {
		text, err := tx.Fact(meta.FactSwept)
		last, bad := time.Parse(time.RFC3339, string(text))
		due = bad != nil || c.now().Sub(last) >= sweepEvery || last.After(c.now())
		return err
	})
	return due, err
}

// sweepPage is how many objects are looked up at a time.
const sweepPage = 500

// sweepBelow looks at all objects below a prefix. It is not broken off for a request, since it would have to begin
// anew; it uses next to no CPU.
func (c *Collector) sweepBelow(ctx context.Context, r *run, prefix string) error {
	ctx = context.WithoutCancel(ctx)
	old := c.now().Add(-orElse(c.Orphan, 24*time.Hour))
	var page []blob.Info
	err := c.Blobs.List(ctx, prefix, func(o blob.Info) error {
		if o.Modified.After(old) {
			return nil
		}
		if page = append(page, o); len(page) < sweepPage {
			return nil
		}
		err := c.sweepPage(ctx, r, page)
		page = page[:0]
		return err
	})
	if err != nil {
		return err
	}
	return c.sweepPage(ctx, r, page)
}

// sweepPage deletes those of a page that nothing knows of.
func (c *Collector) sweepPage(ctx context.Context, r *run, page []blob.Info) error {
	var keys []string
	var sizes []int64
	err := c.DB.View(ctx, func(tx *meta.Tx) error {
		for _, o := range page {
			stray, err := isStray(tx, o.Key)
			if err != nil {
				return err
			}
			if stray {
				keys, sizes = append(keys, o.Key), append(sizes, o.Size)
			}
		}
		return nil
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	if err := c.update(ctx, (*meta.Tx).Supersede); err != nil {
		return err // somebody else collects, mostly
	}
	if err := c.owns(ctx); err != nil {
		return err
	}
	failed := c.delete(ctx, keys)
	for i := range keys {
		if failed[i] == nil {
			r.result.Orphans++
			r.result.Strays += sizes[i]
		}
	}
	return errors.Join(failed...)
}

// isStray tells whether nothing knows of an object. A pack's key is used once only, so one without a row gets none.
// Of the log, what is not noted and lies before the last checkpoint was never acknowledged: recoveries pass it by.
func isStray(tx *meta.Tx, key string) (bool, error) {
	if _, err := meta.PackSHA256(key); err == nil {
		_, err := tx.PackID(key)
		if errors.Is(err, meta.ErrNotFound) {
			return true, nil
		}
		return false, err
	}
	pos, err := ledger.ParseKey(key)
	if err != nil || len(key) < len(ledger.LogPrefix) || key[:len(ledger.LogPrefix)] != ledger.LogPrefix {
		return false, nil
	}
	known, err := tx.HasLogObject(key)
	if err != nil || known {
		return false, err
	}
	running, err := tx.Fact(meta.FactCheckpointRun)
	if err != nil || running != nil {
		return false, err
	}
	manifest, err := tx.Fact(meta.FactCheckpoint)
	if err != nil || manifest == nil {
		return false, err
	}
	at, err := ledger.ParseKey(string(manifest))
	return err == nil && pos.Compare(at) <= 0, nil
}
