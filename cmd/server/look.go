package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/roots"
)

type (
	lookInput struct {
		Path    string // a store path, its base name or its hash
		Cache   string // empty: all
		Closure bool
		DryRun  bool
	}
	lookRow struct {
		Cache       string          `json:"cache"`
		StorePath   string          `json:"store_path"`
		PushedBy    string          `json:"pushed_by"`
		PushedAt    time.Time       `json:"pushed_at"`
		LastUsed    time.Time       `json:"last_used"`
		Deriver     string          `json:"deriver,omitempty"`
		NARHash     string          `json:"nar_hash"`
		NARSize     uint64          `json:"nar_size"`
		FileSize    uint64          `json:"file_size"`
		Verified    bool            `json:"verified"`
		Damaged     bool            `json:"damaged,omitempty"` // it counts as absent until it is pushed again
		References  []string        `json:"references"`        // base names
		Upstream    []string        `json:"upstream"`          // those of them that an upstream has
		Absent      []string        `json:"absent"`            // those that nobody has
		Referrers   []string        `json:"referrers"`         // store paths, the first of them
		Referring   int             `json:"referring"`         // how many there are
		Packs       []depot.PackUse `json:"packs"`
		Pins        []string        `json:"pins"`
		PinsUnknown bool            `json:"pins_unknown,omitempty"`
		KeptUntil   time.Time       `json:"kept_until,omitzero"` // by its own last use; none: for ever, or as Rules say
		Rules       string          `json:"rules,omitempty"`     // what else decides in this cache
	}
	lookList struct {
		Paths []lookRow `json:"paths"`
	}
	whyRow struct {
		Cache     string    `json:"cache"`
		StorePath string    `json:"store_path"`
		Pin       string    `json:"pin,omitempty"`
		Pins      int       `json:"pins"`
		Used      time.Time `json:"root_used,omitzero"`
		Until     time.Time `json:"root_kept_until,omitzero"`
		Way       []string  `json:"way"`             // store paths, from the root to the path
		Rules     string    `json:"rules,omitempty"` // what else decides in this cache
	}
	whyList struct {
		Paths []whyRow `json:"paths"`
	}
	deleted struct {
		Cache string   `json:"cache"`
		Paths []string `json:"paths"`
	}
)

// lookVerbs registers what path, why, stats and delete ask for. rules says what decides in a cache beside pins and its
// retention period.
func lookVerbs(m *admin.Mux, k *roots.Keeper, d *depot.Depot, rules func(cache string) string) {
	admin.Handle(m, "path", func(ctx context.Context, in lookInput) (out lookList, err error) {
		err = eachCache(ctx, k.DB, in, func(c meta.Cache, hash string) error {
			look, err := k.Path(ctx, c, hash)
			if err != nil {
				return err
			}
			packs, err := d.PackUses(ctx, look.Layout)
			if err == nil {
				row := lookAt(c, look, packs)
				row.Rules = rules(c.Name)
				out.Paths = append(out.Paths, row)
			}
			return err
		})
		return out, err
	})
	admin.Handle(m, "why", func(ctx context.Context, in lookInput) (out whyList, err error) {
		err = eachCache(ctx, k.DB, in, func(c meta.Cache, hash string) error {
			why, err := k.Why(ctx, c, hash)
			if err != nil {
				return err
			}
			row := whyRow{Cache: c.Name, Pin: why.Pin, Pins: why.Pins, Used: why.Used, Until: why.Until, Way: []string{}, Rules: rules(c.Name)}
			for _, p := range why.Way {
				row.Way = append(row.Way, p.StorePath)
			}
			out.Paths = append(out.Paths, row)
			return nil
		})
		return out, err
	})
	admin.Handle(m, "stats", func(ctx context.Context, _ none) (statsOutput, error) { return statsOf(ctx, k) })
	admin.Handle(m, "delete", func(ctx context.Context, in lookInput) (out deleted, err error) {
		n := 0
		err = eachCache(ctx, k.DB, in, func(c meta.Cache, hash string) error { out.Cache = c.Name; n++; return exists(ctx, k.DB, c, hash) })
		switch {
		case err != nil:
			return out, err
		case n > 1 && in.Cache == "":
			return out, fmt.Errorf("%w: several caches have it: say --cache CACHE", admin.ErrBadRequest)
		}
		c, err := cacheNamed(ctx, k.DB, out.Cache)
		if err != nil {
			return out, err
		}
		var needed *roots.NeededError
		out.Paths, err = k.Delete(ctx, c, hashOf(in.Path), in.Closure, in.DryRun)
		if errors.As(err, &needed) {
			err = admin.As(admin.ErrConflict, needed)
		}
		return out, err
	})
}

func exists(ctx context.Context, db *meta.DB, c meta.Cache, hash string) error {
	return db.View(ctx, func(tx *meta.Tx) error { _, _, err := tx.Path(c.ID, hash); return err })
}

// hashOf is the hash in a store path, base name or hash; empty if it is none.
func hashOf(s string) string {
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) < nix.PathHashLen || len(s) > nix.PathHashLen && s[nix.PathHashLen] != '-' ||
		strings.Trim(s[:nix.PathHashLen], "0123456789abcdfghijklmnpqrsvwxyz") != "" {
		return ""
	}
	return s[:nix.PathHashLen]
}

// eachCache calls do for every cache that has the path, or for the one that was named.
func eachCache(ctx context.Context, db *meta.DB, in lookInput, do func(c meta.Cache, hash string) error) error {
	hash := hashOf(in.Path)
	if hash == "" {
		return fmt.Errorf("%w: %.100q is no store path, and no hash of one", admin.ErrBadRequest, in.Path)
	}
	var caches []meta.Cache
	if in.Cache != "" {
		c, err := cacheNamed(ctx, db, in.Cache)
		if err != nil {
			return err
		}
		caches = []meta.Cache{c}
	} else if err := db.View(ctx, func(tx *meta.Tx) (err error) { caches, err = tx.Caches(); return err }); err != nil {
		return err
	}
	found := false
	for _, c := range caches {
		err := exists(ctx, db, c, hash)
		if err == nil {
			found, err = true, do(c, hash)
		}
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
	}
	if !found {
		return admin.As(admin.ErrNotFound, fmt.Errorf("no cache has %s", in.Path))
	}
	return nil
}

func lookAt(c meta.Cache, l *roots.Look, packs []depot.PackUse) lookRow {
	list := func(s []string) []string { return append([]string{}, s...) } // in JSON a list, even without any
	return lookRow{
		Cache: c.Name, StorePath: l.Path.StorePath, PushedBy: l.Path.CreatedBy, PushedAt: l.Path.CreatedAt, LastUsed: l.Path.LastUsed,
		Deriver: l.Path.Deriver, NARHash: l.NAR.Hash.String(), NARSize: l.NAR.Size, FileSize: l.NAR.FileSize, Verified: l.NAR.Verified, Damaged: l.NAR.Damaged,
		References: list(l.Path.References), Upstream: list(l.Path.Upstream), Absent: list(l.Absent),
		Referrers: list(l.Referrers), Referring: l.Referring, Packs: packs, Pins: list(l.Pins), PinsUnknown: l.PinsUnknown, KeptUntil: l.Kept,
	}
}

// lookCommand is path, why or delete: a path, and where to look for it.
func lookCommand[Out any](p *program, verb string, cmd *cobra.Command, in *lookInput, show func(io.Writer, Out)) *cobra.Command {
	var asJSON bool
	cmd.Args = wants(verb, "PATH")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if in.Path = args[0]; hashOf(in.Path) == "" {
			return usageError{fmt.Errorf("%.100q is no store path, and no hash of one", in.Path)}
		}
		return command(p, cmd.Context(), verb, *in, func(out Out) error {
			if asJSON {
				return printJSON(p.stdout, out)
			}
			var b strings.Builder
			show(&b, out)
			_, err := io.WriteString(p.stdout, b.String())
			return err
		})
	}
	cmd.Flags().StringVar(&in.Cache, "cache", "", "only in this cache")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) path() *cobra.Command {
	return lookCommand(p, "path", &cobra.Command{Use: "path PATH [--cache CACHE] [--json]", Short: "Say all that is known of a path",
		Long: `Say of a path who pushed it and when, how large it is, what it refers to and what refers
to it, which packs hold it, and what keeps it. PATH is a store path, its last part, or
its hash.`}, new(lookInput), func(w io.Writer, out lookList) {
		for i, r := range out.Paths {
			if i > 0 {
				fmt.Fprintln(w)
			}
			printLook(w, r)
		}
	})
}

func printLook(w io.Writer, r lookRow) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %-11s %s\n", what, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%s in %s\n", r.StorePath, r.Cache)
	line("pushed", "%s by %s", moment(r.PushedAt), plain(r.PushedBy))
	line("last used", "%s", moment(r.LastUsed))
	line("size", "%s, %s as it is served", bytesOf(r.NARSize), bytesOf(r.FileSize))
	verified := "hashed by this server"
	if !r.Verified {
		verified = "put together from chunks, not hashed as a whole"
	}
	line("NAR", "%s, %s", r.NARHash, verified)
	if r.Damaged {
		line("", "DAMAGED in the storage: absent until it is pushed again")
	}
	if r.Deriver != "" {
		line("deriver", "%s", plain(r.Deriver))
	}
	note := map[string]string{}
	for _, ref := range r.Upstream {
		note[ref] = " (upstream)"
	}
	for _, ref := range r.Absent {
		note[ref] = " (NOT IN THE CACHE)"
	}
	for i, ref := range r.References {
		line(first(i, "refers to"), "%s%s", ref, note[ref])
	}
	for i, ref := range r.Referrers {
		line(first(i, "needed by"), "%s", ref)
	}
	if r.Referring > len(r.Referrers) {
		line("", "and %d more", r.Referring-len(r.Referrers))
	}
	for i, u := range r.Packs {
		line(first(i, "packs"), "%s: %s of %s", u.Key, bytesOf(uint64(u.Bytes)), bytesOf(uint64(u.Size)))
	}
	if len(r.Packs) == 0 {
		line("packs", "none: it lies in the database")
	}
	for i, name := range r.Pins {
		line(first(i, "pinned by"), "%s", name)
	}
	switch {
	case r.PinsUnknown:
		line("", "the pins of this cache have too many paths to find all")
	case len(r.Pins) == 0:
		line("pinned by", "none")
	}
	switch {
	case !r.KeptUntil.IsZero():
		line("kept", "until %s for its own use", moment(r.KeptUntil))
	case r.Rules == "":
		line("kept", "for ever: the cache has no retention period")
	}
	if r.Rules != "" {
		line("rules", "%s: `attic-server gc --dry-run` says what goes", r.Rules)
	}
}

func first(i int, what string) string {
	if i > 0 {
		return ""
	}
	return what
}

func (p *program) why() *cobra.Command {
	return lookCommand(p, "why", &cobra.Command{Use: "why PATH [--cache CACHE] [--json]", Short: "Say what keeps a path",
		Long: `Say what keeps a path: the shortest way along references from a pin to it, or from
something that was used within the cache's retention period.`}, new(lookInput), func(w io.Writer, out whyList) {
		for _, r := range out.Paths {
			printWhy(w, r)
		}
	})
}

func printWhy(w io.Writer, r whyRow) {
	until := ", which keeps it for ever: there is no retention period"
	switch {
	case !r.Until.IsZero():
		until = ", which keeps it until " + moment(r.Until)
	case r.Rules != "":
		until = ""
	}
	if r.Rules != "" {
		until += "; what goes depends on " + r.Rules + ": see `attic-server gc --dry-run`"
	}
	switch {
	case len(r.Way) == 0 && r.Rules != "":
		fmt.Fprintf(w, "%s: neither a pin nor the retention period keeps it; %s may: see `attic-server gc --dry-run`\n", r.Cache, r.Rules)
		return
	case len(r.Way) == 0:
		fmt.Fprintf(w, "%s: nothing keeps it, the next collection takes it\n", r.Cache)
		return
	case r.Pin != "":
		fmt.Fprintf(w, "%s: pinned as %s", r.Cache, r.Pin)
		if r.Pins > 1 {
			fmt.Fprintf(w, ", and by %d more", r.Pins-1)
		}
		fmt.Fprintln(w)
	default:
		fmt.Fprintf(w, "%s: last used %s%s\n", r.Cache, moment(r.Used), until)
	}
	for i, path := range r.Way {
		if i == 0 {
			fmt.Fprintf(w, "  %s\n", path)
		} else {
			fmt.Fprintf(w, "  %s└ %s\n", strings.Repeat("  ", i-1), path)
		}
	}
}

func (p *program) delete() *cobra.Command {
	in := new(lookInput)
	cmd := lookCommand(p, "delete", &cobra.Command{Use: "delete PATH [--closure] [--cache CACHE]", Short: "Take a path out of a cache",
		Long: `Take a path out of a cache, with --closure all that it needs and nothing else does. What
is pinned, or needed by another path, stays. The space comes back with a collection.`}, in, func(w io.Writer, out deleted) {
		verb := "deleted"
		if in.DryRun {
			verb = "would delete"
		}
		for _, path := range out.Paths {
			fmt.Fprintf(w, "%s %s\n", verb, path)
		}
	})
	cmd.Flags().BoolVar(&in.Closure, "closure", false, "with all that it needs and nothing else does")
	cmd.Flags().BoolVarP(&in.DryRun, "dry-run", "n", false, "only say what would go")
	return cmd
}
