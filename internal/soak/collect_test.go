package soak

import (
	"context"
	"math/rand/v2"
)

// maintenance is what collects and rewrites.
type maintenance interface {
	Step(ctx context.Context) (more bool, err error)
}

func (w *world) maintain(p *process) maintenance { return nil }

func (w *world) doCollectStep(r *rand.Rand) {
	if w.p.gc == nil {
		return
	}
	w.suspect()
	_, err := w.p.gc.Step(context.Background())
	w.suspect()
	if w.maintained("collect", err) {
		w.checkKept()
	}
}

func (w *world) doCollect(r *rand.Rand) {
	if w.p.gc == nil {
		return
	}
}

// checkKept asks the database whether all is there that must be.
func (w *world) checkKept() {}
