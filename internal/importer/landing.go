package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/unpack"
)

// Landing is the half of an import that has the database. Fill in the fields, then use it from any number of
// goroutines.
type Landing struct {
	DB       *meta.DB
	Depot    *depot.Depot
	SignedBy map[string][]nix.PublicKey // of caches that want signatures, by name

	mu   sync.Mutex
	open map[Where]*Source // that were used of late
}

// Ask is what a command asks a Landing for.
type Ask struct {
	Where
	Cache string
	Keys  []nix.PublicKey // of which one must have signed each path; none: signatures are kept as they are
	Most  uint64          // bytes of a NAR; larger ones are refused
	By    string          // who imports, for the record
}

// Have answers Cache.Have for a cache. With whole, paths that refer to what neither the cache nor an upstream has
// are left out: taken again, their references may be found to be an upstream's.
func (l *Landing) Have(ctx context.Context, cache meta.Cache, hashes []string, whole bool) (map[string][]string, error) {
	have := map[string][]string{}
	err := l.DB.View(ctx, func(tx *meta.Tx) error {
		missing, err := tx.MissingPaths(cache.ID, hashes)
		if err != nil {
			return err
		}
		lacks := map[string]bool{}
		for _, h := range missing {
			lacks[h] = true
		}
		var all []string
		err = tx.Nodes(cache.ID, hashes, func(i int, n meta.Node) error {
			if lacks[hashes[i]] {
				return nil
			}
			refs := []string{}
			for base := range strings.SplitSeq(n.Refs, "\n") {
				if len(base) > nix.PathHashLen && !hasLine(n.Upstream, base) {
					refs = append(refs, strings.Clone(base[:nix.PathHashLen]))
				}
			}
			have[hashes[i]], all = refs, append(all, refs...)
			return nil
		})
		if err != nil || !whole {
			return err
		}
		missing, err = tx.MissingPaths(cache.ID, all)
		for h, refs := range have {
			if slices.ContainsFunc(refs, func(ref string) bool { return slices.Contains(missing, ref) }) {
				delete(have, h)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for %d paths: %w", len(hashes), err)
	}
	return have, nil
}

func hasLine(lines, line string) bool {
	for l := range strings.SplitSeq(lines, "\n") {
		if l == line {
			return true
		}
	}
	return false
}

// Take takes one path into a cache.
func (l *Landing) Take(ctx context.Context, cache meta.Cache, a Ask, o Order) (Taken, error) {
	src, err := l.source(a.Where)
	if err != nil {
		return Taken{Problem: err.Error()}, nil
	}
	info, err := src.NarInfo(ctx, o.Hash)
	if err != nil {
		return problem(ctx, Taken{}, err)
	}
	t := Taken{StorePath: info.StorePath.String(), NARSize: info.NarSize}
	if err := l.check(ctx, cache, a, o, info); err != nil {
		return problem(ctx, t, err)
	}
	sees, err := l.sees(ctx, cache)
	if err != nil {
		return t, err
	}
	scope := depot.Scope{Cache: cache, Sees: sees, User: a.By, SignedBy: l.SignedBy[cache.Name]}
	for _, memory := range decoderMemory {
		up := upload(info, o)
		up.Overhead = memory
		body := &lateBody{open: func() (io.ReadCloser, error) { return src.NAR(ctx, info, memory, &t.Fetched) }}
		_, err = l.Depot.Ingest(ctx, scope, up, body, false)
		_ = body.Close() // it was read, or is not wanted
		if err = settle(ctx, &t, body.err, err); !unpack.WantsMemory(body.err) {
			break
		}
	}
	if err != nil {
		return t, fmt.Errorf("store %s: %w", info.StorePath, err)
	}
	return t, nil
}

// decoderMemory is what decoders get: what nearly all NARs need, and, for one that says in its first bytes that it needs
// more, the most that there is. Either is had from the budget first.
var decoderMemory = []int64{16 << 20, 128 << 20}

// settle says in t what was wrong with the path or its source; an error is of this machine.
func settle(ctx context.Context, t *Taken, source, err error) error {
	t.Problem, t.Again = "", false
	var bad *depot.BadRequest
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case source != nil: // whatever the depot made of it
		t.Problem, t.Again = source.Error(), mayPass(source)
	case errors.As(err, &bad):
		t.Problem = bad.Error()
	case errors.Is(err, context.DeadlineExceeded):
		t.Problem, t.Again = "this machine has no memory left: "+err.Error(), true
	default:
		return err
	}
	return nil
}

// problem makes a result of what the source did wrong.
func problem(ctx context.Context, t Taken, err error) (Taken, error) {
	if ctx.Err() != nil {
		return t, context.Cause(ctx)
	}
	if errors.As(err, new(ours)) {
		return t, err
	}
	t.Problem, t.Again = err.Error(), mayPass(err)
	return t, nil
}

// ours is an error of this machine.
type ours struct{ error }

func (o ours) Unwrap() error { return o.error }

// check holds what the source says of a path against what was asked for.
func (l *Landing) check(ctx context.Context, cache meta.Cache, a Ask, o Order, info *nix.NarInfo) error {
	if info.StorePath.Dir() != cache.StoreDir {
		return fmt.Errorf("%s is not in the cache's store %s", info.StorePath, cache.StoreDir)
	}
	if a.Most > 0 && info.NarSize > a.Most {
		return fmt.Errorf("%s has a NAR of %d bytes, more than --max-nar-size", info.StorePath, info.NarSize)
	}
	if len(a.Keys) > 0 && !signed(info, a.Keys) {
		return fmt.Errorf("%s is not signed by a key of --require-sigs", info.StorePath)
	}
	var refs []string
	for _, ref := range info.References {
		if h := ref.Hash(); ref != info.StorePath && !slices.Contains(o.Elsewhere, h) {
			refs = append(refs, h)
		}
	}
	var missing []string
	err := l.DB.View(ctx, func(tx *meta.Tx) (err error) { missing, err = tx.MissingPaths(cache.ID, refs); return err })
	if err != nil {
		return ours{fmt.Errorf("look for references: %w", err)}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s refers to %s, which is not in the cache", info.StorePath, missing[0])
	}
	return nil
}

func signed(info *nix.NarInfo, keys []nix.PublicKey) bool {
	fingerprint := info.Fingerprint()
	return slices.ContainsFunc(info.Sigs, func(sig string) bool {
		return slices.ContainsFunc(keys, func(k nix.PublicKey) bool { return k.Verify(fingerprint, sig) })
	})
}

func upload(info *nix.NarInfo, o Order) depot.Upload {
	up := depot.Upload{
		Path: info.StorePath, NARHash: info.NarHash, NARSize: info.NarSize,
		Deriver: info.Deriver, System: info.System, CA: info.CA, Sigs: info.Sigs,
	}
	for _, ref := range info.References {
		up.References = append(up.References, ref.Base())
		if slices.Contains(o.Upstream, ref.Hash()) {
			up.Upstream = append(up.Upstream, ref.Base())
		}
	}
	up.DropUnfounded()
	return up
}

// sees are the caches with which the cache may share contents: public ones, as for a push without further rights.
func (l *Landing) sees(ctx context.Context, cache meta.Cache) ([]int64, error) {
	sees := []int64{cache.ID}
	err := l.DB.View(ctx, func(tx *meta.Tx) error {
		all, err := tx.Caches()
		for _, c := range all {
			if c.Public && c.ID != cache.ID {
				sees = append(sees, c.ID)
			}
		}
		return err
	})
	return sees, err
}

// maxOpen is how many sources are kept open: a server runs for years.
const maxOpen = 4

// source is one that is open, or opens it.
func (l *Landing) source(w Where) (*Source, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.open[w]; s != nil {
		return s, nil
	}
	s, err := Open(w)
	if err != nil {
		return nil, err
	}
	if len(l.open) >= maxOpen || l.open == nil {
		for _, old := range l.open {
			if old.folder == nil {
				_ = old.Close() // ends connections that nobody uses; those in use go on
			} // a folder may be in use, and is closed when nobody has it any more
		}
		l.open = map[Where]*Source{}
	}
	l.open[w] = s
	return s, nil
}

// lateBody opens a NAR when its first byte is wanted: what is here already is not fetched.
type lateBody struct {
	open func() (io.ReadCloser, error)
	body io.ReadCloser
	err  error // of the source
}

func (l *lateBody) Read(b []byte) (n int, err error) {
	if l.err != nil {
		return 0, l.err
	}
	if l.body == nil {
		if l.body, l.err = l.open(); l.err != nil {
			l.body = nil
			return 0, l.err
		}
	}
	n, err = l.body.Read(b)
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

func (l *lateBody) Close() error {
	if l.body == nil {
		return nil
	}
	return l.body.Close()
}
