package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/token"
)

// snapshot is all live caches at one moment. It must not be changed.
type snapshot struct {
	list   []*meta.Cache
	byName map[string]*meta.Cache
	old    map[int64][]meta.OldKey // that sign along, newest first, by cache
	taken  time.Time
}

// cacheListTTL is how old a snapshot may get: another server on the same
// database may have changed a cache. What this server changes shows at once.
const cacheListTTL = 2 * time.Second

// cacheList keeps the last snapshot, for nearly every request needs a cache
// and there are few of them.
type cacheList struct {
	load func(context.Context) (*snapshot, error)

	mu      sync.Mutex
	current *snapshot
	changes int // how often it was forgotten: a load that began before is stale
}

func (l *cacheList) get(ctx context.Context) (*snapshot, error) {
	l.mu.Lock()
	current, changes := l.current, l.changes
	l.mu.Unlock()
	if current != nil && time.Since(current.taken) < cacheListTTL {
		return current, nil
	}
	fresh, err := l.load(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes == changes {
		l.current = fresh
	}
	return fresh, nil
}

// forget is called after every change of a cache, before it is acknowledged.
func (l *cacheList) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = nil
	l.changes++
}

func (s *Server) loadCaches(ctx context.Context) (*snapshot, error) {
	taken := time.Now()
	var rows []meta.Cache
	var old []meta.OldKey
	err := s.DB.View(ctx, func(tx *meta.Tx) (err error) {
		if rows, err = tx.Caches(); err != nil {
			return err
		}
		old, err = tx.SigningOldKeys()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list caches: %w", err)
	}
	snap := &snapshot{byName: make(map[string]*meta.Cache, len(rows)), old: map[int64][]meta.OldKey{}, taken: taken}
	for _, k := range old {
		snap.old[k.CacheID] = append(snap.old[k.CacheID], k)
	}
	for i := range rows {
		snap.list = append(snap.list, &rows[i])
		snap.byName[rows[i].Name] = &rows[i]
	}
	return snap, nil
}

// scope is what a push by c to cache may know of: the cache itself, public
// caches, and those that the token may pull (design §4).
func (s *Server) scope(ctx context.Context, c caller, cache *meta.Cache) (depot.Scope, error) {
	all, err := s.caches.get(ctx)
	if err != nil {
		return depot.Scope{}, err
	}
	sees := []int64{cache.ID}
	for _, other := range all.list {
		if other.ID != cache.ID && c.permsOn(other)&token.Pull != 0 {
			sees = append(sees, other.ID)
		}
	}
	return depot.Scope{Cache: *cache, Sees: sees, User: c.subject(), Token: c.tokenID(), SignedBy: s.SignedBy[cache.Name]}, nil
}
