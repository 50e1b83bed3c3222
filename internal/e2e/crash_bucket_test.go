package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob/s3test"
	"github.com/org/attic-action/internal/nix"
)

// kills is how often a server with a bucket is killed: $ATTIC_TEST_KILLS times, or a few.
func kills(t testing.TB) int {
	t.Helper()
	text := os.Getenv("ATTIC_TEST_KILLS")
	if text == "" {
		return 6
	}
	n := must(strconv.Atoi(text))(t)
	if n < 1 {
		t.Fatalf("ATTIC_TEST_KILLS=%s: want 1 or more", text)
	}
	return n
}

// smallNetwork is a closure of 34 paths and 17 MB, for hundreds of pushes: paths that share two packs and
// two that have packs of their own.
const smallNetwork = `
let
  node = i: make "small-${toString i}" ''
    mkdir $out
    ${bytes (60000000 + i * 300000) 280000} >$out/data
    ${if i > 0 then "ln -s ${builtins.elemAt nodes (i - 1)} $out/dep" else ""}
  '';
  own = i: make "alone-${toString i}" ''
    mkdir $out
    { ${bytes (80000000 + i * 8000000) 3000000}; echo $out; ${bytes (84000000 + i * 8000000) 1500000}; } >$out/blob
  '';
  nodes = map node (range 31);
in make "small-network" "echo ${toString nodes} ${toString (map own (range 2))} >$out"
`

// atBucket waits until the server has sent a random one of the requests to its bucket that a push
// takes, and a random part of the time that one takes.
func (b *bucket) atBucket(r *rand.Rand, client *process, requests int64) {
	at := b.proxy.Counts().Total() + 1 + r.Int64N(requests)
	for client.running() && b.proxy.Counts().Total() < at {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(upTo(r, 150*time.Millisecond))
}

// age makes everything in the bucket two hours old: what is younger than one is not called an orphan.
func (b *bucket) age(t testing.TB) {
	t.Helper()
	long := time.Now().Add(-2 * time.Hour)
	for _, name := range b.objects(t) {
		if err := os.Chtimes(filepath.Join(b.gw.Root, b.name, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
}

// checked is what recover --check finds.
type checked struct {
	Packs, Shards int
	LogObjects    int      `json:"log_objects"`
	Recent        int      `json:"recent_objects"`
	Missing       []string `json:"missing"`
	Orphans       []struct {
		Key, Why string
		Size     int64
	}
}

func (s *server) check() (c checked) {
	s.t.Helper()
	end := s.command("recover", "--check", "--json")
	if err := json.Unmarshal([]byte(end.stdout), &c); err != nil || end.code != 0 {
		s.t.Fatalf("recover --check: exit %d, %v\n%s\n%s", end.code, err, tail(end.stdout), tail(end.stderr))
	}
	return c
}

// A server with a bucket is killed at random moments of pushes: by the clock, at a byte of what the client
// sends, and at a request to the bucket. It starts again, and the push goes on. Nothing that was acknowledged
// is lost and nothing corrupt is served; what the kills left in the bucket is listed, and is all that
// nothing needs: without it, the bucket gives everything back to an empty volume.
func TestKilledServerWithABucketLosesNothing(t *testing.T) {
	t.Parallel()
	r, total := dice(t), kills(t)
	b := startBucket(t)
	s := b.server(t)
	top := build(t, "", smallNetwork)[0]
	paths := closure(t, top)
	b.proxy.Set(s3test.Faults{RTT: 20 * time.Millisecond, Rate: 20 << 20})
	tok, _ := s.cache("measure", false)
	b.proxy.Reset()
	cold := mustPush(t, s.url, tok, "measure", top)
	requests := b.proxy.Counts().Total()

	type cache struct{ name, tok, key string }
	var caches []cache
	kept, killed, again, starts := 0, 0, 0, 0
	for round := 0; killed < total; round++ {
		c := cache{name: fmt.Sprintf("round-%d", round)}
		c.tok, c.key = s.cache(c.name, false)
		caches = append(caches, c)
		public := must(nix.ParsePublicKey(c.key))(t)
		m := moment{net: startProxy(t, s)}
		client := pushing(t, m.net.url, c.tok, c.name, top)
		for {
			w := watch(s, c.name, c.tok, paths)
			if r.IntN(2) == 0 {
				b.atBucket(r, client, requests)
			} else {
				m.wait(r, client, cold)
			}
			s.proc.kill()
			killed++
			m.net.pass(-1)
			acked := w.paths()
			if r.IntN(4) == 0 { // and once more, while it starts
				p := s.life(s.addr())
				time.Sleep(upTo(r, 100*time.Millisecond))
				p.kill()
				starts++
			}
			s.restart()
			if !client.running() && client.wait().code == 0 {
				acked = paths // the client was told that all is well
			}
			for _, path := range acked {
				if err := s.checkServed(c.name, c.tok, public, path); err != nil {
					t.Fatalf("kill %d: acknowledged before, and then: %v", killed, err)
				}
			}
			kept += len(acked)
			if !client.running() || r.IntN(3) == 0 {
				break
			}
		}
		if end := client.pushed(t); end.code != 0 { // it had given up
			again++
			oneLine(t, end.ended, 1, "attic-action: ")
			mustPush(t, s.url, c.tok, c.name, top)
		}
		s.verifyServed(c.name, c.tok, c.key, paths)
	}
	t.Logf("killed %d times in %d pushes, and %d times while it started; %d paths had been acknowledged; %d clients had to be run again",
		killed, len(caches), starts, kept, again)

	// One orphan is certain: a pack arrives in the bucket, and its server does not live to learn of it.
	last := cache{name: "last"}
	last.tok, last.key = s.cache(last.name, false)
	caches = append(caches, last)
	b.proxy.Reset()
	b.proxy.Set(s3test.Faults{RTT: time.Second, LosePut: 1})
	client := pushing(t, s.url, last.tok, last.name, top)
	until(t, "a pack is stored and nobody knows", func() bool { return b.proxy.Counts().Failed > 0 })
	before := len(b.objects(t))
	until(t, "it is there", func() bool { return len(b.objects(t)) > before })
	s.proc.kill()
	b.proxy.Set(s3test.Faults{})
	s.restart()
	if end := client.pushed(t); end.code != 0 {
		mustPush(t, s.url, last.tok, last.name, top)
	}

	// All that is in the bucket is needed or named.
	if fresh := s.check(); len(fresh.Orphans) > 0 || fresh.Recent == 0 || len(fresh.Missing) > 0 {
		t.Errorf("what came within the hour may be under way: %+v", fresh)
	}
	b.age(t)
	c := s.check()
	packs, logs, loose := 0, 0, map[string]int{}
	for _, name := range b.objects(t) {
		switch kind, _, _ := strings.Cut(name, "/"); kind {
		case "packs":
			packs++
		case "log":
			logs++
		}
	}
	for _, o := range c.Orphans {
		kind, _, _ := strings.Cut(o.Key, "/")
		loose[kind]++
	}
	t.Logf("the kills left %d packs and %d objects of the log that nothing needs, of %d and %d", loose["packs"], loose["log"], packs, logs)
	if len(c.Missing) > 0 || c.Recent > 0 || loose["packs"] == 0 || packs != c.Packs+loose["packs"] || logs != c.LogObjects+loose["log"] {
		t.Errorf("%d packs and %d objects of the log are in the bucket: %+v", packs, logs, c)
	}

	s.stopped()
	for _, name := range s.litter() {
		if !strings.HasPrefix(name, "/near/") { // a cache, which a restart keeps
			t.Errorf("the kills left %s on the volume", name)
		}
	}
	for _, o := range c.Orphans {
		if err := os.Remove(filepath.Join(b.gw.Root, b.name, o.Key)); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(s.data); err != nil {
		t.Fatal(err)
	}
	if got := s.recover(0); len(got.Lost) > 0 || got.Unacknowledged > 0 || got.Restored.Paths != len(caches)*len(paths)+len(paths) {
		t.Errorf("recovered: %+v", got)
	}
	s.restart()
	for _, c := range caches { // nothing of an early round went in a late one
		if have := s.present(c.name, c.tok, paths); len(have) != len(paths) {
			t.Errorf("cache %s has %d of %d paths", c.name, len(have), len(paths))
		}
	}
	s.verifyServed(last.name, last.tok, last.key, paths)
	one := caches[r.IntN(len(caches))]
	s.verifyServed(one.name, one.tok, one.key, paths)
	s.stopped()
}
