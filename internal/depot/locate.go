package depot

import (
	"context"
	"fmt"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
)

// MissingChunks tells for each chunk whether the scope does not know it. Unknown and invisible give
// the same answer after the same look-ups (design §4); commits ask by the same function.
func (d *Depot) MissingChunks(ctx context.Context, s Scope, ids []chunk.ID) ([]bool, error) {
	return d.missingChunks(ctx, s, ids, false)
}

// missingChunks can count as missing, too, what lies in condemned packs: by the time of the commit those may be gone,
// and only our own client sends again what is.
func (d *Depot) missingChunks(ctx context.Context, s Scope, ids []chunk.ID, lasting bool) ([]bool, error) {
	missing := make([]bool, len(ids))
	err := d.DB.View(ctx, func(tx *meta.Tx) error {
		if err := s.permitted(tx); err != nil { // a long upload asks here, MiB by MiB
			return err
		}
		places, err := tx.Locate(s.Sees, ids)
		if err != nil {
			return err
		}
		condemned := map[int64]bool{}
		if lasting {
			condemned, err = tx.CondemnedPacks()
		}
		for i, p := range places {
			missing[i] = !p.Found || condemned[p.Pack]
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("locate chunks: %w", err)
	}
	return missing, nil
}

// locate returns the place of each distinct chunk among the pieces of the given lists.
func locate(tx *meta.Tx, s Scope, lists ...[]chunk.Piece) (map[chunk.ID]meta.Place, error) {
	places := map[chunk.ID]meta.Place{}
	var ids []chunk.ID
	for _, list := range lists {
		for _, p := range list {
			if p.Kind != chunk.Chunk {
				continue
			}
			if _, asked := places[p.ID]; !asked {
				places[p.ID] = meta.Place{}
				ids = append(ids, p.ID)
			}
		}
	}
	found, err := tx.Locate(s.Sees, ids)
	if err != nil {
		return nil, fmt.Errorf("locate chunks: %w", err)
	}
	var unknown []chunk.ID
	for i, id := range ids {
		places[id] = found[i]
		if !found[i].Found {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) > 0 {
		return nil, &UnknownChunksError{IDs: unknown}
	}
	return places, nil
}
