package soak

import (
	"context"
	"log/slog"
	"math/rand/v2"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/gc/rewrite"
	"github.com/org/attic-action/internal/spool"
)

// maintenance is what is done a step at a time.
type maintenance interface {
	Step(ctx context.Context) (more bool, err error)
}

func (w *world) maintain(p *process) maintenance { return nil }

// rewriter takes packs of a few kilobytes for large ones.
func (w *world) rewriter(p *process, layouts *depot.Layouts, sp *spool.Dir, log *slog.Logger) *rewrite.Rewriter {
	return &rewrite.Rewriter{DB: p.db, Layouts: layouts, Blobs: p.store, Spool: sp, Log: log, Target: 96 << 10, Small: 24 << 10, Budget: 1 << 20,
		Damaged: func(_ context.Context, _ int64, key string, err error) { w.wrong("pack %s is damaged: %v", key, err) }}
}

// doRewrite moves what is alive, at times to the end.
func (w *world) doRewrite(r *rand.Rand) {
	before := w.p.rewriter.Last()
	w.steps("rewrite", w.p.rewriter, 1+r.IntN(20))
	if after := w.p.rewriter.Last(); after != before {
		w.count["packs rewritten"] += after.Packs
	}
}

// steps does at most n steps of a maintenance. all says that there are no more.
func (w *world) steps(what string, m maintenance, n int) (all bool) {
	for range n {
		more, err := m.Step(context.Background())
		if !w.maintained(what, err) {
			return false
		}
		if !more {
			return true
		}
	}
	return false
}

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
