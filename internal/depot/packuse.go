package depot

import (
	"context"
	"fmt"

	"github.com/org/attic-action/internal/meta"
)

// PackUse is what a NAR has in a pack.
type PackUse struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"` // bytes of the pack
	Own     bool   `json:"own"`  // it holds this NAR alone
	Entries int    `json:"entries"`
	Bytes   int64  `json:"bytes"` // of the entries that the NAR uses
}

// PackUses lists the packs of a NAR's layout, by first use. None: its contents lie in
// the database.
func (d *Depot) PackUses(ctx context.Context, layout []byte) ([]PackUse, error) {
	d.init()
	row, err := d.rows.decode(layout)
	if err != nil {
		return nil, fmt.Errorf("read layout: %w", err)
	}
	l, err := decodeLayout(row)
	if err != nil {
		return nil, err
	}
	uses := []PackUse{}
	err = d.DB.View(ctx, func(tx *meta.Tx) error {
		for _, id := range l.packs() {
			p, err := tx.Pack(id)
			if err != nil {
				return err
			}
			use := PackUse{Key: p.Key, Size: p.Size, Own: p.Own}
			for _, s := range l {
				if s.kind == runSpan && s.pack == id {
					use.Entries, use.Bytes = use.Entries+s.count, use.Bytes+s.size
				}
			}
			uses = append(uses, use)
		}
		return nil
	})
	return uses, err
}
