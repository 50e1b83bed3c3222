// Package verify looks whether what was stored is still there, and puts what is not into quarantine, so that
// its paths are built or found elsewhere until a push brings it back.
//
//	storage     the listing against the database              a request for a thousand objects
//	log         objects of the log and of the checkpoint      all of them, hashed
//	unverified  NARs that were put together from chunks       read and hashed; then they are verified
//	packs       the index at each pack's end                  deep: every chunk, hashed
//	contents    deep: the other NARs                          read and hashed
//	paths       layouts and references                        in the database
//
// It goes in steps of two seconds at most. How far it is lies in the database, so what is broken off goes on
// where it was; packs and NARs are taken by their ids, so what comes meanwhile is looked at too.
//
// What looks damaged is read again before it is believed (depot.Check), and errors of the store are errors: a
// bucket that is away makes nothing damaged.
package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/recovery"
)

// Facts of the database: the last result, and how far the runs are that somebody asked for, and that the clock
// did.
const (
	factResult = "verify_result"
	factAsked  = "verify_run"
	factClock  = "verify_clock"
)

// Verifier checks. Fill in the fields; it may be used by many goroutines, and does one step at a time.
type Verifier struct {
	DB    *meta.DB
	Depot *depot.Depot
	Blobs recovery.Blobs
	Log   *slog.Logger     // nil means none
	Now   func() time.Time // nil means time.Now

	// Renew makes a checkpoint, which takes the place of a log or checkpoint that is damaged; nil: nobody can.
	Renew func(context.Context) error
	// Keys says what is wrong with the storage's id and keys, a line each; nil: nobody asks.
	Keys func(context.Context) ([]string, error)
	// Again is how long to wait before something is read once more; 0 means half a second.
	Again time.Duration

	mu       sync.Mutex
	once     sync.Once
	suspects chan int64
}

// Options say what a run reads. Runs of other options are other runs.
type Options struct {
	Deep   bool    `json:"deep,omitempty"`
	Sample float64 `json:"sample,omitempty"` // the part of packs and NARs that is read, above 0 and below 1; 0: all
	// Budget is how many bytes a run reads; 0: all. The next one goes on with the packs where it has stopped.
	Budget int64 `json:"budget,omitempty"`
	Rate   int64 `json:"-"` // bytes a second at most; 0: as fast as it goes
}

// Finding is something that is not as it should be.
type Finding struct {
	What  string `json:"what"`  // "missing", "damaged", "wrong", "unreadable", "reference"
	Where string `json:"where"` // an object's key, or a path
	Why   string `json:"why"`
}

func (f Finding) String() string { return f.What + ": " + f.Where + ": " + f.Why }

// Count is what was looked at.
type Count struct {
	Objects  int64 `json:"objects"` // that are where the database says
	Packs    int64 `json:"packs"`   // read, in part or whole
	Chunks   int64 `json:"chunks"`  // read and hashed
	NARs     int64 `json:"nars"`    // the same
	Verified int64 `json:"verified"`
	Paths    int64 `json:"paths"`
	Bytes    int64 `json:"bytes"` // read
}

// Result is what a run came to.
type Result struct {
	Options
	Count
	Begun    time.Time `json:"begun"`
	Ended    time.Time `json:"ended"`
	Damage   int       `json:"damage"`   // findings
	Findings []Finding `json:"findings"` // the first of them
	Released int       `json:"released"` // packs that are as they were stored again
	Healed   int       `json:"healed"`   // paths that were put on other copies
	Waiting  int64     `json:"waiting"`  // paths that are absent until they are pushed again
	Partly   bool      `json:"partly,omitempty"`
}

// maxFindings bounds what is kept in the database.
const maxFindings = 200

// Progress is what a step did.
type Progress struct {
	Stage    string             `json:"stage"`
	Count    Count              `json:"count"`
	Of       int64              `json:"of,omitempty"` // packs that there are
	Resumed  bool               `json:"resumed,omitempty"`
	Findings []Finding          `json:"findings,omitempty"` // of this step
	Result   *Result            `json:"result,omitempty"`   // set at the end
	Waiting  []meta.WaitingPath `json:"waiting,omitempty"`  // with it; the first of them
}

// state is how far a run is.
type state struct {
	Result
	Stage   int                `json:"stage"`
	After   int64              `json:"after,omitempty"` // the last id that is done
	Key     string             `json:"key,omitempty"`   // or key
	Pos     depot.PackPosition `json:"pack"`            // in the pack behind it
	Bad     bool               `json:"bad,omitempty"`   // something was found in that pack
	NAR     *depot.NARPosition `json:"nar,omitempty"`
	Packs   int64              `json:"packs_after,omitempty"` // where the next run goes on, of those with a budget
	LogBad  bool               `json:"log_bad,omitempty"`
	Errors  int                `json:"errors,omitempty"` // in a row
	Ran     bool               `json:"ran,omitempty"`    // it is over
	Seed    uint64             `json:"seed,omitempty"`
	Spent   int64              `json:"spent,omitempty"` // of the budget
	Counted int64              `json:"packs_there,omitempty"`
}

var stages = []struct {
	name string
	do   func(*run, context.Context) (done bool, err error)
}{
	{"storage", (*run).storage}, {"log", (*run).log}, {"unverified", (*run).unverified}, {"packs", (*run).packs},
	{"contents", (*run).contents}, {"paths", (*run).paths}, {"end", (*run).end},
}

// run is a step of one.
type run struct {
	*Verifier
	state
	fact    string
	rate    int64
	start   time.Time
	until   time.Time
	taken   int64 // bytes of this step
	checker *depot.Check
	found   []Finding
	right   []int64 // NARs that are verified now; noted with how far it is, for each record is a request
	waiting []meta.WaitingPath
}

// stepTime is how long a step takes, about. Package chores ends it after two seconds.
const stepTime = 1500 * time.Millisecond

// Step does a part of the run that somebody asks for, with these options; anew: from the beginning. It goes on
// with one that was broken off. The answer has a Result when it is over; beside an error it has what was found.
func (v *Verifier) Step(ctx context.Context, o Options, anew bool) (*Progress, error) {
	return v.step(ctx, factAsked, o, anew)
}

// Clock is Step for package chores: a run that reads some of the packs, and the next ones another time.
func (v *Verifier) Clock(ctx context.Context, o Options) (more bool, err error) {
	p, err := v.step(ctx, factClock, o, false)
	if p == nil {
		return false, err
	}
	for _, f := range p.Findings {
		v.log().Error("the storage has lost something", "what", f.What, "where", f.Where, "why", f.Why)
	}
	return p.Result == nil, err
}

func (v *Verifier) step(ctx context.Context, fact string, o Options, anew bool) (*Progress, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r, resumed, err := v.load(ctx, fact, o, anew)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	p := &Progress{Stage: stages[r.Stage].name, Resumed: resumed, Of: r.Counted}
	err = r.advance(ctx)
	saved := r.save(ctx) // what was found is kept whatever stopped it
	p.Count, p.Findings, p.Of = r.Count, r.found, r.Counted
	if err = errors.Join(err, saved); err != nil {
		return p, fmt.Errorf("verify: %w", err)
	}
	if r.Ran {
		p.Result, p.Waiting = &r.Result, r.waiting
	}
	return p, nil
}

// load reads how far the run is. One that is over, or of other options, begins anew.
func (v *Verifier) load(ctx context.Context, fact string, o Options, anew bool) (r *run, resumed bool, err error) {
	r = &run{Verifier: v, fact: fact, rate: o.Rate, start: time.Now()}
	r.until = r.start.Add(stepTime)
	var text []byte
	err = v.DB.View(ctx, func(tx *meta.Tx) (err error) {
		text, err = tx.Fact(fact)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	o.Rate = 0
	if text != nil && !anew && json.Unmarshal(text, &r.state) == nil && r.Options == o && !r.Ran && r.Stage < len(stages) {
		return r, true, nil
	}
	packs := r.state.Packs
	if r.Options != o {
		packs = 0
	}
	now := v.now()
	r.state = state{Result: Result{Options: o, Begun: now, Findings: []Finding{}}, Packs: packs, Seed: uint64(now.UnixNano())}
	return r, false, nil
}

func (r *run) save(ctx context.Context) error {
	text, err := json.Marshal(&r.state)
	if err != nil {
		return err
	}
	// What was done is noted even if somebody has asked to stop.
	return r.DB.Update(context.WithoutCancel(ctx), func(tx *meta.Tx) error {
		for _, id := range r.right {
			if err := tx.SetVerified(id); err != nil && !errors.Is(err, meta.ErrNotFound) {
				return err
			}
		}
		if err := tx.SetFact(r.fact, text); err != nil || !r.Ran {
			return err
		}
		text, err := json.Marshal(&r.Result)
		if err == nil {
			err = tx.SetFact(factResult, text)
		}
		return err
	})
}

// advance goes on until time is up. What is found is spread to its paths before more is read.
func (r *run) advance(ctx context.Context) error {
	for !r.Ran {
		if more, err := r.Depot.Spread(ctx); err != nil {
			return err
		} else if !more {
			done, err := stages[r.Stage].do(r, ctx)
			if err != nil {
				return err
			}
			if done {
				r.Stage++
				r.After, r.Key, r.Pos, r.Bad, r.NAR = 0, "", depot.PackPosition{}, false, nil
			}
		}
		if r.late() || len(r.found) > 0 {
			return ctx.Err()
		}
	}
	return nil
}

func (r *run) late() bool { return !time.Now().Before(r.until) }

// read holds the rate.
func (r *run) read(ctx context.Context, n int64) error {
	r.Bytes += n
	r.taken += n
	if r.rate <= 0 {
		return ctx.Err()
	}
	wait := time.Duration(float64(r.taken)/float64(r.rate)*float64(time.Second)) - time.Since(r.start)
	if wait <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spent says that a run with a budget has read enough.
func (r *run) spent() bool { return r.Budget > 0 && r.Spent >= r.Budget }

// check reads packs and NARs.
func (r *run) check() *depot.Check {
	if r.checker != nil {
		return r.checker
	}
	c := &depot.Check{Depot: r.Depot, Late: r.late, Again: r.Again, Read: func(ctx context.Context, n int64) error {
		r.Spent += n
		return r.read(ctx, n)
	}}
	if r.rate > 0 {
		c.Part = max(r.rate, 1<<20) // a store ends connections on which nothing moves
	}
	r.checker = c
	return c
}

func (r *run) finding(what, where, format string, args ...any) {
	f := Finding{what, where, fmt.Sprintf(format, args...)}
	if r.Damage++; len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, f)
	}
	r.found = append(r.found, f)
}

// maxErrors in a row are the storage's, and not those of single objects.
const maxErrors = 3

// unreadable notes an object that the store cannot read, though it answers. err is nil when the run goes on.
func (r *run) unreadable(ctx context.Context, where string, err error) error {
	if err == nil {
		r.Errors = 0
		return nil
	}
	if ctx.Err() != nil || errors.Is(err, blob.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if r.Errors++; r.Errors >= maxErrors {
		return err
	}
	r.finding("unreadable", where, "%v", err)
	return nil
}

// Last is the result of the last run that was over, asked for or by the clock; nil: there was none.
func (v *Verifier) Last(ctx context.Context) (*Result, error) {
	var text []byte
	err := v.DB.View(ctx, func(tx *meta.Tx) (err error) {
		text, err = tx.Fact(factResult)
		return err
	})
	if err != nil || text == nil {
		return nil, err
	}
	var res Result
	if err := json.Unmarshal(text, &res); err != nil {
		return nil, fmt.Errorf("read the last result: %w", err)
	}
	return &res, nil
}

func (v *Verifier) now() time.Time {
	if v.Now == nil {
		return time.Now().UTC()
	}
	return v.Now().UTC()
}

func (v *Verifier) log() *slog.Logger {
	if v.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return v.Log
}
