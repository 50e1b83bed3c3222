package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/checkpoint"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/spool"
)

// recoveryBench rebuilds a database with many paths from its storage, once from the log alone and once from
// a checkpoint.
type recoveryBench struct {
	bench
	paths, closures int
}

func recoveryFlags(args []string) (*recoveryBench, error) {
	b := &recoveryBench{}
	f := flag.NewFlagSet("recovery", flag.ContinueOnError)
	f.StringVar(&b.bin, "bin", "bin", "folder of attic-server")
	f.IntVar(&b.paths, "paths", 1_000_000, "paths, in all closures together")
	f.IntVar(&b.closures, "closures", 500, "closures")
	return b, f.Parse(args)
}

func (b *recoveryBench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "attic-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	m := &millions{file: filepath.Join(b.dir, "server.db"), storage: filepath.Join(b.dir, "storage"), cache: "bench",
		paths: b.paths, closures: b.closures, journal: true}
	for _, step := range []func() error{
		func() error { return b.create(ctx, m) },
		func() error { return m.run(ctx) },
		func() error { return b.recover(ctx, m, "from the log alone") },
		func() error { return b.checkpoint(ctx, m) },
		func() error { return b.recover(ctx, m, "from a checkpoint") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	b.print()
	return nil
}

// withDB opens the database as a server does.
func (b *recoveryBench) withDB(ctx context.Context, m *millions, fn func(*meta.DB, blob.Store) error) (err error) {
	store, err := disk.New(m.storage)
	if err != nil {
		return err
	}
	log := &ledger.Log{Blobs: store}
	db, err := meta.Open(ctx, m.file, meta.Options{Journal: log, Layouts: &depot.Layouts{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(ctx, func(tx *meta.Tx) (err error) { log.Epoch, err = tx.Epoch(); return err })
	if err != nil {
		return err
	}
	return fn(db, store)
}

func (b *recoveryBench) create(ctx context.Context, m *millions) error {
	return b.withDB(ctx, m, func(db *meta.DB, _ blob.Store) error {
		return db.Update(ctx, func(tx *meta.Tx) error {
			return tx.CreateCache(&meta.Cache{Name: m.cache, PublicKey: "bench:AAAA", SealedKey: []byte{1}, StoreDir: nix.StoreDir})
		})
	})
}

// checkpoint makes one, and says how long its longest step took.
func (b *recoveryBench) checkpoint(ctx context.Context, m *millions) error {
	return b.withDB(ctx, m, func(db *meta.DB, store blob.Store) error {
		k := &checkpoint.Keeper{DB: db, Blobs: store, Spool: &spool.Dir{Path: b.dir}, Objects: 1}
		var longest, all time.Duration
		steps := 0
		for more := true; more; steps++ {
			start := time.Now()
			var err error
			if more, err = k.Step(ctx); err != nil {
				return err
			}
			took := time.Since(start)
			longest, all = max(longest, took), all+took
		}
		objects, size := 0, int64(0)
		err := store.List(ctx, ledger.ShardPrefix, func(i blob.Info) error { objects++; size += i.Size; return nil })
		b.add(row{what: fmt.Sprintf("checkpoint of %d paths: %d shards, %s", b.paths, objects, mib(size)), target: "2 s a step",
			value: fmt.Sprintf("%.1f s in %d steps, the longest %.2f s", all.Seconds(), steps, longest.Seconds())})
		return err
	})
}

// recover runs the real program, without a database.
func (b *recoveryBench) recover(ctx context.Context, m *millions, how string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(m.file + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	u, err := peaked(ctx, nil, filepath.Join(b.bin, "attic-server"), "recover", "--data", b.dir, "--json")
	if err != nil {
		return fmt.Errorf("recover %s: %w", how, err)
	}
	var res struct {
		Restored struct{ Paths int }
		Objects  int `json:"objects_read"`
	}
	if err := json.Unmarshal(u.out, &res); err != nil {
		return err
	}
	if res.Restored.Paths != b.paths {
		return fmt.Errorf("recover %s: %d of %d paths came back", how, res.Restored.Paths, b.paths)
	}
	r := row{what: fmt.Sprintf("recover %d paths %s", b.paths, how), target: "256 MB", value: fmt.Sprintf("%.1f s", u.wall.Seconds()), request: fmt.Sprint(res.Objects)}
	r.peak = mib(u.peak)
	r.cpu = fmt.Sprintf("%.1f s", u.cpu.Seconds())
	b.add(r)
	return nil
}
