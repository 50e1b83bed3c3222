package verify

import (
	"context"
	"time"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// maxSuspects is how many packs wait to be looked at. Whoever reads one that found no room suspects it again.
const maxSuspects = 64

// lookAgain is how long a pack is not looked at again: each look may read all of it, and a hundred clients may have
// met the same hiccup of the store.
const lookAgain = time.Minute

func (v *Verifier) init() {
	v.once.Do(func() { v.suspects = make(chan int64, maxSuspects) })
}

// Suspect has a pack looked at that could not be read: for depot.Depot.Suspect. It does not block.
func (v *Verifier) Suspect(pack int64) {
	v.init()
	select {
	case v.suspects <- pack:
	default:
	}
}

// Watch looks at the packs that were suspected until ctx ends. A client was cut off by each of them; the next
// one gets a 404 and asks elsewhere.
func (v *Verifier) Watch(ctx context.Context) {
	v.init()
	looked := map[int64]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case pack := <-v.suspects:
			if now := time.Now(); now.Sub(looked[pack]) < lookAgain {
				continue
			} else if looked[pack] = now; len(looked) > 16*maxSuspects {
				clear(looked)
			}
			if err := v.look(ctx, pack); err != nil && ctx.Err() == nil {
				v.log().Warn("look at a pack that could not be read", "pack", pack, "error", err) // it is read again, or it is not needed
			}
		}
	}
}

// look reads the pack again: its end, which costs little and is missing when the object is, and then all of it.
func (v *Verifier) look(ctx context.Context, pack int64) error {
	check := &depot.Check{Depot: v.Depot, Again: v.Again}
	rep, err := check.Pack(ctx, pack, &depot.PackPosition{}, true)
	if err != nil || !rep.Damaged() {
		return err
	}
	news, err := v.quarantine(ctx, rep)
	if err != nil || !news {
		return err
	}
	why := rep.Gone
	if why == "" {
		why = rep.Why
	}
	v.log().Error("the storage has lost something; its paths are absent until they are pushed again", "where", rep.Key, "why", why)
	for more := true; more && err == nil; {
		more, err = v.Depot.Spread(ctx)
	}
	return err
}

// Heal puts paths on copies that came since, for package chores: it does nothing while nothing is damaged.
func (v *Verifier) Heal() func(ctx context.Context) (more bool, err error) {
	var after int64
	var seen, begun ledger.Pos // of the log, when the last pass began, and this one
	return func(ctx context.Context) (bool, error) {
		if more, err := v.Depot.Spread(ctx); more || err != nil {
			return more, err
		}
		if after == 0 {
			var err error
			if begun, err = v.position(ctx); err != nil || begun == seen && seen.Seq > 0 {
				return false, err // nothing was pushed that could help
			}
		}
		next, healed, err := v.Depot.Heal(ctx, after)
		if healed > 0 {
			v.log().Info("healed paths by what was pushed since", "paths", healed)
		}
		if after = next; next == 0 && err == nil {
			seen = begun
		}
		return next != 0 && err == nil, err
	}
}

func (v *Verifier) position(ctx context.Context) (pos ledger.Pos, err error) {
	err = v.DB.View(ctx, func(tx *meta.Tx) error {
		last, err := tx.LastLogged()
		if last != nil {
			pos = *last
		}
		return err
	})
	return pos, err
}
