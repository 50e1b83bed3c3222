package push

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/pack"
)

// plan is what has to be pushed.
type plan struct {
	cache string
	api   *client.Client
	pack  *packRoad // nil: a stock server
	items []*item   // dependencies first
}

// packRoad is what the server said of our routes, checked.
type packRoad struct {
	cut           chunk.Params
	packBytes     int64 // most bytes of a pack
	pathsBytes    int64 // most decoded bytes of one commit
	missingChunks int   // most hashes in one question
}

// item is a path that has to be pushed.
type item struct {
	info     nixcli.PathInfo
	deps     []*item  // references that are pushed with it, without itself
	users    []*item  // whose deps it is in
	upstream []string // base names of references that upstream caches signed

	// Of the scan; then read only.
	pieces  []byte   // encoded piece list
	listing []byte   // what the NAR holds; nil: too much to list
	sizes   []uint32 // bytes of its chunks, in order
	data    []byte   // the NAR itself, when it is small
	held    int64    // of the memory budget

	track tracked // guarded by the tracker
}

func (it *item) String() string { return it.info.Path.Base() }

// plan finds out what is missing.
func (p *Pusher) plan(ctx context.Context, req Request, res *Result) (*plan, error) {
	if len(req.Paths) == 0 {
		return nil, ErrNothing
	}
	cfg, infos, err := p.look(ctx, req)
	if err != nil {
		return nil, err
	}
	out := &plan{cache: req.Cache, api: p.Client}
	if cfg.APIEndpoint != "" {
		if out.api, err = p.Client.At(cfg.APIEndpoint); err != nil {
			return nil, err
		}
	}
	if out.pack, err = p.road(cfg.AtticAction); err != nil {
		return nil, err
	}
	res.Paths = len(infos)
	if err := sameStore(cfg, infos); err != nil {
		return nil, err
	}
	signed := elsewhere(cfg, req)
	known, err := p.outside(ctx, req, infos, signed)
	if err != nil {
		return nil, err
	}
	var wanted []nixcli.PathInfo
	for _, info := range infos {
		if signed(info) {
			known.upstream[info.Path] = true
			res.Upstream++
		} else {
			wanted = append(wanted, info)
		}
	}
	if len(wanted) == 0 {
		return out, nil
	}
	if err := p.missing(ctx, out, wanted, known, res); err != nil {
		return nil, err
	}
	progress := p.progress()
	for _, it := range out.items {
		progress.Paths.Add(1)
		progress.NARBytes.Add(int64(it.info.NarSize))
	}
	return out, nil
}

// outside says of references that are not pushed themselves where they are.
type outside struct {
	upstream map[nix.StorePath]bool
	ask      []nix.StorePath // the cache may have them
}

// outside looks at references of paths that are pushed without their closure.
func (p *Pusher) outside(ctx context.Context, req Request, infos []nixcli.PathInfo, signed func(nixcli.PathInfo) bool) (*outside, error) {
	out := &outside{upstream: map[nix.StorePath]bool{}}
	if !req.NoClosure {
		return out, nil
	}
	inside := map[nix.StorePath]bool{}
	for _, info := range infos {
		inside[info.Path] = true
	}
	var refs []nix.StorePath
	for _, info := range infos {
		for _, ref := range info.References {
			if !inside[ref] {
				inside[ref] = true
				refs = append(refs, ref)
			}
		}
	}
	if len(refs) == 0 {
		return out, nil
	}
	others, err := p.Nix.Infos(ctx, refs)
	if err != nil {
		return nil, fmt.Errorf("look at references: %w", err)
	}
	for _, info := range others {
		if signed(info) {
			out.upstream[info.Path] = true
		} else {
			out.ask = append(out.ask, info.Path)
		}
	}
	return out, nil
}

// missing asks the cache, and makes items of what it lacks.
func (p *Pusher) missing(ctx context.Context, out *plan, wanted []nixcli.PathInfo, known *outside, res *Result) error {
	var hashes []string
	for _, info := range wanted {
		hashes = append(hashes, info.Path.Hash())
	}
	for _, ref := range known.ask {
		hashes = append(hashes, ref.Hash())
	}
	missing, err := out.api.MissingPaths(ctx, out.cache, hashes)
	if err != nil {
		return err
	}
	absent := map[nix.StorePath]bool{} // references that are nowhere
	for _, ref := range known.ask {
		absent[ref] = missing[ref.Hash()]
	}
	byPath := map[nix.StorePath]*item{}
	for _, info := range wanted {
		if !missing[info.Path.Hash()] {
			res.Present++
			continue
		}
		if out.pack != nil { // a stock server takes a path without its references
			if i := slices.IndexFunc(info.References, func(ref nix.StorePath) bool { return absent[ref] }); i >= 0 {
				res.Failed = append(res.Failed, Failure{info.Path.String(),
					fmt.Sprintf("refers to %s, which the cache does not have; push it first or leave out --no-closure", info.References[i])})
				absent[info.Path] = true
				continue
			}
		}
		it := &item{info: info}
		byPath[info.Path] = it
		out.items = append(out.items, it)
	}
	for _, it := range out.items {
		it.link(byPath, known.upstream)
	}
	res.Missing = len(out.items) + len(res.Failed)
	return nil
}

// link finds it's references among the other items.
func (it *item) link(byPath map[nix.StorePath]*item, upstream map[nix.StorePath]bool) {
	for _, ref := range it.info.References {
		if dep := byPath[ref]; dep != nil && dep != it {
			it.deps = append(it.deps, dep)
			dep.users = append(dep.users, it)
		}
		if upstream[ref] {
			it.upstream = append(it.upstream, ref.Base())
		}
	}
}

// elsewhere tells which paths are not for this cache: an upstream of its signed them, or the request leaves them out.
func elsewhere(cfg *client.Config, req Request) func(nixcli.PathInfo) bool {
	signed := upstreamFilter(cfg, req)
	if req.LeaveOut == nil {
		return signed
	}
	return func(info nixcli.PathInfo) bool { return req.LeaveOut(info.Path) || signed(info) }
}

// upstreamFilter tells which paths one of the cache's upstreams signed.
func upstreamFilter(cfg *client.Config, req Request) func(nixcli.PathInfo) bool {
	if req.IgnoreUpstream || len(cfg.UpstreamCacheKeyNames) == 0 {
		return func(nixcli.PathInfo) bool { return false }
	}
	return func(info nixcli.PathInfo) bool {
		return slices.ContainsFunc(info.Sigs, func(sig string) bool {
			name, _, _ := strings.Cut(sig, ":")
			return slices.Contains(cfg.UpstreamCacheKeyNames, name)
		})
	}
}

// sameStore refuses paths of another store directory than the cache's before
// anything is read.
func sameStore(cfg *client.Config, infos []nixcli.PathInfo) error {
	if cfg.StoreDir == "" {
		return nil
	}
	for _, info := range infos {
		if info.Path.Dir() != cfg.StoreDir {
			return fmt.Errorf("%s is not in the cache's store directory %q", info.Path, cfg.StoreDir)
		}
	}
	return nil
}

// Bounds of what a server may ask us to do, whatever it announces.
const (
	sharedTarget = 16 << 20
	ownTarget    = 64 << 20
	ownLeast     = 4 << 20 // raw bytes of a NAR that gets packs of its own
	// ownRepeats bounds what own packs may cost: they hold a chunk as often as the
	// NAR does. A NAR of which more than this part repeats goes into shared packs.
	ownRepeats     = 16
	maxCommit      = 4 << 20 // of piece lists in one request: it is held in memory
	leastPack      = 2*chunk.MaxSize + 1<<16
	leastCommit    = 64 << 10
	maxMissing     = 1 << 16
	defaultMissing = 1 << 14
)

// road checks what the server announces. A newer cut or pack version is not
// ours to speak: such a server is used as a stock server, which it also is.
func (p *Pusher) road(ext *api.Extension) (*packRoad, error) {
	if ext == nil {
		return nil, nil
	}
	if ext.Cut.Version != chunk.Version || ext.Cut.Literal != chunk.LiteralMax || !slices.Contains(ext.Packs, packVersion) {
		p.log().Warn("the server speaks another version of packs; sending whole NARs, which is slower; is there a newer attic-action?",
			"cut", ext.Cut.Version, "packs", ext.Packs)
		return nil, nil
	}
	road := &packRoad{
		cut:           chunk.Params{Min: ext.Cut.Min, Avg: ext.Cut.Avg, Max: ext.Cut.Max},
		packBytes:     orDefault(ext.Limits.PackBytes, pack.MaxPackSize),
		pathsBytes:    orDefault(ext.Limits.PathsBytes, maxCommit),
		missingChunks: int(orDefault(min(ext.Limits.MissingChunks, maxMissing), defaultMissing)),
	}
	if err := road.cut.Validate(); err != nil {
		return nil, fmt.Errorf("the server announces %w", err)
	}
	if road.packBytes < leastPack || road.pathsBytes < leastCommit {
		return nil, fmt.Errorf("the server announces limits that nothing fits into: packs of %d bytes, commits of %d",
			road.packBytes, road.pathsBytes)
	}
	road.packBytes = min(road.packBytes, pack.MaxPackSize)
	road.pathsBytes = min(road.pathsBytes, maxCommit)
	return road, nil
}

// packVersion is what package pack writes.
const packVersion = 1

// orDefault is v, or def where the server says nothing.
func orDefault(v, def int64) int64 {
	if v <= 0 {
		return def
	}
	return v
}
