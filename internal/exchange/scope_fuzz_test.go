package exchange

import "testing"

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
