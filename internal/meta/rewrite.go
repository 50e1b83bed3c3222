package meta

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/pack"
)

// What a rewrite of packs reads and changes. None of it makes a cache see a chunk
// that it did not see before, and none of it drops a pack.

// PackFact is a pack without what is in it. Size is in bytes.
type PackFact struct {
	ID        int64
	Size      int64
	Own       bool
	CreatedAt time.Time
}

// PackFacts reads at most limit packs behind an id, by id; none is the end.
func (tx *Tx) PackFacts(after int64, limit int) (list []PackFact, err error) {
	err = tx.each("SELECT id, size, own, created_at FROM packs WHERE id > $1 ORDER BY id LIMIT $2", []any{after, limit}, func(scan func(...any) error) error {
		var f PackFact
		var created int64
		err := scan(&f.ID, &f.Size, &f.Own, &created)
		f.CreatedAt = unstamp(created)
		list = append(list, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read packs: %w", err)
	}
	return list, nil
}

// UnsettledPacks calls each for packs of which more is decided elsewhere: that some
// cache sees at present and not for good, since a push may be about to commit any of
// their chunks; and that are in quarantine, wholly or in part.
func (tx *Tx) UnsettledPacks(each func(id int64)) error {
	const query = "SELECT pack_id FROM visible WHERE until > $1 UNION SELECT pack_id FROM quarantine"
	err := tx.each(query, []any{stamp(tx.now)}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		each(id)
		return err
	})
	if err != nil {
		return fmt.Errorf("look for unsettled packs: %w", err)
	}
	return nil
}

// LayoutsAfter calls each for at most limit NARs behind an id, by id, whether they
// have paths or not; none is the end. The layout is valid during the call.
func (tx *Tx) LayoutsAfter(after int64, limit int, each func(nar int64, layout []byte) error) error {
	var layout sql.RawBytes
	err := tx.each("SELECT id, layout FROM nars WHERE id > $1 ORDER BY id LIMIT $2", []any{after, limit}, func(scan func(...any) error) error {
		var id int64
		if err := scan(&id, &layout); err != nil {
			return err
		}
		return each(id, layout)
	})
	if err != nil {
		return fmt.Errorf("read layouts: %w", err)
	}
	return nil
}

// MoveNAR gives a NAR another layout of the same bytes, with a pack that is needed from
// now on, and logs it. move makes it out of the present one; a nil row leaves the NAR as
// it is. The form stays: it names the bytes of the stream, which are the same, so a
// download that was cut goes on. A NAR that is gone is ErrNotFound.
func (tx *Tx) MoveNAR(id, to int64, move func(layout []byte) (row []byte, spans []ledger.Span, err error)) error {
	if err := tx.moveNAR(id, to, move); err != nil {
		return fmt.Errorf("move NAR %d to pack %d: %w", id, to, err)
	}
	return nil
}

func (tx *Tx) moveNAR(id, to int64, move func([]byte) ([]byte, []ledger.Span, error)) error {
	var r narRow
	if err := tx.one("SELECT "+narColumns+", n.layout FROM nars n WHERE n.id = $1", []any{id}, append(r.dest(), &r.Layout)...); err != nil {
		return err
	}
	n, err := r.nar()
	if err != nil {
		return err
	}
	row, spans, err := move(n.Layout)
	if err != nil || row == nil {
		return err
	}
	if _, err := tx.exec("UPDATE nars SET layout = $2 WHERE id = $1", id, row); err != nil {
		return err
	}
	if err := tx.revive(to); err != nil { // a collection may have begun since the pack was shown
		return err
	}
	tx.records = append(tx.records, ledger.Record{NAR: &ledger.NAR{ID: n.UID, Form: n.Form, Hash: n.Hash, Size: n.Size,
		FileSize: n.FileSize, Verified: n.Verified, Layout: spans, CreatedAt: n.CreatedAt}})
	return nil
}

// Moved are entries of a pack that lie in a new one as well.
type Moved struct {
	From, To int64        // packs
	Old, New []pack.Entry // of each, all
	Entry    []int32      // of the new pack, for each of the old one; -1: it stays
}

// ShowMoved lets every cache see in the new pack what it sees for good of what was
// moved, no less and no more.
func (tx *Tx) ShowMoved(m *Moved) error {
	if err := tx.eachSeer(m, tx.showMoved); err != nil {
		return fmt.Errorf("show what was moved from pack %d: %w", m.From, err)
	}
	return nil
}

func (tx *Tx) showMoved(m *Moved, s seer) error {
	var entries []int32
	for i, to := range m.Entry {
		if to >= 0 && s.sees(int32(i)) {
			entries = append(entries, to)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	bits, err := bitmap(entries)
	if err != nil {
		return err
	}
	return tx.showBits(s.cache, m.To, bits, m.New)
}

// HideMoved has caches find those chunks in the new pack alone, so that nothing more
// is put together from the old one. It shows them there first. What a cache sees of the
// old pack until a time, for a push that has not ended, stays as it is.
func (tx *Tx) HideMoved(m *Moved) error {
	err := tx.eachSeer(m, func(m *Moved, s seer) error {
		if err := tx.showMoved(m, s); err != nil {
			return err
		}
		return tx.hideMoved(m, s)
	})
	if err != nil {
		return fmt.Errorf("hide what was moved from pack %d: %w", m.From, err)
	}
	return nil
}

// hideMoved takes away every entry of a chunk that was moved, for a place is of a
// chunk, and not of an entry.
func (tx *Tx) hideMoved(m *Moved, s seer) error {
	moved := map[chunk.ID]bool{}
	for i, to := range m.Entry {
		if to >= 0 && s.sees(int32(i)) {
			moved[m.Old[i].ID] = true
		}
	}
	if len(moved) == 0 {
		return nil
	}
	hide := func(entry int32) bool { return moved[m.Old[entry].ID] }
	if err := tx.eachPlace(dropPlaces, s.cache, m.From, m.Old, hide); err != nil {
		return err
	}
	bits, left := make([]byte, (len(m.Old)+7)/8), false
	for i := range m.Old {
		if s.sees(int32(i)) && !hide(int32(i)) {
			bits[i>>3] |= 1 << (i & 7)
			left = left || m.Old[i].Kind == chunk.Chunk // literals have no places: nothing is found by them
		}
	}
	query, args := "UPDATE visible SET bits = $3 WHERE cache_id = $1 AND pack_id = $2", []any{s.cache, m.From, bits}
	if !left {
		query, args = "DELETE FROM visible WHERE cache_id = $1 AND pack_id = $2", args[:2]
	}
	_, err := tx.exec(query, args...)
	return err
}

// seer is a cache that sees a pack for good.
type seer struct {
	cache int64
	bits  []byte // nil with whole
	whole bool
}

func (s seer) sees(entry int32) bool { return s.whole || sees(s.bits, entry) }

func (tx *Tx) eachSeer(m *Moved, each func(*Moved, seer) error) error {
	var list []seer
	err := tx.each("SELECT cache_id, bits, bits IS NULL FROM visible WHERE pack_id = $1 AND until IS NULL ORDER BY cache_id", []any{m.From},
		func(scan func(...any) error) error {
			var s seer
			err := scan(&s.cache, &s.bits, &s.whole)
			list = append(list, s)
			return err
		})
	for _, s := range list {
		if err == nil {
			err = each(m, s)
		}
	}
	return err
}

// Supersede logs a cache's settings once more, which changes nothing. What an earlier
// process logged and did not commit, because it ended between the two, is passed over by
// recoveries from here on; until then it counts, being the last, and a NAR that was
// moved by it must find its pack. So it comes before objects go that have no row.
func (tx *Tx) Supersede() error {
	list, err := tx.AllCaches()
	if err != nil || len(list) == 0 {
		return err
	}
	tx.records = append(tx.records, cacheRecord(&list[0]))
	return nil
}
