package roots

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// PinRequest is what is to be pinned, and how.
type PinRequest struct {
	Name     string
	Path     nix.StorePath
	Keep     int           // revisions; 0: as Keeper.Keep says
	Life     time.Duration // of the pin, from now; 0: for ever
	Upstream []string      // base names of references that the cache's upstreams have
	By       string        // who pins, if not the asker's token
}

// IncompleteError names what is absent of a closure that was to be pinned.
type IncompleteError struct {
	Path nix.StorePath
	Refs []string // base names
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%d paths of the closure of %s are not in the cache, first %s", len(e.Refs), e.Path, e.Refs[0])
}

// Pin makes a path the newest revision of a pin. A path whose closure lacks
// something is an *IncompleteError: a pin that holds half a system is none.
func (k *Keeper) Pin(ctx context.Context, a Asker, in PinRequest) (*meta.Pin, error) {
	if err := meta.ValidPinName(in.Name); err != nil {
		return nil, refuse("pin %q: %v", in.Name, err)
	}
	if in.Keep == 0 && k.Keep != nil {
		in.Keep = k.Keep(in.Name)
	}
	if in.Keep < 0 || in.Keep > meta.MaxKeep {
		return nil, refuse("keep: a pin keeps 1 to %d revisions", meta.MaxKeep)
	}
	if in.Path.Dir() != a.Cache.StoreDir {
		return nil, refuse("%s is not in the cache's store %s", in.Path, a.Cache.StoreDir)
	}
	rev := meta.Revision{Hash: in.Path.Hash(), StorePath: in.Path.String(), By: in.By}
	if rev.By == "" {
		rev.By = a.User
	}
	if err := k.measure(ctx, a, in, &rev); err != nil {
		return nil, err
	}
	pin := &meta.Pin{CacheID: a.Cache.ID, Name: in.Name, Keep: in.Keep}
	err := k.update(ctx, a, func(tx *meta.Tx) error {
		if in.Life > 0 {
			pin.Expires = tx.Now().Add(in.Life)
		}
		return pinNow(tx, a, pin, rev)
	})
	if errors.Is(err, meta.ErrTooMany) {
		return nil, refuse("the cache has %d pins, which is the limit; remove some, or let them expire", meta.MaxPins)
	}
	if err != nil {
		return nil, err
	}
	return pin, nil
}

// measure sees to it that the closure is whole, and how large it is.
func (k *Keeper) measure(ctx context.Context, a Asker, in PinRequest, rev *meta.Revision) error {
	err := k.walking(ctx, func(tx *meta.Tx) error {
		g, err := load(ctx, tx, a.Cache.ID, []string{rev.Hash}, maxNodes)
		if errors.Is(err, ErrTooLarge) {
			return refuse("the closure of %s has %v", in.Path, err)
		}
		if err != nil {
			return err
		}
		if refs := g.lacking(in); len(refs) > 0 {
			return &IncompleteError{Path: in.Path, Refs: refs}
		}
		rev.Paths, rev.Size, _ = g.measure(g.marks(), []int32{g.id(rev.Hash)})
		return nil
	})
	if err != nil {
		return fmt.Errorf("walk closure of %s: %w", in.Path, err)
	}
	return nil
}

// lacking names what is absent, upstreams' paths left out.
func (g *graph) lacking(in PinRequest) []string {
	var refs []string
	for _, id := range g.absent() {
		if name := g.names[id]; name == in.Path.Hash() {
			refs = append(refs, in.Path.Base())
		} else if !slices.Contains(in.Upstream, name) {
			refs = append(refs, name)
		}
	}
	slices.Sort(refs)
	return refs
}

// measure counts the closures of tops: paths, bytes of their NARs, and bytes of
// these as they are served.
func (g *graph) measure(m *marks, tops []int32) (paths int64, size, file uint64) {
	g.reach(m, tops, func(id int32) {
		paths, size, file = paths+1, size+g.nodes[id].size, file+g.nodes[id].file
	})
	return paths, size, file
}

// pinNow writes the pin. The walk saw the past: if the path is there still, and
// another path has not taken its hash, so is its closure (see touch).
func pinNow(tx *meta.Tx, a Asker, pin *meta.Pin, rev meta.Revision) error {
	path, _, err := tx.Path(a.Cache.ID, rev.Hash)
	if err == nil && path.StorePath != rev.StorePath {
		return refuse("under the hash of %s the cache has %s", rev.StorePath, path.StorePath)
	}
	if errors.Is(err, meta.ErrNotFound) {
		p, err := nix.ParseStorePath(rev.StorePath)
		if err != nil {
			return err
		}
		return &IncompleteError{Path: p, Refs: []string{p.Base()}}
	}
	if err != nil {
		return err
	}
	if a.Token != "" {
		token, err := tx.IssuedToken(a.Token)
		if err == nil {
			rev.Policies = token.Policies
		} else if !errors.Is(err, meta.ErrNotFound) { // one that was made without this database
			return err
		}
	}
	if err := tx.TouchPaths(a.Cache.ID, []string{rev.Hash}, tx.Now()); err != nil {
		return err
	}
	return tx.SetPin(pin, rev)
}

// Unpin takes a pin away; meta.ErrNotFound if there is none of that name.
func (k *Keeper) Unpin(ctx context.Context, a Asker, name string) error {
	return k.update(ctx, a, func(tx *meta.Tx) error { return tx.DeletePin(a.Cache.ID, name) })
}

// Sizes is what a pin costs.
type Sizes struct {
	Paths    int64  `json:"paths"`      // of the closures of all its revisions together
	Size     uint64 `json:"size"`       // of their NARs, bytes
	Alone    int64  `json:"only_paths"` // of these, how many no other pin of the cache holds
	AloneNAR uint64 `json:"only_size"`  // bytes of their NARs
	// AloneFile is how many bytes those are as they are served, and so about what goes
	// with the pin: less, where other paths have the same contents; and later, where
	// they were used of late.
	AloneFile uint64 `json:"only_file"`
}

// Pins lists pins by name: those behind after, at most limit.
func (k *Keeper) Pins(ctx context.Context, cacheID int64, after string, limit int) (pins []meta.Pin, err error) {
	err = k.DB.View(ctx, func(tx *meta.Tx) error {
		pins, err = tx.Pins(cacheID, after, limit)
		return err
	})
	return pins, err
}

// PinNamed finds one pin; meta.ErrNotFound if there is none.
func (k *Keeper) PinNamed(ctx context.Context, cacheID int64, name string) (pin *meta.Pin, err error) {
	err = k.DB.View(ctx, func(tx *meta.Tx) error {
		pin, err = tx.Pin(cacheID, name)
		return err
	})
	return pin, err
}

// Sizes walks the closures of all pins of a cache and measures each pin. It is
// ErrTooLarge where they have too many paths.
func (k *Keeper) Sizes(ctx context.Context, cacheID int64) (map[string]Sizes, error) {
	sizes := map[string]Sizes{}
	err := k.walking(ctx, func(tx *meta.Tx) error {
		var names, tops []string
		err := tx.PinnedPaths(cacheID, func(pin, hash string) error {
			names, tops = append(names, pin), append(tops, hash)
			return nil
		})
		if err != nil {
			return err
		}
		g, err := load(ctx, tx, cacheID, tops, maxNodes)
		if err != nil {
			return err
		}
		return g.share(ctx, names, g.idsOf(tops), sizes)
	})
	if err != nil {
		return nil, fmt.Errorf("measure pins: %w", err)
	}
	return sizes, nil
}

// share measures the pins, whose paths lie together in the lists.
func (g *graph) share(ctx context.Context, names []string, tops []int32, sizes map[string]Sizes) error {
	const nobody, several = 0, -1
	owner := make([]int32, len(g.nodes)) // the pin that holds a path, from 1
	m, pin := g.marks(), int32(0)
	for at := 0; at < len(names); {
		if err := ctx.Err(); err != nil {
			return err
		}
		end := at + 1
		for end < len(names) && names[end] == names[at] {
			end++
		}
		pin++
		var s Sizes
		g.reach(m, tops[at:end], func(id int32) {
			s.Paths, s.Size = s.Paths+1, s.Size+g.nodes[id].size
			if owner[id] == nobody {
				owner[id] = pin
			} else {
				owner[id] = several
			}
		})
		sizes[names[at]] = s
		at = end
	}
	byPin := slices.Compact(slices.Clone(names))
	for id, o := range owner {
		if o <= 0 {
			continue
		}
		s := sizes[byPin[o-1]]
		s.Alone, s.AloneNAR, s.AloneFile = s.Alone+1, s.AloneNAR+g.nodes[id].size, s.AloneFile+g.nodes[id].file
		sizes[byPin[o-1]] = s
	}
	return nil
}
