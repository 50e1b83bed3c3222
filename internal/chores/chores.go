// Package chores does what is due by the clock on a machine that is asleep most of the time.
//
// A machine that stops when idle never comes to "every 12 hours", so when a chore was last done is in the
// database: what is overdue is found at start. It is done in steps, one chore at a time, while nobody waits
// for an answer:
//
//	sleep until due ── wait until quiet ── step ── more? ─┐
//	      ▲                    ▲                          │ yes
//	      └── note the run ◄───┼──────────── no ──────────┤
//	                           └──────────────────────────┘
//
// A step that is under way when a request comes is asked to stop, by its context, and goes on later. On a
// server that is never quiet a chore that has been overdue for as long as its own interval is done
// all the same, with long pauses between its steps.
package chores

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Chore is work that comes again and again.
type Chore struct {
	Name  string        // unique, and the same in every version: the last run is kept under it
	Every time.Duration // from the end of one run to the beginning of the next

	// Step does a part of the work, in at most about two seconds, and says whether more is left. It leaves
	// everything in a state from which the next step goes on, be it after a restart. Its context ends after
	// two seconds, or when a request comes; the error it returns because of that means "more".
	Step func(ctx context.Context) (more bool, err error)
}

// Store keeps when chores were last done. *meta.DB is one.
type Store interface {
	// ChoreRuns returns the last runs by name.
	ChoreRuns(ctx context.Context) (map[string]time.Time, error)
	// ChoreRan notes a run that is over.
	ChoreRan(ctx context.Context, name string, at time.Time) error
}

// Runner does chores. Fill in the fields, then call Run once.
type Runner struct {
	Chores []Chore
	Store  Store            // nil: nothing is remembered past the end of the process
	Busy   func() bool      // requests are under way, or were within the last seconds; nil means never
	Now    func() time.Time // nil means time.Now
	Log    *slog.Logger     // nil means slog.Default()

	started  time.Time
	last     map[string]time.Time // of each chore
	failures map[string]int       // in a row
	retry    map[string]time.Time // not before, after a failure
}

const (
	stepTime = 2 * time.Second // of a step
	lookTime = 100 * time.Millisecond
	// remembered are runs of chores that come so seldom or more seldom. The others would write a row a
	// minute on an idle server, and are soon due again anyway.
	remembered = 10 * time.Minute
	maxBackoff = time.Hour
	// share is the part of the time that steps may take on a server that is never quiet.
	share = 20
)

// errRequest is why a step's context ends when a request comes.
var errRequest = errors.New("a request came")

// Run does what is due until ctx ends, and returns nil then. Errors of chores are logged and retried later;
// the first of a row only, for a bucket that is away would fill the log.
func (r *Runner) Run(ctx context.Context) error {
	if err := r.start(ctx); err != nil {
		return err
	}
	for {
		c, due := r.next()
		if c == nil || !r.sleep(ctx, due.Sub(r.Now())) {
			<-ctx.Done()
			return nil
		}
		pause, done, err := r.step(ctx, c, due)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			r.failed(c, err)
		case done:
			r.done(ctx, c)
		default:
			r.sleep(ctx, pause)
		}
	}
}

func (r *Runner) start(ctx context.Context) (err error) {
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Log == nil {
		r.Log = slog.Default()
	}
	r.started = r.Now()
	r.last, r.failures, r.retry = map[string]time.Time{}, map[string]int{}, map[string]time.Time{}
	if r.Store == nil {
		return nil
	}
	runs, err := r.Store.ChoreRuns(ctx)
	for name, at := range runs {
		if !at.After(r.Now()) { // else the clock was wrong then, or is now: better once too often
			r.last[name] = at
		}
	}
	return err
}

// next is the chore to do next, and since or from when it is due. Of several that are due the one that comes
// most often is first: it is short, and must not wait for the hundred steps of another. A chore that was never
// done is due at once.
func (r *Runner) next() (chore *Chore, due time.Time) {
	now := r.Now()
	for i := range r.Chores {
		c := &r.Chores[i]
		at := r.last[c.Name].Add(c.Every)
		if retry := r.retry[c.Name]; retry.After(at) {
			at = retry
		}
		before := at.Before(due)
		if !at.After(now) && !due.After(now) {
			before = chore != nil && c.Every < chore.Every
		}
		if chore == nil || before {
			chore, due = c, at
		}
	}
	return chore, due
}

func (r *Runner) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Runner) busy() bool { return r.Busy != nil && r.Busy() }

// step waits until it is quiet, or has waited for long enough, and does one step. pause is how long the next
// one should wait.
func (r *Runner) step(ctx context.Context, c *Chore, due time.Time) (pause time.Duration, done bool, err error) {
	if due.Before(r.started) {
		due = r.started // what is overdue at start has not waited since
	}
	for r.busy() && r.Now().Sub(due) < c.Every {
		if !r.sleep(ctx, lookTime) {
			return 0, false, ctx.Err()
		}
	}
	step, end := context.WithTimeout(ctx, stepTime)
	defer end()
	quiet := !r.busy()
	if quiet {
		var stop context.CancelCauseFunc
		step, stop = context.WithCancelCause(step)
		watched := make(chan struct{})
		defer func() { stop(nil); <-watched }()
		go func() { defer close(watched); r.watch(step, stop) }()
	}
	start := time.Now()
	more, err := c.Step(step)
	if err != nil && step.Err() != nil && ctx.Err() == nil &&
		(errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Cause(step))) {
		more, err = true, nil // it was asked to stop
	}
	if !quiet {
		pause = share * time.Since(start)
	}
	return pause, !more, err
}

// watch ends a step when a request comes.
func (r *Runner) watch(step context.Context, stop context.CancelCauseFunc) {
	for r.sleep(step, lookTime) {
		if r.busy() {
			stop(errRequest)
			return
		}
	}
}

func (r *Runner) done(ctx context.Context, c *Chore) {
	if r.failures[c.Name] > 0 {
		r.Log.Info("chore works again", "chore", c.Name)
	}
	delete(r.failures, c.Name)
	delete(r.retry, c.Name)
	r.last[c.Name] = r.Now()
	if r.Store == nil || c.Every < remembered {
		return
	}
	if err := r.Store.ChoreRan(ctx, c.Name, r.last[c.Name]); err != nil && ctx.Err() == nil {
		r.Log.Warn("note chore", "chore", c.Name, "error", err) // it will be done once too often
	}
}

// failed puts a chore off: a minute, two, four, up to an hour.
func (r *Runner) failed(c *Chore, err error) {
	n := r.failures[c.Name]
	r.failures[c.Name]++
	wait := min(time.Minute<<min(n, 10), maxBackoff)
	r.retry[c.Name] = r.Now().Add(wait)
	if n == 0 {
		r.Log.Error("chore", "chore", c.Name, "error", err, "again_in", wait)
	}
}
