package rewrite

import (
	"context"
	"fmt"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
)

// maxUsers bounds how many NARs are remembered, 8 bytes each, for all groups together.
const maxUsers = 4 << 20

// users finds the NARs that need the chosen packs, and which entries of them.
type users struct {
	db      *meta.DB
	layouts *depot.Layouts
	groups  []*group
	sources map[int64]*source
	nar     int64 // the last whose layout was read; rows' ids only rise
	found   int
	done    bool
}

func newUsers(db *meta.DB, layouts *depot.Layouts, groups []*group) *users {
	u := &users{db: db, layouts: layouts, groups: groups, sources: map[int64]*source{}}
	for _, g := range groups {
		for _, s := range g.sources {
			s.Alive, s.Entries, s.Whole = 0, 0, false // found anew, with less to remember
			u.sources[s.ID] = s
		}
	}
	return u
}

// step goes on until it has read all layouts, which it says, or ctx ends.
func (u *users) step(ctx context.Context) (done bool, err error) {
	for !u.done {
		if u.done, err = u.page(ctx); err != nil {
			return false, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return u.done, nil
}

// late reads what has come since, while a pack was copied.
func (u *users) late(ctx context.Context) error {
	for {
		if done, err := u.page(ctx); err != nil || done {
			return err
		}
	}
}

func (u *users) page(ctx context.Context) (done bool, err error) {
	err = u.db.View(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
		done, err = u.read(tx)
		return err
	})
	for u.found > maxUsers {
		u.forget()
	}
	return done, err
}

// read reads a page of layouts.
func (u *users) read(tx *meta.Tx) (done bool, err error) {
	n, err := eachLayout(tx, &u.nar, u.layouts, u.note)
	if err != nil {
		return false, fmt.Errorf("look for users of packs: %w", err)
	}
	return n < layoutPage, nil
}

func (u *users) note(nar int64, e depot.Extent) {
	s := u.sources[e.Pack]
	if s == nil {
		return
	}
	s.add(e)
	if g := s.group; len(g.nars) == 0 || g.nars[len(g.nars)-1] != nar {
		g.nars = append(g.nars, nar)
		u.found++
	}
}

// forget gives up the group that most NARs need.
func (u *users) forget() {
	most := u.groups[0]
	for _, g := range u.groups {
		if len(g.nars) > len(most.nars) {
			most = g
		}
	}
	for _, s := range most.sources {
		delete(u.sources, s.ID)
	}
	u.found -= len(most.nars)
	most.sources, most.nars = nil, nil
}
