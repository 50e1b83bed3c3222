package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/push"
	"github.com/org/attic-action/internal/token"
)

// pinOptions are the flags of pin.
type pinOptions struct {
	server, tokenFile, expires string
	keep                       int
	list, remove, sizes, json  bool
}

func newPin() *cobra.Command {
	var o pinOptions
	cmd := &cobra.Command{
		Use:   "pin [flags] CACHE NAME PATH | pin --list CACHE | pin --remove CACHE NAME",
		Short: "Name what a cache must keep, such as what a machine runs",
		Long: `Name what a cache must keep, such as what a machine runs.

A pin is a name that holds a path and all that it needs; the paths that it held
before stay, too, the last five unless --keep says otherwise. The path must have
been pushed with its closure: what the cache lacks is named, and nothing pinned.
NAME has parts between slashes; owner/repo/branch/host is usual.

The token needs the right to pin that name, which is a right of its own: pins =
["owner/repo/*"] in a trust policy, or attic-server make-token --pin. Listing needs
the right to pull.

Server and token are found as push finds them.

Exit codes: 0 done; 1 an error, or a closure that is not whole; 2 the command line is
wrong; 130 interrupted.`,
		Example: `  attic-action push system ./result && attic-action pin system acme/infra/main/web ./result
  attic-action pin --expires '14 days' --keep 1 system acme/infra/pr-7/web ./result
  attic-action pin --list --sizes system`,
		Args: func(_ *cobra.Command, args []string) error { return o.check(len(args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "`URL` of the server")
	f.StringVar(&o.tokenFile, "token-file", "", "`FILE` that holds the token; - is standard input")
	f.IntVar(&o.keep, "keep", 0, "how many paths the name holds, the newest ones; as many as before, or 5")
	f.StringVar(&o.expires, "expires", "", `how long the pin holds, such as "30 days"; for ever, if not given again each time`)
	f.BoolVar(&o.list, "list", false, "list the pins of CACHE")
	f.BoolVar(&o.remove, "remove", false, "take the pin away, and all that it holds")
	f.BoolVar(&o.sizes, "sizes", false, "with --list: say also what only this pin keeps; takes the server longer")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *pinOptions) check(args int) error {
	switch {
	case o.list && o.remove:
		return usagef("--list and --remove exclude each other")
	case (o.list || o.remove) && (o.keep != 0 || o.expires != ""):
		return usagef("--keep and --expires are for setting a pin")
	case o.sizes && !o.list:
		return usagef("--sizes is for --list")
	case o.list && args != 1:
		return usagef("pin --list needs a CACHE")
	case o.remove && args != 2:
		return usagef("pin --remove needs a CACHE and a NAME")
	case !o.list && !o.remove && args != 3:
		return usagef("pin needs a CACHE, a NAME and a PATH")
	case o.keep < 0:
		return usagef("--keep %d: want a number from 1 on", o.keep)
	}
	return nil
}

func (o *pinOptions) run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	var life time.Duration
	if o.expires != "" {
		var err error
		if life, err = token.ParseDuration(o.expires); err != nil || life < time.Second {
			return usagef("--expires %.40q: want a time of a second or more, such as \"30 days\"", o.expires)
		}
	}
	login, err := sources{server: o.server, tokenFile: o.tokenFile, getenv: os.Getenv, stdin: in}.resolve(args[0])
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: logLevel(os.Getenv)}))
	c, err := client.New(client.Options{
		Endpoint: login.Endpoint, Token: client.StaticToken(string(login.Token)), UserAgent: "attic-action/" + version(), Log: log,
	})
	if err != nil {
		return err
	}
	switch {
	case o.list:
		return o.runList(ctx, c, login.Cache, out)
	case o.remove:
		if err := c.DeletePin(ctx, login.Cache, args[1]); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "%s holds nothing any more\n", client.Clean(args[1], 512))
		return err
	}
	store := &nixcli.Nix{Log: log}
	path, err := pinned(ctx, store, args[2])
	if err != nil {
		return err
	}
	p := &push.Pusher{Client: c, Nix: store, Log: log}
	pin, err := p.Pin(ctx, push.Pin{Cache: login.Cache, Name: args[1], Path: path, Keep: o.keep, Life: life})
	if err != nil {
		tellMissing(errOut, err)
		return err
	}
	return o.tell(out, pin)
}

// pinned reads the path: one that is a store path already need not be in the store
// of this machine.
func pinned(ctx context.Context, store *nixcli.Nix, arg string) (nix.StorePath, error) {
	if path, err := nix.ParseStorePath(arg); err == nil {
		return path, nil
	}
	paths, err := store.Resolve(ctx, []string{arg})
	if err != nil {
		return nix.StorePath{}, err
	}
	return paths[0], nil
}

// tellMissing lists what a cache lacks of a closure.
func tellMissing(w io.Writer, err error) {
	e := client.APIError(err)
	if e == nil || e.Name != api.MissingReferences {
		return
	}
	for i, ref := range e.References {
		if i == mostFailures {
			fmt.Fprintf(w, "attic-action: and %d more paths\n", len(e.References)-i)
			return
		}
		fmt.Fprintf(w, "attic-action: not in the cache: %s\n", client.Clean(ref, 300))
	}
}

func (o *pinOptions) tell(out io.Writer, pin *api.Pin) error {
	if o.json {
		return printJSON(out, pin)
	}
	if len(pin.Revisions) == 0 {
		return fmt.Errorf("%w: a pin without revisions", client.ErrAnswer)
	}
	r, ends := pin.Revisions[0], ""
	if pin.Expires != nil {
		ends = " until " + pin.Expires.UTC().Format(time.RFC3339)
	}
	_, err := fmt.Fprintf(out, "%s holds %s%s: %d paths, %s; %d of %d revisions\n",
		client.Clean(pin.Name, 512), client.Clean(r.StorePath, 300), ends, r.Paths, size(int64(r.Size)), len(pin.Revisions), pin.Keep)
	return err
}

func (o *pinOptions) runList(ctx context.Context, c *client.Client, cache string, out io.Writer) error {
	pins, unknown := []api.Pin{}, false
	for after := ""; ; {
		page, err := c.Pins(ctx, cache, after, o.sizes)
		if err != nil {
			return err
		}
		pins, unknown = append(pins, page.Pins...), unknown || page.SizesUnknown
		if after = page.Next; after == "" {
			break
		}
	}
	if o.json {
		return printJSON(out, pins)
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "NAME\tPATH\tSET\tBY\tEXPIRES\tCLOSURE"
	if o.sizes {
		head += "\tONLY THIS PIN KEEPS"
	}
	fmt.Fprintln(tw, head)
	for _, p := range pins {
		for i, r := range p.Revisions {
			fmt.Fprintln(tw, strings.Join(o.row(p, i, r, unknown), "\t"))
		}
	}
	return tw.Flush()
}

// row is a revision; what is the whole pin's stands in its first one.
func (o *pinOptions) row(p api.Pin, i int, r api.Revision, unknown bool) []string {
	name, expires, only := client.Clean(p.Name, 512), "-", ""
	if p.Expires != nil {
		expires = p.Expires.UTC().Format("2006-01-02 15:04")
	}
	switch {
	case i > 0:
		name, expires = "", ""
	case p.Sizes != nil:
		only = size(int64(p.Sizes.OnlySize)) + " in " + strconv.FormatInt(p.Sizes.OnlyPaths, 10) + " paths"
	case unknown:
		only = "too many paths to tell"
	}
	by := client.Clean(r.SetBy, 100)
	if len(r.Policies) > 0 {
		by += " (" + client.Clean(strings.Join(r.Policies, ", "), 100) + ")"
	}
	row := []string{name, client.Clean(r.StorePath, 300), r.SetAt.UTC().Format("2006-01-02 15:04"), by, expires,
		size(int64(r.Size)) + " in " + strconv.FormatInt(r.Paths, 10) + " paths"}
	if o.sizes {
		row = append(row, only)
	}
	return row
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
