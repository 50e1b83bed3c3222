package rewrite

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
)

func dice(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// sparsePack pushes n NARs to a cache in one pack and drops all but every third.
func (w *world) sparsePack(d *rand.Rand, cache string, n int) {
	w.t.Helper()
	nars := map[string][]byte{}
	for range n {
		nars[hashOf(d)] = text(d, 8<<10)
	}
	w.push(cache, nars)
	var gone []string
	for hash := range nars {
		gone = append(gone, hash)
	}
	slices.Sort(gone)
	w.drop(cache, gone[n/4:]...)
}

func TestSparsePackIsRewritten(t *testing.T) {
	w, d := newWorld(t), dice(1)
	w.sparsePack(d, "a", 20)
	before, _ := w.stored()
	views := w.views()
	res := w.run()
	if res.Packs != 1 || res.New != 1 || res.NARs != 5 || res.Damaged != 0 {
		t.Errorf("the run did %+v", res)
	}
	w.served()
	w.sameViews(views)
	for _, thing := range w.paths["a"] {
		w.ingest("a", hashOf(d), thing.data) // put together from the new pack
		break
	}
	w.collect()
	w.served()
	w.findsItsOwn()
	if after, packs := w.stored(); after > before/3 || packs != 1 {
		t.Errorf("%d bytes in %d packs are left of %d", after, packs, before)
	}
	if res := w.run(); res.Packs != 0 {
		t.Errorf("the next run did %+v", res)
	}
}

func TestSmallPacksAreMergedOnceTheyMakeALargeOne(t *testing.T) {
	w, d := newWorld(t), dice(2)
	w.rewrite.Small = 30 << 10
	for range 3 {
		w.ingest("a", hashOf(d), text(d, 7<<10))
	}
	if res := w.run(); res.Packs != 0 {
		t.Errorf("three small packs: %+v", res)
	}
	for range 3 {
		w.ingest("b", hashOf(d), text(d, 7<<10))
	}
	views := w.views()
	if res := w.run(); res.Packs != 6 || res.New != 1 {
		t.Errorf("six small packs: %+v", res)
	}
	w.served()
	w.sameViews(views)
	w.collect()
	w.served()
	if _, packs := w.stored(); packs != 1 {
		t.Errorf("there are %d packs", packs)
	}
}

// In one pack lie the chunks of two caches that know nothing of each other. Whoever sees one of them by it would
// learn what the other cache has, and get it served.
func TestRewriteShowsNoCacheAnothersChunks(t *testing.T) {
	w, d := newWorld(t), dice(3)
	both := text(d, 6<<10) // each of them has stored it
	for _, cache := range []string{"a", "b"} {
		for range 3 {
			w.ingest(cache, hashOf(d), text(d, 6<<10))
		}
		w.ingest(cache, hashOf(d), both)
	}
	views := w.views()
	if res := w.run(); res.New != 1 || res.Packs != 8 {
		t.Fatalf("the run did %+v", res)
	}
	w.sameViews(views)
	w.collect()
	w.sameViews(views)
	w.served()
	w.recovered("again.db")
	w.sameViews(views)
	w.served()
}

// A push that was cut off goes on within a day: what it has sent is not touched.
func TestPackOfAnUnfinishedPushIsLeftAlone(t *testing.T) {
	w, d := newWorld(t), dice(4)
	w.sparsePack(d, "a", 20)
	var id int64
	w.view(func(tx *meta.Tx) error {
		list, err := tx.PackFacts(0, 10)
		id = list[0].ID
		return err
	})
	w.update(func(tx *meta.Tx) error {
		entries, err := tx.PackEntries(id)
		if err == nil {
			err = tx.Show(w.caches["b"].Cache.ID, id, entries, nil, tx.Now().Add(1e9))
		}
		return err
	})
	if res := w.run(); res.Packs != 0 {
		t.Errorf("the run did %+v", res)
	}
	w.now = w.now.Add(2e9)
	if res := w.run(); res.Packs != 1 {
		t.Errorf("once it is over, the run did %+v", res)
	}
	views := w.views()
	for line := range views {
		if line[0] == 'b' {
			t.Fatalf("what was shown for a second is shown for good: %s", line)
		}
	}
}

func TestOwnPackThatIsANARIsLeftAlone(t *testing.T) {
	w, d := newWorld(t), dice(5)
	w.depot.Cut = chunk.Params{Min: 32 << 10, Avg: 128 << 10, Max: 512 << 10}
	hash := hashOf(d)
	w.ingest("a", hash, text(d, 5<<20))
	for range 4 {
		w.ingest("a", hashOf(d), text(d, 100<<10))
	}
	w.rewrite.Small, w.rewrite.Target = 16<<20, 64<<20 // the own pack is small, too
	w.ingest("b", hashOf(d), text(d, 3<<20))
	for range 28 {
		w.ingest("b", hashOf(d), text(d, 20<<10))
	}
	if res := w.run(); res.Packs != 33 {
		t.Errorf("the run did %+v", res)
	}
	n, err := w.depot.Open(context.Background(), w.caches["a"].Cache.ID, hash)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := n.Object(); !ok {
		t.Error("the NAR is no whole pack any more")
	}
	w.served()
}

func TestRunKeepsToItsBudget(t *testing.T) {
	w, d := newWorld(t), dice(6)
	for range 6 {
		w.sparsePack(d, "a", 20)
	}
	w.rewrite.Target = 30 << 10
	w.rewrite.Budget = 2 * 45 << 10
	first := w.run()
	if first.Packs == 0 || first.Packs == 6 || first.Read+first.Written > 3*w.rewrite.Budget/2 {
		t.Errorf("the first run did %+v", first)
	}
	w.served()
	total := first.Packs
	for range 6 {
		total += w.run().Packs
	}
	if total != 6 {
		t.Errorf("%d packs were rewritten in all", total)
	}
	w.collect()
	w.served()
}
