package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/gc"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/roots"
)

type (
	statsOutput struct {
		*roots.Stats
		Collection lastCollection       `json:"collection"`
		Runs       map[string]time.Time `json:"runs"`   // when what is due by the clock was last done
		Verify     verifyLast           `json:"verify"` // asked for on its own
	}
	lastCollection struct {
		Last    *gc.Result `json:"last,omitempty"`
		Planned *gc.Plan   `json:"planned,omitempty"` // by gc --dry-run since
	}
)

// statsOf reads sums and what is remembered: nothing is walked, and nothing counted.
func statsOf(ctx context.Context, k *roots.Keeper) (out statsOutput, err error) {
	if out.Stats, err = k.Stats(ctx); err != nil {
		return out, err
	}
	if out.Runs, err = k.DB.ChoreRuns(ctx); err != nil {
		return out, err
	}
	err = k.DB.View(ctx, func(tx *meta.Tx) (err error) {
		if out.Collection.Last, err = gc.LastResult(tx); err != nil {
			return err
		}
		out.Collection.Planned, err = gc.LastPlan(tx)
		return err
	})
	return out, err
}

func (p *program) stats() *cobra.Command {
	var asJSON, plan bool
	cmd := &cobra.Command{Use: "stats [--plan] [--json]", Short: "Say how much there is, and how it grows", Args: noArgs,
		Long: `Say of each cache and of all how much there is, how it grows, what is largest; what a
collection would free, as gc --dry-run last found, or as it is now with --plan; and
when the server's own work was last done.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if plan {
				if err := command(p, cmd.Context(), "gc", gcInput{DryRun: true}, func(gcOutput) error { return nil }); err != nil {
					return err
				}
			}
			checked, err := p.lastVerify(cmd.Context())
			if err != nil {
				return err
			}
			return command(p, cmd.Context(), "stats", none{}, func(out statsOutput) error {
				out.Verify = checked
				if asJSON {
					return printJSON(p.stdout, out)
				}
				var b strings.Builder
				printStats(&b, out)
				printLastVerify(&b, checked)
				_, err := io.WriteString(p.stdout, b.String())
				return err
			})
		}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&plan, "plan", false, "look first what a collection would free; takes seconds where there are a million paths")
	return cmd
}

// shownDays is how many days of growth are printed; JSON has more.
const shownDays = 7

func printStats(w io.Writer, s statsOutput) {
	table(w, "CACHE\tPATHS\tSIZE\tPACKS\tSTORED\tPINS", func(row func(string, ...any)) {
		pins := int64(0)
		for _, c := range s.Caches {
			row("%s\t%d\t%s\t%d\t%s\t%d", c.Name, c.Paths, bytesOf(c.Size), c.Packs, bytesOf(c.Stored), c.Pins)
			pins += c.Pins
		}
		row("in all\t%d\t%s\t%d\t%s\t%d", s.Total.Paths, bytesOf(s.Total.Size), s.Total.Packs, bytesOf(s.Total.Stored), pins)
	})
	if s.Compression > 0 {
		fmt.Fprintf(w, "%.1f times less by deduplication, %.1f times by compression\n", s.Deduplication, s.Compression)
	}
	table(w, "\nCACHE\tDAY\tNEW PATHS\tSIZE", func(row func(string, ...any)) {
		for _, c := range s.Caches {
			for _, d := range c.Growth[max(0, len(c.Growth)-shownDays):] {
				row("%s\t%s\t%d\t%s", c.Name, d.Day, d.Paths, bytesOf(d.Size))
			}
		}
	})
	table(w, "\nCACHE\tLARGEST PINS\tPATHS\tSIZE", func(row func(string, ...any)) {
		for _, c := range s.Caches {
			for _, l := range c.Largest {
				row("%s\t%s\t%d\t%s", c.Name, l.Pin, l.Paths, bytesOf(l.Size))
			}
		}
	})
	fmt.Fprintln(w)
	printCollection(w, s.Collection)
	var runs []string
	for _, name := range slices.Sorted(maps.Keys(s.Runs)) {
		runs = append(runs, name+" "+moment(s.Runs[name]))
	}
	if len(runs) > 0 {
		fmt.Fprintf(w, "by the clock: %s\n", strings.Join(runs, ", "))
	}
}

// table prints rows in columns under a head; without rows, nothing.
func table(w io.Writer, head string, fill func(row func(format string, args ...any))) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	empty := true
	fill(func(format string, args ...any) {
		if empty {
			fmt.Fprintln(tw, head)
			empty = false
		}
		fmt.Fprintf(tw, format+"\n", args...)
	})
	_ = tw.Flush() // w is memory
}

func printCollection(w io.Writer, c lastCollection) {
	if r := c.Last; r == nil {
		fmt.Fprintln(w, "collected: never; attic-server gc --dry-run says what would go")
	} else {
		fmt.Fprintf(w, "collected: %s: %d paths and %d packs of %s went", moment(r.Ended), r.Paths, r.Packs, bytesOf(uint64(r.Freed)))
		if r.Waiting > 0 {
			fmt.Fprintf(w, "; %d packs of %s wait until %s", r.Waiting, bytesOf(uint64(r.WaitingBytes)), moment(r.WaitUntil))
		}
		fmt.Fprintln(w)
	}
	p := c.Planned
	if p == nil {
		return
	}
	fmt.Fprintf(w, "planned: %s: %d paths and %d packs of %s would go; what keeps the most:\n", moment(p.At), p.Paths, p.Packs, bytesOf(uint64(p.Freed)))
	table(w, "  CACHE\tPATHS\tSIZE\tKEPT BY\tPATH", func(row func(string, ...any)) {
		for _, h := range p.Largest {
			by := "pin " + h.Pin
			if h.Pin == "" {
				by = "used " + moment(h.Used)
			}
			row("  %s\t%d\t%s\t%s\t%s", h.Cache, h.Paths, bytesOf(uint64(h.Size)), by, h.StorePath)
		}
	})
}
