package depot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// Closure tells which of the toplevels have their whole closure in the cache, or with upstreams that a
// push declared, and refreshes the last use of those that do: a toplevel that is there proves nothing
// about what it needs.
func (d *Depot) Closure(ctx context.Context, s Scope, hashes []string) (api.ClosureResult, error) {
	result := api.ClosureResult{Complete: []string{}, Missing: []string{}, Absent: []string{}}
	if len(hashes) > maxTops {
		return result, badRequest("%d toplevels are more than the limit of %d a request", len(hashes), maxTops)
	}
	err := d.DB.View(ctx, func(tx *meta.Tx) error {
		w := walk{ctx: ctx, tx: tx, cache: s.Cache.ID, refs: map[string][]string{}, whole: map[string]bool{}}
		absent := map[string]bool{}
		for _, top := range hashes {
			lacks, err := w.lacks(top)
			if err != nil {
				return err
			}
			if len(lacks) == 0 {
				result.Complete = append(result.Complete, top)
				continue
			}
			result.Missing = append(result.Missing, top)
			for _, hash := range lacks {
				absent[hash] = true
			}
		}
		for hash := range absent {
			result.Absent = append(result.Absent, hash)
		}
		slices.Sort(result.Absent)
		return nil
	})
	if err != nil {
		return result, fmt.Errorf("walk closure: %w", err)
	}
	if len(result.Complete) == 0 {
		return result, nil
	}
	err = d.update(ctx, s, func(tx *meta.Tx) error {
		return tx.TouchPaths(s.Cache.ID, result.Complete, tx.Now())
	})
	if err != nil {
		return result, fmt.Errorf("refresh last use: %w", err)
	}
	return result, nil
}

// walk follows references within one cache; closures of several hosts share most of their paths, so
// what was read once is kept.
type walk struct {
	ctx   context.Context // of the request that this walk is a part of
	tx    *meta.Tx
	cache int64
	refs  map[string][]string // of each path that was read; nil where there is none
	whole map[string]bool     // paths of closures that lack nothing
}

// maxTops bounds how many closures one request walks. It holds a reader of the database meanwhile, and
// there are few.
const maxTops = 4096

// lacks returns what is not there of a toplevel's closure.
func (w *walk) lacks(top string) (absent []string, err error) {
	seen := map[string]bool{top: true}
	for queue := []string{top}; len(queue) > 0; {
		hash := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if w.whole[hash] {
			continue
		}
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		refs, err := w.references(hash)
		if errors.Is(err, meta.ErrNotFound) {
			absent = append(absent, hash)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			if !seen[ref] {
				seen[ref] = true
				queue = append(queue, ref)
			}
		}
	}
	if len(absent) == 0 {
		maps.Copy(w.whole, seen)
	}
	return absent, nil
}

// references returns the hashes of what a path refers to, upstreams' paths left out.
func (w *walk) references(hash string) ([]string, error) {
	if refs, read := w.refs[hash]; read {
		if refs == nil {
			return nil, meta.ErrNotFound
		}
		return refs, nil
	}
	path, _, err := w.tx.Path(w.cache, hash)
	if err != nil {
		if errors.Is(err, meta.ErrNotFound) {
			w.refs[hash] = nil
		}
		return nil, err
	}
	refs := []string{}
	for _, ref := range path.References {
		if !slices.Contains(path.Upstream, ref) {
			refs = append(refs, ref[:nix.PathHashLen])
		}
	}
	w.refs[hash] = refs
	return refs, nil
}
