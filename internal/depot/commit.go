package depot

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// item is a path of a commit, parsed.
type item struct {
	header api.PathHeader
	path   nix.StorePath
	hash   nix.Hash
	claim  *claim
	list   []byte        // the piece list as it came
	pieces []chunk.Piece // of the list; nil while staged
}

// CommitPaths records paths whose chunks are in visible packs: one record, one transaction for all.
// Either all of the items are kept or none. Chunks that the scope does not know are an
// *UnknownChunksError, references that are nowhere a *MissingReferencesError.
func (d *Depot) CommitPaths(ctx context.Context, s Scope, items iter.Seq2[api.PathItem, error]) ([]api.PathResult, error) {
	d.init()
	var batch []*item
	for in, err := range items {
		if err != nil {
			return nil, badRequest("%v", err)
		}
		it, err := parseItem(s, in)
		if err != nil {
			return nil, err
		}
		batch = append(batch, it)
	}
	release, err := d.acquire(ctx, commitCost(batch), packWait)
	if err != nil {
		return nil, err
	}
	defer release()
	var results []api.PathResult
	err = d.update(ctx, s, func(tx *meta.Tx) (err error) {
		results, err = d.commit(tx, s, batch)
		return err
	})
	return results, err
}

func parseItem(s Scope, in api.PathItem) (*item, error) {
	it := &item{header: in.Header, list: in.Pieces}
	var err error
	if it.path, err = nix.ParseStorePath(in.Header.StorePath); err != nil {
		return nil, badRequest("%v", err)
	}
	if it.path.Dir() != s.Cache.StoreDir {
		return nil, badRequest("%s is not in the cache's store %s", it.path, s.Cache.StoreDir)
	}
	if it.hash, err = nix.ParseHash(in.Header.NARHash); err != nil {
		return nil, badRequest("NAR hash of %s: %v", it.path, err)
	}
	if in.Header.NARSize == 0 {
		return nil, badRequest("NAR size of %s is 0", it.path)
	}
	for _, ref := range slices.Concat(in.Header.References, in.Header.Upstream) {
		if _, err := nix.ParseBaseName(s.Cache.StoreDir, ref); err != nil {
			return nil, badRequest("reference of %s: %v", it.path, err)
		}
	}
	up := it.upload()
	if it.claim, err = newClaim(s, &up); err != nil {
		return nil, err
	}
	return it, readListing(&up)
}

func (d *Depot) commit(tx *meta.Tx, s Scope, batch []*item) ([]api.PathResult, error) {
	results := make([]api.PathResult, len(batch))
	var lists [][]chunk.Piece
	var ready []*item
	for i, it := range batch {
		results[i] = api.PathResult{StorePathHash: it.path.Hash(), Result: api.Staged}
		complete, err := unstage(tx, s, it)
		if err != nil {
			return nil, err
		}
		if complete {
			ready = append(ready, it)
			lists = append(lists, it.pieces)
		}
	}
	if err := checkReferences(tx, s, ready); err != nil {
		return nil, err
	}
	places, err := locate(tx, s, lists...)
	if err != nil {
		return nil, err
	}
	a := &assembler{depot: d, tx: tx, places: places}
	for i, it := range batch {
		if it.pieces == nil {
			continue
		}
		asm, err := a.assemble(it.pieces, it.hash, it.header.NARSize)
		if err != nil {
			return nil, err
		}
		if err := it.claim.checkArrived(asm); err != nil {
			return nil, err
		}
		if results[i].Result, err = d.keep(tx, s, *it.claim.up, asm, it.list); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// unstage completes an item's piece list with the parts that came in earlier requests. It returns
// false where more is to come.
func unstage(tx *meta.Tx, s Scope, it *item) (complete bool, err error) {
	h := it.header
	if h.More {
		total, err := tx.StagePieces(s.Cache.ID, it.path.Hash(), it.hash, h.Offset, it.list)
		switch {
		case errors.Is(err, meta.ErrTooLarge):
			return false, badRequest("the piece list of %s is longer than %d bytes", it.path, meta.MaxStaged)
		case errors.Is(err, meta.ErrTooMany):
			return false, badRequest("too many piece lists of this cache are unfinished; finish some, or wait a day")
		case errors.Is(err, meta.ErrGap), err == nil && total != h.Offset+int64(len(it.list)):
			return false, badRequest("the piece list of %s does not go on at byte %d", it.path, h.Offset)
		}
		return false, err
	}
	if h.Offset > 0 {
		head, err := tx.StagedPieces(s.Cache.ID, it.path.Hash(), it.hash)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return false, err
		}
		if int64(len(head)) < h.Offset {
			return false, badRequest("the piece list of %s goes on at byte %d, but %d bytes are here", it.path, h.Offset, len(head))
		}
		it.list = slices.Concat(head[:h.Offset], it.list)
		if err := tx.DropStaged(s.Cache.ID, it.path.Hash(), it.hash); err != nil {
			return false, err
		}
	}
	it.pieces = []chunk.Piece{}
	for p, err := range chunk.ParsePieces(it.list) {
		if err != nil {
			return false, badRequest("piece list of %s: %v", it.path, err)
		}
		it.pieces = append(it.pieces, p)
	}
	return true, nil
}

// checkReferences sees to it that whatever a path names can be had: here, in the same commit, or from
// a cache that the client declared to be upstream.
func checkReferences(tx *meta.Tx, s Scope, batch []*item) error {
	have := map[string]bool{}
	for _, it := range batch {
		have[it.path.Hash()] = true
	}
	var ask []string
	base := map[string]string{}
	for _, it := range batch {
		for _, ref := range it.header.References {
			hash := ref[:nix.PathHashLen]
			if have[hash] || slices.Contains(it.header.Upstream, ref) {
				continue
			}
			if base[hash] == "" {
				ask = append(ask, hash)
			}
			base[hash] = ref
		}
	}
	missing, err := tx.MissingPaths(s.Cache.ID, ask)
	if err != nil {
		return fmt.Errorf("look for references: %w", err)
	}
	if len(missing) == 0 {
		return nil
	}
	refs := make([]string, len(missing))
	for i, hash := range missing {
		refs[i] = base[hash]
	}
	slices.Sort(refs)
	return &MissingReferencesError{Refs: refs}
}

func (it *item) upload() Upload {
	h := it.header
	return Upload{
		Path: it.path, NARHash: it.hash, NARSize: h.NARSize,
		References: h.References, Upstream: h.Upstream,
		Deriver: h.Deriver, System: h.System, CA: h.CA, Sigs: h.Sigs, Listing: h.Listing,
	}
}

// keep writes a path and its NAR, by the rule for a path that is there already: the same NAR merges;
// of two different ones the first stays, except that a verified one replaces one that is not, and any
// one that is damaged. A path of the same hash and another name is not the same path, and the first stays.
func (d *Depot) keep(tx *meta.Tx, s Scope, up Upload, asm *assembly, list []byte) (string, error) {
	old, oldNAR, err := tx.Path(s.Cache.ID, up.Path.Hash())
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return "", fmt.Errorf("find path: %w", err)
	}
	result := api.Stored
	if old != nil {
		switch {
		case old.StorePath != up.Path.String():
			return api.Kept, nil
		case oldNAR.Damaged && oldNAR.Hash == up.NARHash:
			result = api.Merged // on other packs, and all that was known of the path stays
		case oldNAR.Damaged:
			old = nil // the first one stays only where it can be had
		case oldNAR.Hash == up.NARHash && (oldNAR.Verified || !asm.verified):
			return api.Merged, d.writePath(tx, s, up, oldNAR, old)
		case oldNAR.Hash == up.NARHash:
			result = api.Merged
		case oldNAR.Verified || !asm.verified:
			return api.Kept, nil
		default:
			old = nil // another NAR takes the place; nothing of the old path is merged into it
		}
	}
	nar, err := d.writeNAR(tx, s, up, asm, list)
	if err != nil {
		return "", err
	}
	return result, d.writePath(tx, s, up, nar, old)
}

// writeNAR shows the NAR's chunks to the cache for good and inserts the NAR, unless the cache has the
// same form already. Another cache's NAR of the same form is another NAR: it lies in packs that this
// one may not see.
func (d *Depot) writeNAR(tx *meta.Tx, s Scope, up Upload, asm *assembly, list []byte) (*meta.NAR, error) {
	sums, keys := map[int64][32]byte{}, map[int64]string{}
	for id, p := range asm.packs {
		sums[id], keys[id] = p.SHA256, p.Key
	}
	if err := d.show(tx, s, asm.used); err != nil {
		return nil, err
	}
	form := asm.layout.form(sums)
	known, err := tx.FindNARs(up.NARHash, []int64{s.Cache.ID})
	if err != nil {
		return nil, fmt.Errorf("find NAR: %w", err)
	}
	for i := range known {
		if known[i].Form == form && (known[i].Verified || !asm.verified) {
			return &known[i], nil
		}
	}
	nar := &meta.NAR{
		Form: form, Hash: up.NARHash, Size: up.NARSize, FileSize: uint64(asm.layout.size()),
		Verified: asm.verified, Layout: d.rows.encode(asm.layout.encode()), CreatedAt: tx.Now(),
	}
	rec := ledger.NAR{
		Form: form, Hash: nar.Hash, Size: nar.Size, FileSize: nar.FileSize, Verified: nar.Verified,
		Pieces: list, Layout: asm.layout.record(keys), CreatedAt: nar.CreatedAt,
	}
	return nar, tx.InsertNAR(nar, rec)
}

// show makes the entries visible to the cache for good.
func (d *Depot) show(tx *meta.Tx, s Scope, used map[int64][]int32) error {
	for id, entries := range used {
		p, err := d.packInfo(tx, id)
		if err != nil {
			return err
		}
		if err := tx.Show(s.Cache.ID, id, p.index.Entries, entries, noEnd); err != nil {
			return fmt.Errorf("show pack %d: %w", id, err)
		}
	}
	return nil
}

// writePath upserts the path; old is what it is merged with, or nil. What is there stays, for a later
// push could otherwise take references out of a path that clients have come to trust, or put its own
// name beside it: a merge adds signatures and what was empty, no more. Which references are upstream's
// is as the last push that agrees about the references says.
func (d *Depot) writePath(tx *meta.Tx, s Scope, up Upload, nar *meta.NAR, old *meta.Path) error {
	p := &meta.Path{
		CacheID: s.Cache.ID, Hash: up.Path.Hash(), StorePath: up.Path.String(), NAR: nar.ID,
		References: sortedSet(up.References), Upstream: sortedSet(up.Upstream),
		Deriver: up.Deriver, System: up.System, CA: up.CA, Sigs: sortedSet(up.Sigs),
		CreatedBy: s.User, CreatedAt: tx.Now(), LastUsed: tx.Now(), Incomplete: up.Incomplete,
	}
	if old != nil {
		merge(p, old)
	}
	if err := tx.PutPath(p, pathRecord(&s.Cache, p, nar)); err != nil {
		return fmt.Errorf("write path %s: %w", p.StorePath, err)
	}
	return keepListing(tx, up, nar)
}

func merge(p, old *meta.Path) {
	p.CreatedBy, p.CreatedAt = old.CreatedBy, old.CreatedAt
	if !slices.Equal(p.References, old.References) {
		p.References, p.Upstream, p.Incomplete = old.References, old.Upstream, old.Incomplete
		p.CA = old.CA // which was checked against those references
	}
	for _, f := range []struct {
		new *string
		old string
	}{{&p.Deriver, old.Deriver}, {&p.System, old.System}, {&p.CA, old.CA}} {
		if f.old != "" {
			*f.new = f.old
		}
	}
	sigs := slices.Clone(old.Sigs)
	for _, sig := range p.Sigs {
		if len(sigs) < maxSigs && !slices.Contains(sigs, sig) {
			sigs = append(sigs, sig)
		}
	}
	slices.Sort(sigs)
	p.Sigs = sigs
}

func sortedSet(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
