package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/org/attic-action/internal/blob"
)

const (
	// firstPause and longestPause bound the random pause between two attempts;
	// its bound doubles from one to the other.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// answerFactor is how many times longer than between two bytes an answer may
	// take once the whole request is sent: services store before they answer.
	answerFactor = 2
)

// errStalled ends an attempt that made no progress.
var errStalled = errors.New("the connection stalled")

// watch ends an attempt that goes without progress for too long.
type watch struct {
	ctx    context.Context // of the attempt
	stall  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func newWatch(ctx context.Context, stall time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{ctx: ctx, stall: stall, cancel: cancel}
	w.timer = time.AfterFunc(answerFactor*stall, func() { cancel(fmt.Errorf("%w for %v", errStalled, stall)) })
	return ctx, w
}

// moved says that a byte passed; sent, that the last one of a request did.
func (w *watch) moved() { w.timer.Reset(w.stall) }
func (w *watch) sent()  { w.timer.Reset(answerFactor * w.stall) }

// pause stops the clock while nothing is asked of the service; moved goes on.
func (w *watch) pause() { w.timer.Stop() }

func (w *watch) stalled() bool { return errors.Is(context.Cause(w.ctx), errStalled) }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// retry makes attempts until one succeeds or fails for good, ctx ends, or it is
// patience since the first one failed: an upload that took long before it broke is
// tried again, too. Each has a context of its own, which is over
// when the attempt is.
func (s *Store) retry(ctx context.Context, patience time.Duration, once func(context.Context, *watch) error) error {
	return s.retryOpen(ctx, patience, func(ctx context.Context, w *watch) error {
		defer w.end()
		return once(ctx, w)
	})
}

// retryOpen leaves the watch of the attempt that succeeded running, for a body
// that is still to be read.
func (s *Store) retryOpen(ctx context.Context, patience time.Duration, once func(context.Context, *watch) error) error {
	var failed time.Time
	for n := 0; ; n++ {
		err := s.attempt(ctx, once)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause, again := s.pauseAfter(err, n)
		if !again {
			return err
		}
		if n == 0 {
			failed = time.Now()
		}
		if time.Since(failed)+pause > patience {
			return fmt.Errorf("%w: %w (attempt %d, given up)", blob.ErrUnavailable, err, n+1)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// attempt runs once, and says of its error what it is.
func (s *Store) attempt(ctx context.Context, once func(context.Context, *watch) error) error {
	skew := s.clock.skew()
	actx, w := newWatch(ctx, s.stall)
	err := once(actx, w)
	if err == nil {
		return nil
	}
	w.end()
	if w.stalled() {
		return &refusal{transient: true, err: context.Cause(actx)}
	}
	return s.explain(err, (s.clock.skew()-skew).Abs() > skewAllowed)
}

// pauseAfter says how long to wait after the error of attempt n (from 0), and
// whether to try again at all.
func (s *Store) pauseAfter(err error, n int) (time.Duration, bool) {
	var r *refusal
	if !errors.As(err, &r) || !r.transient {
		return 0, false
	}
	if r.clock && n == 0 {
		return 0, true // the SDK has learned the time
	}
	pause := rand.N(min(s.pause<<min(n, 10), longestPause)) + s.pause/10
	return max(pause, min(r.retryAfter, 2*longestPause)), true
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// passing tells whether a status may be another one next time.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return status >= 520 && status <= 530 // Cloudflare's, in front of R2
}
