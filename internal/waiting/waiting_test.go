package waiting

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/attic-action/internal/spool"
)

// room is one whose leaves are counted.
func room(t *testing.T) (r *Room, put func(key Key, text string) error, left *int) {
	left = new(int)
	r = &Room{Spool: &spool.Dir{Path: t.TempDir(), Budget: 1 << 20}}
	return r, func(key Key, text string) error {
		return r.Put(t.Context(), key, int64(len(text)), strings.NewReader(text), func() { *left++ })
	}, left
}

func keyOf(text string) Key { return Key{Cache: 1, Holder: "a", File: sha256.Sum256([]byte(text))} }

func TestNARWaitsForAsManyNarinfosAsWerePromised(t *testing.T) {
	r, put, left := room(t)
	key := keyOf("nar")
	for range 2 { // two clients
		if err := put(key, "nar"); err != nil {
			t.Fatal(err)
		}
	}
	if n, ok := r.Promise(key); !ok || n != 3 {
		t.Fatal(n, ok)
	}
	for i := range 3 {
		nar, ok := r.Take(key)
		if !ok {
			t.Fatalf("it is gone after %d", i)
		}
		if b, err := io.ReadAll(nar); err != nil || string(b) != "nar" {
			t.Errorf("%q %v", b, err)
		}
		nar.Done(true)
	}
	if _, ok := r.Take(key); ok || *left != 2 {
		t.Errorf("it is still here, or %d of 2 left", *left)
	}
}

func TestNARStaysAfterANarinfoThatFailed(t *testing.T) {
	r, put, left := room(t)
	key := keyOf("nar")
	if err := put(key, "nar"); err != nil {
		t.Fatal(err)
	}
	nar, _ := r.Take(key)
	nar.Done(false)
	if _, ok := r.Take(key); !ok || *left != 0 {
		t.Error("it is gone")
	}
}

// The attack: to name another's NAR by its hash, and so to get its contents into a cache that one may read.
func TestNARIsNobodyElses(t *testing.T) {
	r, put, _ := room(t)
	key := keyOf("nar")
	if err := put(key, "nar"); err != nil {
		t.Fatal(err)
	}
	for _, other := range []Key{{2, "a", key.File}, {1, "b", key.File}} {
		if _, ok := r.Take(other); ok {
			t.Errorf("%v gets it", other)
		}
		if _, ok := r.Promise(other); ok {
			t.Errorf("%v hears of it", other)
		}
	}
}

func TestWhatIsNotItsNameIsNotKept(t *testing.T) {
	r, put, left := room(t)
	if err := put(keyOf("nar"), "liar"); !errors.Is(err, ErrHash) {
		t.Error(err)
	}
	err := r.Put(t.Context(), keyOf("nar"), 10, bytes.NewReader([]byte("nar")), func() { *left++ })
	if !errors.Is(err, ErrShort) || *left != 2 {
		t.Error(err, *left)
	}
	if f, err := r.Spool.Create(t.Context(), 1<<20); err != nil {
		t.Errorf("the spool is not free: %v", err)
	} else if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestNARThatNobodyNamesGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, put, left := room(t)
		key := keyOf("nar")
		if err := put(key, "nar"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(DefaultLife - time.Second)
		nar, ok := r.Take(key) // it stirs
		if !ok {
			t.Fatal("it went early")
		}
		time.Sleep(DefaultLife + time.Second)
		synctest.Wait()
		if b, err := io.ReadAll(nar); err != nil || string(b) != "nar" || *left != 0 {
			t.Errorf("what is read was taken away: %q %v", b, err)
		}
		nar.Done(false)
		if _, ok := r.Promise(key); ok || *left != 1 {
			t.Error("it is still here")
		}
	})
}

func TestChangedTellsWhatCame(t *testing.T) {
	r, put, _ := room(t)
	changed := r.Changed()
	if err := put(keyOf("nar"), "nar"); err != nil {
		t.Fatal(err)
	}
	<-changed
	changed = r.Changed()
	r.Stir()
	<-changed
}
