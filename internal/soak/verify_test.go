package soak

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/org/attic-action/internal/verify"
)

func (w *world) verifier(p *process, log *slog.Logger) *verify.Verifier {
	return &verify.Verifier{DB: p.db, Depot: p.depot, Blobs: p.store, Renew: p.keeper.Make, Log: log,
		Now: func() time.Time { return w.now }, Again: time.Nanosecond}
}

// doVerify looks for damage, of which there is none here, whatever is pushed, moved, deleted and killed meanwhile.
func (w *world) doVerify(r *rand.Rand) {
	o := verify.Options{Deep: r.IntN(3) > 0}
	if r.IntN(4) == 0 {
		o.Sample = 0.3
	}
	anew := r.IntN(3) == 0
	for range 1 + r.IntN(4) {
		p, err := w.p.verifier.Step(&countdown{Context: context.Background(), left: 1 + r.IntN(200)}, o, anew)
		anew = false
		if p != nil && !w.p.dead.Load() {
			w.checkFindings(p)
		}
		if !errors.Is(err, context.Canceled) && !w.maintained("verify", err) {
			return
		}
		if p != nil && p.Result != nil {
			w.count["verified"]++
			return
		}
	}
}

func (w *world) checkFindings(p *verify.Progress) {
	for _, f := range p.Findings {
		if f.What != "reference" { // of a stock push that brings what is needed later, or not at all
			w.wrong("verify: %v", f)
		}
	}
	if res := p.Result; res != nil && res.Healed+res.Released+int(res.Waiting) > 0 {
		w.wrong("verify has put something right: %+v", *res)
	}
}
