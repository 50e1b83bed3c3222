package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/nix"
)

// rounds is how often each side is killed.
const rounds = 20

// dice are random, and say how to throw them again.
func dice(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// upTo is a random part of d.
func upTo(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

// moment is when a push is broken off: at a random time, or at a random byte on its way to the server
// and a little later, when what could be finished without that byte is.
type moment struct{ net *proxy }

func (m moment) wait(r *rand.Rand, client *process, cold pushed) {
	held := make(chan struct{})
	after := upTo(r, time.Duration(cold.json.Seconds*1.25*float64(time.Second)))
	if r.IntN(2) == 0 {
		_, sent := m.net.state()
		at, later := sent+r.Int64N(cold.json.BytesSent), upTo(r, time.Second)
		m.net.pass(at)
		after = time.Hour
		go func() {
			defer close(held)
			for client.running() {
				if _, sent := m.net.state(); sent >= at {
					time.Sleep(later)
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
	}
	select {
	case <-held:
	case <-time.After(after):
	case <-client.done:
	}
}

// watcher asks a server without pause which paths a cache has, until the server is gone: every answer
// is an acknowledgement.
type watcher struct {
	mu    sync.Mutex
	acked map[string]bool
	done  chan struct{}
}

func watch(s *server, cache, tok string, paths []string) *watcher {
	w := &watcher{acked: map[string]bool{}, done: make(chan struct{})}
	proc := s.proc
	go func() {
		defer close(w.done)
		for proc.running() {
			missing, err := s.askMissing(cache, tok, paths)
			if err != nil {
				continue // the server is gone, or will be
			}
			w.mu.Lock()
			for _, path := range paths {
				if !missing[hashOf(path)] {
					w.acked[path] = true
				}
			}
			w.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return w
}

func (w *watcher) paths() []string {
	<-w.done
	var all []string
	for path := range w.acked {
		all = append(all, path)
	}
	return all
}

func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	r := dice(t)
	s := startServer(t)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	type cache struct{ name, tok, key string }
	var caches []cache
	tok, _ := s.cache("measure", false)
	cold := mustPush(t, s.url, tok, "measure", top)
	kept, resumed, repeated := 0, 0, 0
	for round := range rounds {
		c := cache{name: fmt.Sprintf("round-%d", round)}
		c.tok, c.key = s.cache(c.name, false)
		caches = append(caches, c)
		public := must(nix.ParsePublicKey(c.key))(t)
		m := moment{net: startProxy(t, s)}
		client := pushing(t, m.net.url, c.tok, c.name, top)
		for client.running() {
			w := watch(s, c.name, c.tok, paths)
			m.wait(r, client, cold)
			s.proc.kill()
			m.net.pass(-1)
			acked := w.paths()
			time.Sleep(upTo(r, 200*time.Millisecond))
			if r.IntN(4) == 0 { // and once more, while it starts
				p := s.life(s.addr())
				time.Sleep(upTo(r, 50*time.Millisecond))
				p.kill()
			}
			s.restart()
			if !client.running() && client.wait().code == 0 {
				acked = paths // the client was told that all is well
			}
			for _, path := range acked {
				if err := s.checkServed(c.name, c.tok, public, path); err != nil {
					t.Fatalf("round %d: acknowledged before the kill, and then: %v", round, err)
				}
			}
			kept += len(acked)
			if r.IntN(2) == 0 {
				break // once is enough this time
			}
		}
		end := client.pushed(t)
		resumed++
		if end.code != 0 { // it had not reached the server before the kill
			repeated++
			oneLine(t, end.ended, 1, "attic-action: ")
			mustPush(t, s.url, c.tok, c.name, top)
		}
		s.verifyServed(c.name, c.tok, c.key, paths)
	}
	t.Logf("%d paths had been acknowledged when the server was killed; %d of %d clients had to be run again", kept, repeated, resumed)
	for _, c := range caches { // nothing of an early round went in a late one
		if have := s.present(c.name, c.tok, paths); len(have) != len(paths) {
			t.Errorf("cache %s has %d of %d paths", c.name, len(have), len(paths))
		}
	}
	eachNix(t, func(t *testing.T, nix string) {
		c := caches[r.IntN(len(caches))]
		p := newPuller(t, nix)
		p.env = append(p.env, nixConfig("netrc-file = "+netrc(t, s, c.tok)))
		if end := p.substitute(s.url+"/"+c.name, c.key, top); end.code != 0 {
			t.Fatalf("pull: exit %d\n%s", end.code, tail(end.stderr))
		}
		p.verify(top)
	})
	s.stopped()
	// Copies that were under way stay until a start finds them old.
	for _, name := range s.litter() {
		if long := time.Now().Add(-48 * time.Hour); strings.Contains(name, "/.tmp/") {
			if err := os.Chtimes(filepath.Join(s.data, name), long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.restart()
	s.stopped()
	if left := s.litter(); len(left) > 0 {
		t.Errorf("the kills left %v", left)
	}
}

// The stock client repeats nothing: what it was told is stored must be.
func TestKilledServerKeepsWhatStockClientsWereTold(t *testing.T) {
	t.Parallel()
	r := dice(t)
	s := startServer(t)
	paths := closure(t, build(t, "", network)[0])
	for _, path := range paths {
		stockPath(t, "", path) // reading them takes longer than sending them
	}
	told := 0
	for round := range rounds / 2 {
		cache := fmt.Sprintf("round-%d", round)
		tok, key := s.cache(cache, false)
		public := must(nix.ParsePublicKey(key))(t)
		var mu sync.Mutex
		var stored []string
		work := make(chan string, len(paths))
		for _, i := range r.Perm(len(paths)) {
			work <- paths[i]
		}
		close(work)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				for path := range work {
					info, nar := stockPath(t, cache, path)
					resp, err := http.DefaultTransport.RoundTrip(stockRequest(t, s.url, tok, info, bytes.NewReader(nar), false))
					if err != nil {
						return // the server is gone
					}
					if resp.StatusCode == http.StatusOK {
						mu.Lock()
						stored = append(stored, path)
						mu.Unlock()
					}
					resp.Body.Close()
				}
			})
		}
		time.Sleep(upTo(r, 2*time.Second))
		s.proc.kill()
		wg.Wait()
		s.restart()
		for _, path := range stored {
			if err := s.checkServed(cache, tok, public, path); err != nil {
				t.Fatalf("round %d: the client was told that it is stored, and then: %v", round, err)
			}
		}
		s.verifyServed(cache, tok, key, s.present(cache, tok, paths))
		told += len(stored)
		s.stockPush(cache, tok, paths, false)
		s.verifyServed(cache, tok, key, paths)
	}
	t.Logf("%d uploads were acknowledged before the kills", told)
	s.stopped()
}

func TestKilledClientLeavesNothingHalfWrittenAndSendsNoPackTwice(t *testing.T) {
	t.Parallel()
	r := dice(t)
	s := startServer(t)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	tok, _ := s.cache("measure", false)
	cold := mustPush(t, s.url, tok, "measure", top)
	var saved int64
	for round := range rounds {
		cache := fmt.Sprintf("round-%d", round)
		tok, key := s.cache(cache, false)
		m := moment{net: startProxy(t, s)}
		client := pushing(t, m.net.url, tok, cache, top)
		m.wait(r, client, cold)
		client.kill()
		m.net.pass(-1)
		if left := must(os.ReadDir(client.cmd.Dir))(t); len(left) > 0 {
			t.Errorf("round %d: the client left %v behind", round, left)
		}
		s.quiet()
		have := s.present(cache, tok, paths)
		s.verifyServed(cache, tok, key, have)
		for _, path := range paths {
			status, _ := s.send(s.request(http.MethodGet, "/"+cache+"/"+hashOf(path)+".narinfo", tok, nil))
			if (status == 200) != contains(have, path) {
				t.Fatalf("round %d: narinfo of %s is %d, but present: %v", round, path, status, contains(have, path))
			}
		}
		sent := s.packBytes(cache)
		again := mustPush(t, s.url, tok, cache, top)
		// 64 KiB for questions, piece lists and another index.
		if again.json.BytesSent > cold.json.BytesSent-sent+64<<10 {
			t.Errorf("round %d: %d bytes of packs were stored, a whole push is %d, the resumed one sent %d", round, sent, cold.json.BytesSent, again.json.BytesSent)
		}
		if again.json.Present != len(have) {
			t.Errorf("round %d: %d paths were there, the resumed push saw %d", round, len(have), again.json.Present)
		}
		saved += sent
		s.verifyServed(cache, tok, key, paths)
	}
	t.Logf("%d MB of packs were not sent again in %d rounds", saved>>20, rounds)
}

// quiet waits until the server has done what clients that are gone had asked for: it closes a
// connection after the last answer.
func (s *server) quiet() {
	s.t.Helper()
	until(s.t, "the server is alone", func() bool {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		return s.openFiles("socket:") <= s.idle
	})
}

// packBytes is how many bytes of packs the server has taken for a cache.
func (s *server) packBytes(cache string) (sum int64) {
	for _, a := range s.requests() {
		if a.Method == "PUT" && a.Status == 200 && strings.Contains(a.Path, "/"+cache+"/packs/") {
			sum += a.BytesIn
		}
	}
	return sum
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}
