package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/token"
)

// cacheRow is a cache as commands and their JSON show it.
type cacheRow struct {
	Name         string    `json:"name"`
	Public       bool      `json:"public"`
	PublicKey    string    `json:"public_key"`
	Substituter  string    `json:"substituter,omitempty"` // none where the server does not know its own URL
	StoreDir     string    `json:"store_dir"`
	Priority     int32     `json:"priority"`
	UpstreamKeys []string  `json:"upstream_cache_key_names"`
	Retention    *uint32   `json:"retention_seconds"` // null: the server's own
	CreatedAt    time.Time `json:"created_at"`
}

// cacheInput is what create and configure ask for; nil is "not given".
type cacheInput struct {
	Cache           string
	Public          *bool
	StoreDir        *string
	Priority        *int32
	UpstreamKeys    *[]string
	Retention       *int64 // seconds
	ServerRetention bool   // the server's own period again
}

type cacheList struct {
	Caches []cacheRow `json:"caches"`
}

// cacheVerbs registers what the cache commands ask for. The server does what it does for
// its API: the same checks, and the key is made and sealed there.
func cacheVerbs(m *admin.Mux, s *server.Server, db *meta.DB, cfg *config.Server) {
	row := func(c *meta.Cache) cacheRow { return showCache(c, cfg) }
	admin.Handle(m, "cache/list", func(ctx context.Context, _ none) (out cacheList, err error) {
		out.Caches = []cacheRow{}
		err = db.View(ctx, func(tx *meta.Tx) error {
			list, err := tx.Caches()
			for i := range list {
				out.Caches = append(out.Caches, row(&list[i]))
			}
			return err
		})
		return out, err
	})
	admin.Handle(m, "cache/create", func(ctx context.Context, in cacheInput) (out cacheRow, err error) {
		create := &api.CreateCache{Keypair: api.Keypair{Generate: true}, StoreDir: nix.StoreDir, Priority: 41, UpstreamCacheKeyNames: []string{"cache.nixos.org-1"}}
		set(&create.IsPublic, in.Public)
		set(&create.StoreDir, in.StoreDir)
		set(&create.Priority, in.Priority)
		set(&create.UpstreamCacheKeyNames, in.UpstreamKeys)
		c, err := s.CreateCache(ctx, in.Cache, create)
		if err != nil {
			return out, cacheError(in.Cache, err)
		}
		return row(c), nil
	})
	admin.Handle(m, "cache/configure", func(ctx context.Context, in cacheInput) (out cacheRow, err error) {
		patch := &api.PatchCache{IsPublic: in.Public, StoreDir: in.StoreDir, Priority: in.Priority, UpstreamCacheKeyNames: in.UpstreamKeys}
		switch {
		case in.ServerRetention:
			patch.RetentionPeriod = &api.Retention{}
		case in.Retention != nil:
			if *in.Retention < 0 || *in.Retention > api.MaxRetention {
				return out, fmt.Errorf("%w: a retention of %d seconds", admin.ErrBadRequest, *in.Retention)
			}
			seconds := uint32(*in.Retention)
			patch.RetentionPeriod = &api.Retention{Seconds: &seconds}
		}
		c, err := s.ConfigureCache(ctx, in.Cache, patch)
		if err != nil {
			return out, cacheError(in.Cache, err)
		}
		return row(c), nil
	})
	admin.Handle(m, "cache/destroy", func(ctx context.Context, in cacheInput) (none, error) {
		return none{}, cacheError(in.Cache, s.DestroyCache(ctx, in.Cache))
	})
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func showCache(c *meta.Cache, cfg *config.Server) cacheRow {
	row := cacheRow{Name: c.Name, Public: c.Public, PublicKey: c.PublicKey, StoreDir: c.StoreDir, Priority: c.Priority,
		UpstreamKeys: c.UpstreamKeys, Retention: c.Retention, CreatedAt: c.CreatedAt}
	if row.UpstreamKeys == nil {
		row.UpstreamKeys = []string{}
	}
	endpoint := cfg.SubstituterEndpoint
	if endpoint == "" {
		endpoint = cfg.APIEndpoint
	}
	if endpoint != "" {
		row.Substituter = endpoint + c.Name
	}
	return row
}

// cacheError says by its kind and in words what was wrong.
func cacheError(name string, err error) error {
	var settings *server.SettingsError
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return admin.As(admin.ErrNotFound, fmt.Errorf("no cache is called %q", name))
	case errors.Is(err, meta.ErrExists):
		return admin.As(admin.ErrConflict, fmt.Errorf("a cache called %q exists already, or did and was destroyed softly", name))
	case errors.As(err, &settings):
		return admin.As(admin.ErrBadRequest, settings)
	}
	return err
}

// cacheFlags are Attic's flags of cache create and configure.
type cacheFlags struct {
	public, private, json, serverRetention bool
	storeDir, retention                    string
	priority                               int
	upstream                               []string
}

func (f *cacheFlags) add(cmd *cobra.Command, configure bool) {
	fl := cmd.Flags()
	fl.BoolVar(&f.public, "public", false, "everybody may pull")
	fl.StringVar(&f.storeDir, "store-dir", nix.StoreDir, "the Nix store that its paths are of")
	fl.IntVar(&f.priority, "priority", 41, "Nix asks caches of lower numbers first; cache.nixos.org has 40")
	fl.StringArrayVar(&f.upstream, "upstream-cache-key-name", []string{"cache.nixos.org-1"}, "a key whose paths need not be pushed; may be repeated; empty: none")
	fl.BoolVar(&f.json, "json", false, "print JSON")
	if configure {
		fl.BoolVar(&f.private, "private", false, "only who has a token may pull")
		fl.StringVar(&f.retention, "retention-period", "", `how long what nobody uses is kept, such as "3 months"; "0s": for ever`)
		fl.BoolVar(&f.serverRetention, "reset-retention-period", false, "keep as long as server.toml says")
	}
}

// input is what the flags say that were given.
func (f *cacheFlags) input(cmd *cobra.Command, name string) (in cacheInput, err error) {
	given := func(flag string) bool { fl := cmd.Flags().Lookup(flag); return fl != nil && fl.Changed }
	in = cacheInput{Cache: name, ServerRetention: f.serverRetention}
	if f.public && f.private || f.retention != "" && f.serverRetention {
		return in, usageError{errors.New("--public and --private exclude each other, as do the flags of the retention period")}
	}
	if given("public") || given("private") {
		public := f.public && !f.private
		in.Public = &public
	}
	if given("store-dir") {
		in.StoreDir = &f.storeDir
	}
	if given("priority") {
		if f.priority < math.MinInt32 || f.priority > math.MaxInt32 {
			return in, usageError{fmt.Errorf("--priority %d does not fit", f.priority)}
		}
		n := int32(f.priority)
		in.Priority = &n
	}
	if given("upstream-cache-key-name") {
		keys := []string{}
		for _, k := range f.upstream {
			if k != "" {
				keys = append(keys, k)
			}
		}
		in.UpstreamKeys = &keys
	}
	if given("retention-period") {
		d, err := token.ParseDuration(f.retention)
		if err != nil || d < 0 {
			return in, usageError{fmt.Errorf("--retention-period %.40q: want a time such as \"3 months\"", f.retention)}
		}
		seconds := int64(d / time.Second)
		in.Retention = &seconds
	}
	return in, nil
}

func (p *program) cacheCreate() *cobra.Command {
	var f cacheFlags
	cmd := &cobra.Command{Use: "create CACHE [--public]", Short: "Make a cache, with a signing key of its own",
		Long: `Make a cache. Its signing key is made here and lies sealed in the database; no token is
needed. Printed is what machines need to pull from it.`,
		Args: oneCache("create"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := f.input(cmd, args[0])
			if err != nil {
				return err
			}
			return command(p, cmd.Context(), "cache/create", in, func(c cacheRow) error { return p.showCache(c, f.json) })
		}}
	f.add(cmd, false)
	return cmd
}

func (p *program) cacheConfigure() *cobra.Command {
	var f cacheFlags
	cmd := &cobra.Command{Use: "configure CACHE [flags]", Short: "Change a cache's settings; what no flag names stays as it is",
		Args: oneCache("configure"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := f.input(cmd, args[0])
			if err != nil {
				return err
			}
			if in == (cacheInput{Cache: in.Cache}) {
				return usageError{errors.New("cache configure needs a setting to change; --help lists them")}
			}
			return command(p, cmd.Context(), "cache/configure", in, func(c cacheRow) error { return p.showCache(c, f.json) })
		}}
	f.add(cmd, true)
	return cmd
}

func (p *program) cacheDestroy() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "destroy CACHE --yes", Short: "Delete a cache with all its paths and pins",
		Long: `Delete a cache with its signing key, paths and pins. With soft-delete-caches in
server.toml it is hidden, and its name stays taken.`,
		Args: oneCache("destroy"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return usageError{fmt.Errorf("cache destroy %s deletes its paths, pins and signing key for good: say --yes", args[0])}
			}
			return command(p, cmd.Context(), "cache/destroy", cacheInput{Cache: args[0]}, func(none) error {
				_, err := fmt.Fprintf(p.stdout, "cache %s is gone\n", args[0])
				return err
			})
		}}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it")
	return cmd
}

func (p *program) cacheList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list [--json]", Short: "List the caches, with their public keys", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return command(p, cmd.Context(), "cache/list", none{}, func(out cacheList) error {
				if asJSON {
					return printJSON(p.stdout, out.Caches)
				}
				return p.printCaches(out.Caches)
			})
		}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func oneCache(verb string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || !token.ValidCacheName(args[0]) {
			return usageError{fmt.Errorf("cache %s needs the name of one cache: letters, digits, '-', '_' and '+', 50 at most", verb)}
		}
		return nil
	}
}

// showCache says what a machine needs to pull.
func (p *program) showCache(c cacheRow, asJSON bool) error {
	if asJSON {
		return printJSON(p.stdout, c)
	}
	who := "private: who pulls needs a token"
	if c.Public {
		who = "public: everybody may pull"
	}
	url := c.Substituter
	if url == "" {
		url = "<URL of this server>/" + c.Name
	}
	_, err := fmt.Fprintf(p.stdout, "cache %s is there, %s. For nix.conf:\n  extra-substituters = %s\n  extra-trusted-public-keys = %s\n", c.Name, who, url, c.PublicKey)
	return err
}

func (p *program) printCaches(list []cacheRow) error {
	tw := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tACCESS\tPRIORITY\tRETENTION\tUPSTREAM KEYS\tPUBLIC KEY")
	for _, c := range list {
		access := map[bool]string{true: "public", false: "private"}[c.Public]
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\t%s\n", c.Name, access, c.Priority, retention(c.Retention), plain(strings.Join(c.UpstreamKeys, ",")), c.PublicKey)
	}
	return tw.Flush()
}

func retention(seconds *uint32) string {
	switch {
	case seconds == nil:
		return "the server's"
	case *seconds == 0:
		return "for ever"
	}
	d := time.Duration(*seconds) * time.Second
	if days := d / (24 * time.Hour); days > 1 {
		return fmt.Sprintf("%d days", days)
	}
	return d.String()
}
