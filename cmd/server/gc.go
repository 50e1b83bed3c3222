package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/chores"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/gc"
	"github.com/org/attic-action/internal/gc/rewrite"
	"github.com/org/attic-action/internal/meta"
)

const gcHelp = `Delete what nobody holds or uses, now rather than by the clock.

Of each cache stays what a pin holds, what was pushed or pulled within its retention
period, and what its rules in server.toml keep ([[garbage-collection.cache]]), each
with all that it needs. The rest goes: paths, then the NARs and packs that nothing needs
any more. Packs of which little is needed are rewritten. A pack is deleted 20 minutes
after nothing needs it, so that downloads end; until then a push may bring it back.

With --dry-run nothing is changed: it says what would go, how many requests to the
storage that takes, and what keeps the most. The server may run, or not.

Exit codes: 0 done; 1 it could not be done, or somebody else collects; 2 the command
line is wrong; 78 the configuration is wrong.`

// gcPercent is how much of what is in use may lie about as garbage, in the command's process. What a collection holds are
// numbers, in a few long slices without pointers, which cost Go's own collection nothing.
const gcPercent = 10

type (
	gcInput struct {
		DryRun bool
		Cache  string // empty: all
		Now    bool   // no wait before packs are deleted
	}
	gcOutput struct {
		Plan   *gc.Plan   `json:"plan,omitempty"`
		Result *gc.Result `json:"result,omitempty"`
	}
)

// openCollector makes what collects. Nobody else does: this process has the database's lock, so a lease in it is of one
// that is dead.
func (st *stack) openCollector(ctx context.Context, cfg *config.Server, store blob.Store, log *slog.Logger) error {
	layouts := &depot.Layouts{}
	st.collector = &gc.Collector{
		DB: st.db, Layouts: layouts, Blobs: store, Retention: cfg.GC.Retention, Uses: st.server.WriteUses, Log: log,
		Rules: func(cache string) gc.Own {
			r := cfg.GC.Of(cache)
			return gc.Own{KeepLast: r.KeepLast, Quota: r.Quota}
		},
		Rewrite: &rewrite.Rewriter{DB: st.db, Layouts: layouts, Blobs: store, Spool: st.depot.Spool, Memory: st.depot.Memory, Log: log,
			Damaged: func(_ context.Context, pack int64, key string, err error) {
				log.Error("a pack is damaged; it is left as it is", "pack", key, "error", err)
				if st.depot.Suspect != nil {
					st.depot.Suspect(pack)
				}
			}},
	}
	admin.Handle(st.admin, "gc", st.collect)
	if err := st.db.Update(ctx, (*meta.Tx).ClearLeases); err != nil {
		if ctx.Err() != nil {
			return err
		}
		log.Warn("take back a lease; the next collection waits for its end", "error", err) // a full disk can still be read from
	}
	return nil
}

// collect answers the command.
func (st *stack) collect(ctx context.Context, in gcInput) (out gcOutput, err error) {
	if in.Cache != "" {
		if _, err := cacheNamed(ctx, st.db, in.Cache); err != nil {
			return out, err
		}
	}
	if in.DryRun {
		out.Plan, err = st.collector.PlanFor(ctx, time.Now(), in.Cache)
		if err == nil && in.Cache == "" {
			err = st.db.Update(ctx, func(tx *meta.Tx) error { return gc.KeepPlan(tx, out.Plan) }) // for stats
		}
		return out, err
	}
	out.Result, err = st.collector.Run(ctx, gc.Options{Cache: in.Cache, AtOnce: in.Now})
	if errors.Is(err, meta.ErrLeased) {
		err = admin.As(admin.ErrConflict, err)
	}
	return out, err
}

// gcChores are due by the clock: a collection as often as the configuration says, and what it has left to wait.
func (st *stack) gcChores(every time.Duration) []chores.Chore {
	list := []chores.Chore{{Name: "reap", Every: 5 * time.Minute, Step: st.collector.Reap}}
	if every > 0 {
		list = append(list, chores.Chore{Name: "collect", Every: every, Step: st.collector.Step})
	}
	return list
}

func (p *program) gc() *cobra.Command {
	var in gcInput
	var asJSON bool
	cmd := &cobra.Command{Use: "gc [--dry-run] [--cache CACHE] [--now] [--json]", Short: "Delete what nobody holds or uses", Long: gcHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			return command(p, cmd.Context(), "gc", in, func(out gcOutput) error {
				switch {
				case asJSON && in.DryRun:
					return printJSON(p.stdout, out.Plan)
				case asJSON:
					return printJSON(p.stdout, out.Result)
				}
				var b strings.Builder
				if in.DryRun {
					printPlan(&b, out.Plan)
				} else {
					printCollected(&b, out.Result)
				}
				_, err := io.WriteString(p.stdout, b.String())
				return err
			})
		}}
	cmd.Flags().BoolVarP(&in.DryRun, "dry-run", "n", false, "only say what would go, and why the rest stays")
	cmd.Flags().StringVar(&in.Cache, "cache", "", "only paths of this cache go")
	cmd.Flags().BoolVar(&in.Now, "now", false, "do not wait 20 minutes before packs are deleted; downloads may break off")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printPlan(w io.Writer, p *gc.Plan) {
	for _, c := range p.Caches {
		name := c.Name
		if c.Deleted {
			name += " (deleted)"
		}
		fmt.Fprintf(w, "%s: %s of %s go, %s of %s stay; it keeps %s\n", name, count(c.Paths, "path"), bytesOf(uint64(c.Size)),
			count(c.Stay, "path"), bytesOf(uint64(c.StaySize)), c.Keeps)
		if c.Over > 0 {
			fmt.Fprintf(w, "  %s for the quota\n", count(c.Over, "path"))
		}
	}
	fmt.Fprintf(w, "would delete: %s, %s, %s in %s, %s\n", count(p.Paths, "path"), count(int(p.NARs), "NAR"),
		count(p.Chunks, "chunk"), count(p.Packs, "pack"), bytesOf(uint64(p.Freed)))
	if p.Waiting > 0 {
		fmt.Fprintf(w, "  of these %s of %s wait for the end of downloads already\n", count(int(p.Waiting), "pack"), bytesOf(uint64(p.WaitingBytes)))
	}
	if p.Rewrite.Packs > 0 {
		fmt.Fprintf(w, "would rewrite: %s into %d, which moves %s and frees %s\n", count(p.Rewrite.Packs, "pack"), p.Rewrite.New,
			bytesOf(uint64(p.Rewrite.Moved)), bytesOf(uint64(p.Rewrite.Freed)))
	}
	fmt.Fprintf(w, "requests to the storage, about: %d PUT, %d GET, %d LIST, %d DELETE\n", p.Requests.Put, p.Requests.Get, p.Requests.List, p.Requests.Delete)
	for i, h := range p.Largest {
		if i == 0 {
			fmt.Fprintln(w, "what keeps the most:")
		}
		why := h.Why + ", last " + moment(h.Used)
		if h.Pin != "" {
			why = "pinned as " + h.Pin
		}
		fmt.Fprintf(w, "  %10s  %6d paths  %s: %s\n              %s\n", bytesOf(uint64(h.Size)), h.Paths, h.Cache, why, h.StorePath)
	}
}

func printCollected(w io.Writer, r *gc.Result) {
	fmt.Fprintf(w, "deleted: %s, %s, %s of %s", count(r.Paths, "path"), count(int(r.NARs), "NAR"), count(r.Packs, "pack"), bytesOf(uint64(r.Freed)))
	if r.Orphans > 0 {
		fmt.Fprintf(w, ", and %s of %s that nothing knew of", count(r.Orphans, "object"), bytesOf(uint64(r.Strays)))
	}
	fmt.Fprintln(w)
	if r.Revived > 0 {
		fmt.Fprintf(w, "%s stay that were used or pinned meanwhile\n", count(r.Revived, "path"))
	}
	if r.Waiting > 0 {
		fmt.Fprintf(w, "%s of %s go from %s on, when downloads have ended\n", count(int(r.Waiting), "pack"), bytesOf(uint64(r.WaitingBytes)), moment(r.WaitUntil))
	}
}

// count is a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// collectOnce is Attic's --mode garbage-collector-once. With a disk it does not wait, as Attic's does not: scripts look
// whether the files are gone. With a bucket there are redirects that it must wait for.
func (p *program) collectOnce(ctx context.Context, cfg *config.Server) error {
	client, done, err := p.connectTo(ctx, cfg)
	if err != nil {
		return err
	}
	out, err := admin.Call[gcOutput](ctx, client, "gc", gcInput{Now: cfg.Storage.Type == config.Local})
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	var b strings.Builder
	printCollected(&b, out.Result)
	_, err = io.WriteString(p.stderr, b.String())
	return err
}

// besidePause is how long the second process lets the first one start.
const besidePause = time.Minute

// collectBeside is Attic's --mode garbage-collector, a second process that collects by the clock. Where a server runs,
// it asks that one, which does so by itself and loses nothing by being asked.
func (p *program) collectBeside(ctx context.Context, cfg *config.Server, log *slog.Logger) error {
	if cfg.GC.Interval == 0 {
		return nil // as Attic does
	}
	fmt.Fprintf(p.stderr, "attic-server: --mode garbage-collector: collecting every %s; a server that runs does so by itself, and needs no second process\n", cfg.GC.Interval)
	for pause := min(besidePause, cfg.GC.Interval); ; pause = cfg.GC.Interval {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if err := p.collectOnce(ctx, cfg); err != nil && ctx.Err() == nil {
			log.Error("collect garbage", "error", err, "again_in", cfg.GC.Interval)
		}
	}
}
