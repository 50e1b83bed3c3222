package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/importer"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

type (
	importHave struct {
		Cache  string
		Hashes []string
		Whole  bool
	}
	importHas struct {
		Paths map[string][]string `json:"paths"` // hashes, with those of what they refer to
	}
	importTake struct {
		importer.Where
		Cache string
		importer.Order
		Keys []string // public keys
		Most uint64   // bytes of a NAR
		By   string
	}
	importCache struct {
		StoreDir string   `json:"store_dir"`
		KeyNames []string `json:"key_names"` // of its upstreams
	}
)

// importVerbs registers what an import asks for. What a path is taken from is fetched by the process that has the
// database: contents do not pass through the socket.
func importVerbs(m *admin.Mux, db *meta.DB, d *depot.Depot, signers map[string][]nix.PublicKey) {
	landing := &importer.Landing{DB: db, Depot: d, SignedBy: signers}
	admin.Handle(m, "import/cache", func(ctx context.Context, in named) (out importCache, err error) {
		c, err := cacheNamed(ctx, db, in.Cache)
		return importCache{c.StoreDir, c.UpstreamKeys}, err
	})
	admin.Handle(m, "import/have", func(ctx context.Context, in importHave) (out importHas, err error) {
		c, err := cacheNamed(ctx, db, in.Cache)
		if err == nil {
			out.Paths, err = landing.Have(ctx, c, in.Hashes, in.Whole)
		}
		return out, err
	})
	admin.Handle(m, "import/take", func(ctx context.Context, in importTake) (out importer.Taken, err error) {
		c, err := cacheNamed(ctx, db, in.Cache)
		if err != nil {
			return out, err
		}
		keys, err := publicKeys(in.Keys)
		if err != nil {
			return out, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
		}
		return landing.Take(ctx, c, importer.Ask{Where: in.Where, Cache: in.Cache, Keys: keys, Most: in.Most, By: in.By}, in.Order)
	})
}

type named struct{ Cache string }

func publicKeys(texts []string) (keys []nix.PublicKey, err error) {
	for _, text := range texts {
		key, err := nix.ParsePublicKey(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// importing is a call of the command.
type importing struct {
	program   *program
	from, to  string
	pathsFrom string
	netrc     string
	tokenFile string
	keys      []string
	upstreams []string
	jobs      int
	mostGiB   uint64
	asJSON    bool

	client *admin.Client
	take   importTake // what all orders have in common
	asked  time.Time  // when progress was last told
}

func (p *program) importPaths() *cobra.Command {
	in := &importing{program: p}
	cmd := &cobra.Command{Use: "import --from URL --to CACHE [PATH...]", Short: "Take paths, or all, from another binary cache",
		Long: `Take paths with all that they need, or a whole cache, from any binary cache: over HTTP, an
Attic server included, or in a folder (file:///DIR). Signatures are kept. What is here
is not fetched again, so a run that was stopped goes on with the next one; run by a timer
it keeps two servers alike (docs/moving.md).

Without PATHs all is taken, which the source has to list: a folder does, on disk or as
most web servers show it, and one of our servers for a token that may pull. Of other
caches name the paths: as arguments, or one a line with --paths-from FILE (- is stdin).

Exit codes: 0 all is here; 1 some is not, in a line each.`,
		RunE: func(cmd *cobra.Command, args []string) error { return in.run(cmd.Context(), args) }}
	f := cmd.Flags()
	f.StringVar(&in.from, "from", "", "the cache to take from: https://HOST/CACHE, or a folder")
	f.StringVar(&in.to, "to", "", "the cache of this server that takes it")
	f.StringVar(&in.pathsFrom, "paths-from", "", "a file with paths, one a line; - is stdin")
	f.StringVar(&in.netrc, "netrc", "", "a netrc file with a password for the source")
	f.StringVar(&in.tokenFile, "token-file", "", "a file with a token for the source")
	f.StringArrayVar(&in.keys, "require-sigs", nil, "a public key; take only what it, or another one given, has signed")
	f.StringArrayVar(&in.upstreams, "upstream", nil, "a cache that has what the source leaves to it, such as https://cache.nixos.org")
	f.IntVar(&in.jobs, "jobs", 4, "how many paths are taken at a time")
	f.Uint64Var(&in.mostGiB, "max-nar-size", 64, "GiB of the largest NAR that is taken")
	f.BoolVar(&in.asJSON, "json", false, "print JSON")
	return cmd
}

func (in *importing) run(ctx context.Context, args []string) error {
	if in.from == "" || in.to == "" {
		return usageError{errors.New("import needs --from URL and --to CACHE")}
	}
	if in.jobs < 1 || in.jobs > 64 || in.mostGiB < 1 || in.mostGiB > 1<<20 {
		return usageError{errors.New("want --jobs of 1 to 64 and --max-nar-size of at least 1")}
	}
	if _, err := publicKeys(in.keys); err != nil {
		return usageError{fmt.Errorf("--require-sigs: %w", err)}
	}
	tops, err := in.tops(args)
	if err != nil {
		return err
	}
	o := importer.Options{Tops: tops, Jobs: in.jobs, Progress: in.progress}
	if o.From, err = in.open(ctx, in.from, true); err != nil {
		return err
	}
	defer o.From.Close()
	for _, u := range in.upstreams {
		up, err := in.open(ctx, u, false)
		if err != nil {
			return err
		}
		defer up.Close()
		o.Upstreams = append(o.Upstreams, up)
	}
	var done func() error
	if in.client, done, err = in.program.connect(ctx); err != nil {
		return err
	}
	result, err := in.move(ctx, o)
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	return in.show(result)
}

func (in *importing) move(ctx context.Context, o importer.Options) (r importer.Result, err error) {
	cache, err := admin.Call[importCache](ctx, in.client, "import/cache", named{in.to})
	if err != nil {
		return r, err
	}
	dir, err := o.From.StoreDir(ctx)
	if err != nil {
		return r, err
	}
	if dir != cache.StoreDir {
		return r, fmt.Errorf("%s has paths in %.100q, and cache %s in %s", in.from, dir, in.to, cache.StoreDir)
	}
	o.KeyNames = cache.KeyNames
	in.take = importTake{Where: o.From.Where, Cache: in.to, Keys: in.keys, Most: in.mostGiB << 30, By: in.by()}
	r, err = importer.Run(ctx, in, o)
	if errors.Is(err, importer.ErrUnlistable) {
		return r, usageError{err}
	}
	return r, err
}

// by is who stands in a path's record as its pusher.
func (in *importing) by() string {
	by := "import from " + in.from
	if who := in.program.caller(); who != "" {
		by += " by " + who
	}
	return by
}

// Have is importer.Cache's.
func (in *importing) Have(ctx context.Context, hashes []string) (map[string][]string, error) {
	out, err := admin.Call[importHas](ctx, in.client, "import/have", importHave{in.to, hashes, len(in.upstreams) > 0})
	return out.Paths, err
}

// Take is importer.Cache's.
func (in *importing) Take(ctx context.Context, o importer.Order) (importer.Taken, error) {
	ask := in.take
	ask.Order = o
	return admin.Call[importer.Taken](ctx, in.client, "import/take", ask)
}

// maxNamed bounds the paths of a call.
const maxNamed = 1 << 20

// tops are the hashes of the paths that were named; nil: none was.
func (in *importing) tops(args []string) ([]string, error) {
	if in.pathsFrom != "" {
		file := io.Reader(os.Stdin)
		if in.pathsFrom != "-" {
			f, err := os.Open(in.pathsFrom)
			if err != nil {
				return nil, fmt.Errorf("read paths: %w", err)
			}
			defer f.Close()
			file = f
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() && len(args) < maxNamed {
			if line := strings.TrimSpace(lines.Text()); line != "" {
				args = append(args, line)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read paths: %w", err)
		}
		if len(args) == 0 {
			return nil, fmt.Errorf("read paths: there is none in %s", in.pathsFrom)
		}
	}
	var tops []string
	for _, arg := range args {
		hash, err := importer.Hash(arg)
		if err != nil {
			return nil, usageError{fmt.Errorf("%.100q is no store path, and no hash of one", arg)}
		}
		tops = append(tops, hash)
	}
	return slices.Compact(tops), nil
}

// open opens a cache to read from; secret says that the token is for it.
func (in *importing) open(ctx context.Context, from string, secret bool) (*importer.Source, error) {
	u, err := importer.Parse(from)
	if err != nil {
		return nil, usageError{err}
	}
	w := importer.Where{URL: u.String()}
	if secret {
		if w.AuthToken, err = in.authorization(u); err != nil {
			return nil, err
		}
	}
	if w.Private, err = importer.IsPrivate(ctx, u); err != nil {
		return nil, err
	}
	return importer.Open(w)
}

func (in *importing) authorization(u *url.URL) (string, error) {
	switch {
	case in.netrc != "" && in.tokenFile != "":
		return "", usageError{errors.New("--netrc and --token-file: one of them")}
	case in.tokenFile != "":
		text, err := readSmall(in.tokenFile)
		if err != nil {
			return "", err
		}
		header, err := importer.Bearer(text)
		if err != nil {
			return "", fmt.Errorf("--token-file %s: %w", in.tokenFile, err)
		}
		return header, nil
	case in.netrc != "":
		text, err := readSmall(in.netrc)
		if err != nil {
			return "", err
		}
		header := importer.FromNetrc(text, u)
		if header == "" {
			return "", fmt.Errorf("--netrc %s: it has nothing for %s", in.netrc, u.Hostname())
		}
		return header, nil
	}
	return "", nil
}

// readSmall reads a file of at most a megabyte.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}

// tellEvery is how often progress is told.
const tellEvery = 5 * time.Second

func (in *importing) progress(r importer.Result) {
	if now := time.Now(); in.asked.IsZero() {
		in.asked = now
	} else if now.Sub(in.asked) >= tellEvery {
		in.asked = now
		fmt.Fprintf(in.program.stderr, "import: %s\n", sumOf(r))
	}
}

func sumOf(r importer.Result) string {
	s := fmt.Sprintf("%d of %d paths came, %s, %s transferred; %d were here", r.Imported, r.Paths-r.Present, bytesOf(r.Bytes), bytesOf(uint64(r.Fetched)), r.Present)
	if r.Failing > 0 {
		s += fmt.Sprintf("; %d failed", r.Failing)
	}
	return s
}

// shownFailures is how many failures have a line; JSON has more.
const shownFailures = 20

func (in *importing) show(r importer.Result) error {
	if in.asJSON {
		if err := printJSON(in.program.stdout, r); err != nil {
			return err
		}
	} else {
		if _, err := fmt.Fprintln(in.program.stdout, sumOf(r)); err != nil {
			return err
		}
		if r.Elsewhere > 0 {
			fmt.Fprintf(in.program.stderr, "attic-server: %d references are not at the source; if another cache has them, say --upstream URL, so that closures count as whole\n", r.Elsewhere)
		}
		for _, f := range r.Failed[:min(len(r.Failed), shownFailures)] {
			fmt.Fprintf(in.program.stderr, "attic-server: %s: %s\n", f.Path, oneLine(f.Problem))
		}
	}
	if r.Failing > 0 {
		return fmt.Errorf("%d paths were not imported; the next run tries them again", r.Failing)
	}
	return nil
}
