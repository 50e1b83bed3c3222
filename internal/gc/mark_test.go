package gc

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

func TestHashesKeepTheirText(t *testing.T) {
	for i := range 100 {
		sum := sha256.Sum256(fmt.Append(nil, i))
		text := nix.EncodeBase32(sum[:20])
		h, ok := pack160(text + "-name")
		if !ok || h.String() != text {
			t.Errorf("%s becomes %s", text, h)
		}
	}
	for _, s := range []string{"", "short", "0000000000000000000000000000000e-x", "0000000000000000000000000000000"} {
		if _, ok := pack160(s); ok {
			t.Errorf("%q is taken for a hash", s)
		}
	}
}

// small is a graph of one cache: paths, when each was last used, and what they refer to.
func small(t testing.TB, used []uint32, refs [][]int) *graph {
	t.Helper()
	g, err := newGraph([]meta.Cache{{ID: 1, Name: "a"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range used {
		var lines []byte
		for _, ref := range refs[i] {
			lines = append(lines, name(ref)+"-x\n"...)
		}
		if err := g.put(meta.Kept{CacheID: 1, Hash: []byte(name(i)), Refs: lines, LastUsed: int64(at) * 1e6, NAR: int64(i + 1), FileSize: 10}); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func name(i int) string {
	sum := sha256.Sum256(fmt.Append(nil, i))
	return nix.EncodeBase32(sum[:20])
}

func (g *graph) number(t testing.TB, i int) uint32 {
	t.Helper()
	id, found := g.lookUp(1, name(i))
	if !found {
		t.Fatalf("path %d is not there", i)
	}
	return id
}

// What clients claim may have circles.
func TestCirclesAreCollected(t *testing.T) {
	g := small(t, []uint32{10, 10, 10, 1000}, [][]int{{1}, {2}, {0, 3, 2}, {99}})
	m, err := mark(t.Context(), g, &criteria{now: time.Unix(2000, 0), rule: func(*meta.Cache) Rule { return Rule{Retention: 1500 * time.Second} }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := m.leaving()
	want := []uint32{g.number(t, 0), g.number(t, 1), g.number(t, 2)}
	slices.Sort(list)
	slices.Sort(want)
	if !slices.Equal(list, want) {
		t.Errorf("%v go, want %v", list, want)
	}
}

// Whatever the rules and the references: nothing goes that something needs which stays, nothing pinned goes, and at no
// time of the deletion is there a path whose references went before it, circles aside.
func FuzzMarkKeepsClosuresWhole(f *testing.F) {
	f.Add([]byte{3, 1, 2, 0, 9, 4, 7, 7, 1}, uint8(3), uint8(1), uint16(30), uint8(2))
	f.Add([]byte{}, uint8(0), uint8(0), uint16(0), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, retention, keepLast uint8, quota uint16, pin uint8) {
		n := min(len(data)/2, 60)
		used, refs := make([]uint32, n), make([][]int, n)
		for i := range n {
			used[i] = 1 + uint32(data[2*i])
			for r := range int(data[2*i+1] % 4) {
				refs[i] = append(refs[i], int(data[(2*i+r*7)%len(data)])%(n+3)) // a few are nowhere
			}
		}
		g := small(t, used, refs)
		pins := map[uint32]string{}
		if n > 0 {
			pins[g.number(t, int(pin)%n)] = "pin"
		}
		rule := Rule{Retention: time.Duration(retention) * time.Second, KeepLast: int(keepLast), Quota: int64(quota)}
		m, err := mark(t.Context(), g, &criteria{now: time.Unix(256, 0), fresh: 20 * time.Second, rule: func(*meta.Cache) Rule { return rule }}, pins)
		if err != nil {
			t.Fatal(err)
		}
		for id := range uint32(g.len()) {
			if !g.there(id) {
				continue
			}
			if pins[id] != "" && m.goes(id) {
				t.Errorf("%d is pinned and goes", id)
			}
			if rule.Retention == 0 && rule.KeepLast == 0 && rule.Quota == 0 && m.goes(id) {
				t.Errorf("%d goes, though everything is to stay", id)
			}
			age := int(256 - g.used[id])
			if m.goes(id) && quota == 0 && age <= int(retention) {
				t.Errorf("%d was used within the retention and goes", id)
			}
			if m.goes(id) && age <= 20 && (retention == 0 || age <= int(retention)) {
				t.Errorf("%d was just used and goes", id)
			}
			for _, ref := range g.refs(id) {
				if m.stays(id) && m.goes(ref) {
					t.Errorf("%d stays, and %d goes which it needs", id, ref)
				}
			}
		}
		list := m.leaving()
		at := map[uint32]int{}
		for i, id := range list {
			at[id] = i + 1
		}
		reaches := func(from, to uint32) bool {
			found := false
			g.reach(g.bits(), nil, from, func(id uint32) { found = found || id == to })
			return found
		}
		for _, id := range list {
			for _, ref := range g.refs(id) {
				if at[ref] > 0 && at[ref] < at[id] && !reaches(ref, id) {
					t.Errorf("%d goes before %d, which needs it", ref, id)
				}
			}
		}
		if len(list) > 0 {
			last := list[len(list)-1]
			m.revive(last)
			for _, ref := range g.refs(last) {
				if m.goes(ref) {
					t.Errorf("%d was revived, and %d goes which it needs", last, ref)
				}
			}
		}
	})
}
