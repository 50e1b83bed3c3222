package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func create(t *testing.T, d *Dir, size int64) *File {
	t.Helper()
	f, err := d.Create(t.Context(), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestFileHasNoName(t *testing.T) {
	d := &Dir{Path: t.TempDir()}
	f := create(t, d, 11)
	for _, s := range []string{"hello ", "world"} {
		if n, err := io.WriteString(f, s); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 6); err != nil || string(b) != "world" || f.Size() != 11 {
		t.Errorf("got %q of %d bytes, %v", b, f.Size(), err)
	}
	if list, err := os.ReadDir(d.Path); err != nil || len(list) != 0 {
		t.Errorf("the directory has %v, %v", list, err)
	}
}

func TestFileWithoutTMPFILEHasNoNameEither(t *testing.T) {
	dir := t.TempDir()
	f, err := createUnlinked(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("the directory has %v, %v", list, err)
	}
}

func TestWriteStaysInItsReservation(t *testing.T) {
	d := &Dir{Path: t.TempDir(), Budget: 10}
	f := create(t, d, 4)
	n, err := f.Write([]byte("12345"))
	wantErr(t, err, ErrBudget)
	if n != 0 || f.Size() != 0 {
		t.Errorf("%d bytes were written", n)
	}
	if err := f.Reserve(6); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("1234567890")); err != nil {
		t.Error(err)
	}
	wantErr(t, f.Reserve(1), ErrBudget)
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	create(t, d, 10) // all is given back, once
	if d.used != 10 {
		t.Errorf("%d bytes used, want 10", d.used)
	}
}

func TestMoreThanTheBudgetIsRefusedAtOnce(t *testing.T) {
	d := &Dir{Path: t.TempDir(), Budget: 10}
	_, err := d.Create(t.Context(), 11)
	wantErr(t, err, ErrBudget)
	if _, err := d.Create(t.Context(), -1); err == nil {
		t.Error("a negative size was taken")
	}
}

// wait runs Create in the background. Inside a synctest bubble only.
func wait(ctx context.Context, d *Dir, size int64) chan *File {
	got := make(chan *File, 1)
	go func() {
		f, _ := d.Create(ctx, size)
		got <- f
	}()
	synctest.Wait()
	return got
}

func TestFilesWaitTheirTurnForTheBudget(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := &Dir{Path: dir, Budget: 10}
		first := create(t, d, 8)
		large := wait(t.Context(), d, 9)
		small := wait(t.Context(), d, 1) // would fit, but came later: the large one must not starve
		if len(large)+len(small) != 0 {
			t.Fatal("did not wait")
		}
		first.Close()
		synctest.Wait()
		l, s := <-large, <-small
		if l == nil || s == nil {
			t.Fatal("no file after room was made")
		}
		l.Close()
		s.Close()
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := &Dir{Path: dir, Budget: 10}
		first := create(t, d, 8)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		large := wait(ctx, d, 9)
		small := wait(t.Context(), d, 2)
		if f := <-large; f != nil {
			t.Fatal("a file beyond the budget")
		}
		s := <-small // the one that held it up is gone
		if s == nil {
			t.Fatal("the next one still waits")
		}
		s.Close()
		first.Close()
		if d.used != 0 || len(d.waiting) != 0 {
			t.Errorf("%d bytes used, %d waiting", d.used, len(d.waiting))
		}
	})
}

func TestBudgetHoldsUnderManyFiles(t *testing.T) {
	d := &Dir{Path: t.TempDir(), Budget: 100}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if i%7 == 0 {
				cancel() // some give up at the moment they are served
			}
			defer cancel()
			f, err := d.Create(ctx, int64(1+i%60))
			if err != nil {
				return
			}
			d.mu.Lock()
			if d.used > d.Budget {
				t.Errorf("%d bytes used", d.used)
			}
			d.mu.Unlock()
			f.Close()
		})
	}
	wg.Wait()
	if d.used != 0 || len(d.waiting) != 0 {
		t.Errorf("%d bytes used, %d waiting", d.used, len(d.waiting))
	}
}

// The database lives on the volume: an upload that fills it stops the server.
func TestReserveOfTheVolumeIsKept(t *testing.T) {
	free := int64(1000)
	d := &Dir{Path: t.TempDir(), Reserve: 600, free: func(string) (int64, error) { return free, nil }}
	_, err := d.Create(t.Context(), 401)
	wantErr(t, err, ErrFull)
	f := create(t, d, 400)
	wantErr(t, f.Reserve(500), ErrFull)
	free = 1 << 40
	if err := f.Reserve(checkEvery * 2); err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	free = 0 // somebody else fills the volume meanwhile
	var wrote int64
	for err = nil; err == nil && wrote < checkEvery*2; wrote += int64(len(chunk)) {
		_, err = f.Write(chunk)
	}
	wantErr(t, err, ErrFull)
	if f.Size() > checkEvery {
		t.Errorf("%d bytes were written before the volume was looked at", f.Size())
	}
}

func TestVolumeThatCannotBeAskedIsAnError(t *testing.T) {
	broken := errors.New("broken")
	d := &Dir{Path: t.TempDir(), Reserve: 1, free: func(string) (int64, error) { return 0, broken }}
	_, err := d.Create(t.Context(), 1)
	wantErr(t, err, broken)
	if d.used != 0 {
		t.Error("the budget leaks")
	}
	_, err = (&Dir{Path: d.Path + "/missing", Reserve: 1}).Create(t.Context(), 1)
	wantErr(t, err, os.ErrNotExist)
	_, err = (&Dir{Path: d.Path + "/missing"}).Create(t.Context(), 1)
	wantErr(t, err, os.ErrNotExist)
}

func TestRealVolumeHasRoom(t *testing.T) {
	if n, err := Free(t.TempDir()); err != nil || n <= 0 {
		t.Errorf("got %d, %v", n, err)
	}
	create(t, &Dir{Path: t.TempDir(), Reserve: 1}, 1)
	_, err := (&Dir{Path: t.TempDir(), Reserve: 1 << 60}).Create(t.Context(), 1)
	wantErr(t, err, ErrFull)
}

func TestSystemsNoRoomIsErrFull(t *testing.T) {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := AsFull(fmt.Errorf("x: %w", &os.PathError{Op: "write", Path: "p", Err: e}))
		wantErr(t, err, ErrFull)
		wantErr(t, err, e)
	}
	if AsFull(nil) != nil || errors.Is(AsFull(syscall.EIO), ErrFull) {
		t.Error("other errors count as a full volume")
	}
}

func TestRoomIsMadeBeforeAnUploadIsRefused(t *testing.T) {
	volume, kept := int64(150), int64(80)
	d := &Dir{Path: t.TempDir(), Reserve: 100, free: func(string) (int64, error) { return volume - kept, nil }}
	asked := int64(0)
	d.MakeRoom = func(n int64) {
		asked = n
		kept -= min(n, kept)
	}
	create(t, d, 30)
	if asked != 60 || kept != 20 {
		t.Errorf("asked for %d bytes, %d are kept; want 60 and 20", asked, kept)
	}
	_, err := d.Create(t.Context(), 60)
	wantErr(t, err, ErrFull)
}

// The attack: packs of 96 MiB are announced and trickle. What has not come takes nothing from anybody.
func TestAnnouncedBytesHoldUpNobody(t *testing.T) {
	free := int64(1000)
	d := &Dir{Path: t.TempDir(), Budget: 100, Step: 10, Reserve: 600, free: func(string) (int64, error) { return free, nil }}
	var slow []*File
	for range 9 {
		slow = append(slow, create(t, d, 100))
	}
	f := create(t, d, 5) // all of a small one
	if d.used != 95 {
		t.Errorf("%d bytes are reserved", d.used)
	}
	if _, err := f.Write(make([]byte, 5)); err != nil {
		t.Error(err)
	}
	if _, err := f.Write([]byte{1}); !errors.Is(err, ErrBudget) {
		t.Errorf("past its size: %v", err)
	}
	if _, err := slow[0].Write(make([]byte, 11)); !errors.Is(err, ErrBudget) { // another step is not free
		t.Errorf("past the budget: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := slow[0].Write(make([]byte, 11)); err != nil || d.used != 100 || d.written != 11 {
		t.Errorf("%v, %d bytes reserved, %d written", err, d.used, d.written)
	}
	for _, f := range slow {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if d.used != 0 || d.written != 0 {
		t.Errorf("%d bytes reserved, %d written", d.used, d.written)
	}
	if _, err := d.Create(t.Context(), 101); !errors.Is(err, ErrBudget) {
		t.Errorf("a file that could never be whole: %v", err)
	}
}

// The attack: many uploads at once, each of which looks at the volume before the others have written.
func TestReserveOfTheVolumeIsKeptFromManyAtOnce(t *testing.T) {
	d := &Dir{Path: t.TempDir(), Reserve: 600, free: func(string) (int64, error) { return 1000, nil }}
	for range 4 {
		create(t, d, 100)
	}
	_, err := d.Create(t.Context(), 1)
	wantErr(t, err, ErrFull)
}
