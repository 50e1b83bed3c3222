package gc

import (
	"testing"
)

// What a pin holds, and all that this needs, is what machines run.
func TestPinnedStaysWithItsWholeClosure(t *testing.T) {
	w := newWorld(t)
	w.push("a", "libc")
	w.push("a", "tool", "libc")
	w.push("a", "system", "tool")
	w.push("a", "old")
	w.pin("a", "host", "system", 0)
	w.now = w.now.Add(365 * day)
	r := w.collect()
	w.wants("a", "libc", "tool", "system")
	if r.Paths != 1 || r.NARs != 1 {
		t.Errorf("%d paths and %d NARs went, want one", r.Paths, r.NARs)
	}
	w.recovered()
	w.wants("a", "libc", "tool", "system")
}

// With retention 0, as Attic has it, everything stays.
func TestForEverKeepsEverything(t *testing.T) {
	w := newWorld(t)
	w.retention("a", 0)
	w.push("a", "old")
	w.now = w.now.Add(3650 * day)
	w.collect()
	w.wants("a", "old")
	if _, objects := w.packs(); objects != 1 {
		t.Errorf("%d packs", objects)
	}
}

func TestWhatIsUsedWithinTheRetentionStaysAndTheRestGoes(t *testing.T) {
	w := newWorld(t)
	for _, word := range []string{"libc", "used", "pulled", "old"} {
		w.push("a", word)
	}
	w.push("a", "new", "used") // uses nothing: a reference is no use
	w.now = w.now.Add(20 * day)
	w.push("a", "top", "libc")
	w.use("a", "pulled")
	w.use("a", "new")
	w.now = w.now.Add(20 * day)
	w.collect()
	w.wants("a", "libc", "used", "new", "top", "pulled")
	rows, objects := w.packs()
	if rows != 5 || objects != 5 {
		t.Errorf("%d packs have a row and %d are in the bucket, want 5", rows, objects)
	}
	w.recovered()
	w.wants("a", "libc", "used", "new", "top", "pulled")
}
