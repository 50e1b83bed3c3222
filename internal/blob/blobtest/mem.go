// Package blobtest has the conformance suite that every blob.Store passes, and
// a store in memory for the tests of others.
package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
)

// Mem is a store in memory. It is safe for concurrent use.
type Mem struct {
	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	data     []byte
	modified time.Time
}

var _ blob.Store = (*Mem)(nil)

// NewMem returns an empty store.
func NewMem() *Mem { return &Mem{objects: map[string]object{}} }

// Get implements blob.Getter.
func (m *Mem) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	m.mu.Lock()
	o, ok := m.objects[key]
	m.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, blob.ErrNotFound)
	}
	size := int64(len(o.data))
	if n < 0 {
		n = size - off
	}
	if off < 0 || off > size || n < 0 || n > size-off {
		return nil, fmt.Errorf("get %s: %w", key, blob.ErrRange)
	}
	return io.NopCloser(bytes.NewReader(o.data[off : off+n])), nil
}

// Put implements blob.Putter.
func (m *Mem) Put(ctx context.Context, key string, src blob.Source) error {
	if err := check(ctx, key); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	data, err := read(ctx, src)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; ok {
		return fmt.Errorf("put %s: %w", key, blob.ErrExists)
	}
	m.objects[key] = object{data, time.Now()}
	return nil
}

// read takes a source in pieces, as real stores do, so that ctx can end it.
func read(ctx context.Context, src blob.Source) ([]byte, error) {
	data := make([]byte, src.Size())
	for off := 0; off < len(data); {
		part := data[off:min(off+1<<20, len(data))]
		if n, err := src.ReadAt(part, int64(off)); n < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		off += len(part)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// Delete implements blob.Deleter.
func (m *Mem) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

// List implements blob.Lister. What it lists is a snapshot, so each may call
// the store.
func (m *Mem) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	m.mu.Lock()
	var infos []blob.Info
	for key, o := range m.objects {
		if strings.HasPrefix(key, prefix) {
			infos = append(infos, blob.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified})
		}
	}
	m.mu.Unlock()
	slices.SortFunc(infos, func(a, b blob.Info) int { return strings.Compare(a.Key, b.Key) })
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	for _, info := range infos {
		if err := each(info); err != nil {
			return err
		}
	}
	return nil
}

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return blob.CheckKey(key)
}
