package chores

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a Store.
type memory map[string]time.Time

func (m memory) ChoreRuns(context.Context) (map[string]time.Time, error) { return m, nil }
func (m memory) ChoreRan(_ context.Context, name string, at time.Time) error {
	m[name] = at
	return nil
}

// run runs r inside a bubble until the test's end.
func run(t *testing.T, r *Runner) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestOverdueChoreIsDoneAtStartAndNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory{"late": time.Now().Add(-13 * time.Hour), "recent": time.Now().Add(-time.Hour)}
		var done []string
		chore := func(name string) Chore {
			return Chore{name, 12 * time.Hour, func(context.Context) (bool, error) { done = append(done, name); return false, nil }}
		}
		run(t, &Runner{Chores: []Chore{chore("recent"), chore("late"), chore("never")}, Store: store})
		synctest.Wait()
		if got := strings.Join(done, " "); got != "late never" && got != "never late" {
			t.Errorf("at start: %s", got)
		}
		if store["late"] != time.Now() {
			t.Error("the run was not noted")
		}
		time.Sleep(11 * time.Hour)
		synctest.Wait()
		if len(done) != 3 || done[2] != "recent" {
			t.Errorf("eleven hours later: %s", done)
		}
	})
}

// A machine that is stopped between two steps must find the chore overdue again.
func TestRunIsNotedAfterItsLastStepOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory{}
		steps := 0
		run(t, &Runner{Store: store, Chores: []Chore{{"long", time.Hour, func(context.Context) (bool, error) {
			if _, noted := store["long"]; noted {
				t.Error("noted before it was done")
			}
			steps++
			time.Sleep(time.Second)
			return steps < 5, nil
		}}}})
		time.Sleep(10 * time.Second)
		if _, noted := store["long"]; steps != 5 || !noted {
			t.Errorf("%d steps, noted: %v", steps, noted)
		}
	})
}

func TestStepWaitsUntilItIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		busy.Store(true)
		steps := 0
		run(t, &Runner{Busy: busy.Load, Chores: []Chore{{"c", time.Hour, func(context.Context) (bool, error) { steps++; return false, nil }}}})
		time.Sleep(time.Minute)
		if steps != 0 {
			t.Error("in the way of requests")
		}
		busy.Store(false)
		time.Sleep(lookTime)
		synctest.Wait()
		if steps != 1 {
			t.Errorf("%d steps once it was quiet", steps)
		}
	})
}

func TestStepIsAskedToStopWhenARequestComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		var log bytes.Buffer
		steps := 0
		run(t, &Runner{Busy: busy.Load, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Chores: []Chore{{"c", 12 * time.Hour, func(ctx context.Context) (bool, error) {
				steps++
				if steps > 1 {
					return false, nil
				}
				<-ctx.Done()
				return false, ctx.Err()
			}}}})
		time.Sleep(500 * time.Millisecond)
		busy.Store(true)
		time.Sleep(2 * lookTime)
		synctest.Wait()
		if steps != 1 {
			t.Errorf("%d steps", steps)
		}
		busy.Store(false)
		time.Sleep(2 * lookTime)
		if steps != 2 {
			t.Error("it did not go on when it was quiet again")
		}
		if log.Len() > 0 {
			t.Errorf("that is no error: %s", log.String())
		}
	})
}

func TestStepHasTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := 0
		run(t, &Runner{Chores: []Chore{{"c", time.Hour, func(ctx context.Context) (bool, error) {
			steps++
			<-ctx.Done()
			return true, nil
		}}}})
		time.Sleep(9 * time.Second)
		if steps != 5 {
			t.Errorf("%d steps in nine seconds, want 5", steps)
		}
	})
}

// Or a cache that is used around the clock is never collected.
func TestServerThatIsNeverQuietDoesItsChoresSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spent time.Duration
		run(t, &Runner{Busy: func() bool { return true }, Chores: []Chore{{"c", time.Hour, func(ctx context.Context) (bool, error) {
			time.Sleep(time.Second)
			spent += time.Second
			return true, nil
		}}}, Store: memory{"c": time.Now()}})
		time.Sleep(2*time.Hour - time.Second)
		if spent != 0 {
			t.Errorf("%s spent before it was overdue for long", spent)
		}
		time.Sleep(time.Hour)
		if spent < time.Minute || spent > 4*time.Minute {
			t.Errorf("%s spent in an hour", spent)
		}
	})
}

func TestFailingChoreIsLoggedOnceAndPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		fail, tries := true, 0
		run(t, &Runner{Log: slog.New(slog.NewTextHandler(&log, nil)), Chores: []Chore{
			{"bad", time.Minute, func(context.Context) (bool, error) {
				tries++
				if fail {
					return true, errors.New("no bucket")
				}
				return false, nil
			}}}})
		time.Sleep(24 * time.Hour)
		if tries < 20 || tries > 40 || strings.Count(log.String(), "no bucket") != 1 {
			t.Errorf("%d tries in a day; the log:\n%s", tries, log.String())
		}
		fail = false
		time.Sleep(2 * time.Hour)
		if !strings.Contains(log.String(), "works again") {
			t.Errorf("the log does not say that it works again:\n%s", log.String())
		}
	})
}

func TestShortChoreDoesNotWaitForALongOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short := 0
		run(t, &Runner{Chores: []Chore{
			{"long", time.Hour, func(context.Context) (bool, error) { time.Sleep(time.Second); return true, nil }},
			{"short", time.Minute, func(context.Context) (bool, error) { short++; return false, nil }},
		}})
		time.Sleep(10*time.Minute + time.Second)
		if short < 9 {
			t.Errorf("%d times in ten minutes", short)
		}
	})
}

func TestLastRunInTheFutureDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := false
		run(t, &Runner{Store: memory{"c": time.Now().Add(1000 * time.Hour)},
			Chores: []Chore{{"c", time.Hour, func(context.Context) (bool, error) { done = true; return false, nil }}}})
		synctest.Wait()
		if !done {
			t.Error("a clock that was wrong once stops the chore for weeks")
		}
	})
}
