package depot

import (
	"fmt"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
)

// Extent is a run of a pack's entries that a layout needs.
type Extent struct {
	Pack         int64
	First, Count int
	Bytes        int64 // of their frames
	// Trailer says that it is the pack's index frame instead: the pack as a file is a part of the NAR's
	// stream, and could not be another.
	Trailer bool
}

// Extents calls each for all that a layout needs of packs, in the stream's order.
func (l *Layouts) Extents(row []byte, each func(Extent)) error {
	l.init()
	b, err := l.rows.decode(row)
	if err != nil {
		return fmt.Errorf("%w: %w", errLayout, err)
	}
	for len(b) > 0 {
		var s span
		if s, b, err = decodeSpan(b); err != nil {
			return err
		}
		switch s.kind {
		case runSpan:
			if s.count > pack.MaxEntries || s.first > pack.MaxEntries-s.count {
				return errLayout
			}
			each(Extent{Pack: s.pack, First: s.first, Count: s.count, Bytes: s.size})
		case trailerSpan:
			each(Extent{Pack: s.pack, Trailer: true})
		}
	}
	return nil
}

// Move is a new pack and which entries of other packs are in it, their frames as they were. It is for one goroutine.
type Move struct {
	To      int64 // its row, which may be of the present transaction
	Key     string
	Index   *pack.Index
	Entries map[int64][]int32 // of each old pack: its entries' places in the new one; -1 is not in it

	offsets []int64 // of the new pack's entries, once they were needed
}

// Move is the row and the spans of a layout with all that was moved taken from the new pack. The stream is the same, byte for byte. It is
// nil where nothing changes: where nothing was moved, or where the NAR needs an old pack as a whole file.
func (l *Layouts) Move(tx *meta.Tx, row []byte, m *Move) ([]byte, []ledger.Span, error) {
	old, err := l.decode(row)
	if err != nil {
		return nil, nil, err
	}
	if m.offsets == nil {
		m.offsets = m.Index.Offsets()
	}
	to := &packInfo{Pack: meta.Pack{ID: m.To}, index: m.Index, offsets: m.offsets}
	var lay layout
	moved := false
	for _, s := range old {
		entries, concerned := m.Entries[s.pack]
		if s.kind == literalSpan || !concerned {
			lay.add(s)
			continue
		}
		if s.kind == trailerSpan {
			return nil, nil, nil
		}
		from, err := loadPack(tx, s.pack, &l.indexes, l.rows)
		if err != nil {
			return nil, nil, err
		}
		if n := min(len(entries), len(from.index.Entries)); s.first < 0 || s.count < 0 || s.first > n || s.count > n-s.first {
			return nil, nil, fmt.Errorf("%w: %d entries from %d of pack %d", errSpan, s.count, s.first, s.pack)
		}
		for i := s.first; i < s.first+s.count; i++ {
			if entries[i] < 0 {
				lay.add(from.run(i, 1))
				continue
			}
			moved = true
			lay.add(to.run(int(entries[i]), 1))
		}
	}
	if !moved {
		return nil, nil, nil
	}
	if lay.size() != old.size() {
		return nil, nil, fmt.Errorf("%w: moved, its stream has %d bytes, not %d", errLayout, lay.size(), old.size())
	}
	keys := map[int64]string{m.To: m.Key} // not remembered: the transaction may fail, and the id be another's
	for _, id := range lay.packs() {
		if id != m.To {
			if keys[id], err = l.key(tx, id); err != nil {
				return nil, nil, err
			}
		}
	}
	return l.rows.encode(lay.encode()), lay.record(keys), nil
}
