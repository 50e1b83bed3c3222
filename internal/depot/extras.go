package depot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

const (
	// maxLog is the longest text of a build log, in bytes; maxStoredLog what it may take when it is compressed:
	// it lies in the database, in a record and in checkpoints.
	maxLog       = 64 << 20
	maxStoredLog = 4 << 20
	logBlock     = 256 << 10 // raw bytes of a frame
	logCost      = maxStoredLog + 2<<20
)

// PutBuildLog keeps the text of a log under the base name of its derivation. A log that was there is
// replaced: a build that is repeated has another one.
func (d *Depot) PutBuildLog(ctx context.Context, s Scope, name string, overhead int64, body io.Reader) error {
	d.init()
	release, err := d.acquire(ctx, logCost+overhead, stockWait)
	if err != nil {
		return err
	}
	defer release()
	l := &meta.BuildLog{CacheID: s.Cache.ID, Name: name, CreatedBy: s.User}
	block := make([]byte, logBlock)
	for {
		n, err := fill(body, block)
		if n > 0 {
			l.Data = d.encoder.Frame(l.Data, block[:n])
			l.Size += int64(n)
		}
		if l.Size > maxLog || len(l.Data) > maxStoredLog {
			return badRequest("a build log of more than %d MiB, or %d MiB compressed, is not kept", maxLog>>20, maxStoredLog>>20)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("receive build log: %w", err)
		}
	}
	return d.update(ctx, s, func(tx *meta.Tx) error { return tx.PutBuildLog(l) })
}

// fill reads until b is full, or there is an error: io.EOF at the end, whatever came before it. (io.ReadFull
// says the same of the end and of a body that was cut off.)
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// WriteBuildLog writes the text of a log.
func WriteBuildLog(w io.Writer, l *meta.BuildLog) error {
	z, err := zstd.NewReader(bytes.NewReader(l.Data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return fmt.Errorf("read build log: %w", err)
	}
	defer z.Close()
	if _, err := z.WriteTo(w); err != nil {
		return fmt.Errorf("read build log: %w", err)
	}
	return nil
}

// PutRealisation keeps which path an output became. Of two that name different paths the first stays, as
// long as its path is there; else signatures are added.
func (d *Depot) PutRealisation(ctx context.Context, s Scope, r *api.Realisation) error {
	return d.update(ctx, s, func(tx *meta.Tx) error {
		old, err := tx.Realisation(s.Cache.ID, r.ID)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		row := &meta.Realisation{CacheID: s.Cache.ID, Name: r.ID, OutPath: r.OutPath, CreatedBy: s.User}
		if old != nil {
			if old.OutPath != r.OutPath {
				return nil
			}
			kept, err := api.DecodeRealisation([]byte(old.Text), r.ID, s.Cache.StoreDir)
			if err != nil {
				return fmt.Errorf("read realisation: %w", err)
			}
			kept.Merge(r)
			r, row.CreatedBy = kept, old.CreatedBy
		}
		row.Text = string(r.Encode())
		err = tx.PutRealisation(row)
		if errors.Is(err, meta.ErrNotFound) {
			return &MissingReferencesError{Refs: []string{r.OutPath}}
		}
		return err
	})
}

// MissingReferences are those of up's references that are not in the scope's cache.
func (d *Depot) MissingReferences(ctx context.Context, s Scope, up Upload) (missing []string, err error) {
	byHash := map[string]string{}
	var hashes []string
	for _, ref := range up.References {
		if hash := ref[:nix.PathHashLen]; hash != up.Path.Hash() {
			byHash[hash] = ref
			hashes = append(hashes, hash)
		}
	}
	err = d.DB.View(ctx, func(tx *meta.Tx) error {
		hashes, err = tx.MissingPaths(s.Cache.ID, hashes)
		return err
	})
	for _, hash := range hashes {
		missing = append(missing, byHash[hash])
	}
	return missing, err
}
