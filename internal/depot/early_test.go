package depot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/org/attic-action/internal/budget"
)

func TestEarlyNARIsReadAsAnyOther(t *testing.T) {
	s := newShelf(t, 64<<20)
	s.parts(10_000)
	own, data := s.ownNAR(100_000)
	early, _ := own.Early()
	if early == nil {
		t.Fatal("nothing is on its way")
	}
	rd := early.Reader(t.Context())
	// As net/http does, which wants to know the size first.
	if n, err := rd.Seek(0, io.SeekEnd); n != own.Size || err != nil {
		t.Fatal(n, err)
	}
	rd.Seek(0, io.SeekStart)
	got, err := io.ReadAll(rd)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := rd.Close(); err != nil {
		t.Error(err)
	}
	if gets, open, n := s.far.state(); gets != 10 || open != 0 || n != 100_000 {
		t.Errorf("%d requests for %d bytes, %d open: something came twice", gets, n, open)
	}
	if s.Memory.Used() != 0 {
		t.Errorf("%d bytes are still taken", s.Memory.Used())
	}
}

// What nobody asks for must not cost what others ask for.
func TestEarlyNARsTakeAQuarterOfTheMemoryAtMost(t *testing.T) {
	s := newShelf(t, 4<<20)
	s.Near.Limit = 0
	nar, data := s.ownNAR(4 << 20)
	var all []*Early
	for {
		early, room := nar.Early()
		if early == nil {
			if room {
				t.Fatal("a NAR in a bucket needs room")
			}
			break
		}
		all = append(all, early)
	}
	if used := s.Memory.Used(); len(all) == 0 || used == 0 || used > 1<<20 {
		t.Errorf("%d NARs have %d bytes", len(all), used)
	}
	rd := nar.Reader(t.Context(), nar.Size)
	if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	rd.Close()
	for _, early := range all {
		if err := early.Close(); err != nil {
			t.Error(err)
		}
	}
	if used := s.Memory.Used(); used != 0 {
		t.Errorf("%d bytes are taken by what was given up", used)
	}
}

func TestEarlyNAREndsWithItsRequest(t *testing.T) {
	s := newShelf(t, 64<<20)
	s.parts(10_000)
	nar, _ := s.ownNAR(100_000)
	s.far.onRead = func(of context.Context, _ int64) error { <-of.Done(); return of.Err() }
	early, _ := nar.Early()
	ctx, cancel := context.WithCancel(t.Context())
	rd := early.Reader(ctx)
	cancel()
	if _, err := io.ReadAll(rd); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	rd.Close()
	if _, open, _ := s.far.state(); open != 0 || s.Memory.Used() != 0 {
		t.Errorf("%d bodies are open, %d bytes taken", open, s.Memory.Used())
	}
}

func TestWhatNeedsNoBucketIsNotEarly(t *testing.T) {
	s := newShelf(t, 64<<20)
	literal := s.nar(layout{{kind: literalSpan, literal: []byte("all of it")}})
	if early, room := literal.Early(); early != nil || !room {
		t.Error("a NAR that lies in the database")
	}
	own, _ := s.ownNAR(100_000)
	s.ahead = newReadAhead(budget.New(1))
	if early, room := own.Early(); early != nil || room {
		t.Error("no memory")
	}
	s.Near = nil
	if early, room := own.Early(); early != nil || !room {
		t.Error("a disk")
	}
}

// What failed seconds ago is no answer to who asks now.
func TestEarlyNARThatDidNotComeSaysSo(t *testing.T) {
	s := newShelf(t, 64<<20)
	s.parts(10_000)
	nar, data := s.ownNAR(100_000)
	good, _ := nar.Early()
	for _, part := range append([]stretch{good.r.head}, good.r.queue.list...) {
		<-part.(*buffered).done
	}
	if good.Failed() {
		t.Error("all came, and it is said that something did not")
	}
	rd := good.Reader(t.Context())
	if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	rd.Close()
	s.far.breaks = 0
	s.far.onRead = func(_ context.Context, off int64) error {
		if off == 20_000 {
			return errBroken
		}
		return nil
	}
	bad, _ := nar.Early()
	for _, part := range append([]stretch{bad.r.head}, bad.r.queue.list...) {
		<-part.(*buffered).done
	}
	if !bad.Failed() {
		t.Error("a part did not come, and nothing says so")
	}
	if err := bad.Close(); err != nil || s.Memory.Used() != 0 {
		t.Errorf("%v, %d bytes are taken", err, s.Memory.Used())
	}
}
