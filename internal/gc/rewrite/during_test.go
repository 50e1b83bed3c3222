package rewrite

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/s3"
	"github.com/org/attic-action/internal/blob/s3test"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// A commit that is answered while the new pack is on its way lies in the old pack, in part in what was dead there.
// It is readable at once and for good, and once it is moved the old pack is needed for the dead part alone.
func TestCommitAgainstAPackThatIsRewritten(t *testing.T) {
	w, d := newWorld(t), dice(20)
	kept, gone := text(d, 8<<10), text(d, 8<<10)
	nars := map[string][]byte{hashOf(d): kept}
	dead := []string{}
	for range 12 {
		hash := hashOf(d)
		nars[hash] = text(d, 8<<10)
		dead = append(dead, hash)
	}
	nars[dead[0]] = gone
	w.push("a", nars)
	w.drop("a", dead...)
	views := w.views()
	w.store.after = func() {
		w.ingest("a", hashOf(d), kept)
		w.ingest("a", hashOf(d), append(slices.Clone(gone), kept...))
		w.served()
	}
	if res := w.run(); res.Packs != 1 || res.NARs != 3 {
		t.Errorf("the run did %+v", res)
	}
	w.served()
	w.findsItsOwn()
	w.ingest("b", hashOf(d), text(d, 8<<10))
	for line := range views {
		if !w.views()[line] {
			t.Fatalf("lost: %s", line)
		}
	}
	w.collect()
	w.served()
	if _, packs := w.stored(); packs != 3 && packs != 4 {
		t.Errorf("there are %d packs: the old one is needed, and the new one, and that of b", packs)
	}
	w.recovered("again.db")
	w.served()
	w.findsItsOwn()
}

// What was the only NAR in its own packs comes back while what others have of it is copied. It is one file again, and
// served as one.
func TestNARThatComesToNeedAPackAsAFile(t *testing.T) {
	for _, heavy := range []int{0, 1} {
		w, d := newWorld(t), dice(28)
		w.rewrite.heavy = heavy
		w.depot.Cut = chunk.Params{Min: 32 << 10, Avg: 128 << 10, Max: 512 << 10}
		whole, hash := text(d, 4<<20), hashOf(d)
		w.ingest("a", hash, whole)
		w.ingest("a", hashOf(d), whole[:1<<20])
		w.drop("a", hash)
		w.store.after = func() { w.ingest("a", hash, whole) }
		if res := w.run(); res.Packs != 1 || w.store.after != nil {
			t.Fatalf("the run did %+v", res)
		}
		w.served()
		w.collect()
		w.served()
		w.findsItsOwn()
		n, err := w.depot.Open(context.Background(), w.caches["a"].Cache.ID, hash)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := n.Object(); !ok {
			t.Error("the NAR is not served as a file")
		}
		w.recovered("again.db")
		w.served()
	}
}

// Who began to read before the rewrite goes on in the old pack, and who comes back with a range after it gets the
// rest of the same bytes.
func TestReaderGoesOnAcrossARewrite(t *testing.T) {
	w, d := newWorld(t), dice(21)
	w.sparsePack(d, "a", 20)
	var hash string
	for hash = range w.paths["a"] {
		break
	}
	id := w.caches["a"].Cache.ID
	old, err := w.depot.Open(context.Background(), id, hash)
	if err != nil {
		t.Fatal(err)
	}
	r := old.Reader(context.Background(), old.Size)
	defer r.Close()
	begun := make([]byte, 1000)
	if _, err := io.ReadFull(r, begun); err != nil {
		t.Fatal(err)
	}
	if res := w.run(); res.NARs == 0 {
		t.Fatalf("the run did %+v", res)
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	w.collect()
	fresh, err := w.depot.Open(context.Background(), id, hash)
	if err != nil {
		t.Fatal(err)
	}
	again := fresh.Reader(context.Background(), fresh.Size)
	defer again.Close()
	if _, err := again.Seek(1000, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	after, err := io.ReadAll(again)
	if err != nil || !bytes.Equal(after, rest) || fresh.Form != old.Form {
		t.Errorf("from byte 1000 on there are %d bytes in form %x, before it were %d in %x; %v", len(after), fresh.Form[:4], len(rest), old.Form[:4], err)
	}
}

// A pack with a damaged frame that somebody needs is left as it is: copied, the damage would get a good hash
// around it, and dropped, there would be nothing left to repair.
func TestDamagedPackIsLeftAndNamed(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, file string){
		"a byte": func(t *testing.T, file string) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for at := 20; at < len(data); at += 500 {
				data[at] ^= 1
			}
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"cut off": func(t *testing.T, file string) {
			if err := os.Truncate(file, 100); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, d := newWorld(t), dice(22)
			w.sparsePack(d, "a", 20)
			w.sparsePack(d, "b", 20)
			w.ingest("b", hashOf(d), text(d, 7<<10))
			var key string
			w.view(func(tx *meta.Tx) (err error) { key, err = tx.PackKey(1); return err })
			file := filepath.Join(w.dir, "storage", filepath.FromSlash(key))
			if err := os.Chmod(file, 0o600); err != nil {
				t.Fatal(err)
			}
			harm(t, file)
			var told []string
			w.rewrite.Damaged = func(_ context.Context, _ int64, key string, err error) { told = append(told, key) }
			res := w.run()
			if !slices.Equal(told, []string{key}) || res.Damaged != 1 || res.Packs != 2 || res.New != 1 {
				t.Errorf("told of %v, and the run did %+v", told, res)
			}
			usage, err := Alive(context.Background(), w.db, w.rewrite.Layouts, nil)
			if err != nil {
				t.Fatal(err)
			}
			if p, _ := usage.Of(1); p.Entries == 0 {
				t.Error("nothing needs the damaged pack any more")
			}
			if res := w.run(); res.Damaged != 0 || len(told) != 1 {
				t.Errorf("the next run told again: %+v", res)
			}
			w.paths["a"] = nil
			w.served()
		})
	}
}

func TestPackInQuarantineIsLeftAlone(t *testing.T) {
	w, d := newWorld(t), dice(23)
	w.sparsePack(d, "a", 20)
	quarantine := func() {
		w.update(func(tx *meta.Tx) error {
			all, err := tx.PackEntries(1)
			if err == nil {
				_, err = tx.Quarantine(1, all, []int32{0}, "for a test")
			}
			return err
		})
	}
	// Also when it comes there while it is copied.
	w.store.after = quarantine
	if _, err := stepAll(w); err == nil {
		t.Error("a pack that came into quarantine was rewritten")
	}
	if res := w.run(); res.Packs != 0 {
		t.Errorf("the run did %+v", res)
	}
	w.update(func(tx *meta.Tx) error {
		all, err := tx.PackEntries(1)
		if err == nil {
			err = tx.Release(1, all)
		}
		return err
	})
	if res := w.run(); res.Packs != 1 {
		t.Errorf("once it was released, the run did %+v", res)
	}
	w.served()
}

func stepAll(w *world) (Result, error) {
	for {
		more, err := w.rewrite.Step(context.Background())
		if err != nil || !more {
			return w.rewrite.Last(), err
		}
	}
}

// brief is a context that ends when it was asked a few times.
type brief struct {
	context.Context
	left int
}

func (b *brief) Err() error {
	if b.left--; b.left < 0 {
		return context.Canceled
	}
	return nil
}

// Requests come first: a step whose context ends does one thing more, and the next one goes on there.
func TestStepGivesWay(t *testing.T) {
	w, d := newWorld(t), dice(24)
	w.rewrite.heavy = 1
	for range 3 {
		w.sparsePack(d, "a", 30)
	}
	steps := 0
	for more := true; more; steps++ {
		var err error
		before := w.store.gets
		if more, err = w.rewrite.Step(&brief{context.Background(), 3}); err != nil {
			t.Fatal(err)
		}
		if n := w.store.gets - before; n > 1 {
			t.Errorf("a step has made %d requests", n)
		}
		w.served()
		w.store.gets = before
	}
	if steps < 30 {
		t.Errorf("all was done in %d steps", steps)
	}
	if res := w.rewrite.Last(); res.Packs != 3 {
		t.Errorf("the run did %+v", res)
	}
	w.collect()
	w.served()
}

// Pushes and deletions go on while packs are rewritten.
func TestPushesWhilePacksAreRewritten(t *testing.T) {
	w, d := newWorld(t), dice(25)
	pool := make([][]byte, 12)
	for i := range pool {
		pool[i] = text(d, 6<<10)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	fail := make(chan error, 1)
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := stepAll(w); err != nil {
				select {
				case fail <- err:
				default:
				}
				return
			}
		}
	})
	for i := range 120 {
		cache := []string{"a", "b"}[d.IntN(2)]
		data := slices.Concat(pool[d.IntN(len(pool))], pool[d.IntN(len(pool))])
		if d.IntN(2) == 0 {
			w.ingest(cache, hashOf(d), data)
		} else {
			w.push(cache, map[string][]byte{hashOf(d): data, hashOf(d): text(d, 5<<10)})
		}
		if i%3 == 2 {
			for hash := range w.paths[cache] {
				w.drop(cache, hash)
				break
			}
		}
		if i%20 == 19 {
			w.served()
		}
	}
	cancel()
	wg.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	w.served()
	w.findsItsOwn()
	w.run()
	w.collect()
	w.served()
	w.findsItsOwn()
	w.recovered("again.db")
	w.served()
	w.findsItsOwn()
}

// The same with a real S3 server.
func TestRewriteInABucket(t *testing.T) {
	gateway := s3test.Start(t)
	store, err := s3.Open(t.Context(), s3.Options{Endpoint: gateway.Endpoint, Region: s3test.Region, Bucket: gateway.Bucket(t),
		AccessKeyID: s3test.AccessKeyID, SecretAccessKey: s3test.SecretAccessKey, Stall: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var _ blob.Store = store
	w, d := newWorldOn(t, t.TempDir(), store), dice(26)
	for i := range 6 {
		w.sparsePack(d, []string{"a", "b"}[i%2], 20)
	}
	before, _ := w.stored()
	views := w.views()
	w.store.gets, w.store.puts = 0, 0
	res := w.run()
	t.Logf("%+v, %d GETs, %d PUTs", res, w.store.gets, w.store.puts)
	if res.Packs != 6 || w.store.gets > 3*6 {
		t.Errorf("the run did %+v with %d GETs", res, w.store.gets)
	}
	w.sameViews(views)
	w.served()
	w.collect()
	w.served()
	if after, _ := w.stored(); after > before/3 {
		t.Errorf("%d bytes are left of %d", after, before)
	}
	w.recovered("again.db")
	w.served()
	w.findsItsOwn()
}

// A collector that lost its lease may be in the midst of moving while another one has seen that nothing needs the new
// pack yet.
func TestPackThatANARMovesToIsLive(t *testing.T) {
	w, d := newWorld(t), dice(27)
	w.sparsePack(d, "a", 20)
	w.run()
	const to = 2 // the second pack that there was
	w.update(func(tx *meta.Tx) error {
		number, err := tx.BeginCollection()
		if err != nil {
			return err
		}
		if done, err := tx.Condemn(to, number); err != nil || !done {
			t.Fatalf("condemn the new pack: %v, %v", done, err)
		}
		var nar int64
		var row []byte
		if err := tx.LayoutsAfter(0, 1, func(id int64, layout []byte) error { nar, row = id, slices.Clone(layout); return nil }); err != nil {
			return err
		}
		if err := tx.MoveNAR(nar, to, func([]byte) ([]byte, []ledger.Span, error) { return row, nil, nil }); err != nil {
			return err
		}
		if list, err := tx.Condemned(tx.Now(), 10); err != nil || len(list) > 0 {
			t.Errorf("it is still condemned: %v, %v", list, err)
		}
		if done, err := tx.Condemn(to, number); err != nil || done {
			t.Errorf("it is condemned again for what was seen before: %v, %v", done, err)
		}
		return nil
	})
}
