package e2e

import (
	"fmt"
	"testing"
)

func TestPushesOfTheSamePathsAtOnceBothSucceed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	for round := range 6 {
		cache := fmt.Sprintf("round-%d", round)
		tok, key := s.cache(cache, false)
		both := []*process{pushing(t, s.url, tok, cache, top), pushing(t, s.url, tok, cache, top)}
		if round%3 == 2 { // and a stock client between them
			s.stockPush(cache, tok, paths, false)
		}
		for _, p := range both {
			got := p.pushed(t)
			got.ok(t)
			if got.json.Kept != 0 {
				t.Errorf("round %d: the same contents were taken for others: %+v", round, got.json)
			}
		}
		s.verifyServed(cache, tok, key, paths)
	}
	tok, key := s.cache("last", true)
	both := []*process{pushing(t, s.url, tok, "last", top), pushing(t, s.url, tok, "last", top)}
	for _, p := range both {
		p.pushed(t).ok(t)
	}
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/last", key, top) })
}
