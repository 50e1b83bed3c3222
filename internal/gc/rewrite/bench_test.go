package rewrite

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/attic-action/internal/chunk"
)

// BenchmarkRewrite rewrites sparse packs of 16 MiB, a GiB of them, of which a quarter is alive:
//
//	go test ./internal/gc/rewrite -run '^$' -bench Rewrite -benchtime 1x
func BenchmarkRewrite(b *testing.B) {
	w, d := newWorld(b), dice(100)
	w.rewrite.Target, w.rewrite.Small = 0, 0
	w.depot.Cut = chunk.Params{Min: 32 << 10, Avg: 128 << 10, Max: 512 << 10}
	const packs, nars, size = 64, 64, 256 << 10
	for range packs {
		push := map[string][]byte{}
		var hashes []string
		for range nars {
			hash := hashOf(d)
			hashes = append(hashes, hash)
			push[hash] = make([]byte, size)
			for i := range push[hash] {
				push[hash][i] = byte(d.Uint32())
			}
		}
		w.push("a", push)
		slices.Sort(hashes)
		w.drop("a", hashes[nars/4:]...)
		clear(w.paths["a"]) // a GiB is too much to remember
		clear(w.chunks)
	}
	before, _ := w.stored()
	for b.Loop() {
		w.store.gets, w.store.puts = 0, 0
		runtime.GC()
		debug.FreeOSMemory()
		stop, peak := make(chan struct{}), make(chan uint64)
		go watch(stop, peak)
		var longest atomic.Int64
		begin := time.Now()
		for more := true; more; {
			step := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			var err error
			if more, err = w.rewrite.Step(ctx); err != nil {
				b.Fatal(err)
			}
			cancel()
			longest.Store(max(longest.Load(), int64(time.Since(step))))
		}
		took := time.Since(begin)
		close(stop)
		res := w.rewrite.Last()
		b.Logf("%d packs (%d MiB) into %d in %.1f s, longest step %.1f s; heap %.1f MiB at most; read %d MiB in %d GETs, wrote %d MiB in %d PUTs, log included",
			res.Packs, before>>20, res.New, took.Seconds(), time.Duration(longest.Load()).Seconds(), float64(<-peak)/(1<<20), res.Read>>20, w.store.gets, res.Written>>20, w.store.puts)
	}
}

// watch is the largest heap until stop.
func watch(stop chan struct{}, peak chan<- uint64) {
	var most uint64
	for {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
		select {
		case <-stop:
			peak <- most
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
