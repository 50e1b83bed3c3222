package main

import (
	"os"
	"path/filepath"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/near"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/depot"
)

// nearReserve is what a cache of packs leaves of the volume: what uploads leave to the database, and as much again
// for uploads.
const nearReserve = 2 * spoolReserve

// shortenReads makes reading from a bucket quick: a cache on the volume for what is small, redirects for what is a
// whole object, by what it returns. A disk needs neither.
func (st *stack) shortenReads(cfg *config.Server, store blob.Store, dp *depot.Depot) (blob.Presigner, error) {
	if cfg.Storage.Type != config.S3 {
		return nil, nil
	}
	limit := cfg.Storage.CacheBytes
	if limit == config.CacheAuto {
		var err error
		if limit, err = near.DefaultLimit(cfg.Data); err != nil {
			return nil, err
		}
	}
	st.near = &near.Cache{Dir: filepath.Join(cfg.Data, "near"), Blobs: store, Limit: limit, Reserve: nearReserve, Log: dp.Log}
	if !st.near.Keeps() {
		_ = os.RemoveAll(st.near.Dir) // of a time with a cache; it costs nothing but its bytes
	}
	dp.Near, dp.Spool.MakeRoom = st.near, st.near.MakeRoom
	if cfg.Storage.Redirect == config.RedirectNever {
		return nil, nil
	}
	presigner, _ := store.(blob.Presigner)
	return presigner, nil
}
