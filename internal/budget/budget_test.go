package budget

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func acquire(t *testing.T, b *Bytes, n int64) func() {
	t.Helper()
	release, err := b.Acquire(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// later acquires in the background; the channel has the release, or nil when it gave up.
func later(ctx context.Context, b *Bytes, n int64) chan func() {
	got := make(chan func(), 1)
	go func() {
		release, _ := b.Acquire(ctx, n)
		got <- release
	}()
	synctest.Wait()
	return got
}

func TestAcquireWaitsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(10)
		first := acquire(t, b, 8)
		large := later(t.Context(), b, 9)
		small := later(t.Context(), b, 1) // would fit, but a large request must not starve
		if len(large)+len(small) != 0 {
			t.Fatal("did not wait")
		}
		if _, ok := b.TryAcquire(1); ok {
			t.Error("TryAcquire went past those who wait")
		}
		first()
		first() // twice is harmless
		synctest.Wait()
		(<-large)()
		(<-small)()
		if b.Used() != 0 {
			t.Errorf("%d bytes used at the end", b.Used())
		}
	})
}

func TestRequestLargerThanTheBudgetRunsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(10)
		first := acquire(t, b, 1)
		huge := later(t.Context(), b, math.MaxInt64)
		if len(huge) != 0 {
			t.Fatal("did not wait for the other one")
		}
		first()
		release := <-huge
		if b.Used() != b.Total() {
			t.Errorf("%d bytes used, want all %d", b.Used(), b.Total())
		}
		release()
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(10)
		first := acquire(t, b, 8)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		large := later(ctx, b, 9)
		small := later(t.Context(), b, 2)
		if release := <-large; release != nil {
			t.Fatal("bytes beyond the budget")
		}
		(<-small)() // who held it up is gone
		first()
		if b.Used() != 0 || len(b.waiting) != 0 {
			t.Errorf("%d bytes used, %d waiting", b.Used(), len(b.waiting))
		}
		over, stop := context.WithCancel(t.Context())
		stop()
		if _, err := b.Acquire(over, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("acquired for a request that is over: %v", err)
		}
	})
}

func TestNoBudgetHasNoLimit(t *testing.T) {
	var b *Bytes
	acquire(t, b, math.MaxInt64)()
	release, ok := b.TryAcquire(math.MaxInt64)
	if !ok || b.Total() != math.MaxInt64 || b.Used() != 0 {
		t.Error("a nil budget is limited")
	}
	release()
}

func TestBudgetHoldsUnderManyTasks(t *testing.T) {
	b := New(100)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%7 == 0 {
				go cancel() // some give up at the moment they are served
			}
			release, err := b.Acquire(ctx, int64(i%60))
			if err != nil {
				return
			}
			if used := b.Used(); used > b.Total() {
				t.Errorf("%d bytes used", used)
			}
			release()
		})
	}
	wg.Wait()
	if b.Used() != 0 || len(b.waiting) != 0 {
		t.Errorf("%d bytes used, %d waiting", b.Used(), len(b.waiting))
	}
}
