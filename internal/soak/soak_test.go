// Package soak lets years happen to a server within seconds, and holds it to what it promised.
//
//	history ── a list of steps ──► world ── clients ── HTTP ──► server ── bucket, database
//	   │                             │                            ▲ collections, rewrites, checkpoints
//	   │                             └── model: what must be there│ kills, faults, restarts, recoveries
//	   └── one that fails is made short, and printed              └ at any request, at any statement
//
// All of it is one process and one thread: whatever happens amid something else happens between two of
// its requests or statements, chosen by a seed. So a history that fails, fails again:
//
//	ATTIC_SOAK_SEED=17 ATTIC_SOAK_TRACE=push:1f:killed,collect:2a go test ./internal/soak -run Histories
package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/chunk"
)

type chunkID = chunk.ID

var unzstd, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(64<<20)) // it is valid or nothing passes

// worldSteps is how long one world lives: long enough to forget, short enough to be told.
const worldSteps = 2500

// steps is how many steps are taken in all: $ATTIC_SOAK_STEPS, or ten thousand.
func steps(t *testing.T) int {
	text := os.Getenv("ATTIC_SOAK_STEPS")
	if text == "" {
		return 10_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("ATTIC_SOAK_STEPS=%s: want a number from 1 on", text)
	}
	return n
}

func history(seed uint64, n int) []step {
	r := rand.New(rand.NewPCG(seed, 1))
	list, kinds := make([]step, n), kinds()
	for i := range list {
		s := step{kind: draw(r, kinds, anything), seed: r.Uint64() >> 32}
		switch n := r.IntN(100); {
		case n < 7:
			s.disturb = killed
		case n < 11:
			s.disturb = faulty
		case n < 25:
			s.disturb = other
		}
		list[i] = s
	}
	return list
}

// Whatever clients, clocks, collectors, kills and failing buckets do, in whatever order: what a root reaches
// is there, byte by byte; what was deleted stays deleted; what nothing keeps goes; and no cache knows what is
// another's alone.
func TestRandomHistoriesKeepWhatMustBeKept(t *testing.T) {
	if text := os.Getenv("ATTIC_SOAK_TRACE"); text != "" {
		replay(t, text)
		return
	}
	first := rand.Uint64() >> 32
	if text := os.Getenv("ATTIC_SOAK_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("ATTIC_SOAK_SEED=%s: %v", text, err)
		}
		first = n
	}
	all := steps(t)
	each := min(all, worldSteps)
	for i := range uint64((all + each - 1) / each) {
		seed := first + i
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			w := live(t.TempDir(), seed, history(seed, each))
			t.Logf("%v", w.count)
			if w.broken != "" {
				tell(t, seed, w)
			}
		})
	}
}

func replay(t *testing.T, text string) {
	seed, err := strconv.ParseUint(os.Getenv("ATTIC_SOAK_SEED"), 10, 64)
	if err != nil {
		t.Fatalf("ATTIC_SOAK_SEED, which a trace needs: %v", err)
	}
	list, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	w := live(t.TempDir(), seed, list)
	t.Log(strings.Join(w.log, "\n"))
	if w.broken != "" {
		t.Error(w.broken)
	}
}

// live lets a history happen. It stops where something is wrong, which world.broken then says.
func live(dir string, seed uint64, list []step) (w *world) {
	w = newWorld(filepath.Join(dir, fmt.Sprint("world-", rand.Uint64())), seed)
	defer w.close()
	defer func() {
		if p := recover(); p != nil {
			if _, told := p.(violation); !told {
				w.broken = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
			}
		}
	}()
	for i, s := range list {
		w.at = i
		w.run(s)
	}
	w.at = len(list)
	w.finish()
	return w
}

// tell makes a history that fails as short as it can in a minute, and prints it.
func tell(t *testing.T, seed uint64, w *world) {
	t.Helper()
	t.Errorf("seed %d, step %d: %s", seed, w.at, w.broken)
	list := history(seed, worldSteps)
	list, w = shorten(t.TempDir(), seed, list[:min(w.at+1, len(list))], w, time.Now().Add(time.Minute))
	t.Errorf("in %d steps: %s\n%s\nagain: ATTIC_SOAK_SEED=%d ATTIC_SOAK_TRACE=%s go test ./internal/soak -run Histories",
		len(list), w.broken, strings.Join(w.log, "\n"), seed, format(list))
}

// shorten leaves out what is not needed to fail: halves, then quarters, then single steps.
func shorten(dir string, seed uint64, list []step, failed *world, until time.Time) ([]step, *world) {
	for size := (len(list) + 1) / 2; size > 0; size /= 2 {
		for at := 0; at < len(list); {
			if time.Now().After(until) {
				return list, failed
			}
			less := slices.Concat(list[:at], list[min(at+size, len(list)):])
			if w := live(dir, seed, less); w.broken != "" && w.rule == failed.rule {
				list, failed = less[:min(w.at+1, len(less))], w
				continue
			}
			at += size
		}
	}
	return list, failed
}

var disturbNames = []string{"", "killed", "faulty", "other"}

func format(list []step) string {
	words, kinds := make([]string, len(list)), kinds()
	for i, s := range list {
		words[i] = fmt.Sprintf("%s:%x", kinds[s.kind].name, s.seed)
		if s.disturb != undisturbed {
			words[i] += ":" + disturbNames[s.disturb]
		}
	}
	return strings.Join(words, ",")
}

func parse(text string) (list []step, err error) {
	kinds := kinds()
	for word := range strings.SplitSeq(text, ",") {
		parts := strings.Split(word, ":")
		s := step{kind: slices.IndexFunc(kinds, func(k kind) bool { return k.name == parts[0] })}
		if len(parts) > 1 {
			s.seed, err = strconv.ParseUint(parts[1], 16, 64)
		}
		if len(parts) > 2 {
			s.disturb = disturbKind(slices.Index(disturbNames, parts[2]))
		}
		if s.kind < 0 || err != nil || len(parts) < 2 {
			return nil, fmt.Errorf("step %q: want kind:seed or kind:seed:disturbance", word)
		}
		list = append(list, s)
	}
	return list, nil
}
