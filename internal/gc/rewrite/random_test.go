package rewrite

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/meta"
)

// Whatever was pushed, deleted, rewritten and recovered before: every path of every cache is there byte for byte in
// its form, each cache finds what it found, and in the end little more is stored than is needed.
func TestRandomHistoriesOfRewrites(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w, d := newWorld(t), dice(1000+seed)
			// A token of c may pull from a, too.
			w.cache("c")
			c := w.caches["c"]
			c.Sees = append(c.Sees, w.caches["a"].Cache.ID)
			w.caches["c"] = c
			if seed%2 == 1 {
				w.rewrite.heavy = 1
			}
			w.rewrite.Budget = 40 << 10 << d.IntN(6)
			var pool [][]byte
			for step := range 60 {
				w.now = w.now.Add(time.Duration(d.IntN(3)) * time.Hour)
				w.happen(d, &pool, fmt.Sprintf("%d-%d.db", seed, step))
				if step%10 == 9 {
					w.served()
				}
			}
			w.settle()
		})
	}
}

// happen lets one thing happen.
func (w *world) happen(d *rand.Rand, pool *[][]byte, file string) {
	w.t.Helper()
	cache := []string{"a", "b", "c"}[d.IntN(3)]
	switch n := d.IntN(20); {
	case n < 5:
		w.ingest(cache, hashOf(d), body(d, pool))
	case n < 9:
		nars := map[string][]byte{}
		for range 1 + d.IntN(8) {
			nars[hashOf(d)] = body(d, pool)
		}
		w.push(cache, nars)
	case n < 14:
		hashes := slices.Sorted(maps.Keys(w.paths[cache]))
		d.Shuffle(len(hashes), func(i, j int) { hashes[i], hashes[j] = hashes[j], hashes[i] })
		w.drop(cache, hashes[:min(len(hashes), d.IntN(6))]...)
	case n < 17:
		views := w.views()
		w.run()
		w.sameViews(views)
	case n < 18: // a part of a run; the next one goes on
		if _, err := w.rewrite.Step(&brief{context.Background(), 1 + d.IntN(20)}); err != nil {
			w.t.Fatal(err)
		}
	case n < 19:
		w.collect()
	default:
		w.rewrite.Close()
		w.recovered(file)
	}
}

// settle runs and collects until nothing more changes, and looks at what is left.
func (w *world) settle() {
	w.t.Helper()
	w.rewrite.Close()
	w.rewrite.Budget = 0
	w.now = w.now.Add(48 * time.Hour) // what nobody has committed is nobody's
	for range 5 {
		views := w.views()
		res := w.run()
		w.sameViews(views)
		w.collect()
		if res.Packs == 0 {
			break
		}
	}
	if res := w.run(); res.Packs > 0 {
		w.t.Errorf("there is no end to it: %+v", res)
	}
	w.served()
	w.findsItsOwn()
	usage, err := Alive(context.Background(), w.db, w.rewrite.Layouts, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var size, alive int64
	packs := 0
	usage.Each(func(p PackUsage) {
		size, alive, packs = size+p.Size, alive+p.Alive, packs+1
		if !p.Whole && p.Alive < p.Size/sparse {
			w.t.Errorf("pack %d has %d bytes of which %d are needed", p.ID, p.Size, p.Alive)
		}
	})
	if size > 3*alive+1<<10 {
		w.t.Errorf("%d bytes are stored for %d", size, alive)
	}
	w.sums()
	w.recovered("last.db")
	w.served()
	w.findsItsOwn()
}

// sums compares what statistics keep by the day with the rows.
func (w *world) sums() {
	w.t.Helper()
	w.view(func(tx *meta.Tx) error {
		all, err := tx.AllPacks()
		if err != nil {
			return err
		}
		if size, packs := w.stored(); all.Size != uint64(size) || all.Packs != int64(packs) {
			w.t.Errorf("statistics say %+v, and there are %d packs with %d bytes", all, packs, size)
		}
		return nil
	})
}

// body is a NAR: new, or with much of old ones.
func body(d *rand.Rand, pool *[][]byte) []byte {
	data := text(d, []int{100, 5 << 10, 9 << 10, 20 << 10}[d.IntN(4)])
	if len(*pool) > 0 && d.IntN(2) == 0 {
		old := (*pool)[d.IntN(len(*pool))]
		switch d.IntN(3) {
		case 0:
			data = old
		case 1:
			data = append(data[:len(data)/2:len(data)/2], old...)
		case 2:
			data = append(old[:len(old)/2:len(old)/2], data...)
		}
	}
	if len(data) < 60<<10 {
		*pool = append(*pool, data)
	}
	return data
}
