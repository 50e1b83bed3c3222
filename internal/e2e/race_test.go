package e2e

import (
	"fmt"
	"strings"
	"sync"
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

func TestUploadsOfOnePathAtOnceAllSucceed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", false)
	var paths []string
	for _, path := range closure(t, build(t, "", network)[0]) {
		if strings.Contains(path, "-own-") {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		stockPath(t, "main", path) // not while they race
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { s.stockUpload("main", tok, path, i%2 == 0) })
		}
		wg.Wait()
	}
	s.verifyServed("main", tok, key, paths)
}
