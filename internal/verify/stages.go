package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/recovery"
)

// listTime bounds the comparison, which is not broken off for a request: it costs little, and begun anew each
// time it would never end.
const listTime = 10 * time.Minute

// storage compares the listing with the database.
func (r *run) storage(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listTime)
	defer cancel()
	err := r.DB.View(ctx, func(tx *meta.Tx) error {
		n, err := tx.Count()
		r.Counted = n.Packs
		return err
	})
	if err != nil {
		return false, err
	}
	diff, err := recovery.Check(ctx, r.DB, r.Blobs, r.now())
	if err != nil {
		return false, err
	}
	r.Objects = int64(diff.Packs + diff.LogObjects + diff.Shards)
	for i, key := range diff.Keys {
		if err := r.missing(ctx, key, strings.TrimPrefix(diff.Missing[i], key+" ")); err != nil {
			return false, err
		}
	}
	if n := diff.MissingCount - len(diff.Missing); n > 0 {
		r.finding("missing", fmt.Sprintf("%d objects", n), "and these; run it again once those are healed")
	}
	if r.Keys == nil {
		return true, nil
	}
	lines, err := r.Keys(ctx)
	for _, line := range lines {
		key, why, _ := strings.Cut(line, " ")
		r.finding("damaged", key, "%s", why)
	}
	return true, err
}

// missing is an object that is not in the listing, or of another size there.
func (r *run) missing(ctx context.Context, key, why string) error {
	if !strings.HasPrefix(key, "packs/") {
		r.LogBad = true
		r.finding("missing", key, "%s", why)
		return nil
	}
	var id int64
	err := r.DB.View(ctx, func(tx *meta.Tx) (err error) { id, err = tx.PackID(key); return err })
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	rep, err := r.check().Pack(ctx, id, &depot.PackPosition{}, false)
	if err != nil {
		return r.unreadable(ctx, key, err)
	}
	return r.report(ctx, rep)
}

// report puts what is damaged of a pack into quarantine. What was there before is no news.
func (r *run) report(ctx context.Context, rep *depot.PackReport) error {
	if !rep.Damaged() {
		return nil
	}
	news, err := r.quarantine(ctx, rep)
	if err != nil || !news {
		return err
	}
	if rep.Gone != "" {
		r.finding("missing", rep.Key, "%s", rep.Gone)
		return nil
	}
	r.finding("damaged", rep.Key, "%d of its chunks, from entry %d: %s", len(rep.Bad), rep.Bad[0], rep.Why)
	return nil
}

func (v *Verifier) quarantine(ctx context.Context, rep *depot.PackReport) (news bool, err error) {
	entries, why := rep.Bad, rep.Why
	if rep.Gone != "" {
		entries, why = nil, rep.Gone
	}
	return v.Depot.Quarantine(context.WithoutCancel(ctx), rep.Pack, entries, why)
}

// log hashes the objects of the log, and those of the checkpoint.
func (r *run) log(ctx context.Context) (bool, error) {
	for !r.late() {
		key, err := r.nextOfLog(ctx, r.Key)
		if err != nil || key == "" {
			return key == "", err
		}
		why, err := r.hashed(ctx, key)
		if err == nil && why != "" { // it may have been replaced meanwhile, or come wrong over the way
			if why, err = r.hashed(ctx, key); err == nil && why != "" {
				var still string
				if still, err = r.nextOfLog(ctx, r.Key); still != key {
					why = ""
				}
			}
		}
		if err := r.unreadable(ctx, key, err); err != nil {
			return false, err
		}
		if why != "" {
			r.LogBad = true
			r.finding("damaged", key, "%s", why)
		} else {
			r.Objects++
		}
		if r.Key = key; len(r.found) > 0 {
			return false, nil
		}
	}
	return false, nil
}

// nextOfLog is the key behind one: first of the log, then of the shards, then the manifest.
func (r *run) nextOfLog(ctx context.Context, after string) (key string, err error) {
	var manifest string
	err = r.DB.View(ctx, func(tx *meta.Tx) error {
		text, err := tx.Fact(meta.FactCheckpoint)
		manifest = string(text)
		if err != nil || after != "" && !strings.HasPrefix(after, ledger.LogPrefix) {
			return err
		}
		key, err = nextLogObject(tx, after, manifest)
		return err
	})
	if err != nil || key != "" || manifest == "" || after == manifest {
		return key, err
	}
	m, err := ledger.ReadManifest(ctx, r.Blobs, manifest)
	var damaged *ledger.ObjectError
	if errors.As(err, &damaged) {
		return manifest, nil
	}
	if err != nil {
		return "", err
	}
	for _, s := range m.Shards { // in the order of their keys
		if !strings.HasPrefix(after, ledger.ShardPrefix) || s.Key > after {
			return s.Key, nil
		}
	}
	return manifest, nil
}

// nextLogObject is the key behind one of those that the checkpoint has not replaced: the others it deletes, and a
// server that is killed meanwhile has the rows still.
func nextLogObject(tx *meta.Tx, after, manifest string) (string, error) {
	at, noCheckpoint := ledger.ParseKey(manifest)
	for page := 1; ; page = 100 { // mostly the first is one
		keys, err := tx.LogObjects(after, page)
		if err != nil || len(keys) == 0 {
			return "", err
		}
		for _, key := range keys {
			if pos, err := ledger.ParseKey(key); err != nil || noCheckpoint != nil || pos.Compare(at) > 0 {
				return key, nil
			}
		}
		after = keys[len(keys)-1]
	}
}

// hashed compares an object with the hash in its name; the answer is what is wrong.
func (r *run) hashed(ctx context.Context, key string) (why string, err error) {
	rc, err := r.Blobs.Get(ctx, key, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		return "it is not in the storage", nil
	}
	if err != nil {
		return "", err
	}
	defer rc.Close()
	h := sha256.New()
	n, err := io.Copy(h, rc)
	if err == nil {
		err = r.read(ctx, n)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); err == nil && !strings.HasSuffix(key, sum) {
		why = "its SHA-256 is " + sum + ", not the one in its name"
	}
	return why, err
}

// sampled says whether something belongs to the sample.
func (r *run) sampled(id int64) bool {
	if r.Sample <= 0 || r.Sample >= 1 {
		return true
	}
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], r.Seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(id))
	sum := sha256.Sum256(b[:])
	return float64(binary.LittleEndian.Uint64(sum[:])>>11)/(1<<53) < r.Sample
}

// unverified reads the NARs that nobody has hashed.
func (r *run) unverified(ctx context.Context) (bool, error) {
	return r.nars(ctx, false)
}

// contents reads the others again.
func (r *run) contents(ctx context.Context) (bool, error) {
	if !r.Deep || r.Budget > 0 {
		return true, nil
	}
	return r.nars(ctx, true)
}

func (r *run) nars(ctx context.Context, verified bool) (done bool, err error) {
	for !r.late() && len(r.found) == 0 {
		if r.NAR == nil {
			if r.Budget > 0 && r.Spent >= r.Budget/2 { // one that was begun is read to its end
				return true, nil
			}
			var ids []int64
			err := r.DB.View(ctx, func(tx *meta.Tx) (err error) {
				ids, err = tx.NARsToRead(r.After, verified, 1)
				return err
			})
			if err != nil || len(ids) == 0 {
				return len(ids) == 0, err
			}
			if r.After = ids[0]; !r.sampled(ids[0]) {
				continue
			}
			r.NAR = &depot.NARPosition{NAR: ids[0]}
		}
		if err := r.nar(ctx, verified); err != nil {
			return false, err
		}
	}
	return false, nil
}

// nar goes on with the present one.
func (r *run) nar(ctx context.Context, verified bool) error {
	id, before := r.NAR.NAR, *r.NAR
	rep, err := r.check().NAR(ctx, r.NAR)
	if err != nil {
		if err = r.unreadable(ctx, fmt.Sprintf("NAR %d", id), err); err != nil {
			*r.NAR = before // it goes on here
		} else {
			r.NAR = nil
		}
		return err
	}
	r.Errors = 0
	r.Chunks += int64(rep.Chunks)
	if !rep.Done {
		return nil
	}
	r.NARs++
	r.NAR = nil
	for _, p := range rep.Packs {
		if err := r.report(ctx, p); err != nil {
			return err
		}
	}
	switch {
	case rep.Wrong != "":
		return r.wrong(ctx, id, rep.Wrong)
	case rep.Right && !verified:
		r.Verified++
		r.right = append(r.right, id)
	}
	return nil
}

// wrong is a NAR that whoever pushed it said something untrue of.
func (r *run) wrong(ctx context.Context, id int64, why string) error {
	var news bool
	where := fmt.Sprintf("NAR %d", id)
	err := r.DB.Update(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
		if news, err = tx.MarkWrong(id, why); err == nil {
			where, err = narName(tx, id)
		}
		return err
	})
	if news {
		r.finding("wrong", where, "%s", why)
	}
	return err
}

// narName is a path of a NAR, for people.
func narName(tx *meta.Tx, id int64) (string, error) {
	caches, err := tx.PathsOf(id)
	for cache, hashes := range caches {
		if err == nil && len(hashes) > 0 {
			p, _, err := tx.Path(cache, hashes[0])
			if err != nil {
				return "", err
			}
			return p.StorePath, nil
		}
	}
	return fmt.Sprintf("NAR %d", id), err
}

// packs reads packs by their ids. Those in quarantine are read whole: somebody may have brought them back.
func (r *run) packs(ctx context.Context) (done bool, err error) {
	if r.Budget > 0 && r.After == 0 && r.Pos.Entry == 0 {
		r.After = r.state.Packs
	}
	for !r.late() && len(r.found) == 0 {
		if r.spent() && r.Pos.Entry == 0 {
			r.state.Packs, r.Partly = r.After, true
			return true, nil
		}
		id, err := r.nextPack(ctx, r.After)
		if err != nil {
			return false, err
		}
		if id == 0 {
			r.state.Packs = 0
			return true, nil
		}
		if err := r.pack(ctx, id); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (r *run) nextPack(ctx context.Context, after int64) (id int64, err error) {
	err = r.DB.View(ctx, func(tx *meta.Tx) error {
		list, err := tx.PackFacts(after, 1)
		if len(list) > 0 {
			id = list[0].ID
		}
		return err
	})
	return id, err
}

func (r *run) pack(ctx context.Context, id int64) error {
	var held *meta.Quarantined
	err := r.DB.View(ctx, func(tx *meta.Tx) (err error) { held, err = tx.Quarantined(id); return err })
	if err != nil {
		return err
	}
	deep := r.Deep && r.sampled(id)
	if !deep && held == nil && r.Sample > 0 && !r.sampled(id) {
		r.After = id
		return nil
	}
	if r.Pos.Pack != id {
		r.Bad = false // it was of one that is gone
	}
	rep, err := r.check().Pack(ctx, id, &r.Pos, deep || held != nil)
	if err != nil {
		if err = r.unreadable(ctx, fmt.Sprintf("pack %d", id), err); err == nil {
			r.After, r.Pos, r.Bad = id, depot.PackPosition{}, false
		}
		return err
	}
	r.Errors = 0
	r.Chunks += int64(rep.Chunks)
	r.Bad = r.Bad || rep.Damaged()
	if err := r.report(ctx, rep); err != nil {
		return err
	}
	if rep.Next > 0 {
		return nil
	}
	if held != nil && !r.Bad && rep.Key != "" {
		if err := r.Depot.Release(ctx, id); err != nil {
			return err
		}
		r.Released++
	}
	r.Count.Packs++
	r.After, r.Pos, r.Bad = id, depot.PackPosition{}, false
	return nil
}

// paths compares layouts with packs, and references with paths.
func (r *run) paths(ctx context.Context) (bool, error) {
	for !r.late() && len(r.found) == 0 {
		var page []meta.LaidOut
		type bad struct{ where, why string }
		var found []bad
		err := r.DB.View(ctx, func(tx *meta.Tx) (err error) {
			if page, err = tx.LaidOutPaths(r.After); err != nil || len(page) == 0 {
				return err
			}
			check := r.check()
			live, err := liveCaches(tx)
			for _, p := range page {
				if err != nil || !live[p.CacheID] {
					continue
				}
				var why string
				if why, err = check.Layout(tx, p.Layout); why != "" {
					found = append(found, bad{p.StorePath + " in " + p.Cache, why})
				}
			}
			if err != nil {
				return err
			}
			refs, err := absentReferences(tx, page, live)
			for _, p := range refs {
				found = append(found, bad{p.StorePath + " in " + p.Cache, "it refers to " + p.Refs[0] + ", which is not there; push its closure again"})
			}
			return err
		})
		if err != nil || len(page) == 0 {
			return len(page) == 0, err
		}
		for _, f := range found {
			r.finding("reference", f.where, "%s", f.why)
		}
		r.Paths += int64(len(page))
		r.After = page[len(page)-1].ID
	}
	return false, nil
}

func liveCaches(tx *meta.Tx) (map[int64]bool, error) {
	list, err := tx.Caches()
	live := map[int64]bool{}
	for _, c := range list {
		live[c.ID] = true
	}
	return live, err
}

// absentReferences gives those of a page's paths that refer to what is not there, and are not known to: stock
// clients push in any order. Refs are what they lack.
func absentReferences(tx *meta.Tx, page []meta.LaidOut, live map[int64]bool) (list []meta.LaidOut, err error) {
	asked := map[int64][]string{}
	for _, p := range page {
		if live[p.CacheID] {
			for _, ref := range own(p) {
				asked[p.CacheID] = append(asked[p.CacheID], ref[:nix.PathHashLen])
			}
		}
	}
	there := map[int64]map[string]bool{}
	for cache, hashes := range asked {
		set := map[string]bool{}
		there[cache] = set
		err := tx.Nodes(cache, hashes, func(i int, _ meta.Node) error { set[hashes[i]] = true; return nil })
		if err != nil {
			return nil, err
		}
	}
	for _, p := range page {
		if !live[p.CacheID] {
			continue
		}
		var lacks []string
		for _, ref := range own(p) {
			if !there[p.CacheID][ref[:nix.PathHashLen]] {
				lacks = append(lacks, ref)
			}
		}
		if len(lacks) == 0 {
			continue
		}
		path, _, err := tx.Path(p.CacheID, p.Hash)
		if err != nil {
			return nil, err
		}
		if !path.Incomplete {
			p.Refs = lacks
			list = append(list, p)
		}
	}
	return list, nil
}

// own are the references that the cache itself must have.
func own(p meta.LaidOut) (refs []string) {
	upstream := map[string]bool{}
	for _, u := range p.Upstream {
		upstream[u] = true
	}
	for _, ref := range p.Refs {
		if !upstream[ref] && len(ref) > nix.PathHashLen && ref[:nix.PathHashLen] != p.Hash {
			refs = append(refs, ref)
		}
	}
	return refs
}

// end heals what it can and sums up.
func (r *run) end(ctx context.Context) (bool, error) {
	for {
		next, healed, err := r.Depot.Heal(ctx, r.After)
		r.Healed += healed
		if r.After = next; err != nil {
			return false, err
		}
		if next == 0 {
			break
		}
		if r.late() {
			return false, nil
		}
	}
	if r.LogBad && r.Renew != nil {
		if err := r.renew(ctx); err != nil {
			return false, err
		}
		r.LogBad = false
	}
	err := r.DB.View(ctx, func(tx *meta.Tx) (err error) {
		r.waiting, r.Waiting, err = tx.WaitingPaths(maxFindings)
		return err
	})
	if err != nil {
		return false, err
	}
	r.Ended, r.Ran = r.now(), true
	return false, nil
}

// renew has a checkpoint take the place of what is damaged: the database has all that the log and the
// checkpoint say. It needs a log to stand at the end of.
func (r *run) renew(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if err := r.DB.Update(ctx, func(tx *meta.Tx) error { tx.Mark(); return nil }); err != nil {
		return err
	}
	if err := r.Renew(ctx); err != nil {
		return fmt.Errorf("write the state anew: %w", err)
	}
	return nil
}
