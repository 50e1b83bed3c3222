package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
)

// bucket is what lives longer than a process: objects in memory, as old as the
// world's clock says.
type bucket struct {
	*blobtest.Mem
	now func() time.Time

	mu   sync.Mutex
	born map[string]time.Time
	size map[string]int64
	used map[string]bool // keys that were ever stored
}

func newBucket(now func() time.Time) *bucket {
	return &bucket{Mem: blobtest.NewMem(), now: now, born: map[string]time.Time{}, size: map[string]int64{}, used: map[string]bool{}}
}

// errKilled is what a dead process gets of everything.
var errKilled = errors.New("the process was killed")

// door is a process's way to the bucket. Every request passes at, before it takes
// effect and after it did; when at says that the process is dead, or that the
// request fails, it does.
type door struct {
	*bucket
	at func(what string) error
}

func (d *door) Put(ctx context.Context, key string, src blob.Source) error {
	if err := d.at("put " + key); err != nil {
		return err
	}
	if err := d.bucket.put(ctx, key, src); err != nil {
		return err
	}
	return d.at("stored " + key)
}

func (b *bucket) put(ctx context.Context, key string, src blob.Source) error {
	if err := b.Mem.Put(ctx, key, src); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.HasPrefix(key, "packs/") && b.used[key] {
		return fmt.Errorf("%s comes a second time: a late deletion would hit it", key)
	}
	b.born[key], b.size[key], b.used[key] = b.now(), src.Size(), true
	return nil
}

func (d *door) Delete(ctx context.Context, key string) error {
	if err := d.at("delete " + key); err != nil {
		return err
	}
	if err := d.bucket.Mem.Delete(ctx, key); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.size, key)
	d.mu.Unlock()
	return d.at("deleted " + key)
}

func (d *door) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := d.at("get " + key); err != nil {
		return nil, err
	}
	return d.bucket.Mem.Get(ctx, key, off, n)
}

func (d *door) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	if err := d.at("list " + prefix); err != nil {
		return err
	}
	return d.bucket.List(ctx, prefix, each)
}

// List implements blob.Lister with the world's times.
func (b *bucket) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	return b.Mem.List(ctx, prefix, func(i blob.Info) error {
		b.mu.Lock()
		i.Modified = b.born[i.Key]
		b.mu.Unlock()
		return each(i)
	})
}

// objects are the keys that begin with a prefix, and their bytes together.
func (b *bucket) objects(prefix string) (keys map[string]int64, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys = map[string]int64{}
	for key, size := range b.size {
		if strings.HasPrefix(key, prefix) {
			keys[key] = size
			bytes += size
		}
	}
	return keys, bytes
}

// copy is another bucket with the same objects.
func (b *bucket) copy(ctx context.Context, now func() time.Time) (*bucket, error) {
	c := newBucket(now)
	err := b.List(ctx, "", func(i blob.Info) error {
		rc, err := b.Mem.Get(ctx, i.Key, 0, -1)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(rc)
		if err == nil {
			err = c.Mem.Put(ctx, i.Key, blob.Bytes(data))
		}
		c.born[i.Key], c.size[i.Key], c.used[i.Key] = i.Modified, i.Size, true
		return err
	})
	return c, err
}
