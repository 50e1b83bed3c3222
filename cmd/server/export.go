package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/exporter"
	"github.com/org/attic-action/internal/importer"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/roots"
	"github.com/org/attic-action/internal/server"
)

type (
	exportCache struct {
		Name     string `json:"name"`
		StoreDir string `json:"store_dir"`
		Priority int32  `json:"priority"`
	}
	exportList struct {
		Cache string
		After string
		Top   string // of one closure; empty: all
	}
	exportPage struct {
		Hashes    []string `json:"hashes"`
		Next      string   `json:"next,omitempty"`
		Elsewhere int      `json:"elsewhere,omitempty"` // references that the cache does not have
	}
	exportDescribe struct {
		Cache  string
		Hashes []string
	}
	exportInfos struct {
		NarInfos []string `json:"narinfos"`
	}
	exportNAR struct {
		Cache string
		Hash  string
	}
)

// exportPageSize is how many hashes a page of a cache has.
const exportPageSize = 10_000

// exportVerbs registers what an export asks for. Files are written by the command: it is its caller who may write
// to the folder, or not.
func exportVerbs(m *admin.Mux, s *server.Server, k *roots.Keeper, d *depot.Depot) {
	admin.Handle(m, "export/cache", func(ctx context.Context, in named) (out exportCache, err error) {
		if in.Cache == "" {
			if in.Cache, err = onlyCache(ctx, k.DB); err != nil {
				return out, err
			}
		}
		c, err := cacheNamed(ctx, k.DB, in.Cache)
		return exportCache{c.Name, c.StoreDir, c.Priority}, err
	})
	admin.Handle(m, "export/list", func(ctx context.Context, in exportList) (out exportPage, err error) {
		c, err := cacheNamed(ctx, k.DB, in.Cache)
		if err != nil {
			return out, err
		}
		if in.Top != "" {
			return exportClosure(ctx, k, c, in.Top)
		}
		err = k.DB.View(ctx, func(tx *meta.Tx) error {
			paths, err := tx.ListPaths(c.ID, in.After, exportPageSize)
			for _, p := range paths {
				out.Hashes = append(out.Hashes, p.Hash)
			}
			if len(paths) == exportPageSize {
				out.Next = paths[len(paths)-1].Hash
			}
			return err
		})
		return out, err
	})
	admin.Handle(m, "export/describe", func(ctx context.Context, in exportDescribe) (out exportInfos, err error) {
		for _, h := range in.Hashes {
			info, err := s.NarInfo(ctx, in.Cache, h)
			if err != nil && !errors.Is(err, meta.ErrNotFound) {
				return out, err
			}
			if err == nil {
				out.NarInfos = append(out.NarInfos, string(info.Format()))
			}
		}
		return out, nil
	})
	admin.HandleStream(m, "export/nar", func(ctx context.Context, in exportNAR) (io.ReadCloser, error) {
		c, err := cacheNamed(ctx, k.DB, in.Cache)
		if err != nil {
			return nil, err
		}
		nar, err := d.Open(ctx, c.ID, in.Hash)
		if errors.Is(err, meta.ErrNotFound) {
			return nil, admin.As(admin.ErrNotFound, fmt.Errorf("cache %s has no %s any more", in.Cache, in.Hash))
		}
		if err != nil {
			return nil, err
		}
		return nar.Reader(ctx, nar.Size), nil
	})
}

func exportClosure(ctx context.Context, k *roots.Keeper, c meta.Cache, top string) (out exportPage, err error) {
	list, err := k.List(ctx, c.ID, top)
	var refusal *roots.Refusal
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return out, admin.As(admin.ErrNotFound, fmt.Errorf("cache %s has no path %s", c.Name, top))
	case errors.As(err, &refusal):
		return out, admin.As(admin.ErrBadRequest, refusal)
	case err != nil:
		return out, err
	}
	for base := range list.Paths {
		out.Hashes = append(out.Hashes, base[:nix.PathHashLen])
	}
	out.Elsewhere = len(list.Elsewhere)
	return out, nil
}

// onlyCache is the name of the only cache there is.
func onlyCache(ctx context.Context, db *meta.DB) (name string, err error) {
	var names []string
	err = db.View(ctx, func(tx *meta.Tx) error {
		all, err := tx.Caches()
		for _, c := range all {
			names = append(names, c.Name)
		}
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", admin.As(admin.ErrNotFound, errors.New("there is no cache to export"))
	case len(names) > 1:
		return "", fmt.Errorf("%w: there are %d caches: say --cache, one of %s", admin.ErrBadRequest, len(names), strings.Join(names[:min(len(names), 10)], ", "))
	}
	return names[0], nil
}

// exporting is a call of the command.
type exporting struct {
	program *program
	to      string
	cache   string
	how     string
	jobs    int
	asJSON  bool

	client    *admin.Client
	tops      []string
	elsewhere int
	asked     time.Time
}

func (p *program) exportPaths() *cobra.Command {
	out := &exporting{program: p}
	cmd := &cobra.Command{Use: "export --to DIR [--cache CACHE] [PATH...]", Short: "Write a cache into a folder that Nix reads",
		Long: `Write a cache, or PATHs with all that they need, into a folder as a plain binary cache. Nix
reads it without this server: nix copy --from file:///DIR, or behind any web server.
Each NAR is checked on its way. What is there already is not written again, so a run
that was stopped goes on with the next one.

Exit codes: 0 all is there; 1 some is not, in a line each.`,
		RunE: func(cmd *cobra.Command, args []string) error { return out.run(cmd.Context(), args) }}
	f := cmd.Flags()
	f.StringVar(&out.to, "to", "", "the folder; it is made if need be")
	f.StringVar(&out.cache, "cache", "", "the cache, if there are several")
	f.StringVar(&out.how, "compression", "zstd", "of the NARs: zstd, as they are stored, or none")
	f.IntVar(&out.jobs, "jobs", 4, "how many paths are written at a time")
	f.BoolVar(&out.asJSON, "json", false, "print JSON")
	return cmd
}

func (e *exporting) run(ctx context.Context, args []string) error {
	switch {
	case e.to == "":
		return usageError{errors.New("export needs --to DIR")}
	case !exporter.Compressions(e.how):
		return usageError{fmt.Errorf("--compression %.20q: want zstd or none", e.how)}
	case e.jobs < 1 || e.jobs > 64:
		return usageError{errors.New("want --jobs of 1 to 64")}
	}
	for _, arg := range args {
		hash, err := importer.Hash(arg)
		if err != nil {
			return usageError{fmt.Errorf("%.100q is no store path, and no hash of one", arg)}
		}
		e.tops = append(e.tops, hash)
	}
	dir, err := filepath.Abs(e.to)
	if err != nil {
		return err
	}
	client, done, err := e.program.connect(ctx)
	if err != nil {
		return err
	}
	e.client = client
	result, err := e.write(ctx, dir)
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	return e.show(result)
}

func (e *exporting) write(ctx context.Context, dir string) (r exporter.Result, err error) {
	cache, err := admin.Call[exportCache](ctx, e.client, "export/cache", named{e.cache})
	if err != nil {
		return r, err
	}
	e.cache = cache.Name
	return exporter.Run(ctx, e, dir, exporter.Options{Compression: e.how, Jobs: e.jobs, StoreDir: cache.StoreDir, Priority: cache.Priority, Progress: e.progress})
}

// List is exporter.Cache's.
func (e *exporting) List(ctx context.Context, each func([]string) error) error {
	for after := ""; e.tops == nil; {
		page, err := admin.Call[exportPage](ctx, e.client, "export/list", exportList{Cache: e.cache, After: after})
		if err != nil {
			return err
		}
		if err := each(page.Hashes); err != nil || page.Next == "" {
			return err
		}
		after = page.Next
	}
	seen := map[string]bool{}
	for _, top := range e.tops {
		page, err := admin.Call[exportPage](ctx, e.client, "export/list", exportList{Cache: e.cache, Top: top})
		if err != nil {
			return err
		}
		e.elsewhere += page.Elsewhere
		var fresh []string
		for _, h := range page.Hashes {
			if !seen[h] {
				seen[h] = true
				fresh = append(fresh, h)
			}
		}
		if err := each(fresh); err != nil {
			return err
		}
	}
	return nil
}

// Describe is exporter.Cache's.
func (e *exporting) Describe(ctx context.Context, hashes []string) (infos []*nix.NarInfo, err error) {
	out, err := admin.Call[exportInfos](ctx, e.client, "export/describe", exportDescribe{e.cache, hashes})
	for _, text := range out.NarInfos {
		info, err := nix.ParseNarInfo(strings.NewReader(text))
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, err
}

// NAR is exporter.Cache's.
func (e *exporting) NAR(ctx context.Context, info *nix.NarInfo) (io.ReadCloser, error) {
	return admin.Stream(ctx, e.client, "export/nar", exportNAR{e.cache, info.StorePath.Hash()})
}

func (e *exporting) progress(r exporter.Result) {
	if now := time.Now(); e.asked.IsZero() {
		e.asked = now
	} else if now.Sub(e.asked) >= tellEvery {
		e.asked = now
		fmt.Fprintf(e.program.stderr, "export: %s\n", exported(r))
	}
}

func exported(r exporter.Result) string {
	s := fmt.Sprintf("%d paths, %d written with %s, %d were there", r.Paths, r.Written, bytesOf(uint64(r.Bytes)), r.Present)
	if r.Failing > 0 {
		s += fmt.Sprintf("; %d failed", r.Failing)
	}
	return s
}

func (e *exporting) show(r exporter.Result) error {
	if e.asJSON {
		if err := printJSON(e.program.stdout, r); err != nil {
			return err
		}
	} else {
		if _, err := fmt.Fprintln(e.program.stdout, exported(r)); err != nil {
			return err
		}
		if e.elsewhere > 0 {
			fmt.Fprintf(e.program.stderr, "attic-server: %d references are not in cache %s, as those that it leaves to upstream caches; Nix needs these from elsewhere\n", e.elsewhere, e.cache)
		}
		for _, f := range r.Failed[:min(len(r.Failed), shownFailures)] {
			fmt.Fprintf(e.program.stderr, "attic-server: %s: %s\n", f.Path, oneLine(f.Problem))
		}
	}
	if r.Failing > 0 {
		return fmt.Errorf("%d paths were not exported", r.Failing)
	}
	return nil
}
