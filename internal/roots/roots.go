// Package roots says what is kept and why: which closures are whole, which paths
// have a name that holds them, and what stands between a path and its removal.
//
//	pins ───────────┐
//	                ├─ roots ─ references, along and along ─► what is kept
//	used of late ───┘
//
//	Closure   is all that these need there?          and so it was used
//	List      what a closure consists of
//	Pin       hold this, under a name                if its closure is whole
//	Path      what is known of a path, and what holds it
//	Why       the way from a root to it
//	Delete    away with it, if nothing needs it
//
// A walk along references reads the database level by level into a graph (graph.go)
// and holds one of its few readers meanwhile. So walks are bounded, and take turns.
package roots

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
)

// Keeper answers for one database. Fill in the fields, then use it from any number
// of goroutines.
type Keeper struct {
	DB        *meta.DB
	Retention time.Duration // of caches that have none of their own; 0: for ever
	// Keep is how many revisions a pin of a name keeps whose setter does not say; 0: as many as before, or
	// the default. nil says 0 of all.
	Keep func(name string) int

	walks, looks turn
}

// turn lets one at a time. A walk that meets its bound takes a hundred megabytes, on
// a machine that may have 256, and one of the database's few readers.
type turn struct {
	once sync.Once
	busy chan struct{}
}

func (t *turn) take(ctx context.Context) (leave func(), err error) {
	t.once.Do(func() { t.busy = make(chan struct{}, 1) })
	select {
	case t.busy <- struct{}{}:
		return func() { <-t.busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Asker is on whose behalf something is asked, and of which cache.
type Asker struct {
	Cache meta.Cache
	User  string // the token's subject
	Token string // its jti; empty: it has none, or there is no token
}

// Refusal is an error whose text may be shown to the client: it says what was
// wrong with what was asked.
type Refusal struct{ Msg string }

func (e *Refusal) Error() string { return e.Msg }

func refuse(format string, args ...any) error { return &Refusal{Msg: fmt.Sprintf(format, args...)} }

const (
	// maxTops bounds the toplevels of one question.
	maxTops = 4096
	// touchBatch paths are written in one transaction: others wait for it.
	touchBatch = 4096
	// touchAfter is how exactly the last use of what a toplevel needs is known.
	// Hosts are asked for many times a day, and each time thousands of rows would
	// be written.
	touchAfter = time.Hour
)

// walking runs fn when it is its turn to walk.
func (k *Keeper) walking(ctx context.Context, fn func(*meta.Tx) error) error {
	leave, err := k.walks.take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return k.DB.View(ctx, fn)
}

// looking is walking for the administrator, who may read all paths, again and again:
// those who push need not wait for that.
func (k *Keeper) looking(ctx context.Context, fn func(*meta.Tx) error) error {
	leave, err := k.looks.take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return k.DB.View(ctx, fn)
}

// update changes the database in the name of the asker's token, unless it was
// taken back meanwhile.
func (k *Keeper) update(ctx context.Context, a Asker, fn func(*meta.Tx) error) error {
	return k.DB.Update(ctx, func(tx *meta.Tx) error {
		if a.Token != "" {
			if err := tx.CheckToken(a.Token); err != nil {
				return err
			}
		}
		return fn(tx)
	})
}

// Closure tells which of the toplevels, given by hash, have their whole closure in
// the cache or with upstreams that a push declared: a toplevel that is there proves
// nothing about what it needs. Of those that do, all of the closure has been used
// now.
func (k *Keeper) Closure(ctx context.Context, a Asker, tops []string) (api.ClosureResult, error) {
	result := api.ClosureResult{Complete: []string{}, Missing: []string{}, Absent: []string{}}
	if len(tops) > maxTops {
		return result, refuse("%d toplevels are more than the limit of %d a request", len(tops), maxTops)
	}
	var stale []string
	err := k.walking(ctx, func(tx *meta.Tx) error {
		g, err := load(ctx, tx, a.Cache.ID, tops, maxNodes)
		if errors.Is(err, ErrTooLarge) {
			return refuse("the closures of these %d toplevels have %v together; ask for fewer at a time", len(tops), err)
		}
		if err != nil {
			return err
		}
		lacks := g.incomplete()
		for _, top := range tops {
			if lacks[g.id(top)] {
				result.Missing = append(result.Missing, top)
			} else {
				result.Complete = append(result.Complete, top)
			}
		}
		for _, id := range g.absent() {
			result.Absent = append(result.Absent, string(g.nodes[id].hash[:]))
		}
		slices.Sort(result.Absent)
		stale = g.usedBefore(result.Complete, tx.Now().Add(-touchAfter))
		return nil
	})
	if err != nil {
		return result, fmt.Errorf("walk closure: %w", err)
	}
	if err := k.touch(ctx, a, &result, stale); err != nil {
		return result, fmt.Errorf("refresh last use: %w", err)
	}
	return result, nil
}

// usedBefore lists what was last used before a time, of the closures of tops.
func (g *graph) usedBefore(tops []string, before time.Time) []string {
	var list []string
	g.reach(g.marks(), g.idsOf(tops), func(id int32) {
		if n := &g.nodes[id]; n.used < before.UnixMicro() {
			list = append(list, string(n.hash[:]))
		}
	})
	slices.Sort(list) // as they lie in the index
	return list
}

// touch notes the use of the complete toplevels, and of what they need. The walk
// saw the past: a collection may have taken a toplevel since. It takes none that
// was just used, and nothing that one of those needs; so what is there once the
// toplevels were touched stays, and the answer is true.
func (k *Keeper) touch(ctx context.Context, a Asker, result *api.ClosureResult, stale []string) error {
	if len(result.Complete) == 0 {
		return nil
	}
	err := k.update(ctx, a, func(tx *meta.Tx) error {
		if err := tx.TouchPaths(a.Cache.ID, result.Complete, tx.Now()); err != nil {
			return err
		}
		gone, err := tx.MissingPaths(a.Cache.ID, result.Complete)
		if len(gone) > 0 {
			result.Complete = slices.DeleteFunc(result.Complete, func(top string) bool { return slices.Contains(gone, top) })
			result.Missing, result.Absent = append(result.Missing, gone...), append(result.Absent, gone...)
		}
		return err
	})
	for batch := range slices.Chunk(stale, touchBatch) {
		if err == nil {
			err = k.update(ctx, a, func(tx *meta.Tx) error { return tx.TouchPaths(a.Cache.ID, batch, tx.Now()) })
		}
	}
	return err
}
