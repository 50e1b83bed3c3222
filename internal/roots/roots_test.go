package roots

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// house is a database in which paths are named by one word, and a keeper.
type house struct {
	*Keeper
	t     *testing.T
	now   time.Time
	a, b  Asker
	trace []string
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, now: time.Unix(1_700_000_000, 0).UTC()}
	db, err := meta.Open(t.Context(), ":memory:", meta.Options{Now: func() time.Time { return h.now }, Trace: func(q string) { h.trace = append(h.trace, q) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h.Keeper = &Keeper{DB: db, Retention: 30 * 24 * time.Hour}
	for name, to := range map[string]*Asker{"a": &h.a, "b": &h.b} {
		to.Cache, to.User = meta.Cache{Name: name, PublicKey: name, StoreDir: nix.StoreDir}, "me"
		if err := db.Update(t.Context(), func(tx *meta.Tx) error { return tx.CreateCache(&to.Cache) }); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// store is the store path of a word.
func store(word string) nix.StorePath {
	sum := sha256.Sum256([]byte(word))
	p, err := nix.ParseBaseName(nix.StoreDir, nix.EncodeBase32(sum[:20])+"-"+word)
	if err != nil {
		panic(err)
	}
	return p
}

func hashOf(word string) string { return store(word).Hash() }

func words(hashes []string, all ...string) (out []string) {
	for _, h := range hashes {
		for _, w := range all {
			if hashOf(w) == h {
				out = append(out, w)
			}
		}
	}
	slices.Sort(out)
	return out
}

// put adds a path of 100 bytes that refers to others; "^x" is one that upstream has.
func (h *house) put(a Asker, word string, refs ...string) {
	h.t.Helper()
	h.update2(func(tx *meta.Tx) error { return put(tx, a.Cache, word, refs...) })
}

func put(tx *meta.Tx, c meta.Cache, word string, refs ...string) error {
	p := &meta.Path{CacheID: c.ID, Hash: hashOf(word), StorePath: store(word).String(), CreatedBy: "pusher"}
	for _, ref := range refs {
		up := strings.HasPrefix(ref, "^")
		base := store(strings.TrimPrefix(ref, "^")).Base()
		p.References = append(p.References, base)
		if up {
			p.Upstream = append(p.Upstream, base)
		}
	}
	sum := sha256.Sum256([]byte(c.Name + word))
	n := &meta.NAR{Form: sum, Hash: sum, Size: 100, FileSize: 10}
	if err := tx.InsertNAR(n, ledger.NAR{Form: n.Form, Hash: n.Hash}); err != nil {
		return err
	}
	p.NAR = n.ID
	return tx.PutPath(p, ledger.Path{Cache: c.Name, StorePath: p.StorePath})
}

func (h *house) update2(fn func(*meta.Tx) error) {
	h.t.Helper()
	if err := h.DB.Update(h.t.Context(), fn); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) ask(a Asker, tops ...string) api.ClosureResult {
	h.t.Helper()
	var hashes []string
	for _, top := range tops {
		hashes = append(hashes, hashOf(top))
	}
	got, err := h.Closure(h.t.Context(), a, hashes)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

func (h *house) lastUsed(a Asker, word string) (at time.Time) {
	h.t.Helper()
	err := h.DB.View(h.t.Context(), func(tx *meta.Tx) error {
		p, _, err := tx.Path(a.Cache.ID, hashOf(word))
		if err == nil {
			at = p.LastUsed
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return at
}

func (h *house) pin(a Asker, name, word string, change ...func(*PinRequest)) error {
	h.t.Helper()
	in := PinRequest{Name: name, Path: store(word)}
	for _, f := range change {
		f(&in)
	}
	_, err := h.Pin(h.t.Context(), a, in)
	return err
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestClosureIsCompleteOnlyWithAllReferences(t *testing.T) {
	h := newHouse(t)
	all := []string{"web", "db", "lib", "libc", "gone", "nowhere", "broken", "self", "loop", "pool"}
	h.put(h.a, "libc")
	h.put(h.a, "lib", "libc", "lib")
	h.put(h.a, "web", "lib", "libc", "^gone")
	h.put(h.a, "db", "lib", "gone")
	h.put(h.a, "broken", "db")
	h.put(h.a, "loop", "pool") // two that claim to refer to each other
	h.put(h.a, "pool", "loop", "libc")
	h.put(h.b, "gone") // another cache's
	got := h.ask(h.a, "web", "db", "lib", "nowhere", "broken", "web", "loop")
	same(t, "complete", words(got.Complete, all...), "lib", "loop", "web", "web")
	same(t, "missing", words(got.Missing, all...), "broken", "db", "nowhere")
	same(t, "absent", words(got.Absent, all...), "gone", "nowhere")
	got = h.ask(h.a)
	if got.Complete == nil || got.Missing == nil || got.Absent == nil {
		t.Errorf("nothing asked gives null in JSON: %+v", got)
	}
}

func TestClosureRefreshesAllOfACompleteClosure(t *testing.T) {
	h := newHouse(t)
	pushed := h.now
	h.put(h.a, "libc")
	h.put(h.a, "lib", "libc")
	h.put(h.a, "web", "lib", "libc")
	h.put(h.a, "other", "absent", "more")
	h.put(h.a, "more")
	h.now = h.now.Add(48 * time.Hour)
	h.ask(h.a, "web", "other")
	for word, want := range map[string]time.Time{"web": h.now, "lib": h.now, "libc": h.now, "other": pushed, "more": pushed} {
		if got := h.lastUsed(h.a, word); !got.Equal(want) {
			t.Errorf("%s was last used %v, want %v", word, got, want)
		}
	}
	// A hundred hosts are asked for at every push: what they need is not written each time.
	first := h.now
	h.now = h.now.Add(touchAfter / 2)
	h.trace = nil
	h.ask(h.a, "web")
	if got := h.lastUsed(h.a, "web"); !got.Equal(h.now) {
		t.Errorf("the toplevel was last used %v, want %v", got, h.now)
	}
	if got := h.lastUsed(h.a, "libc"); !got.Equal(first) {
		t.Errorf("what it needs was written again after half an hour: %v", got)
	}
	if n := len(slices.DeleteFunc(slices.Clone(h.trace), func(q string) bool { return !strings.HasPrefix(q, "UPDATE paths") })); n != 1 {
		t.Errorf("%d updates of paths, want that of the toplevel", n)
	}
}

// A walk holds one of a few readers, and memory: a request must not make it long, nor go on when nobody waits
// for it.
func TestClosureWalksAreBounded(t *testing.T) {
	h := newHouse(t)
	tops := make([]string, maxTops+1)
	for i := range tops {
		tops[i] = hashOf(fmt.Sprint(i))
	}
	var refusal *Refusal
	if _, err := h.Closure(t.Context(), h.a, tops); !errors.As(err, &refusal) {
		t.Errorf("too many toplevels: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Closure(ctx, h.a, tops[:1]); !errors.Is(err, context.Canceled) {
		t.Errorf("of a client that is gone: %v", err)
	}
	for i := range 20 {
		h.put(h.a, fmt.Sprint("n", i), fmt.Sprint("n", i+1))
	}
	err := h.DB.View(t.Context(), func(tx *meta.Tx) error {
		_, err := load(t.Context(), tx, h.a.Cache.ID, []string{hashOf("n0")}, 10)
		return err
	})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("a closure beyond the limit: %v", err)
	}
}

// Levels, not paths: a wide closure is a handful of statements.
func TestClosureIsReadLevelByLevel(t *testing.T) {
	h := newHouse(t)
	h.update2(func(tx *meta.Tx) error {
		var all []string
		for i := range 2000 {
			word := fmt.Sprint("p", i)
			if err := put(tx, h.a.Cache, word, "libc"); err != nil {
				return err
			}
			all = append(all, word)
		}
		return errors.Join(put(tx, h.a.Cache, "libc"), put(tx, h.a.Cache, "top", all...))
	})
	h.trace = nil
	if got := h.ask(h.a, "top"); len(got.Complete) != 1 {
		t.Errorf("got %+v", got)
	}
	if len(h.trace) > 20 {
		t.Errorf("%d statements for a closure of three levels", len(h.trace))
	}
}

// A collection may come between the walk and the answer.
func TestToplevelThatWentMeanwhileIsMissing(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "web")
	h.put(h.a, "db")
	result := api.ClosureResult{Complete: []string{hashOf("web"), hashOf("db")}}
	h.update2(func(tx *meta.Tx) error { return tx.DeletePath(h.a.Cache.ID, hashOf("web")) })
	if err := h.touch(t.Context(), h.a, &result, nil); err != nil {
		t.Fatal(err)
	}
	same(t, "complete", result.Complete, hashOf("db"))
	same(t, "missing", result.Missing, hashOf("web"))
	same(t, "absent", result.Absent, hashOf("web"))
}

func TestPinNeedsAWholeClosure(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "web", "lib", "^upstream", "stock")
	h.put(h.a, "lib", "libc")
	var incomplete *IncompleteError
	if err := h.pin(h.a, "web", "web"); !errors.As(err, &incomplete) {
		t.Fatalf("got %v", err)
	}
	want := []string{store("libc").Base(), store("stock").Base()}
	slices.Sort(want)
	same(t, "named", incomplete.Refs, want...)
	h.put(h.a, "libc")
	// Who pushed it with the stock client could not say that upstream has it; whoever pins it can.
	declared := func(in *PinRequest) { in.Upstream = []string{store("stock").Base()} }
	if err := h.pin(h.a, "web", "web"); !errors.As(err, &incomplete) || len(incomplete.Refs) != 1 {
		t.Errorf("without a word about upstream: %v", err)
	}
	if err := h.pin(h.a, "web", "web", declared); err != nil {
		t.Errorf("with all of it: %v", err)
	}
	if err := h.pin(h.b, "web", "web"); !errors.As(err, &incomplete) || incomplete.Refs[0] != store("web").Base() {
		t.Errorf("in a cache without it: %v", err)
	}
	pin, err := h.PinNamed(t.Context(), h.a.Cache.ID, "web")
	if err != nil {
		t.Fatal(err)
	}
	if r := pin.Revisions[0]; r.By != "me" || r.Paths != 3 || r.Size != 300 || !r.At.Equal(h.now) || r.StorePath != store("web").String() {
		t.Errorf("got %+v", r)
	}
	for what, err := range map[string]error{
		"name":  h.pin(h.a, "a//b", "web", declared),
		"keep":  h.pin(h.a, "x", "web", declared, func(in *PinRequest) { in.Keep = 1000 }),
		"store": h.pin(Asker{Cache: meta.Cache{ID: h.a.Cache.ID, StoreDir: "/other/store"}}, "x", "web"),
	} {
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
	// Under the hash of another path.
	other, _ := nix.ParseBaseName(nix.StoreDir, hashOf("libc")+"-another-name")
	if _, err := h.Pin(t.Context(), h.a, PinRequest{Name: "x", Path: other}); err == nil {
		t.Error("a path that is not the one of its hash was pinned")
	}
}

func TestPinKeepsAsManyAsItsNameSaysUnlessItsSetterDoes(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "web")
	h.Keep = func(name string) int { return map[string]int{"ten": 10}[name] }
	for _, c := range []struct {
		name       string
		keep, want int
	}{{"ten", 0, 10}, {"ten", 3, 3}, {"ten", 0, 10}, {"other", 0, meta.DefaultKeep}, {"other", 2, 2}, {"other", 0, 2}} {
		if err := h.pin(h.a, c.name, "web", func(in *PinRequest) { in.Keep = c.keep }); err != nil {
			t.Fatal(err)
		}
		pin, err := h.PinNamed(t.Context(), h.a.Cache.ID, c.name)
		if err != nil || pin.Keep != c.want {
			t.Errorf("%s, asked for %d: %+v, %v, want %d", c.name, c.keep, pin, err, c.want)
		}
	}
}

func TestPinSaysWhichPoliciesGrantedIt(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "web")
	h.update2(func(tx *meta.Tx) error {
		return tx.IssueToken(&meta.IssuedToken{ID: "j1", Subject: "repo:acme/infra", Policies: []string{"infra"}, Expires: h.now.Add(time.Hour)})
	})
	a := h.a
	a.User, a.Token = "repo:acme/infra", "j1"
	if err := h.pin(a, "web", "web"); err != nil {
		t.Fatal(err)
	}
	pin, err := h.PinNamed(t.Context(), h.a.Cache.ID, "web")
	if err != nil || pin.Revisions[0].By != "repo:acme/infra" || !slices.Equal(pin.Revisions[0].Policies, []string{"infra"}) {
		t.Errorf("got %+v, %v", pin, err)
	}
	h.update2(func(tx *meta.Tx) error { _, err := tx.RevokeTokens([]string{"j1"}); return err })
	if err := h.pin(a, "web", "web"); !errors.Is(err, meta.ErrRevoked) {
		t.Errorf("by a token that was taken back: %v", err)
	}
	if err := h.Unpin(t.Context(), a, "web"); !errors.Is(err, meta.ErrRevoked) {
		t.Errorf("deleted by a token that was taken back: %v", err)
	}
}

func TestSizesTellWhatOnlyOnePinHolds(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "libc")
	h.put(h.a, "lib", "libc")
	h.put(h.a, "web1", "lib")
	h.put(h.a, "web2", "lib", "new")
	h.put(h.a, "new")
	h.put(h.a, "db", "lib")
	for _, p := range [][2]string{{"web", "web1"}, {"web", "web2"}, {"db", "db"}, {"alias", "db"}} {
		if err := h.pin(h.a, p[0], p[1]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.Sizes(t.Context(), h.a.Cache.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Sizes{
		"web":   {Paths: 5, Size: 500, Alone: 3, AloneNAR: 300, AloneFile: 30}, // both revisions, and new
		"db":    {Paths: 3, Size: 300},
		"alias": {Paths: 3, Size: 300},
	} {
		if got[name] != want {
			t.Errorf("%s: got %+v, want %+v", name, got[name], want)
		}
	}
}

func TestLookAndWhy(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "libc")
	h.put(h.a, "lib", "libc", "lib", "absent", "^up")
	h.put(h.a, "lib2", "lib")
	h.put(h.a, "app", "lib2")
	h.put(h.a, "web", "app", "libc", "lib2")
	h.put(h.a, "old", "older")
	h.put(h.a, "older")
	why := func(word string) (*Why, []string) {
		t.Helper()
		w, err := h.Why(t.Context(), h.a.Cache, hashOf(word))
		if err != nil {
			t.Fatal(err)
		}
		var way []string
		for _, p := range w.Way {
			way = append(way, p.StorePath[len(nix.StoreDir)+1+33:])
		}
		return w, way
	}
	if w, way := why("older"); w.Pin != "" || !w.Until.Equal(h.now.Add(30*24*time.Hour)) {
		t.Errorf("just pushed: %+v", w)
	} else {
		same(t, "just pushed", way, "older")
	}
	h.now = h.now.Add(40 * 24 * time.Hour)
	if _, way := why("older"); way != nil {
		t.Errorf("unused for long: kept by %v", way)
	}
	h.update2(func(tx *meta.Tx) error { return tx.TouchPaths(h.a.Cache.ID, []string{hashOf("old")}, h.now) })
	if w, way := why("older"); w.Pin != "" || !w.Used.Equal(h.now) {
		t.Errorf("needed by something used: %+v", w)
	} else {
		same(t, "needed by something used", way, "old", "older")
	}
	h.put(h.a, "absent")
	for _, name := range []string{"acme/web", "second"} {
		if err := h.pin(h.a, name, "web"); err != nil {
			t.Fatal(err)
		}
	}
	if w, way := why("lib"); w.Pin == "" || w.Pins != 2 {
		t.Errorf("pinned: %+v", w)
	} else {
		same(t, "the shortest way", way, "web", "lib2", "lib")
	}
	if _, err := h.Why(t.Context(), h.a.Cache, hashOf("nothing")); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("no such path: %v", err)
	}

	h.update2(func(tx *meta.Tx) error { return tx.DeletePath(h.a.Cache.ID, hashOf("absent")) })
	look, err := h.Path(t.Context(), h.a.Cache, hashOf("lib"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "absent", look.Absent, store("absent").Base())
	same(t, "referrers", look.Referrers, store("lib2").String())
	same(t, "pins", look.Pins, "acme/web", "second")
	if look.Referring != 1 || look.Path.CreatedBy != "pusher" || look.NAR.Size != 100 || look.Kept.After(h.now) {
		t.Errorf("got %+v", look)
	}
	if look, err = h.Path(t.Context(), h.a.Cache, hashOf("old")); err != nil || len(look.Pins) != 0 || len(look.Referrers) != 0 || !look.Kept.After(h.now) {
		t.Errorf("got %+v, %v", look, err)
	}
}

func TestDeleteLeavesWhatIsNeeded(t *testing.T) {
	h := newHouse(t)
	all := []string{"libc", "lib", "own", "web", "db", "pinned", "loop", "pool"}
	h.put(h.a, "libc")
	h.put(h.a, "lib", "libc")
	h.put(h.a, "own", "lib", "own")
	h.put(h.a, "web", "own", "lib", "pinned", "nowhere")
	h.put(h.a, "db", "libc")
	h.put(h.a, "pinned")
	h.put(h.a, "loop", "pool")
	h.put(h.a, "pool", "loop")
	h.put(h.b, "x", "web") // another cache's needs are its own
	if err := h.pin(h.a, "keep/this", "pinned"); err != nil {
		t.Fatal(err)
	}
	remove := func(word string, closure, dry bool) ([]string, error) {
		gone, err := h.Delete(t.Context(), h.a.Cache, hashOf(word), closure, dry)
		var names []string
		for _, path := range gone {
			names = append(names, path[len(nix.StoreDir)+34:])
		}
		slices.Sort(names)
		return names, err
	}
	left := func(want ...string) {
		t.Helper()
		var have []string
		err := h.DB.View(t.Context(), func(tx *meta.Tx) error {
			return tx.EachPath(h.a.Cache.ID, func(hash, path, refs string, used time.Time) error {
				have = append(have, hash)
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		same(t, "left", words(have, all...), want...)
	}
	var needed *NeededError
	if _, err := remove("lib", true, false); !errors.As(err, &needed) || needed.Referring != 2 || !slices.Contains(needed.Referrers, store("web").String()) {
		t.Errorf("what is referred to: %v", err)
	}
	if _, err := remove("pinned", false, false); !errors.As(err, &needed) || !slices.Equal(needed.Pins, []string{"keep/this"}) {
		t.Errorf("what is pinned: %v", err)
	}
	if _, err := remove("nowhere", false, false); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	left(all...)
	gone, err := remove("web", true, true)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "would go", gone, "lib", "own", "web")
	left(all...)
	if gone, err = remove("web", true, false); err != nil {
		t.Fatal(err)
	}
	same(t, "went", gone, "lib", "own", "web") // libc is db's too
	left("libc", "db", "pinned", "loop", "pool")
	if gone, err = remove("db", false, false); err != nil {
		t.Fatal(err)
	}
	same(t, "alone", gone, "db")
	if gone, err = remove("loop", true, false); err != nil {
		t.Fatal(err)
	}
	same(t, "a circle", gone, "loop", "pool")
	left("libc", "pinned")
}

func TestStatsAddUp(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "libc")
	h.put(h.a, "web", "libc")
	h.now = h.now.Add(200 * 24 * time.Hour)
	h.put(h.a, "db", "libc")
	h.put(h.b, "libc")
	for _, p := range []string{"web", "db", "libc"} {
		if err := h.pin(h.a, "p/"+p, p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := got.Caches[slices.IndexFunc(got.Caches, func(c CacheStats) bool { return c.Name == "a" })]
	if a.Paths != 3 || a.Size != 300 || a.Pins != 3 || got.Total.Paths != 4 || got.Total.Size != 400 {
		t.Errorf("got %+v", got)
	}
	if len(a.Growth) != 1 || a.Growth[0] != (Day{h.now.Format(time.DateOnly), 1, 100}) {
		t.Errorf("growth %+v, want the day of db, the others are too long ago", a.Growth)
	}
	if len(a.Largest) != 3 || a.Largest[0].Pin != "p/db" || a.Largest[0].Size != 200 || a.Largest[2].Pin != "p/libc" {
		t.Errorf("largest %+v", a.Largest)
	}
}
