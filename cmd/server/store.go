package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/blob/s3"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/spool"
)

// spoolReserve is how much of the volume uploads leave to the database.
const spoolReserve = 256 << 20

// openStore opens the place for packs and the log. Of a bucket nothing is asked
// before checkStore.
func openStore(ctx context.Context, cfg *config.Server) (blob.Store, error) {
	st := cfg.Storage
	switch st.Type {
	case config.Local:
		return disk.New(st.Path)
	case config.S3:
		return s3.Open(ctx, s3.Options{
			Endpoint: st.Endpoint, Region: st.Region, Bucket: st.Bucket, PathStyle: st.PathStyle,
			AccessKeyID: st.AccessKeyID, SecretAccessKey: string(st.SecretAccessKey), SessionToken: string(st.SessionToken),
		})
	}
	return nil, fmt.Errorf("storage type %q: not one that is known", st.Type)
}

// checkStore makes one request that fails if credentials, bucket or region are
// wrong. A directory needs none: opening it was the check.
func checkStore(ctx context.Context, store blob.Store) error {
	if c, ok := store.(interface{ Check(context.Context) error }); ok {
		return c.Check(ctx)
	}
	return nil
}

// spoolStep is how much of the volume an upload is given at a time: many that trickle keep little from others.
const spoolStep = 4 << 20

// openSpool makes the directory for bytes under way: beside the packs, so that a
// finished pack is linked and not copied, or beside the database if packs go into
// a bucket.
func openSpool(cfg *config.Server) (*spool.Dir, error) {
	dir := filepath.Join(cfg.Storage.Path, ".spool")
	if cfg.Storage.Type != config.Local {
		dir = filepath.Join(cfg.Data, "spool")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	return &spool.Dir{Path: dir, Budget: 3 << 30, Reserve: spoolReserve, Step: spoolStep}, nil
}
