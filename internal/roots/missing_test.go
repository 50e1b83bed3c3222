package roots

import (
	"testing"
	"time"
)

func (h *house) missing(a Asker, names ...string) []string {
	h.t.Helper()
	var hashes []string
	for _, name := range names {
		hashes = append(hashes, hashOf(name))
	}
	got, err := h.Missing(h.t.Context(), a, hashes)
	if err != nil {
		h.t.Fatal(err)
	}
	return words(got, names...)
}

// What a push leaves out because it is there has been used by it: pushed every day, it stays.
func TestWhatAPushFindsHasBeenUsed(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "glibc")
	h.put(h.a, "bash", "glibc")
	h.put(h.b, "glibc")
	first := h.now
	h.now = h.now.Add(29 * 24 * time.Hour)
	if got := h.missing(h.a, "bash", "glibc", "git"); len(got) != 1 || got[0] != "git" {
		t.Errorf("missing: %q", got)
	}
	for _, word := range []string{"bash", "glibc"} {
		if got := h.lastUsed(h.a, word); !got.Equal(h.now) {
			t.Errorf("%s was last used at %v, want %v", word, got, h.now)
		}
	}
	if got := h.lastUsed(h.b, "glibc"); !got.Equal(first) {
		t.Errorf("another cache's path was used: %v", got)
	}
}

// To ask again soon writes nothing, also where a cache keeps for less than that.
func TestLastUseIsNotedToAPartOfTheRetention(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "bash")
	first := h.now
	h.now = h.now.Add(touchAfter)
	h.missing(h.a, "bash")
	if got := h.lastUsed(h.a, "bash"); !got.Equal(first) {
		t.Errorf("it was noted after %v", got.Sub(first))
	}
	short := uint32(600)
	h.a.Cache.Retention = &short
	h.missing(h.a, "bash")
	if got := h.lastUsed(h.a, "bash"); !got.Equal(h.now) {
		t.Errorf("a cache that keeps for ten minutes does not know of a use after %v", h.now.Sub(first))
	}
}
