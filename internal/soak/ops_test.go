package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/roots"
)

// step is one thing that happens, told by its kind and by a seed for all that it
// chooses. So a history is a list, and with some of it left out it is a history still.
type step struct {
	kind    int
	seed    uint64
	disturb disturbKind
}

// kind is something that can happen.
type kind struct {
	name   string
	weight int
	do     func(w *world, r *rand.Rand)
	client bool // it may come between the requests of a maintenance
	server bool // it may come between the requests of a push
}

// kinds is all that can happen.
func kinds() []kind {
	return []kind{
		{"push", 16, (*world).doPush, true, false},
		{"upload", 8, (*world).doUpload, true, false},
		{"copy", 5, (*world).doCopy, true, false},
		{"abandon", 3, (*world).doAbandon, true, false},
		{"pull", 16, (*world).doPull, true, false},
		{"closure", 5, (*world).doClosure, true, false},
		{"pin", 7, (*world).doPin, true, false},
		{"unpin", 4, (*world).doUnpin, true, false},
		{"delete", 3, (*world).doDelete, true, false},
		{"create", 3, (*world).doCreate, true, false},
		{"destroy", 1, (*world).doDestroy, true, true},
		{"configure", 3, (*world).doConfigure, true, false},
		{"rebuild", 8, (*world).doRebuild, true, true},
		{"uses", 3, (*world).doUses, true, true},
		{"checkpoint", 5, (*world).doCheckpoint, false, true},
		{"collect-step", 8, (*world).doCollectStep, false, true},
		{"collect", 4, (*world).doCollect, false, true},
		{"rewrite", 4, (*world).doRewrite, false, true},
		{"verify", 4, (*world).doVerify, false, true},
		{"minutes", 5, (*world).doMinutes, true, true},
		{"days", 2, (*world).doDays, false, true},
		{"restart", 1, (*world).doRestart, false, true},
		{"crash", 1, (*world).doCrash, false, true},
		{"recover", 1, (*world).doRecover, false, false},
		{"look", 2, (*world).doLook, false, false},
		{"settle", 1, (*world).doSettle, false, false},
	}
}

// draw chooses what happens next.
func draw(r *rand.Rand, kinds []kind, fits func(kind) bool) int {
	sum := 0
	for _, k := range kinds {
		if fits(k) {
			sum += k.weight
		}
	}
	n := r.IntN(sum)
	for i, k := range kinds {
		if !fits(k) {
			continue
		}
		if n -= k.weight; n < 0 {
			return i
		}
	}
	panic("the weights are wrong")
}

func anything(kind) bool { return true }

var errFault = fmt.Errorf("this request fails: %w", blob.ErrUnavailable)

func isRequest(what string) bool {
	verb, _, _ := strings.Cut(what, " ")
	return slices.Contains([]string{"put", "stored", "delete", "deleted", "get", "list"}, verb)
}

// run lets a step happen, and sees to what it left in doubt.
func (w *world) run(s step) {
	r := rand.New(rand.NewPCG(s.seed, 7))
	w.now = w.now.Add(time.Duration(1+r.IntN(240)) * time.Second)
	w.before = w.m.clone()
	w.faults, w.unsure, w.stored = 0, false, false
	w.disturb = disturbance{kind: s.disturb, left: 1 + r.IntN(1+r.IntN(60)), amid: func() { w.runAmid(r, func(k kind) bool { return k.client }) }}
	if r.IntN(2) == 0 { // a collection has hundreds of points
		w.disturb.left = 1 + r.IntN(300)
	}
	if s.disturb == other && w.kinds[s.kind].client {
		w.disturb = disturbance{} // clients let others come between their requests by themselves
	}
	w.say("%s", w.kinds[s.kind].name)
	w.count[w.kinds[s.kind].name]++
	w.kinds[s.kind].do(w, r)
	w.disturb = disturbance{}
	if w.p.dead.Load() {
		w.count["kills"]++
		w.revive()
		w.unsure = true
	}
	after := w.m
	if w.unsure || w.faults > 0 {
		w.reconcile()
	}
	if w.stored { // a record that was stored and not committed counts for a recovery, as long as it is the last one
		w.ghost = nil
		if w.unsure || w.faults > 0 {
			w.ghost = after
		}
	}
	if r.IntN(20) == 0 {
		w.audit()
	}
	w.before = nil
}

// runAmid lets something else happen in the middle of a step.
func (w *world) runAmid(r *rand.Rand, fits func(kind) bool) {
	k := draw(r, w.kinds, fits)
	w.say("    %s", w.kinds[k].name)
	w.count["amid: "+w.kinds[k].name]++
	deep := w.deep
	w.deep = true
	w.kinds[k].do(w, r)
	w.deep = deep
}

// between is what a push calls between its requests.
func (w *world) between(r *rand.Rand) func() {
	return func() {
		if !w.deep && r.IntN(12) == 0 && w.disturb.kind == undisturbed {
			w.runAmid(r, func(k kind) bool { return k.server })
		}
	}
}

// shelf chooses a cache; nil: there is none.
func (w *world) shelf(r *rand.Rand) *shelf {
	names := w.m.names()
	if len(names) == 0 {
		return nil
	}
	return w.m.caches[names[r.IntN(len(names))]]
}

// top chooses a product of the day, mostly one that needs much.
func (w *world) top(r *rand.Rand) string {
	i := recipes - 1 - min(r.IntN(recipes), r.IntN(recipes))
	return w.forge.present[i]
}

// old chooses something that a cache has.
func (w *world) old(r *rand.Rand, s *shelf) string {
	hashes := s.hashes()
	if len(hashes) == 0 {
		return ""
	}
	return hashes[r.IntN(len(hashes))]
}

func (w *world) doPush(r *rand.Rand)   { w.bring(r, (*world).push) }
func (w *world) doUpload(r *rand.Rand) { w.bring(r, (*world).upload) }
func (w *world) doCopy(r *rand.Rand)   { w.bring(r, (*world).copy) }

// bring pushes a closure.
func (w *world) bring(r *rand.Rand, how func(*world, *rand.Rand, *shelf, string, func()) outcome) {
	s := w.shelf(r)
	if s == nil {
		return
	}
	top, start := w.top(r), w.now
	w.committed, w.pushing = map[string]bool{}, map[string]bool{}
	defer func() { w.pushing = nil }()
	want := w.forge.closure(top)
	for _, p := range want {
		h, there := s.paths[p.path.Hash()]
		if !there {
			h = held{lo: start}
		}
		h.hi = w.now
		s.paths[p.path.Hash()] = h
		w.pushing[p.path.Hash()] = true
	}
	end := how(w, r, s, top, w.between(r))
	now, there := w.m.caches[s.name]
	if !there {
		return // destroyed meanwhile, and so it stays
	}
	if end != done {
		w.unsure = true
		for _, p := range want {
			if h, there := now.paths[p.path.Hash()]; there {
				h.hi = w.now
				now.paths[p.path.Hash()] = h
			}
		}
		return
	}
	for _, p := range want {
		h, there := now.paths[p.path.Hash()]
		if !there { // a crash amid the push took it for undone; it is done now
			h = held{lo: start}
		}
		h.hi = w.now
		now.paths[p.path.Hash()] = h
	}
}

// doAbandon sends packs that nobody commits.
func (w *world) doAbandon(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil {
		return
	}
	want := w.forge.closure(w.top(r))
	some := want[r.IntN(len(want)):]
	lists, raws, ids := w.cutAll(s, some)
	missing, end := w.missingChunks(s, ids)
	if end == done {
		end = w.sendPacks(r, s, some, lists, raws, missing)
	}
	w.unsure = end != done
}

func (w *world) doPull(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil {
		return
	}
	hash := w.old(r, s)
	if hash == "" || r.IntN(10) == 0 {
		hash = w.top(r)
	}
	w.pullKnown(s, hash)
}

// pullKnown pulls, and holds what is found against the model.
func (w *world) pullKnown(s *shelf, hash string) {
	_, was := s.paths[hash]
	amid, public := w.others, s.public
	found, end := w.pull(s, hash)
	h, there := s.paths[hash] // somebody may have deleted it meanwhile
	if w.m.caches[s.name] != s {
		there = false
	}
	switch {
	case end == done && !found && s.public != public: // whoever asked without a token is told nothing any more
	case end != done:
		w.unsure = true
		w.pending = append(w.pending, use{s.name, hash, false})
	case found && !was && !there:
		w.wrong("%s is in cache %s, and it was deleted or never pushed", w.forge.all[hash].path, s.name)
	case !found && there && !h.doubt:
		w.wrong("%s is not in cache %s: it was pushed, and nothing took it", w.forge.all[hash].path, s.name)
	case !found:
		delete(s.paths, hash)
	case there:
		h.hi = w.now
		s.paths[hash] = h
		w.pending = append(w.pending, use{s.name, hash, amid == w.others}) // what came between may have written it
	}
}

// use is a pull that the server has not written down.
type use struct {
	cache, hash string
	sure        bool
}

func (w *world) doUses(r *rand.Rand) {
	w.usesWritten(false) // in case that it is killed
	err := w.p.server.WriteUses(context.Background())
	if w.p.dead.Load() || w.faults > 0 {
		w.unsure = true
		return
	}
	w.must(err)
	w.usesWritten(true)
	w.pending = nil
}

// usesWritten notes that the server writes the uses that it remembers: perhaps, or
// for sure.
func (w *world) usesWritten(sure bool) {
	for _, u := range w.pending {
		if s := w.m.caches[u.cache]; s != nil {
			if h, there := s.paths[u.hash]; there {
				h.hi = w.now
				if sure && u.sure && !h.doubt {
					h.lo = w.now
				}
				s.paths[u.hash] = h
			}
		}
	}
}

func (w *world) doClosure(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil {
		return
	}
	top := w.top(r)
	if r.IntN(2) == 0 {
		if old := w.old(r, s); old != "" {
			top = old
		}
	}
	want := w.forge.closure(top)
	for _, p := range want { // in case that it is killed
		if h, there := s.paths[p.path.Hash()]; there {
			h.hi = w.now
			s.paths[p.path.Hash()] = h
		}
	}
	rec, ok := w.askJSON("POST", api.Expand(api.ClosureRoute, "cache", s.name), w.token(s.name), api.ClosureRequest{StorePathHashes: []string{top}})
	if w.failed(rec, ok, "closure") {
		w.unsure = true
		return
	}
	var answer api.ClosureResult
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK {
		w.wrong("closure: %d %s", rec.Code, rec.Body)
	}
	whole, doubt := w.complete(s, top)
	if got := len(answer.Complete) == 1; got != whole && !doubt {
		w.wrong("closure of %s in %s: %s; want complete: %v", w.forge.all[top].path, s.name, rec.Body, whole)
	} else if got {
		w.settled(s, top)
		for _, p := range want {
			h := s.paths[p.path.Hash()]
			h.lo = later(h.lo, w.now.Add(-time.Hour)) // so exactly is it kept
			s.paths[p.path.Hash()] = h
		}
		w.use(s, top)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (w *world) doPin(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil {
		return
	}
	top := w.top(r)
	if old := w.old(r, s); old != "" && r.IntN(3) > 0 {
		top = old
	}
	name := pinName(r.IntN(pinNames))
	in := api.PinRequest{StorePath: w.forge.all[top].path.String()}
	old, had := s.pins[name]
	had = had && old.live(w.now)
	p := pin{revs: []string{top}, keep: meta.DefaultKeep}
	if had {
		p.keep = old.keep
	}
	if r.IntN(3) == 0 {
		in.Keep = 1 + r.IntN(3)
		p.keep = in.Keep
	}
	if r.IntN(4) == 0 {
		in.ExpiresIn = int64(1 + r.IntN(10*86400))
		p.expires = w.now.Add(time.Duration(in.ExpiresIn) * time.Second)
	}
	if had {
		for _, rev := range old.revs {
			if rev != top && len(p.revs) < p.keep {
				p.revs = append(p.revs, rev)
			}
		}
	}
	whole, doubt := w.complete(s, top)
	before, usedBefore := s.pins[name], s.paths[top]
	if _, there := s.paths[top]; there {
		s.pins[name] = p
		s.paths[top] = held{lo: usedBefore.lo, hi: w.now, doubt: usedBefore.doubt}
	}
	rec, ok := w.askJSON("PUT", pinPath(s.name, name), w.token(s.name), in)
	if w.failed(rec, ok, "pin") {
		w.unsure = true
		return
	}
	switch {
	case rec.Code == http.StatusOK:
		if !whole {
			w.wrong("%s was pinned in %s without its closure", in.StorePath, s.name)
		}
		w.settled(s, top)
		w.use(s, top)
	case named(rec, api.MissingReferences):
		if whole && !doubt {
			w.wrong("%s cannot be pinned in %s, and all of it is there: %s", in.StorePath, s.name, rec.Body)
		}
		delete(s.pins, name)
		if before.revs != nil {
			s.pins[name] = before
		}
	default:
		w.wrong("pin: %d %s", rec.Code, rec.Body)
	}
}

func (w *world) doUnpin(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil || len(s.pins) == 0 {
		return
	}
	name := pinName(r.IntN(pinNames))
	p, had := s.pins[name]
	had = had && p.live(w.now)
	delete(s.pins, name)
	rec, ok := w.ask("DELETE", pinPath(s.name, name), w.token(s.name), nil, nil)
	if w.failed(rec, ok, "unpin") {
		w.unsure = true
		return
	}
	if want := map[bool]int{true: 200, false: 404}[had]; rec.Code != want {
		w.wrong("unpin %s in %s: %d %s, want %d", name, s.name, rec.Code, rec.Body, want)
	}
}

// doDelete takes a path away by hand, at times with all that only it needs.
func (w *world) doDelete(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil {
		return
	}
	hash, closure := w.old(r, s), r.IntN(2) == 0
	if hash == "" {
		return
	}
	cache := w.row(s.name)
	if cache == nil {
		return
	}
	was := w.m.clone().caches[s.name].paths
	for _, p := range w.forge.closure(hash) {
		if h, there := s.paths[p.path.Hash()]; there {
			h.doubt = true
			s.paths[p.path.Hash()] = h
		}
	}
	taken, err := w.p.roots.Delete(context.Background(), *cache, hash, closure, false)
	if w.p.dead.Load() || w.faults > 0 {
		w.unsure = true
		return
	}
	s.paths = was
	var needed *roots.NeededError
	switch {
	case errors.As(err, &needed):
		w.checkNeeded(s, hash)
	case errors.Is(err, meta.ErrNotFound):
		if !s.paths[hash].doubt {
			w.wrong("delete %s: %v", hash, err)
		}
		delete(s.paths, hash)
	case err != nil && strings.Contains(err.Error(), "is needed by what it needs"):
	case err != nil:
		w.wrong("delete %s: %v", hash, err)
	default:
		w.takeAway(s, hash, closure, taken)
	}
}

func (w *world) checkNeeded(s *shelf, hash string) {
	for _, p := range s.pins {
		if p.live(w.now) && slices.Contains(p.revs, hash) {
			return
		}
	}
	for other := range s.paths {
		if other != hash && slices.Contains(w.forge.all[other].refs, hash) {
			return
		}
	}
	w.wrong("%s of %s can't be deleted, and nothing needs it", hash, s.name)
}

// takeAway notes what a deletion took, which must be nothing that is pinned, or that
// what stays refers to.
func (w *world) takeAway(s *shelf, top string, closure bool, taken []string) {
	for _, path := range taken {
		hash := strings.TrimPrefix(path, "/nix/store/")[:32]
		if _, there := s.paths[hash]; !there {
			w.wrong("a deletion took %s, which was not in %s", path, s.name)
		}
		if !closure && hash != top {
			w.wrong("a deletion of %s alone took %s", top, path)
		}
		delete(s.paths, hash)
	}
	for _, path := range taken {
		hash := strings.TrimPrefix(path, "/nix/store/")[:32]
		for other, h := range s.paths {
			if !h.doubt && slices.Contains(w.forge.all[other].refs, hash) {
				w.wrong("a deletion in %s took %s, which %s needs", s.name, path, w.forge.all[other].path)
			}
		}
		for name, p := range s.pins {
			if p.live(w.now) && slices.Contains(p.revs, hash) {
				w.wrong("a deletion in %s took %s, which is pinned as %s", s.name, path, name)
			}
		}
	}
}

// row reads a cache; nil: there is none.
func (w *world) row(name string) *meta.Cache {
	var c *meta.Cache
	err := w.p.db.View(context.Background(), func(tx *meta.Tx) (err error) {
		c, err = tx.Cache(name)
		return err
	})
	switch {
	case w.p.dead.Load():
		w.unsure = true
		return nil
	case errors.Is(err, meta.ErrNotFound):
		return nil
	}
	w.must(err)
	return c
}

func (w *world) doCreate(r *rand.Rand) {
	if len(w.m.caches) >= 4 {
		return
	}
	w.serial++
	name := fmt.Sprintf("cache-%d%s", w.serial, []string{"", "", "", "-last", "-quota"}[r.IntN(5)])
	s := newShelf(name, r.IntN(2) == 0)
	w.m.caches[s.name] = s
	rec, ok := w.askJSON("POST", api.Expand(api.CacheConfigRoute, "cache", s.name), w.token(s.name),
		api.CreateCache{Keypair: api.Keypair{Generate: true}, IsPublic: s.public, StoreDir: "/nix/store", Priority: 41, UpstreamCacheKeyNames: []string{}})
	if w.failed(rec, ok, "create cache") {
		w.unsure = true
		return
	}
	if rec.Code != http.StatusOK {
		w.wrong("create cache: %d %s", rec.Code, rec.Body)
	}
	if c := w.row(s.name); c != nil {
		s.key = c.PublicKey
	}
}

func newShelf(name string, public bool) *shelf {
	return &shelf{name: name, public: public, paths: map[string]held{}, pins: map[string]pin{}, sent: map[chunkID]bool{}}
}

func (w *world) doDestroy(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil || len(w.m.caches) < 2 {
		return
	}
	delete(w.m.caches, s.name)
	rec, ok := w.ask("DELETE", api.Expand(api.CacheConfigRoute, "cache", s.name), w.token(s.name), nil, nil)
	if w.failed(rec, ok, "destroy cache") {
		w.unsure = true
		return
	}
	if rec.Code != http.StatusOK {
		w.wrong("destroy cache: %d %s", rec.Code, rec.Body)
	}
}

func (w *world) doConfigure(r *rand.Rand) {
	s := w.shelf(r)
	if s == nil {
		return
	}
	in := api.PatchCache{}
	switch r.IntN(3) {
	case 0:
		s.public = !s.public
		in.IsPublic = &s.public
	case 1:
		s.retention = nil
		in.RetentionPeriod = &api.Retention{}
	default:
		seconds := uint32([]int{0, 3600, 2 * 86400, 10 * 86400, 40 * 86400}[r.IntN(5)])
		s.retention = &seconds
		in.RetentionPeriod = &api.Retention{Seconds: &seconds}
	}
	rec, ok := w.askJSON("PATCH", api.Expand(api.CacheConfigRoute, "cache", s.name), w.token(s.name), in)
	if w.failed(rec, ok, "configure cache") {
		w.unsure = true
		return
	}
	if rec.Code != http.StatusOK {
		w.wrong("configure cache: %d %s", rec.Code, rec.Body)
	}
}

// doRebuild changes something at home: nobody tells the server.
func (w *world) doRebuild(r *rand.Rand) {
	i := r.IntN(recipes)
	if r.IntN(3) > 0 {
		i = recipes - 1 - r.IntN(recipes/2)
	}
	w.forge.rebuild(r, i)
}

func (w *world) doMinutes(r *rand.Rand) {
	w.now = w.now.Add(time.Duration(1+r.IntN(180)) * time.Minute)
}
func (w *world) doDays(r *rand.Rand) { w.now = w.now.Add(time.Duration(6+r.IntN(200)) * time.Hour) }

func (w *world) doCheckpoint(r *rand.Rand) {
	var err error
	if r.IntN(4) == 0 {
		err = w.p.keeper.Make(context.Background())
	} else {
		_, err = w.p.keeper.Step(context.Background())
	}
	w.maintained("checkpoint", err)
}

// maintained holds the error of a maintenance, which only what disturbed it may have
// caused.
func (w *world) maintained(what string, err error) (whole bool) {
	if w.broken != "" {
		panic(violation{})
	}
	if w.p.dead.Load() || w.faults > 0 {
		w.unsure = true
		return false
	}
	if err != nil {
		w.wrong("%s: %v", what, err)
	}
	return true
}

func (w *world) doRestart(r *rand.Rand) {
	w.doUses(r)
	if !w.p.dead.Load() && w.faults == 0 {
		w.restart()
	}
}

// doCrash kills the process while nothing is under way.
func (w *world) doCrash(r *rand.Rand) {
	w.kill(w.p)
	w.revive()
}

// doLook pulls all that must be there of one cache.
func (w *world) doLook(r *rand.Rand) {
	if s := w.shelf(r); s != nil {
		w.look(s)
	}
}

func (w *world) look(s *shelf) {
	for _, hash := range s.hashes() {
		w.pullKnown(s, hash)
		if w.unsure {
			return
		}
	}
}
