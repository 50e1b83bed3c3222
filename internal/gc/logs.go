package gc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/meta"
)

// logAge is how long a build log stays without a path: it may come before what was built.
const logAge = 24 * time.Hour

// dropLogs takes the logs of which no path is left. Listings go with their NARs, and realisations with the paths
// they name, in the statements that delete those.
func (c *Collector) dropLogs(ctx context.Context, r *run) (done bool, err error) {
	lone := map[int64][]string{}
	err = c.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) error {
		caches, err := tx.Caches()
		for i := 0; i < len(caches) && err == nil; i++ {
			if r.Cache == "" || r.Cache == caches[i].Name {
				lone[caches[i].ID], err = tx.LoneLogs(caches[i].ID, c.now().Add(-logAge))
			}
		}
		return err
	})
	for cache, names := range lone {
		for i := 0; i < len(names) && err == nil; i++ {
			if ctx.Err() != nil {
				return false, nil
			}
			err = c.update(ctx, func(tx *meta.Tx) error { return tx.DeleteBuildLog(cache, names[i]) })
			if errors.Is(err, meta.ErrNotFound) {
				err = nil // its cache went meanwhile
			}
		}
	}
	if err != nil {
		return false, fmt.Errorf("delete build logs: %w", err)
	}
	return true, nil
}
