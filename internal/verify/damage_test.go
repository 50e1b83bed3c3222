package verify

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/recovery"
)

// heal pushes what is absent, in turn by either client, and wants all to be there.
func (w *world) heal(turn int) {
	w.t.Helper()
	for i, n := range w.served() {
		if (turn+i)%2 == 0 {
			w.stock(w.scope, n)
		} else {
			w.push(w.scope, 0, n)
		}
	}
	w.clean("healed")
}

// rebuilt is the same world on a database that was made from its bucket.
func (w *world) rebuilt(name string) *world {
	w.t.Helper()
	layouts := &depot.Layouts{}
	file := filepath.Join(w.dir, name+".recovered")
	db, err := meta.Open(w.t.Context(), file, meta.Options{Layouts: layouts, Rebuilt: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(file + suffix)
		}
	})
	res, err := (&recovery.Recovery{Blobs: w.bucket, DB: db, Layouts: layouts}).Run(w.t.Context())
	if err != nil {
		w.t.Fatalf("recover: %v", err)
	}
	for _, line := range res.Lost {
		w.t.Errorf("lost: %s", line)
	}
	r := *w
	r.db, r.depot = db, &depot.Depot{DB: db, Blobs: w.bucket, Spool: w.depot.Spool, Cut: cut}
	return &r
}

// recovered rebuilds the database from the bucket, and reads all.
func (w *world) recovered(name string) {
	w.t.Helper()
	r := w.rebuilt(name)
	defer r.close()
	if absent := r.served(); len(absent) > 0 {
		w.t.Errorf("after a recovery %s is absent", absent[0].path)
	}
}

// every is how many bytes are passed over between two that are flipped: a prime, so that over the runs all
// parts of all frames have their turn. make soak flips each.
func every() int {
	if os.Getenv("ATTIC_TEST_EVERY_BYTE") != "" {
		return 1
	}
	return 997
}

// Whatever byte of whatever object is not what was stored: nothing wrong is served as right, verify finds it,
// and a push of either client heals it.
func TestEveryFlippedByteIsFoundAndHealed(t *testing.T) {
	first := small(t)
	first.clean("before")
	first.close()
	type place struct {
		key string
		at  int
	}
	var places []place
	for _, key := range first.bucket.keys(t, "") {
		size := len(first.bucket.object(t, key))
		for at := (len(places) * 37) % min(size, every()); at < size; at += every() {
			places = append(places, place{key, at})
		}
	}
	t.Logf("%d bytes", len(places))
	workers := runtime.GOMAXPROCS(0)
	for k := range workers {
		t.Run(name("part ", k), func(t *testing.T) {
			t.Parallel()
			for n := k; n < len(places) && !t.Failed(); n += workers {
				p := places[n]
				t.Run(name(p.key[:min(len(p.key), 24)], "/", p.at), func(t *testing.T) {
					w := first.again(t, name("flip-", k))
					w.bucket.flip(t, p.key, p.at)
					w.damaged(n, true)
				})
			}
		})
	}
}

// The same of every object that is gone, and of every one that was cut off; and it needs no deep look.
func TestEveryMissingObjectIsFoundAndHealed(t *testing.T) {
	first := small(t)
	first.close()
	for i, key := range first.bucket.keys(t, "") {
		data := first.bucket.object(t, key)
		for what, left := range map[string][]byte{"gone": nil, "cut": data[:len(data)/2], "longer": append(data[:len(data):len(data)], 0)} {
			t.Run(what+"/"+key[:min(len(key), 24)], func(t *testing.T) {
				w := first.again(t, "cut")
				w.bucket.set(t, key, left)
				w.damaged(i, false)
			})
		}
	}
}

// damaged is what has to happen to a world of which one object is not what it was.
func (w *world) damaged(turn int, deep bool) {
	w.t.Helper()
	for _, n := range w.things {
		if data, err := w.read(w.scope, n); err == nil && string(data) != string(n.data) {
			w.t.Fatalf("%s: wrong bytes with the right hash", n.path)
		}
	}
	res := w.run(Options{Deep: deep})
	if res.Damage == 0 {
		w.t.Fatal("nothing was found")
	}
	absent := w.served()
	if int(res.Waiting) != len(absent) {
		w.t.Errorf("%d paths are said to wait, %d are absent", res.Waiting, len(absent))
	}
	if len(absent) == 0 && strings.HasPrefix(res.Findings[0].Where, "packs/") {
		w.t.Errorf("no path is absent: %v", res.Findings)
	}
	w.heal(turn)
	if turn%7 == 0 {
		w.recovered(name("again-", turn%runtime.GOMAXPROCS(0))) // others are at it
	}
}
