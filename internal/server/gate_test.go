package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func take(t *testing.T, g *gate, holder string, n int64, m *meter) (leave func()) {
	t.Helper()
	leave, err := g.acquire(t.Context(), holder, n, m)
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// A meter whose client sends nothing, and what it was told.
func silent() *meter {
	m := &meter{setDeadline: func(time.Time) error { return nil }}
	m.begin(time.Now(), time.Now())
	return m
}

func isCut(m *meter) bool { _, cut := m.waiting(time.Second); return cut }

// Attack: one token fills every place, and others wait.
func TestNoHolderHasMoreThanHalfOfTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(16, time.Minute)
		for range 8 {
			take(t, g, "a", 1, nil)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := g.acquire(ctx, "a", 1, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a ninth place: %v", err)
		}
		for range 4 {
			take(t, g, "b", 1, nil)
		}
		take(t, g, "c", 1, nil)
		take(t, g, "d", 1, nil)
	})
}

func TestWhoHasNothingGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4, time.Minute)
		leave := take(t, g, "a", 1, nil)
		take(t, g, "a", 1, nil)
		take(t, g, "b", 1, nil)
		take(t, g, "c", 1, nil)
		var order []string
		for _, holder := range []string{"a", "b", "d"} {
			go func() {
				leave, err := g.acquire(t.Context(), holder, 1, nil)
				if err != nil {
					return // at the end of the test
				}
				order = append(order, holder)
				_ = leave
			}()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		if len(order) != 1 || order[0] != "d" {
			t.Errorf("got in: %v", order)
		}
	})
}

// What needs all of the gate gets in, though others with less come all the time.
func TestALargeShareIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4, time.Minute)
		leave := take(t, g, "a", 1, nil)
		large := make(chan func())
		go func() { large <- take(t, g, "b", 4, nil) }()
		synctest.Wait()
		small := make(chan func())
		go func() { small <- take(t, g, "c", 1, nil) }()
		synctest.Wait()
		leave()
		(<-large)()
		(<-small)()
		if g.free != 4 || len(g.held)+len(g.places)+len(g.waiting) != 0 {
			t.Errorf("something is left: %+v", g)
		}
	})
}

// Attack: uploads that trickle hold every place for ever, from many tokens.
func TestTheSlowestMakesRoomForWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(3, 10*time.Second)
		slowest := silent()
		leave := take(t, g, "a", 1, slowest)
		time.Sleep(time.Second)
		slow := silent()
		take(t, g, "b", 1, slow)
		working := &meter{} // the server has all that its client sent
		take(t, g, "c", 1, working)
		time.Sleep(time.Hour)
		if isCut(slowest) || isCut(slow) {
			t.Error("cut off while nobody waited")
		}
		go func() {
			for !isCut(slowest) {
				time.Sleep(time.Second)
			}
			leave()
		}()
		take(t, g, "d", 1, nil)
		if !isCut(slowest) || isCut(slow) || isCut(working) {
			t.Errorf("slowest %v, slow %v, working %v", isCut(slowest), isCut(slow), isCut(working))
		}
	})
}

// Attack: one who has places queues for more, to have others cut off.
func TestAHolderDisplacesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2, 10*time.Second)
		others, own := silent(), silent()
		take(t, g, "a", 1, others)
		leave := take(t, g, "b", 1, own)
		go func() {
			for !isCut(own) {
				time.Sleep(time.Second)
			}
			leave()
		}()
		take(t, g, "b", 1, nil)
		if isCut(others) {
			t.Error("somebody else's upload was cut off")
		}
	})
}

func TestMeterForgivesWhoMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{setDeadline: func(time.Time) error { return nil }}
		for range 100 { // 50 KiB/s
			m.begin(time.Now(), time.Now())
			time.Sleep(time.Second)
			if waited, _ := m.waiting(10 * time.Second); waited >= 10*time.Second {
				t.Fatalf("counted as slow after %v", waited)
			}
			m.end(50 << 10)
		}
		m.reset()
		for range 20 { // a step in more than ten seconds
			m.begin(time.Now(), time.Now())
			time.Sleep(time.Second)
			m.end(4 << 10)
		}
		if waited, _ := m.waiting(10 * time.Second); waited < 10*time.Second {
			t.Errorf("a trickle counts as %v", waited)
		}
	})
}

// Attack: bodies at just the pace that is asked for hold every place for an hour.
func TestTheLongerItTakesTheFasterItMustBe(t *testing.T) {
	const patience = 10 * time.Second
	for rate, want := range map[int]time.Duration{ // KiB/s: when it is too slow for those who wait
		27: time.Minute, 60: 5 * time.Minute, 110: 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &meter{setDeadline: func(time.Time) error { return nil }}
			for s := range 3600 {
				m.begin(time.Now(), time.Now())
				time.Sleep(time.Second)
				m.end(rate << 10)
				waited, _ := m.waiting(patience)
				if slow, at := waited >= patience, time.Duration(s+1)*time.Second; slow {
					if want == 0 || at > want {
						t.Errorf("%d KiB/s is slow after %v, want before %v (0: never)", rate, at, want)
					}
					return
				}
			}
			if want != 0 {
				t.Errorf("%d KiB/s is fast enough for ever", rate)
			}
		})
	}
}
