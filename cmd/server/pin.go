package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/roots"
	"github.com/org/attic-action/internal/token"
)

type (
	pinInput struct {
		Cache   string
		Name    string
		Path    string
		Keep    int
		Seconds int64 // until it expires; 0: never
		By      string
		Sizes   bool
	}
	pinRow struct {
		Name      string        `json:"name"`
		Keep      int           `json:"keep"`
		Expires   time.Time     `json:"expires_at,omitzero"`
		Revisions []revisionRow `json:"revisions"`
		Sizes     *roots.Sizes  `json:"sizes,omitempty"`
	}
	revisionRow struct {
		StorePath string    `json:"store_path"`
		SetBy     string    `json:"set_by,omitempty"`
		Policies  []string  `json:"policies,omitempty"`
		SetAt     time.Time `json:"set_at"`
		Paths     int64     `json:"closure_paths"`
		Size      uint64    `json:"closure_size"`
	}
	pinList struct {
		Pins         []pinRow `json:"pins"`
		SizesUnknown bool     `json:"sizes_unknown,omitempty"`
	}
)

// cacheNamed finds a cache for a command.
func cacheNamed(ctx context.Context, db *meta.DB, name string) (c meta.Cache, err error) {
	err = db.View(ctx, func(tx *meta.Tx) error {
		found, err := tx.Cache(name)
		if err == nil {
			c = *found
		}
		return err
	})
	return c, cacheError(name, err)
}

// pinVerbs registers what the pin commands ask for.
func pinVerbs(m *admin.Mux, k *roots.Keeper) {
	admin.Handle(m, "pin/set", func(ctx context.Context, in pinInput) (out pinRow, err error) {
		c, err := cacheNamed(ctx, k.DB, in.Cache)
		if err != nil {
			return out, err
		}
		path, err := nix.ParseStorePath(in.Path)
		if err != nil {
			return out, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
		}
		if in.Seconds < 0 || in.Seconds > maxPinSeconds {
			return out, fmt.Errorf("%w: a pin of %d seconds", admin.ErrBadRequest, in.Seconds)
		}
		by := "administrator"
		if in.By != "" {
			by += " " + in.By
		}
		pin, err := k.Pin(ctx, roots.Asker{Cache: c}, roots.PinRequest{Name: in.Name, Path: path, Keep: in.Keep, Life: time.Duration(in.Seconds) * time.Second, By: by})
		if err != nil {
			return out, pinRefused(in, err)
		}
		return showPin(pin), nil
	})
	admin.Handle(m, "pin/remove", func(ctx context.Context, in pinInput) (none, error) {
		c, err := cacheNamed(ctx, k.DB, in.Cache)
		if err == nil {
			err = pinRefused(in, k.Unpin(ctx, roots.Asker{Cache: c}, in.Name))
		}
		return none{}, err
	})
	admin.Handle(m, "pin/list", func(ctx context.Context, in pinInput) (out pinList, err error) {
		out.Pins = []pinRow{}
		c, err := cacheNamed(ctx, k.DB, in.Cache)
		if err != nil {
			return out, err
		}
		pins, err := k.Pins(ctx, c.ID, "", meta.MaxPins)
		if err != nil {
			return out, err
		}
		var sizes map[string]roots.Sizes
		if in.Sizes {
			sizes, err = k.Sizes(ctx, c.ID)
			if out.SizesUnknown = errors.Is(err, roots.ErrTooLarge); err != nil && !out.SizesUnknown {
				return out, err
			}
		}
		for i := range pins {
			row := showPin(&pins[i])
			if s, ok := sizes[row.Name]; ok {
				row.Sizes = &s
			}
			out.Pins = append(out.Pins, row)
		}
		return out, nil
	})
}

// maxPinSeconds is the longest life of a pin that is to end.
const maxPinSeconds = 100 * 365 * 24 * 3600

// pinRefused says by its kind what was wrong.
func pinRefused(in pinInput, err error) error {
	var refusal *roots.Refusal
	var incomplete *roots.IncompleteError
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return admin.As(admin.ErrNotFound, fmt.Errorf("cache %s has no pin %q", in.Cache, in.Name))
	case errors.As(err, &refusal):
		return admin.As(admin.ErrBadRequest, refusal)
	case errors.As(err, &incomplete):
		const most = 10
		refs := incomplete.Refs
		text := fmt.Sprintf("of the closure of %s the cache lacks %d paths: %s", incomplete.Path.Base(), len(refs), strings.Join(refs[:min(len(refs), most)], ", "))
		if len(refs) > most {
			text += " and more"
		}
		return admin.As(admin.ErrBadRequest, errors.New(text))
	}
	return err
}

func showPin(p *meta.Pin) pinRow {
	row := pinRow{Name: p.Name, Keep: p.Keep, Expires: p.Expires}
	for _, r := range p.Revisions {
		row.Revisions = append(row.Revisions, revisionRow{StorePath: r.StorePath, SetBy: r.By, Policies: r.Policies, SetAt: r.At, Paths: r.Paths, Size: r.Size})
	}
	return row
}

func (p *program) pin() *cobra.Command {
	cmd := &cobra.Command{Use: "pin", Short: "Name what a cache must keep",
		Long: `Name what a cache must keep, such as what a machine runs. A pin holds a path and all that
it needs, and the paths that it held before, the last five unless --keep says otherwise.
Jobs pin by the action, or with attic-action pin; here no token is needed (docs/pins.md).`,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("no command; there are list, set and remove")}
		}}
	cmd.AddCommand(p.pinList(), p.pinSet(), p.pinRemove())
	return cmd
}

// wants checks the number of arguments, of which the first is a cache's name.
func wants(verb string, words ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != len(words) {
			return usageError{fmt.Errorf("%s needs %s", verb, strings.Join(words, ", "))}
		}
		if words[0] == "CACHE" && !token.ValidCacheName(args[0]) {
			return usageError{fmt.Errorf("%.60q is not the name of a cache", args[0])}
		}
		return nil
	}
}

func (p *program) pinSet() *cobra.Command {
	var in pinInput
	var expires string
	var asJSON bool
	cmd := &cobra.Command{Use: "set CACHE NAME PATH [--keep N] [--expires DURATION]", Short: "Make a path the newest of a pin",
		Args: wants("pin set", "CACHE", "NAME", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Cache, in.Name, in.Path, in.By = args[0], args[1], args[2], p.caller()
			if expires != "" {
				d, err := token.ParseDuration(expires)
				if err != nil || d < time.Second {
					return usageError{fmt.Errorf("--expires %.40q: want a time such as \"30 days\"", expires)}
				}
				in.Seconds = int64(d / time.Second)
			}
			return command(p, cmd.Context(), "pin/set", in, func(out pinRow) error {
				if asJSON {
					return printJSON(p.stdout, out)
				}
				r := out.Revisions[0]
				_, err := fmt.Fprintf(p.stdout, "%s holds %s: %d paths, %s; %d of %d revisions\n", out.Name, r.StorePath, r.Paths, bytesOf(r.Size), len(out.Revisions), out.Keep)
				return err
			})
		}}
	cmd.Flags().IntVar(&in.Keep, "keep", 0, "how many paths the name holds, the newest ones; as many as before, or 5")
	cmd.Flags().StringVar(&expires, "expires", "", `how long the pin holds, such as "30 days" (default for ever)`)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) pinRemove() *cobra.Command {
	return &cobra.Command{Use: "remove CACHE NAME", Short: "Take a pin away, and all that it holds", Args: wants("pin remove", "CACHE", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return command(p, cmd.Context(), "pin/remove", pinInput{Cache: args[0], Name: args[1]}, func(none) error {
				_, err := fmt.Fprintf(p.stdout, "%s holds nothing any more\n", args[1])
				return err
			})
		}}
}

func (p *program) pinList() *cobra.Command {
	var in pinInput
	var asJSON bool
	cmd := &cobra.Command{Use: "list CACHE [--sizes] [--json]", Short: "List pins, with what they hold", Args: wants("pin list", "CACHE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Cache = args[0]
			return command(p, cmd.Context(), "pin/list", in, func(out pinList) error {
				if asJSON {
					return printJSON(p.stdout, out.Pins)
				}
				return p.printPins(out, in.Sizes)
			})
		}}
	cmd.Flags().BoolVar(&in.Sizes, "sizes", false, "say also what only this pin keeps; takes longer")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) printPins(out pinList, sizes bool) error {
	tw := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "NAME\tPATH\tSET\tBY\tEXPIRES\tCLOSURE")
	if sizes {
		fmt.Fprint(tw, "\tONLY THIS PIN KEEPS")
	}
	fmt.Fprintln(tw)
	for _, pin := range out.Pins {
		name, expires := pin.Name, moment(pin.Expires)
		for i, r := range pin.Revisions {
			by := plain(r.SetBy)
			if len(r.Policies) > 0 {
				by += " (" + strings.Join(r.Policies, ", ") + ")"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s in %d paths", name, r.StorePath, moment(r.SetAt), by, expires, bytesOf(r.Size), r.Paths)
			switch {
			case sizes && i > 0:
				fmt.Fprint(tw, "\t")
			case sizes && pin.Sizes != nil:
				fmt.Fprintf(tw, "\t%s in %d paths", bytesOf(pin.Sizes.AloneNAR), pin.Sizes.Alone)
			case sizes:
				fmt.Fprint(tw, "\ttoo many paths to tell")
			}
			fmt.Fprintln(tw)
			name, expires = "", ""
		}
	}
	return tw.Flush()
}

// bytesOf shows a size.
func bytesOf(n uint64) string {
	switch {
	case n >= 10<<40:
		return fmt.Sprintf("%.1f TiB", float64(n)/(1<<40))
	case n >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
