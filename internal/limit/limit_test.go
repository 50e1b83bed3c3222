package limit

import (
	"strconv"
	"testing"
	"time"
)

var epoch = time.Unix(1_790_000_000, 0)

func TestTakeAllowsABurstAndThenTheRate(t *testing.T) {
	b := &Buckets{Rate: PerMinute(10)}
	for i := range 10 {
		if w := b.Take("a", epoch); w != 0 {
			t.Fatalf("event %d waits %s", i, w)
		}
	}
	if w := b.Take("a", epoch); w != 6*time.Second {
		t.Errorf("the 11th waits %s, want 6s", w)
	}
	if w := b.Take("b", epoch); w != 0 {
		t.Errorf("another key waits %s", w)
	}
	// Asking again and again does not lengthen the wait.
	for range 100 {
		b.Take("a", epoch)
	}
	if w := b.Wait("a", epoch.Add(6*time.Second)); w != 0 {
		t.Errorf("after the wait it waits %s", w)
	}
	if w := b.Take("a", epoch.Add(6*time.Second)); w != 0 {
		t.Errorf("after the wait it is refused for %s", w)
	}
}

func TestReserveSpreadsEventsAndRefusesWhatWouldWaitTooLong(t *testing.T) {
	b := &Buckets{Rate: PerSecond(10), Burst: 5}
	for i := range 10 {
		w, ok := b.Reserve("a", epoch, time.Second)
		want := max(0, time.Duration(i-4)*100*time.Millisecond)
		if !ok || w.Round(time.Millisecond) != want {
			t.Fatalf("event %d: got %s, %v, want %s", i, w, ok, want)
		}
	}
	for range 5 {
		b.Reserve("a", epoch, time.Second)
	}
	for range 100 {
		w, ok := b.Reserve("a", epoch, time.Second)
		if ok || w.Round(time.Millisecond) != 1100*time.Millisecond {
			t.Fatalf("one too many: got %s, %v", w, ok)
		}
	}
}

func TestNoRateIsNoLimit(t *testing.T) {
	b := &Buckets{Rate: PerMinute(-1)}
	for range 1000 {
		if w, ok := b.Reserve("a", epoch, 0); !ok || w != 0 || b.Take("a", epoch) != 0 || b.Wait("a", epoch) != 0 {
			t.Fatal("it limits")
		}
	}
	if b.Len() != 0 {
		t.Error("it remembers keys")
	}
}

// The attack: a botnet, or a forged header, brings a new key with every request.
func TestMemoryIsBoundedAndTheGuiltyAreKept(t *testing.T) {
	b := &Buckets{Rate: PerMinute(10), Keys: 100}
	for range 10 {
		b.Take("guilty", epoch)
	}
	for i := range 10_000 {
		b.Take("key-"+strconv.Itoa(i), epoch)
		if b.Len() > 100 {
			t.Fatalf("%d keys are remembered", b.Len())
		}
	}
	if b.Wait("guilty", epoch) == 0 {
		t.Error("10,000 new keys have made it forget the one that must wait")
	}
}
