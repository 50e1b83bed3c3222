package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/s3"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// A database and a bucket belong together: what is in one means nothing without the
// other. The bucket has a name that nobody else's has, and the database remembers it.
const storeIDKey = "store/id"

// errNothingHere says that the bucket has what the database should.
var errNothingHere = errors.New("the storage holds data and the database is empty: its volume is new, or was lost")

func emptyDatabase() error {
	return configError{hintError{errNothingHere, "to rebuild the database from the storage run attic-server recover, or start once with ATTIC_SERVER_RECOVER=1"}}
}

// belong sees to it that the database is this bucket's, before anything is written to
// either. A database that knows its bucket is believed at start: writes wait (see
// gate) until the bucket has said the same.
func (st *stack) belong(ctx context.Context, cfg *config.Server, store blob.Store, journal *ledger.Log, log *slog.Logger) (blob.Store, error) {
	var id []byte
	var used bool
	err := st.db.View(ctx, func(tx *meta.Tx) (err error) {
		if journal.Epoch, err = tx.Epoch(); err == nil {
			used, err = tx.Used()
		}
		if err == nil {
			id, err = tx.Fact(meta.FactStore)
		}
		if err == nil {
			st.recovered, err = tx.RecoveredAt()
		}
		return err
	})
	if err != nil || cfg.Database.File == ":memory:" {
		return store, err
	}
	if cfg.Storage.Type == config.S3 && used && id != nil {
		g := newGate(store)
		st.later = func(ctx context.Context) { st.confirm(ctx, g, store, string(id), journal.Epoch, log) }
		st.atOnce = func(ctx context.Context) { g.release(confirmOnce(ctx, store, string(id), journal.Epoch)) }
		return g, nil
	}
	if err := checkStore(ctx, store); err != nil {
		return nil, err
	}
	if cfg.Storage.Type == config.S3 && id == nil { // it was never opened with this database
		if err := refuseAtticsBucket(ctx, store, cfg.Storage.Bucket); err != nil {
			return nil, err
		}
	}
	if !used {
		if holds, err := holdsData(ctx, store); err != nil || holds {
			return nil, errors.Join(err, only(holds, emptyDatabase()))
		}
	}
	if id != nil {
		return store, sameBucket(ctx, store, string(id), journal.Epoch)
	}
	name, err := nameBucket(ctx, store)
	if err != nil {
		return nil, err
	}
	err = st.db.Update(ctx, func(tx *meta.Tx) error { return tx.SetFact(meta.FactStore, []byte(name)) })
	if err != nil {
		log.Warn("note which storage the database belongs to", "error", err) // a full disk can still be read from
	}
	return store, nil
}

func only(when bool, err error) error {
	if when {
		return err
	}
	return nil
}

// holdsData says whether a bucket has anything that a server wrote and a recovery
// could bring back.
func holdsData(ctx context.Context, store blob.Lister) (bool, error) {
	found := errors.New("found")
	for _, prefix := range []string{ledger.LogPrefix, ledger.ManifestPrefix} {
		err := store.List(ctx, prefix, func(blob.Info) error { return found })
		if errors.Is(err, found) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("look at the storage: %w", err)
		}
	}
	return false, nil
}

// readBucketName is "" when it has none.
func readBucketName(ctx context.Context, store blob.Getter) (string, error) {
	rc, err := store.Get(ctx, storeIDKey, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the storage's id: %w", err)
	}
	defer rc.Close()
	text, err := io.ReadAll(io.LimitReader(rc, 256))
	if err != nil {
		return "", fmt.Errorf("read the storage's id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// nameBucket gives a bucket a name, unless it has one.
func nameBucket(ctx context.Context, store blob.Store) (string, error) {
	if name, err := readBucketName(ctx, store); err != nil || name != "" {
		return name, err
	}
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	name := hex.EncodeToString(random[:])
	err := store.Put(ctx, storeIDKey, blob.Bytes([]byte(name+"\n")))
	if errors.Is(err, blob.ErrExists) { // another server was faster
		return readBucketName(ctx, store)
	}
	if err != nil {
		return "", fmt.Errorf("give the storage an id: %w", err)
	}
	return name, nil
}

// sameBucket refuses a bucket that is another one than the database's, or that
// another server has recovered from.
func sameBucket(ctx context.Context, store blob.Store, id string, epoch uint64) error {
	name, err := readBucketName(ctx, store)
	if err != nil {
		return err
	}
	if name != id {
		return configError{hintError{errors.New("the database belongs to another storage than the one that is configured; nothing was written to either"),
			"configure the storage that it was used with; or give another database.url, and run attic-server recover to begin one from this storage"}}
	}
	newer, err := ledger.Newer(ctx, store, epoch)
	if err != nil {
		return fmt.Errorf("look at the storage: %w", err)
	}
	if newer {
		return configError{hintError{errors.New("another server has recovered from this storage, so this database is stale; nothing was written"),
			"use the other server; or run attic-server recover --replace, which makes the other one stale"}}
	}
	return nil
}

// confirmPause is the time between two questions to a bucket that does not answer.
const confirmPause = 5 * time.Second

// confirm asks the bucket what the start took for granted, until it answers. What
// cannot be helped by waiting ends the server.
func (st *stack) confirm(ctx context.Context, g *gate, store blob.Store, id string, epoch uint64, log *slog.Logger) {
	for told := false; ; {
		err := sameBucket(ctx, store, id, epoch)
		var config configError
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			g.release(nil)
			return
		case errors.As(err, &config) || errors.Is(err, s3.ErrSetup):
			g.release(err)
			st.end(err)
			return
		}
		if !told {
			log.Error("the storage does not answer; uploads wait", "error", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(confirmPause):
		}
	}
}

// confirmOnce is confirm for a command: what the bucket says now is what its user is told, if it writes.
func confirmOnce(ctx context.Context, store blob.Store, id string, epoch uint64) error {
	if err := checkStore(ctx, store); err != nil {
		return err
	}
	return sameBucket(ctx, store, id, epoch)
}

// gate is a bucket that nothing is written to before it is known to be the right one.
type gate struct {
	blob.Store
	open chan struct{}
	err  error // set before open is closed
}

func newGate(store blob.Store) *gate { return &gate{Store: store, open: make(chan struct{})} }

func (g *gate) release(err error) {
	g.err = err
	close(g.open)
}

func (g *gate) pass(ctx context.Context) error {
	select {
	case <-g.open:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the storage: %w", ctx.Err())
	}
}

// Put implements blob.Putter.
func (g *gate) Put(ctx context.Context, key string, src blob.Source) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.Store.Put(ctx, key, src)
}

// Delete implements blob.Deleter.
func (g *gate) Delete(ctx context.Context, key string) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.Store.Delete(ctx, key)
}

// volumePause is how often the database's file is looked for.
const volumePause = time.Second

// watchVolume ends the server when its database's file is gone: SQLite would go on
// with a file that has no name, and all that was written since would be gone with the
// process. It returns when ctx ends.
func (st *stack) watchVolume(ctx context.Context, file string, every time.Duration) {
	first, err := os.Stat(file)
	if err != nil {
		return // ":memory:", or what the next request will say
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		now, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(first, now) {
			st.end(hintError{fmt.Errorf("the database %s was deleted or replaced while the server ran", file),
				"bring the volume back, or start again and rebuild it from the storage: attic-server recover"})
			return
		}
	}
}
