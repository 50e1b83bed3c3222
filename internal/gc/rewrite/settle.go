package rewrite

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// txWeight is how much one transaction does, so that pushes do not wait for long: twenty thousand places, or five
// hundred NARs.
const (
	txWeight  = 20_000
	narWeight = 40
)

// settling puts everything that was copied in its new place: in one transaction, if it is not too much. If it is, every
// one of the transactions leaves all as good as before: caches see the new pack before a NAR lies in it, and lose sight
// of the old ones last.
type settling struct {
	group *group
	done  []*copied
	row   *meta.Pack // the new one
	move  *depot.Move

	shown, nars, hidden int // how many of the packs, the NARs, and the packs again are behind
}

// store puts the new pack into the store. What is in the file is not copied twice for a request.
func (r *Rewriter) store(ctx context.Context, c *copying) (*settling, error) {
	name, ix, err := c.pack.Finish()
	if err != nil {
		return nil, fmt.Errorf("spool pack: %w", err)
	}
	row := &meta.Pack{Key: depot.PackKey(name), SHA256: name, Size: ix.Size(), Index: r.Layouts.EncodeIndex(ix)}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	if err := r.Blobs.Put(within, row.Key, blob.Summed{Source: c.file, SHA256: name}); err != nil {
		return nil, fmt.Errorf("store pack: %w", err)
	}
	c.close()
	r.run.result.Written += row.Size
	s := &settling{group: c.group, done: c.done, row: row, move: &depot.Move{Key: row.Key, Index: ix, Entries: map[int64][]int32{}}}
	for _, p := range s.done {
		s.move.Entries[p.id] = p.entry
	}
	return s, nil
}

// settle goes on until all is in its place, which it says, or ctx ends. It makes a transaction at least.
func (r *Rewriter) settle(ctx context.Context, s *settling) (done bool, err error) {
	if err := r.run.users.late(ctx); err != nil {
		return false, err
	}
	for s.hidden < len(s.done) {
		err := r.DB.Update(context.WithoutCancel(ctx), func(tx *meta.Tx) error { return r.settleSome(tx, s) })
		if err != nil {
			return false, fmt.Errorf("move to pack %s: %w", s.row.Key, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if s.hidden < len(s.done) {
		return false, nil
	}
	result := &r.run.result
	result.New++
	result.Packs += len(s.done)
	for _, p := range s.done {
		result.Bytes += p.size
	}
	return true, nil
}

// settleSome is one transaction of it. If it fails, the run is given up.
func (r *Rewriter) settleSome(tx *meta.Tx, s *settling) error {
	most := r.heavy
	if most == 0 {
		most = txWeight
	}
	for weight := 0; weight < most && s.hidden < len(s.done); {
		n, err := r.settleNext(tx, s)
		if err != nil {
			return err
		}
		weight += n
	}
	return nil
}

func (r *Rewriter) settleNext(tx *meta.Tx, s *settling) (weight int, err error) {
	switch {
	case s.move.To == 0:
		err := tx.InsertPack(s.row, s.move.Index.Entries)
		s.move.To = s.row.ID
		return 1, err
	case s.shown < len(s.done):
		p := s.done[s.shown]
		s.shown++
		return len(p.entry), r.moved(tx, p, s.move, tx.ShowMoved)
	case s.nars < len(s.group.nars):
		s.nars++
		return narWeight, r.moveNAR(tx, s.group.nars[s.nars-1], s.move)
	}
	// No NAR may be left in a pack that its cache does not see: those that came this moment are moved first, and where
	// one needs the old pack as a file, all that is in it can be found there still.
	for read := false; !read; {
		if read, err = r.run.users.read(tx); err != nil {
			return 0, err
		}
	}
	if s.nars < len(s.group.nars) {
		return 0, nil
	}
	p := s.done[s.hidden]
	s.hidden++
	if p.source.Whole {
		return 1, nil
	}
	return len(p.entry), r.moved(tx, p, s.move, tx.HideMoved)
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
