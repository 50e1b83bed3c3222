package rewrite

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
)

// txWeight is how much one transaction does, so that pushes do not wait for a second: a hundred thousand places, or
// a thousand NARs.
const (
	txWeight  = 100_000
	narWeight = 100
)

// op is a part of what is to be settled. They are done in their order; those of one transaction together.
type op struct {
	weight int
	do     func(*meta.Tx) error
}

// store puts the new pack into the store, and everything that was copied in its new place.
func (r *Rewriter) store(ctx context.Context, c *copying) error {
	if len(c.done) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx) // what is in the file is not copied twice for a request
	name, ix, err := c.pack.Finish()
	if err != nil {
		return fmt.Errorf("spool pack: %w", err)
	}
	row := &meta.Pack{Key: depot.PackKey(name), SHA256: name, Size: ix.Size(), Index: r.Layouts.EncodeIndex(ix)}
	within, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	if err := r.Blobs.Put(within, row.Key, c.file); err != nil {
		return fmt.Errorf("store pack: %w", err)
	}
	result := &r.run.result
	result.Written += row.Size
	if err := r.run.users.late(ctx); err != nil {
		return err
	}
	if err := r.settle(ctx, c, row, ix); err != nil {
		return fmt.Errorf("move to pack %s: %w", row.Key, err)
	}
	result.New++
	result.Packs += len(c.done)
	for _, p := range c.done {
		result.Bytes += p.size
	}
	return nil
}

// settle does it all in one transaction, if it is not too much. If it is, every one of the transactions leaves
// all as good as before: caches see the new pack before a NAR lies in it, and lose sight of the old ones last.
func (r *Rewriter) settle(ctx context.Context, c *copying, row *meta.Pack, ix *pack.Index) error {
	move := &depot.Move{Key: row.Key, Index: ix, Entries: map[int64][]int32{}}
	ops := []op{{do: func(tx *meta.Tx) error {
		err := tx.InsertPack(row, ix.Entries)
		move.To = row.ID
		return err
	}}}
	for _, p := range c.done {
		move.Entries[p.id] = p.entry
		ops = append(ops, op{len(p.entry), func(tx *meta.Tx) error { return r.moved(tx, p, move, tx.ShowMoved) }})
	}
	nars := len(c.group.nars)
	for _, id := range c.group.nars {
		ops = append(ops, op{narWeight, func(tx *meta.Tx) error { return r.moveNAR(tx, id, move) }})
	}
	for _, p := range c.done {
		ops = append(ops, op{len(p.entry), func(tx *meta.Tx) (err error) {
			// No NAR may be left in a pack that its cache does not see: those that came this moment are moved
			// first, and where one needs the old pack as a file, all that is in it can be found there still.
			for read := false; !read; {
				if read, err = r.run.users.read(tx); err != nil {
					return err
				}
			}
			for ; nars < len(c.group.nars); nars++ {
				if err := r.moveNAR(tx, c.group.nars[nars], move); err != nil {
					return err
				}
			}
			if p.source.Whole {
				return nil
			}
			return r.moved(tx, p, move, tx.HideMoved)
		}})
	}
	return r.do(ctx, ops)
}

// moved reads the old pack's index again: all of them at once would be too much to hold.
func (r *Rewriter) moved(tx *meta.Tx, p *copied, move *depot.Move, do func(*meta.Moved) error) error {
	if bad, err := tx.Quarantined(p.id); err != nil || bad != nil {
		return cmp.Or(err, fmt.Errorf("pack %d came into quarantine meanwhile", p.id))
	}
	old, err := tx.PackEntries(p.id)
	if err != nil {
		return err
	}
	if len(old) != len(p.entry) {
		return fmt.Errorf("pack %d has %d entries and had %d", p.id, len(old), len(p.entry))
	}
	return do(&meta.Moved{From: p.id, To: move.To, Old: old, New: move.Index.Entries, Entry: p.entry})
}

// moveNAR moves a NAR as its layout is then, whatever it was when it was found to need a pack.
func (r *Rewriter) moveNAR(tx *meta.Tx, id int64, move *depot.Move) error {
	err := tx.MoveNAR(id, move.To, func(layout []byte) ([]byte, []ledger.Span, error) {
		row, spans, err := r.Layouts.Move(tx, layout, move)
		if row != nil {
			r.run.result.NARs++
		}
		return row, spans, err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil // it was collected
	}
	return err
}

func (r *Rewriter) do(ctx context.Context, ops []op) error {
	most := r.heavy
	if most == 0 {
		most = txWeight
	}
	for len(ops) > 0 {
		n, weight := 0, 0
		for n < len(ops) && (n == 0 || weight+ops[n].weight <= most) {
			weight += ops[n].weight
			n++
		}
		err := r.DB.Update(ctx, func(tx *meta.Tx) error {
			for _, o := range ops[:n] {
				if err := o.do(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}
