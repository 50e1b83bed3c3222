package roots

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/meta"
)

func TestListHasTheClosureOfOneCache(t *testing.T) {
	h := newHouse(t)
	h.put(h.a, "top", "top", "lib", "gone")
	h.put(h.a, "lib", "top", "libc")
	h.put(h.a, "libc")
	h.put(h.a, "other")
	h.put(h.b, "gone")
	got, err := h.List(t.Context(), h.a.Cache.ID, hashOf("top"))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"top", "lib", "libc"} {
		if _, ok := got.Paths[store(word).Base()]; !ok {
			t.Errorf("%s is not listed: %v", word, got)
		}
	}
	if len(got.Paths) != 3 || !slices.Equal(got.Elsewhere, []string{store("gone").Base()}) {
		t.Errorf("%+v", got)
	}
	if _, err := h.List(t.Context(), h.b.Cache.ID, hashOf("top")); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("of another cache: %v", err)
	}
}

// Names take memory, and anybody who may pull may ask.
func TestListIsBounded(t *testing.T) {
	h := newHouse(t)
	refs := make([]string, maxListed+1)
	for i := range refs {
		refs[i] = fmt.Sprint("n", i)
	}
	h.put(h.a, "top", refs...)
	for i := range refs {
		refs[i] = "^" + refs[i]
	}
	h.put(h.a, "upstreams", refs...)
	for _, top := range []string{"top", "upstreams"} {
		var refusal *Refusal
		if _, err := h.List(t.Context(), h.a.Cache.ID, hashOf(top)); !errors.As(err, &refusal) || !strings.Contains(refusal.Msg, "too many to list") {
			t.Errorf("%s: %v", top, err)
		}
	}
}
