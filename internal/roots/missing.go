package roots

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/meta"
)

// Missing tells which of the paths, given by hash, a cache lacks. Who asks is about to
// push, and leaves out what is there: so that has been used now, as if it had been
// pushed again. Otherwise what is pushed every day would go for want of use, and a
// collection could take what a push has just been told to be there.
func (k *Keeper) Missing(ctx context.Context, a Asker, hashes []string) (missing []string, err error) {
	var stale []string
	err = k.DB.View(ctx, func(tx *meta.Tx) (err error) {
		if missing, err = tx.MissingPaths(a.Cache.ID, hashes); err == nil {
			stale, err = tx.UsedBefore(a.Cache.ID, hashes, tx.Now().Add(-k.noted(a.Cache)))
		}
		return err
	})
	for batch := range slices.Chunk(stale, touchBatch) {
		if err != nil {
			break
		}
		err = k.update(ctx, a, func(tx *meta.Tx) error {
			if err := tx.TouchPaths(a.Cache.ID, batch, tx.Now()); err != nil {
				return err
			}
			gone, err := tx.MissingPaths(a.Cache.ID, batch) // since they were looked up
			missing = append(missing, gone...)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("find missing paths: %w", err)
	}
	slices.Sort(missing)
	return missing, nil
}

// noted is how exactly the last use of what is asked for is known: a part of the time
// for which it is kept.
func (k *Keeper) noted(c meta.Cache) time.Duration {
	keep := k.Retention
	if c.Retention != nil {
		keep = time.Duration(*c.Retention) * time.Second
	}
	if keep > 0 {
		return min(touchAfter, keep/2)
	}
	return touchAfter
}
