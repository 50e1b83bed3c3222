package depot

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// Quarantine puts entries of a pack into quarantine; nil is all of it. It says whether that was news. Which
// paths need them shows as Spread goes on.
func (d *Depot) Quarantine(ctx context.Context, packID int64, entries []int32, why string) (news bool, err error) {
	d.init()
	err = d.DB.Update(ctx, func(tx *meta.Tx) error {
		p, err := d.packInfo(tx, packID)
		if err == nil {
			news, err = tx.Quarantine(packID, p.index.Entries, entries, why)
		}
		return err
	})
	return news, err
}

// Release ends a pack's quarantine: its object is as it was stored.
func (d *Depot) Release(ctx context.Context, packID int64) error {
	d.init()
	return d.DB.Update(ctx, func(tx *meta.Tx) error {
		p, err := d.packInfo(tx, packID)
		if err == nil {
			err = tx.Release(packID, p.index.Entries)
		}
		return err
	})
}

// Spread marks some of the NARs that need what is in quarantine, until more is false.
func (d *Depot) Spread(ctx context.Context) (more bool, err error) {
	d.init()
	err = d.DB.View(ctx, func(tx *meta.Tx) (err error) {
		more, err = tx.SpreadDue()
		return err
	})
	if err != nil || !more {
		return false, err
	}
	err = d.DB.Update(ctx, func(tx *meta.Tx) (err error) {
		more, err = tx.Spread(d.uses)
		return err
	})
	return more, err
}

// uses tells what a layout needs of packs. A pack's index frame is of the pack, as if it were its entry behind
// the last.
func (d *Depot) uses(row []byte, each func(pack int64, first, count int)) error {
	l, err := d.layout(row)
	if err != nil {
		return nil // Verify names it; it can be served no more than what is damaged
	}
	for _, s := range l {
		if s.kind == runSpan {
			each(s.pack, s.first, s.count)
		}
	}
	return nil
}

// healPage is how many NARs a step of Heal tries. Those that can be healed are, in one transaction.
const healPage = 32

// Heal puts paths of damaged NARs behind an id on other copies of what they lack, where their cache has any by
// now: the push that brings one path's chunk back brings it back to all. It returns the last NAR that it has
// tried, 0 after the last of all, and how many paths it healed.
func (d *Depot) Heal(ctx context.Context, after int64) (next int64, healed int, err error) {
	d.init()
	var can []int64
	tried := 0
	err = d.DB.View(ctx, func(tx *meta.Tx) error { // first without holding up anybody
		list, err := tx.DamagedNARs(after, healPage)
		for i := range list {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			var ok bool
			if ok, err = d.healable(tx, &list[i]); ok {
				can = append(can, list[i].ID)
			}
			tried, next = tried+1, list[i].ID
		}
		return err
	})
	if err != nil {
		return after, 0, err
	}
	if tried < healPage {
		next = 0
	}
	if len(can) == 0 {
		return next, 0, nil
	}
	err = d.DB.Update(ctx, func(tx *meta.Tx) error {
		healed = 0
		for _, id := range can {
			n, err := d.healPaths(tx, id)
			if err != nil {
				return err
			}
			healed += n
		}
		return nil
	})
	if err != nil {
		return after, 0, err
	}
	return next, healed, nil
}

// healable says whether some path of a NAR can be healed.
func (d *Depot) healable(tx *meta.Tx, n *meta.DamagedNAR) (bool, error) {
	l, err := d.layout(n.Layout)
	if err != nil {
		return false, nil
	}
	if whole, err := d.released(tx, n, l); whole || err != nil {
		return whole, err
	}
	caches, err := tx.PathsOf(n.ID)
	for cache := range caches {
		if err != nil {
			break
		}
		var instead *meta.NAR
		var mended *assembly
		if instead, mended, err = d.substitute(tx, cache, n, l); instead != nil || mended != nil {
			return true, err
		}
	}
	return false, err
}

// released says whether nothing that a NAR needs is in quarantine any more.
func (d *Depot) released(tx *meta.Tx, n *meta.DamagedNAR, l layout) (bool, error) {
	if n.Wrong {
		return false, nil
	}
	for _, s := range l {
		if s.kind == literalSpan {
			continue
		}
		if q, err := tx.Quarantined(s.pack); err != nil || s.kind == trailerSpan && q != nil || q.Overlaps(s.first, s.count) {
			return false, err
		}
	}
	return true, nil
}

// healPaths does it, from what the database says now.
func (d *Depot) healPaths(tx *meta.Tx, id int64) (healed int, err error) {
	list, err := tx.DamagedNARs(id-1, 1)
	if err != nil || len(list) == 0 || list[0].ID != id {
		return 0, err
	}
	n := &list[0]
	l, err := d.layout(n.Layout)
	if err != nil {
		return 0, nil
	}
	caches, err := tx.PathsOf(id)
	if err != nil {
		return 0, err
	}
	whole, err := d.released(tx, n, l)
	if err != nil {
		return 0, err
	}
	if whole {
		for _, hashes := range caches {
			healed += len(hashes)
		}
		return healed, tx.Undamage(id)
	}
	all, err := tx.Caches()
	for i := range all { // those that are live
		c := &all[i]
		if err != nil || len(caches[c.ID]) == 0 {
			continue
		}
		nar, err := d.replacement(tx, c, n, l)
		if err != nil {
			return healed, err
		}
		if nar == nil {
			continue
		}
		for _, hash := range caches[c.ID] {
			if err := repoint(tx, c, hash, nar); err != nil {
				return healed, err
			}
			healed++
		}
	}
	return healed, err
}

// replacement is a NAR for the paths of a cache: one that it has, or a new one.
func (d *Depot) replacement(tx *meta.Tx, c *meta.Cache, n *meta.DamagedNAR, l layout) (*meta.NAR, error) {
	nar, asm, err := d.substitute(tx, c.ID, n, l)
	if err != nil || asm == nil {
		return nar, err
	}
	sums, keys := map[int64][32]byte{}, map[int64]string{}
	for id, p := range asm.packs {
		sums[id], keys[id] = p.SHA256, p.Key
	}
	if err := d.show(tx, Scope{Cache: *c}, asm.used); err != nil {
		return nil, err
	}
	nar = &meta.NAR{Form: asm.layout.form(sums), Hash: n.Hash, Size: n.Size, FileSize: uint64(asm.layout.size()),
		Verified: n.Verified, Layout: d.rows.encode(asm.layout.encode()), CreatedAt: tx.Now()}
	rec := ledger.NAR{Form: nar.Form, Hash: nar.Hash, Size: nar.Size, FileSize: nar.FileSize, Verified: nar.Verified,
		Layout: asm.layout.record(keys), CreatedAt: nar.CreatedAt}
	return nar, tx.InsertNAR(nar, rec)
}

// substitute finds what a cache may have instead of a damaged NAR: another one of the same hash, or the same
// chunks in other places. Only its own places count: by those of others it would learn who has pushed.
func (d *Depot) substitute(tx *meta.Tx, cache int64, n *meta.DamagedNAR, l layout) (*meta.NAR, *assembly, error) {
	found, err := tx.FindNARs(n.Hash, []int64{cache})
	if err != nil {
		return nil, nil, err
	}
	if len(found) > 0 && (found[0].Verified || !n.Verified && !n.Wrong) {
		return &found[0], nil, nil
	}
	if n.Wrong {
		return nil, nil, nil
	}
	asm, err := d.mend(tx, cache, l)
	return nil, asm, err
}

// mend is the layout with other places for what is in quarantine; nil if something has none.
func (d *Depot) mend(tx *meta.Tx, cache int64, l layout) (*assembly, error) {
	out := &assembly{packs: map[int64]*packInfo{}, used: map[int64][]int32{}}
	for _, s := range l {
		if s.kind == literalSpan {
			out.layout.add(s)
			continue
		}
		p, err := d.packInfo(tx, s.pack)
		if err != nil {
			return nil, err
		}
		q, err := tx.Quarantined(s.pack)
		if err != nil {
			return nil, err
		}
		if s.kind == trailerSpan {
			if q == nil {
				out.layout.add(s)
			}
			continue
		}
		if s.first < 0 || s.count < 1 || s.first+s.count > len(p.index.Entries) {
			return nil, nil
		}
		if ok, err := d.mendRun(tx, cache, out, p, q, s); err != nil || !ok {
			return nil, err
		}
	}
	return out, nil
}

func (d *Depot) mendRun(tx *meta.Tx, cache int64, out *assembly, p *packInfo, q *meta.Quarantined, s span) (ok bool, err error) {
	var ids []chunk.ID
	for i, e := range p.index.Entries[s.first : s.first+s.count] {
		if q.Has(s.first + i) {
			if e.Kind != chunk.Chunk {
				return false, nil // a literal in an own pack is nowhere else
			}
			ids = append(ids, e.ID)
		}
	}
	places, err := tx.Locate([]int64{cache}, ids)
	if err != nil {
		return false, err
	}
	for i := s.first; i < s.first+s.count; i++ {
		from, entry := p, i
		if q.Has(i) {
			place := places[0]
			if places = places[1:]; !place.Found {
				return false, nil
			}
			if from, err = d.packInfo(tx, place.Pack); err != nil {
				return false, err
			}
			entry = int(place.Entry)
			if entry >= len(from.index.Entries) || from.index.Entries[entry].ID != p.index.Entries[i].ID {
				return false, fmt.Errorf("pack %d does not hold chunk %s at entry %d", place.Pack, p.index.Entries[i].ID, entry)
			}
		}
		out.packs[from.ID] = from
		out.used[from.ID] = append(out.used[from.ID], int32(entry))
		out.layout.add(from.run(entry, 1))
	}
	return true, nil
}

// repoint puts a path on another NAR of the same contents.
func repoint(tx *meta.Tx, c *meta.Cache, hash string, nar *meta.NAR) error {
	p, old, err := tx.Path(c.ID, hash)
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if old.Hash != nar.Hash {
		return nil
	}
	p.NAR = nar.ID
	return tx.PutPath(p, pathRecord(c, p, nar))
}

func pathRecord(c *meta.Cache, p *meta.Path, nar *meta.NAR) ledger.Path {
	return ledger.Path{
		Cache: c.Name, StorePath: p.StorePath, NAR: nar.UID, NARHash: nar.Hash, Form: nar.Form,
		References: p.References, Upstream: p.Upstream, Deriver: p.Deriver, System: p.System,
		CA: p.CA, Sigs: p.Sigs, CreatedBy: p.CreatedBy, CreatedAt: p.CreatedAt,
	}
}
