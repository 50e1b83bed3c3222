package action

import "testing"

func TestTallyCountsWhatNixSays(t *testing.T) {
	const log = "these 2 derivations will be built:\n  /nix/store/x.drv\nbuilding '/nix/store/x.drv'...\nhello building '/nix/store/y.drv'\n" +
		"copying path '/nix/store/z' from 'https://cache.example'...\ncopying path 'x'\nbuilding '/nix/store/y.drv'...\n\nbuilding '/nix/st"
	for size := 1; size < len(log); size++ {
		var c tally
		for rest := []byte(log); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if n, err := c.Write(rest[:min(size, len(rest))]); err != nil || n != min(size, len(rest)) {
				t.Fatal(n, err)
			}
		}
		if c.made != 2 || c.fetched != 1 || len(c.line) > len(copyingLine) {
			t.Errorf("in pieces of %d: %d built, %d fetched, %d bytes held", size, c.made, c.fetched, len(c.line))
		}
	}
}
