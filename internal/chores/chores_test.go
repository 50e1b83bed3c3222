package chores

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a Store.
type memory struct {
	mu   sync.Mutex
	runs map[string]time.Time
}

func remembers(runs map[string]time.Time) *memory { return &memory{runs: runs} }

func (m *memory) ChoreRuns(context.Context) (map[string]time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.runs), nil
}

func (m *memory) ChoreRan(_ context.Context, name string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs[name] = at
	return nil
}

func (m *memory) ran(name string) (at time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok = m.runs[name]
	return at, ok
}

// text is what was written so far, by whomever.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
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
		store := remembers(map[string]time.Time{"late": time.Now().Add(-13 * time.Hour), "recent": time.Now().Add(-time.Hour)})
		var done text
		chore := func(name string) Chore {
			return Chore{name, 12 * time.Hour, func(context.Context) (bool, error) { _, err := io.WriteString(&done, name+" "); return false, err }}
		}
		run(t, &Runner{Chores: []Chore{chore("recent"), chore("late"), chore("never")}, Store: store})
		synctest.Wait()
		if got := done.String(); got != "late never " && got != "never late " {
			t.Errorf("at start: %s", got)
		}
		if at, _ := store.ran("late"); at != time.Now() {
			t.Error("the run was not noted")
		}
		time.Sleep(11 * time.Hour)
		synctest.Wait()
		if got := done.String(); !strings.HasSuffix(got, " recent ") || strings.Count(got, " ") != 3 {
			t.Errorf("eleven hours later: %s", got)
		}
	})
}

// A machine that is stopped between two steps must find the chore overdue again.
func TestRunIsNotedAfterItsLastStepOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := remembers(map[string]time.Time{})
		var steps atomic.Int64
		run(t, &Runner{Store: store, Chores: []Chore{{"long", time.Hour, func(context.Context) (bool, error) {
			if _, noted := store.ran("long"); noted {
				t.Error("noted before it was done")
			}
			steps.Add(1)
			time.Sleep(time.Second)
			return steps.Load() < 5, nil
		}}}})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, noted := store.ran("long"); steps.Load() != 5 || !noted {
			t.Errorf("%d steps, noted: %v", steps.Load(), noted)
		}
	})
}

func TestStepWaitsUntilItIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		busy.Store(true)
		var steps atomic.Int64
		run(t, &Runner{Busy: busy.Load, Chores: []Chore{{"c", time.Hour, func(context.Context) (bool, error) { steps.Add(1); return false, nil }}}})
		time.Sleep(time.Minute)
		synctest.Wait()
		if steps.Load() != 0 {
			t.Error("in the way of requests")
		}
		busy.Store(false)
		time.Sleep(lookTime)
		synctest.Wait()
		if steps.Load() != 1 {
			t.Errorf("%d steps once it was quiet", steps.Load())
		}
	})
}

func TestStepIsAskedToStopWhenARequestComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		var log text
		var steps atomic.Int64
		run(t, &Runner{Busy: busy.Load, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Chores: []Chore{{"c", 12 * time.Hour, func(ctx context.Context) (bool, error) {
				steps.Add(1)
				if steps.Load() > 1 {
					return false, nil
				}
				<-ctx.Done()
				return false, ctx.Err()
			}}}})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		busy.Store(true)
		time.Sleep(2 * lookTime)
		synctest.Wait()
		if steps.Load() != 1 {
			t.Errorf("%d steps", steps.Load())
		}
		busy.Store(false)
		time.Sleep(2 * lookTime)
		synctest.Wait()
		if steps.Load() != 2 {
			t.Error("it did not go on when it was quiet again")
		}
		if log.String() != "" {
			t.Errorf("that is no error: %s", log.String())
		}
	})
}

func TestStepHasTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps atomic.Int64
		run(t, &Runner{Chores: []Chore{{"c", time.Hour, func(ctx context.Context) (bool, error) {
			steps.Add(1)
			<-ctx.Done()
			return true, nil
		}}}})
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if steps.Load() != 5 {
			t.Errorf("%d steps in nine seconds, want 5", steps.Load())
		}
	})
}

// Or a cache that is used around the clock is never collected.
func TestServerThatIsNeverQuietDoesItsChoresSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spent atomic.Int64
		run(t, &Runner{Busy: func() bool { return true }, Chores: []Chore{{"c", time.Hour, func(ctx context.Context) (bool, error) {
			time.Sleep(time.Second)
			spent.Add(1)
			return true, nil
		}}}, Store: remembers(map[string]time.Time{"c": time.Now()})})
		time.Sleep(2*time.Hour - time.Second)
		synctest.Wait()
		if spent.Load() != 0 {
			t.Errorf("%d s spent before it was overdue for long", spent.Load())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := spent.Load(); n < 60 || n > 240 {
			t.Errorf("%d s spent in an hour", spent.Load())
		}
	})
}

func TestFailingChoreIsLoggedOnceAndPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log text
		var works atomic.Bool
		var tries atomic.Int64
		run(t, &Runner{Log: slog.New(slog.NewTextHandler(&log, nil)), Chores: []Chore{
			{"bad", time.Minute, func(context.Context) (bool, error) {
				tries.Add(1)
				if !works.Load() {
					return true, errors.New("no bucket")
				}
				return false, nil
			}}}})
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if tries.Load() < 20 || tries.Load() > 40 || strings.Count(log.String(), "no bucket") != 1 {
			t.Errorf("%d tries in a day; the log:\n%s", tries.Load(), log.String())
		}
		works.Store(true)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if !strings.Contains(log.String(), "works again") {
			t.Errorf("the log does not say that it works again:\n%s", log.String())
		}
	})
}

func TestShortChoreDoesNotWaitForALongOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var short atomic.Int64
		run(t, &Runner{Chores: []Chore{
			{"long", time.Hour, func(context.Context) (bool, error) { time.Sleep(time.Second); return true, nil }},
			{"short", time.Minute, func(context.Context) (bool, error) { short.Add(1); return false, nil }},
		}})
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if short.Load() < 9 {
			t.Errorf("%d times in ten minutes", short.Load())
		}
	})
}

func TestLastRunInTheFutureDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Bool
		run(t, &Runner{Store: remembers(map[string]time.Time{"c": time.Now().Add(1000 * time.Hour)}),
			Chores: []Chore{{"c", time.Hour, func(context.Context) (bool, error) { done.Store(true); return false, nil }}}})
		synctest.Wait()
		if !done.Load() {
			t.Error("a clock that was wrong once stops the chore for weeks")
		}
	})
}
