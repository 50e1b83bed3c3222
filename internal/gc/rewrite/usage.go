package rewrite

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
)

// PackUsage is a pack and how much of it layouts need.
type PackUsage struct {
	meta.PackFact
	Alive   int64 // bytes of the entries that some layout needs, to some percent (see Usage)
	Entries int   // how many those are; 0: nothing needs the pack
	Whole   bool  // a layout needs the file as it is
	Busy    bool  // a push that has not ended may be about to use any of it, or it is in quarantine
}

// Usage is what layouts need of each pack. Where two layouts need overlapping runs of a pack, the bytes of
// what only one needs are taken to be as long as the run's others; Entries is exact.
//
// Of a pack it takes about a hundred bytes, and a bit an entry: fifty thousand packs of 16 MiB are 7 MB.
type Usage struct {
	packs []usedPack // by id
}

type usedPack struct {
	PackUsage
	bits []byte // bit i: entry i is needed
}

// Each calls each for every pack, by id.
func (u *Usage) Each(each func(PackUsage)) {
	for i := range u.packs {
		each(u.packs[i].PackUsage)
	}
}

// Of is the usage of one pack; ok is false when there was none of this id.
func (u *Usage) Of(id int64) (p PackUsage, ok bool) {
	if found := u.find(id); found != nil {
		return found.PackUsage, true
	}
	return p, false
}

func (u *Usage) find(id int64) *usedPack {
	i, found := slices.BinarySearchFunc(u.packs, id, func(p usedPack, id int64) int { return cmp.Compare(p.ID, id) })
	if !found {
		return nil
	}
	return &u.packs[i]
}

func (p *usedPack) add(e depot.Extent) {
	if e.Trailer {
		p.Whole = true
		return
	}
	fresh := p.mark(e.First, e.Count)
	p.Entries += fresh
	if fresh == e.Count {
		p.Alive += e.Bytes
	} else if fresh > 0 {
		p.Alive += int64(float64(e.Bytes) * float64(fresh) / float64(e.Count))
	}
}

// mark sets bits and says how many were not.
func (p *usedPack) mark(first, count int) (fresh int) {
	if missing := (first+count+7)/8 - len(p.bits); missing > 0 {
		p.bits = append(p.bits, make([]byte, missing)...)
	}
	for i := first; i < first+count; {
		at, n := i>>3, min(8-i&7, first+count-i)
		mask := byte((1<<n - 1) << (i & 7))
		fresh += n - bits.OnesCount8(p.bits[at]&mask)
		p.bits[at] |= mask
		i += n
	}
	return fresh
}

const (
	// A page is read in one transaction: short ones, so that the WAL can be reset between them.
	packPage, layoutPage = 4096, 1024
)

// Survey goes over all packs and layouts, a page at a time. What changes meanwhile it may see or not.
type Survey struct {
	DB      *meta.DB
	Layouts *depot.Layouts
	Keep    func(nar int64) bool // of which NARs the layouts count, by row; nil means all

	usage Usage
	nar   int64 // the last whose layout was read
	stage int
}

const (
	readPacks = iota
	readLayouts
	surveyed
)

// Step goes on until it is done, which it says, or ctx ends, which is no error. It reads a page at least.
func (s *Survey) Step(ctx context.Context) (done bool, err error) {
	background := context.WithoutCancel(ctx)
	for s.stage != surveyed {
		err := s.DB.View(background, s.page)
		if err != nil {
			return false, fmt.Errorf("see what packs are needed for: %w", err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return s.stage == surveyed, nil
}

// Usage is the result, once Step says that it is done.
func (s *Survey) Usage() *Usage { return &s.usage }

// page reads packs first: of a pack that comes later nothing is known, and nothing claimed.
func (s *Survey) page(tx *meta.Tx) error {
	if s.stage == readPacks {
		return s.packs(tx)
	}
	read, err := eachLayout(tx, &s.nar, s.Layouts, func(nar int64, e depot.Extent) {
		if s.Keep != nil && !s.Keep(nar) {
			return
		}
		if p := s.usage.find(e.Pack); p != nil {
			p.add(e)
		}
	})
	if read == 0 {
		s.stage = surveyed
	}
	return err
}

func (s *Survey) packs(tx *meta.Tx) error {
	u := &s.usage
	after := int64(0)
	if n := len(u.packs); n > 0 {
		after = u.packs[n-1].ID
	}
	list, err := tx.PackFacts(after, packPage)
	for _, f := range list {
		u.packs = append(u.packs, usedPack{PackUsage: PackUsage{PackFact: f}})
	}
	if err != nil || len(list) > 0 {
		return err
	}
	s.stage = readLayouts
	return tx.UnsettledPacks(func(id int64) {
		if p := u.find(id); p != nil {
			p.Busy = true
		}
	})
}

// eachLayout reads a page of layouts behind a NAR, and moves it along. It says how many it read.
func eachLayout(tx *meta.Tx, after *int64, layouts *depot.Layouts, each func(nar int64, e depot.Extent)) (read int, err error) {
	err = tx.LayoutsAfter(*after, layoutPage, func(nar int64, layout []byte) error {
		*after = nar
		read++
		if len(layout) == 0 {
			return nil // its packs were not to be found by a recovery
		}
		if err := layouts.Extents(layout, func(e depot.Extent) { each(nar, e) }); err != nil {
			return fmt.Errorf("layout of NAR %d: %w", nar, err)
		}
		return nil
	})
	return read, err
}

// Alive is a whole Survey: what the layouts of all NARs, or of those that keep says, need of each pack.
func Alive(ctx context.Context, db *meta.DB, layouts *depot.Layouts, keep func(nar int64) bool) (*Usage, error) {
	s := &Survey{DB: db, Layouts: layouts, Keep: keep}
	for {
		done, err := s.Step(ctx)
		if err == nil && !done {
			err = ctx.Err()
		}
		if err != nil || done {
			return s.Usage(), err
		}
	}
}

// oldest orders packs by age.
func oldest(a, b PackUsage) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
}
