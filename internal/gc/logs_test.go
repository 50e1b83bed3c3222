package gc

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
)

func TestLogsAndRealisationsGoWithTheirPaths(t *testing.T) {
	w := newWorld(t)
	scope := w.caches["a"]
	id := "sha256:" + strings.Repeat("0", 64) + "!out"
	for _, word := range []string{"old.drv", "kept.drv"} {
		w.push("a", word)
		if err := w.depot.PutBuildLog(t.Context(), scope, storePath(word).Base(), 0, bytes.NewReader([]byte("built"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.depot.PutRealisation(t.Context(), scope, &api.Realisation{ID: id, OutPath: storePath("old.drv").Base()}); err != nil {
		t.Fatal(err)
	}
	w.pin("a", "kept", "kept.drv", 0)
	left := func() (names []string) {
		w.view(func(tx *meta.Tx) error {
			for _, word := range []string{"old.drv", "kept.drv"} {
				_, err := tx.BuildLog(scope.Cache.ID, storePath(word).Base())
				if err == nil {
					names = append(names, word)
				} else if !errors.Is(err, meta.ErrNotFound) {
					return err
				}
			}
			_, err := tx.Realisation(scope.Cache.ID, id)
			if err == nil {
				names = append(names, "realisation")
			}
			return nil
		})
		return names
	}
	w.collect()
	if got := left(); len(got) != 3 {
		t.Errorf("young ones went: %q are left", got)
	}
	w.now = w.now.Add(40 * day)
	w.collect()
	if got := left(); !slices.Equal(got, []string{"kept.drv"}) {
		t.Errorf("%q are left", got)
	}
	w.recovered()
	if got := left(); !slices.Equal(got, []string{"kept.drv"}) {
		t.Errorf("after a recovery %q are left", got)
	}
	// A log that comes before its path waits for it.
	if err := w.depot.PutBuildLog(t.Context(), w.caches["a"], storePath("old.drv").Base(), 0, bytes.NewReader(nil)); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Hour)
	w.collect()
	if got := left(); len(got) != 2 {
		t.Errorf("%q are left", got)
	}
}
