package exchange

import (
	"strconv"
	"testing"
	"time"
)

func TestFloodsForgetTheLeastGuiltyWhenTheyAreMany(t *testing.T) {
	var f floods
	now := time.Unix(1_790_000_000, 0)
	for i := range 3 * floodAddresses {
		f.count("host-"+strconv.Itoa(i), now)
	}
	if len(f.from) > floodAddresses {
		t.Errorf("%d addresses are kept, at most %d", len(f.from), floodAddresses)
	}
}

func FuzzParseScope(f *testing.F) {
	f.Add("cache:system:push cache:system:pull")
	f.Add("cache:*:configure-cache-retention")
	f.Add("cache:::")
	f.Fuzz(func(t *testing.T, s string) {
		items, err := parseScope(s)
		if err != nil {
			return
		}
		out := choice{entries: items}.scope()
		again, err := parseScope(out)
		if err != nil || (choice{entries: again}).scope() != out {
			t.Errorf("%q is written as %q, which reads as %v, %v", s, out, again, err)
		}
	})
}
