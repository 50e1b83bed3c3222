package e2e

import (
	"testing"
)

// Nix tries five times in all, so each pull has at most four cuts.
const cutsPerPull = 4

func TestPullResumesWhereItsConnectionWasCut(t *testing.T) {
	t.Parallel()
	r := dice(t)
	s := startServer(t)
	tok, key := s.cache("main", true)
	first := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", first)
	// NARs that are whole packs, and NARs put together from pieces of packs and new literals.
	rebuilt := build(t, "again", network)[0]
	mustPush(t, s.url, tok, "main", rebuilt)
	eachNix(t, func(t *testing.T, nix string) {
		net := startProxy(t, s)
		cuts, before := 0, s.partial()
		for range 2 {
			for _, top := range []string{first, rebuilt} {
				at := make([]int64, cutsPerPull)
				for i := range at {
					at[i] = r.Int64N(1 << (8 + r.IntN(14))) // of every magnitude up to 2 MiB
				}
				net.cutAt(at...)
				pull(t, nix, net.url+"/main", key, top)
				made, _ := net.state()
				cuts += made
			}
		}
		t.Logf("%d cuts, %d answers from the middle", cuts, s.partial()-before)
		if cuts < 8 || s.partial()-before <= cuts/4 {
			t.Errorf("%d connections were cut, but only %d answers are 206", cuts, s.partial()-before)
		}
	})
}

// partial counts the answers that begin in the middle of a NAR.
func (s *server) partial() (n int) {
	for _, a := range s.requests() {
		if a.Status == 206 {
			n++
		}
	}
	return n
}
