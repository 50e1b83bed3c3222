package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
)

const oldNix = "curl/7.85.0 Nix/2.8.0"

func pull(agent string) *http.Request {
	r := httptest.NewRequest("GET", "/pub/nar/x.nar", nil)
	r.Header.Set("User-Agent", agent)
	return r
}

// hashes are those of a chain: each path refers to the one before it.
func chain(n int) (list []*meta.Path) {
	for i := range n {
		p := &meta.Path{Hash: fmt.Sprintf("%032d", i)}
		if i > 0 {
			p.References = []string{list[i-1].Hash + "-x"}
		}
		list = append(list, p)
	}
	return list
}

func TestWhoTakesFewAtATimeIsKnownByIt(t *testing.T) {
	var p pullers
	now := time.Unix(1_800_000_000, 0)
	cache := &meta.Cache{ID: 1}
	paths := chain(40)
	for _, path := range paths {
		p.asked(pull(oldNix), cache, path, now)
	}
	take := func(i int) *puller {
		c, done := p.begin(pull(oldNix), cache, paths[i].Hash, now)
		done()
		return c
	}
	for i := range fewAfter {
		// A single NAR, or two, say nothing: they are redirected as anybody's.
		if c, done := p.begin(pull(oldNix), cache, paths[i].Hash, now); c.few() || c.next() != nil {
			t.Errorf("after %d NARs", i)
		} else {
			done()
		}
	}
	if c := take(fewAfter); !c.few() || len(c.next()) != foreseen || c.next()[0] != paths[fewAfter+1].Hash {
		t.Errorf("few %v, next %q", c.few(), c.next())
	} else {
		c.has(paths[fewAfter+1].Hash)
		if c.next()[0] != paths[fewAfter+2].Hash {
			t.Errorf("what was begun comes again: %q", c.next())
		}
	}
	// Many at once: such a client has connections of its own.
	var ends []func()
	for i := range fewAtOnce + 1 {
		_, done := p.begin(pull(oldNix), cache, paths[10+i].Hash, now)
		ends = append(ends, done)
	}
	for _, done := range ends {
		done()
	}
	for i := range 10 {
		if c := take(20 + i); c.few() || c.next() != nil {
			t.Error("who took many at once takes few")
		}
	}
	now = now.Add(forgetAfter + time.Second)
	for i := range fewAfter + 1 {
		if c := take(30 + i); c.few() != (i == fewAfter) {
			t.Errorf("a minute later, after %d NARs: %v", i, c.few())
		}
	}
}

func TestOnlyNixIsForeseen(t *testing.T) {
	var p pullers
	now := time.Unix(1_800_000_000, 0)
	cache := &meta.Cache{ID: 1}
	for _, agent := range []string{"", "curl/8.0", "Go-http-client/1.1", "Mozilla/5.0 NixOS"} {
		p.asked(pull(agent), cache, chain(1)[0], now)
		for range 10 {
			if c, done := p.begin(pull(agent), cache, "x", now); c.few() || c.next() != nil {
				t.Errorf("%q", agent)
			} else {
				done()
			}
		}
	}
	if len(p.known) != 0 {
		t.Errorf("%d are known", len(p.known))
	}
}

// The attack: names without end, or narinfos without end, fill the memory.
func TestPullersAreBounded(t *testing.T) {
	var p pullers
	now := time.Unix(1_800_000_000, 0)
	paths := chain(maxForeseen + 5000)
	for i, path := range paths {
		p.asked(pull(oldNix), &meta.Cache{ID: 1}, path, now)
		p.asked(pull(fmt.Sprintf("Nix/%d", i)), &meta.Cache{ID: 1}, path, now)
		if n := len(p.known); n > maxPullers {
			t.Fatalf("%d pullers", n)
		}
		if p.paths > maxForeseen {
			t.Fatalf("%d paths", p.paths)
		}
	}
	sum := 0
	for _, c := range p.known {
		sum += c.closure.Len()
	}
	if sum != p.paths {
		t.Errorf("%d paths are known, %d were counted", sum, p.paths)
	}
}

// What one pulls says nothing of what another one will, and nothing of another cache.
func TestPullersOfTwoCachesAreTwo(t *testing.T) {
	var p pullers
	now := time.Unix(1_800_000_000, 0)
	for _, path := range chain(10) {
		p.asked(pull(oldNix), &meta.Cache{ID: 1}, path, now)
	}
	for i := range 8 {
		c, done := p.begin(pull(oldNix), &meta.Cache{ID: 2}, chain(10)[i].Hash, now)
		if len(c.next()) != 0 {
			t.Errorf("a path of cache 1 is foreseen in cache 2: %q", c.next())
		}
		done()
	}
}

// opens counts what is opened, and finds nothing.
type opens struct {
	contents
	asked []string
}

func (o *opens) Open(_ context.Context, _ int64, hash string) (*depot.NAR, error) {
	o.asked = append(o.asked, hash)
	return nil, meta.ErrNotFound
}

// A path that was deleted after its narinfo was read must not keep those behind it from coming early.
func TestPathThatIsGoneHoldsNothingUp(t *testing.T) {
	found := &opens{}
	s := &Server{Depot: found, ReadAhead: true}
	now := time.Unix(1_800_000_000, 0)
	cache := &meta.Cache{ID: 1}
	paths := chain(12)
	for _, path := range paths {
		s.pullers.asked(pull(oldNix), cache, path, now)
	}
	for i := range fewAfter + 1 {
		c, done := s.pullers.begin(pull(oldNix), cache, paths[i].Hash, now)
		s.lookAhead(t.Context(), cache.ID, c)
		s.lookAhead(t.Context(), cache.ID, c) // each is tried once
		done()
	}
	var want []string
	for _, path := range paths[fewAfter+1:] {
		want = append(want, path.Hash)
	}
	if !slices.Equal(found.asked, want) {
		t.Errorf("opened %q, want %q", found.asked, want)
	}
}
