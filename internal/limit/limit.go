// Package limit counts events by key, in a memory that has a bound.
//
// Each key has a bucket: so many at once, then one every so often. Keys come from
// outside (addresses, tokens), so their number is bounded: the bucket that is
// nearest to full makes room, and being forgotten is the same as being full.
package limit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a number of events in a time. The zero Rate is no limit.
type Rate struct {
	N   int
	Per time.Duration
}

// PerMinute is n events a minute; n ≤ 0 is no limit.
func PerMinute(n int) Rate { return Rate{max(n, 0), time.Minute} }

// PerSecond is n events a second; n ≤ 0 is no limit.
func PerSecond(n int) Rate { return Rate{max(n, 0), time.Second} }

func (r Rate) limit() rate.Limit { return rate.Limit(float64(r.N) / r.Per.Seconds()) }

// None tells whether this is no limit.
func (r Rate) None() bool { return r.N <= 0 || r.Per <= 0 }

// Buckets counts by key. Set Rate, and do not change it; it is safe for concurrent use.
// Nil is no limit.
type Buckets struct {
	Rate  Rate
	Burst int // at once; 0 means Rate.N
	Keys  int // that are remembered; 0 means 4096

	mu sync.Mutex
	m  map[string]*rate.Limiter
}

const defaultKeys = 4096

// Wait returns how long key has to wait until it may do one more, zero if it may now.
// Asking does not count.
func (b *Buckets) Wait(key string, now time.Time) time.Duration {
	if b == nil || b.Rate.None() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.m[key]
	if l == nil {
		return 0
	}
	return b.until(l.TokensAt(now))
}

// until is the time in which a bucket that holds these tokens gets its first whole one.
func (b *Buckets) until(tokens float64) time.Duration {
	if tokens >= 1 {
		return 0
	}
	return time.Duration((1 - tokens) / float64(b.Rate.limit()) * float64(time.Second))
}

// Count notes an event that has happened. A bucket does not go below empty.
func (b *Buckets) Count(key string, now time.Time) { b.Take(key, now) }

// Take notes an event if there is one left, and returns zero; else it notes nothing
// and returns how long to wait.
func (b *Buckets) Take(key string, now time.Time) time.Duration {
	if b == nil || b.Rate.None() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.bucket(key, now)
	if l.AllowN(now, 1) {
		return 0
	}
	return b.until(l.TokensAt(now))
}

// Reserve notes an event and returns how long to wait before it may happen. If that is
// more than most, it notes nothing, and ok is false.
func (b *Buckets) Reserve(key string, now time.Time, most time.Duration) (wait time.Duration, ok bool) {
	if b == nil || b.Rate.None() {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.bucket(key, now).ReserveN(now, 1)
	wait = r.DelayFrom(now)
	if wait > most {
		r.CancelAt(now)
		return wait, false
	}
	return wait, true
}

func (b *Buckets) bucket(key string, now time.Time) *rate.Limiter {
	l := b.m[key]
	if l == nil {
		burst := b.Burst
		if burst <= 0 {
			burst = b.Rate.N
		}
		if b.m == nil {
			b.m = make(map[string]*rate.Limiter)
		}
		b.makeRoom(now)
		l = rate.NewLimiter(b.Rate.limit(), burst)
		b.m[key] = l
	}
	return l
}

// makeRoom forgets a key: of a few, picked by the map's own random order, the one
// with the fullest bucket.
func (b *Buckets) makeRoom(now time.Time) {
	bound := b.Keys
	if bound <= 0 {
		bound = defaultKeys
	}
	if len(b.m) < bound {
		return
	}
	var fullest string
	var most float64
	looked := 0
	for key, l := range b.m {
		if n := l.TokensAt(now); looked == 0 || n > most {
			fullest, most = key, n
		}
		if looked++; looked == 16 {
			break
		}
	}
	delete(b.m, fullest)
}

// Len is how many keys are remembered.
func (b *Buckets) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.m)
}
