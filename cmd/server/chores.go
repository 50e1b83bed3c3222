package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/org/attic-action/internal/chores"
	"github.com/org/attic-action/internal/meta"
)

// sweepRows is how many rows of a kind one step drops: some tens of milliseconds for the database.
const sweepRows = 2000

// runner knows what is due by the clock. Names are kept in the database and must not change.
func (st *stack) runner(log *slog.Logger) *chores.Runner {
	return &chores.Runner{
		Store: st.db, Busy: st.server.Busy, Log: log,
		Chores: append(append(st.verifyChores(st.verifyClock), st.gcChores(st.collectEvery)...), []chores.Chore{
			{Name: "uses", Every: time.Minute, Step: func(ctx context.Context) (bool, error) {
				return false, st.server.WriteUses(ctx)
			}},
			{Name: "sweep", Every: 6 * time.Hour, Step: func(ctx context.Context) (more bool, err error) {
				err = st.db.Update(ctx, func(tx *meta.Tx) error {
					more, err = tx.Sweep(sweepRows)
					return err
				})
				return more, err
			}},
			// When one is due, it says itself: after so many records, or a day.
			{Name: "checkpoint", Every: 5 * time.Minute, Step: st.keeper.Step},
		}...),
	}
}

// startChores does what is due until the function it returns is called, which waits for the step under way.
func (st *stack) startChores(ctx context.Context, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := st.runner(log).Run(ctx); err != nil && ctx.Err() == nil {
			log.Error("nothing that is due by the clock is done until the next start", "error", err)
		}
	}()
	return func() { cancel(); <-done }
}
