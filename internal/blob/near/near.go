// Package near keeps stretches of packs on the volume, so that small reads do not go to the bucket one by one.
//
// A system has hundreds of NARs of a few kilobytes, and they lie together in a few packs, for they were pushed
// together. So the first miss in a pack fetches a MiB around it, the next one four, the third the rest:
//
//	Open(pack, off, n) ── slices there? ── file ── checksum ── bytes
//	                         │ no                    └ damaged: as if not there
//	                         └── flight: one range of the bucket ──► file, slice by slice
//	                                └ every reader of its slices waits for those, not for all of it
//
// There is a file for each pack, as long as the pack and with holes:
//
//	SHA-256 of (key, number, bytes) of each slice │ slices of 64 KiB, where they lie in the pack
//
// A slice whose sum does not fit is not there, so nothing else needs to be true of the folder: anybody may
// delete, cut or damage anything in it at any time, and a crash needs no care. What it holds is found again
// after a restart, when it is asked for. Packs never change under their key, so nothing gets old.
//
// The folder is bounded, and gives way when the volume gets full; a full volume means that nothing is kept.
// Who may read what is decided above: these are bytes of packs.
package near

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/spool"
)

// Cache is a bounded copy of parts of a bucket. Fill in the fields, use it from any number of goroutines, and
// Close it.
type Cache struct {
	Dir     string      // its folder; nothing else may be in it
	Blobs   blob.Getter // the bucket
	Limit   int64       // bytes that the folder may take; below MinLimit nothing is kept
	Reserve int64       // bytes of the volume that stay free, whatever is kept
	Log     *slog.Logger

	free func(dir string) (int64, error) // of the volume; tests stand in for it
	now  func() time.Time

	once    sync.Once
	scanned chan struct{} // closed when the folder was looked at
	ctx     context.Context
	cancel  context.CancelFunc
	flights sync.WaitGroup

	mu      sync.Mutex
	entries map[string]*entry // by file name
	recent  *list.List        // of entries; the last one was not used for the longest time
	total   int64             // bytes of all entries, with what flights are about to write
	rush    rush
	shunned time.Time // until when nothing is kept, for the volume did not take it
	closed  bool
}

// MinLimit is the least number of bytes that a cache is of use with.
const MinLimit = 8 << 20

// Object is a pack of which a part is wanted. Size is that of the whole object, in bytes. Of a sparse one little
// more than that part will be.
type Object struct {
	Key    string
	Size   int64
	Sparse bool
}

// slice is what has a checksum of its own: so much is read and hashed for the smallest NAR.
const slice = 64 << 10

// shun is how long nothing is kept after the volume refused to.
const shun = 10 * time.Second

// DefaultLimit is a quarter of what is free on dir's volume, and no more than a GiB.
func DefaultLimit(dir string) (int64, error) {
	free, err := spool.Free(dir)
	if err != nil {
		return 0, fmt.Errorf("size the cache: %w", err)
	}
	return min(free/4, 1<<30), nil
}

// Open reads n bytes from off on. What is not here is fetched, beginning at once, and more with it. Bytes that
// the caller needs come as soon as they are there. A range that is not in the object is blob.ErrRange, and
// errors of the bucket are as they are.
func (c *Cache) Open(ctx context.Context, o Object, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n < 0 || off > o.Size || n > o.Size-off {
		return nil, fmt.Errorf("get %s: %w: %d bytes from %d of %d", o.Key, blob.ErrRange, n, off, o.Size)
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	if !c.Keeps() {
		return c.Blobs.Get(ctx, o.Key, off, n)
	}
	e := c.enter(o)
	if e.object != o { // of another size than before: one of the callers is wrong
		return c.Blobs.Get(ctx, o.Key, off, n)
	}
	if n > 0 {
		c.mu.Lock()
		c.want(e, int(off/slice), int((off+n-1)/slice))
		c.mu.Unlock()
	}
	return &reader{c: c, e: e, ctx: ctx, at: off, end: off + n, slice: -1}, nil
}

// Keeps tells whether anything is kept at all.
func (c *Cache) Keeps() bool { return c.Limit >= MinLimit }

// start waits until it is known what the folder holds: that is done once, when it is first needed, so that a
// server's start does not wait for it.
func (c *Cache) start(ctx context.Context) error {
	c.once.Do(c.init)
	select {
	case <-c.scanned:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Cache) init() {
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.scanned, c.entries, c.recent = make(chan struct{}), map[string]*entry{}, list.New()
	if c.free == nil {
		c.free = spool.Free
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.flights.Go(func() {
		defer close(c.scanned)
		c.scan()
	})
}

// Close ends what is being fetched and waits for that. Readers that are open get errors.
func (c *Cache) Close() error {
	c.once.Do(c.init)
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.flights.Wait()
	return nil
}

// MakeRoom gives up to n bytes of the volume back, of what was not used for the longest time.
func (c *Cache) MakeRoom(n int64) {
	if c.start(context.Background()) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evict(c.total - n)
}

// fileName names an object's file. Keys have slashes, and a folder has one kind of file.
func fileName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:20]) + suffix
}

const suffix = ".near"
