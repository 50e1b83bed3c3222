package soak

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/org/attic-action/internal/gc"
)

// fork is another world that is as this one is now, with a process that was killed.
func (w *world) fork(dir string) *world {
	n := &world{dir: dir, now: w.now, forge: w.forge, m: w.m.clone(), epoch: w.epoch, serial: w.serial, retention: w.retention, soft: w.soft,
		cut: w.cut, root: w.root, auth: w.auth, encoder: w.encoder, decoder: w.decoder, kinds: w.kinds, count: map[string]int{}}
	var err error
	n.bucket, err = w.bucket.copy(context.Background(), func() time.Time { return n.now })
	n.must(err)
	for _, s := range n.m.caches {
		s.sent = maps.Clone(s.sent)
	}
	to := n.newDir()
	for _, name := range []string{"server.db", "server.db-wal"} {
		data, err := os.ReadFile(filepath.Join(w.p.dir, name))
		n.must(err)
		n.must(os.WriteFile(filepath.Join(to, name), data, 0o600))
	}
	n.start(to)
	return n
}

// littered is a world in which a collection has everything to do that one can: paths
// that nothing keeps, a pack that was condemned an hour ago and one that nothing needs
// now, one that little is needed of, and objects that nothing knows of.
func littered(t *testing.T, seed uint64) *world {
	t.Helper()
	w := newWorld(filepath.Join(t.TempDir(), "base"), seed)
	w.retention, w.soft = 3*24*time.Hour, false
	w.restart()
	r := rand.New(rand.NewPCG(seed, 5))
	do := func(name string, n int, d disturbance) {
		for range n {
			w.before, w.faults, w.unsure = w.m.clone(), 0, false
			w.disturb = d
			for _, k := range w.kinds {
				if k.name == name {
					k.do(w, r)
				}
			}
			w.disturb = disturbance{}
			if w.unsure || w.faults > 0 {
				w.reconcile()
			}
			w.now = w.now.Add(time.Minute)
		}
	}
	calm := disturbance{}
	do("create", 2, calm)
	do("push", 3, calm)
	do("upload", 2, calm)
	do("pin", 4, calm)
	do("abandon", 2, calm)
	do("push", 1, disturbance{kind: faulty, left: 1}) // a pack that nothing knows of
	w.now = w.now.Add(4 * 24 * time.Hour)
	do("collect", 1, calm)
	do("rebuild", 6, calm)
	do("push", 3, calm)
	do("pin", 2, calm)
	w.now = w.now.Add(4 * 24 * time.Hour)
	do("unpin", 4, calm)
	do("rebuild", 3, calm)
	do("push", 1, calm)
	do("abandon", 1, calm)
	do("upload", 1, disturbance{kind: faulty, left: 2})
	w.now = w.now.Add(25 * time.Hour)
	return w
}

// A collection is killed before and after each of its requests, and before each commit: of the records of
// paths, of packs that are condemned, that lose their rows, whose objects go, that are rewritten. Then all that
// must be there can be read, the next collection comes to its end, and nothing is left that nothing needs. The
// same, where the bucket fails in place of the process, and where the volume is lost with it.
func TestCollectionBrokenOffAnywhereGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		how  disturbKind
		lost bool
	}{"killed": {killed, false}, "a request fails": {faulty, false}, "killed and the volume is lost": {killed, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, seed := untidy(t)
			defer base.close()
			n := 1
			for brokenOff(t, base.fork(filepath.Join(t.TempDir(), "broken")), c.how, c.lost, n) && !t.Failed() {
				n++
			}
			t.Logf("seed %d: broken off at %d points", seed, n-1)
			if n < 40 {
				t.Error("a collection has more points than that")
			}
		})
	}
}

// untidy is a littered world in which every stage of a collection has something to do.
func untidy(t *testing.T) (w *world, seed uint64) {
	t.Helper()
	first := rand.Uint64() >> 32
	for seed := first; seed < first+100; seed++ {
		w := littered(t, seed)
		tried := w.fork(filepath.Join(t.TempDir(), "tried"))
		res, err := tried.p.gc.Run(t.Context(), gc.Options{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		rewritten := tried.p.rewriter.Last()
		tried.close()
		if res.Paths > 0 && res.NARs > 0 && res.Doomed > 0 && res.Packs > 0 && res.Orphans > 0 && rewritten.Packs > 0 {
			return w, seed
		}
		w.close()
	}
	t.Fatalf("seeds from %d on: some stage never has anything to do", first)
	return nil, 0
}

// brokenOff breaks a collection off at its n-th point; false if it has no so many.
func brokenOff(t *testing.T, w *world, how disturbKind, lost bool, n int) (was bool) {
	t.Helper()
	defer w.close()
	defer func() {
		if p := recover(); p != nil && w.broken == "" {
			panic(p)
		}
		if w.broken != "" {
			t.Errorf("broken off at point %d: %s", n, w.broken)
		}
	}()
	w.before = w.m.clone()
	w.disturb = disturbance{kind: how, left: n, ends: true}
	w.collect(false)
	was = w.disturb.kind == undisturbed
	w.disturb = disturbance{}
	switch {
	case lost:
		w.doRecover(nil)
	case w.p.dead.Load():
		w.revive()
	}
	w.reconcile()
	for _, name := range w.m.names() {
		w.look(w.m.caches[name])
	}
	w.faults = 0
	w.now = w.now.Add(6 * time.Minute) // the lease of the dead
	for _, pause := range []time.Duration{0, 27 * time.Hour, time.Hour} {
		w.now = w.now.Add(pause)
		if !w.collect(false) {
			w.wrong("the next collection does not come to its end")
		}
	}
	w.audit()
	w.checkpoint()
	w.auditBucket()
	return was
}
