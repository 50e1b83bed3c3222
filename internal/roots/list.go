package roots

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/org/attic-action/internal/meta"
)

// Listing is what a closure consists of, as far as a cache has it.
type Listing struct {
	Paths     map[string]uint64 // base names; bytes of their NARs
	Elsewhere []string          // base names of what these refer to and the cache lacks or leaves to upstreams; sorted
}

// maxListed bounds a Listing: with their names paths take more room than a walk's nodes.
const maxListed = 50_000

// List lists the closure of one path, given by hash; meta.ErrNotFound if the path itself is not there. It is for
// people, so it counts as no use.
func (k *Keeper) List(ctx context.Context, cacheID int64, top string) (*Listing, error) {
	out := &Listing{Paths: map[string]uint64{}}
	err := k.walking(ctx, func(tx *meta.Tx) error {
		first, _, err := tx.Path(cacheID, top)
		if err != nil {
			return err
		}
		g, err := loadNamed(ctx, tx, cacheID, path.Base(first.StorePath))
		if errors.Is(err, ErrTooLarge) {
			return refuse("the closure of %s has more than %d paths, too many to list", first.StorePath, maxListed)
		}
		if err != nil {
			return err
		}
		for id, n := range g.nodes {
			if name := g.names[int32(id)]; n.absent {
				g.elsewhere[name] = true
			} else {
				out.Paths[name] = n.size
			}
		}
		for name := range g.elsewhere {
			out.Elsewhere = append(out.Elsewhere, name)
		}
		slices.Sort(out.Elsewhere)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list closure of %s: %w", top, err)
	}
	return out, nil
}

// loadNamed is load of one path, given by base name, whose graph keeps all names.
func loadNamed(ctx context.Context, tx *meta.Tx, cacheID int64, top string) (*graph, error) {
	g := newGraph(maxListed)
	g.elsewhere = map[string]bool{}
	return g, g.load(ctx, tx, cacheID, []string{top})
}
