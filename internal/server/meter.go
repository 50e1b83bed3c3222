package server

import (
	"errors"
	"sync"
	"time"
)

// errDisplaced marks the read that a meter broke off.
var errDisplaced = errors.New("slow while others waited for its place")

// meterStep is how many bytes a client has to send within a gate's patience to keep its
// place while others wait: at 10 s, 25 KiB/s.
const meterStep = 256 << 10

// Who keeps just this pace could hold a place for an hour, and a few could hold all of
// them. So the longer a request takes, the faster it has to have been: twice that after
// paceGrowth, and so on, up to paceMost times.
const (
	paceGrowth = 2 * time.Minute
	paceMost   = 4
)

// A meter knows how long a request has been waiting for its client's next meterStep
// bytes, and for all of them. Time in which the server works, or the request queues, is
// not counted.
type meter struct {
	mu     sync.Mutex
	since  time.Time // when the read under way began; zero when there is none
	waited time.Duration
	moved  int64
	cut    bool

	allWaited time.Duration
	allMoved  int64

	setDeadline func(time.Time) error // of reads from the connection
}

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// begin is called before each read.
func (m *meter) begin(now, deadline time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = now
	if m.cut {
		deadline = past
	}
	_ = m.setDeadline(deadline) // a recorder in a test has no deadlines
}

// end is called after each read, and reports whether the request was cut off.
func (m *meter) end(n int) (cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	waited := time.Since(m.since)
	m.waited += waited
	m.allWaited += waited
	m.allMoved += int64(n)
	m.since = time.Time{}
	if m.moved += int64(n); m.moved >= meterStep {
		m.waited, m.moved = 0, 0
	}
	return m.cut
}

// reset begins anew, for what came before a place was held does not count.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waited, m.moved, m.allWaited, m.allMoved = 0, 0, 0, 0
}

// waiting returns how long the request has waited for the step under way; for all of its
// bytes, when it is behind the pace of meterStep in patience that grows.
func (m *meter) waiting(patience time.Duration) (waited time.Duration, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var now time.Duration
	if !m.since.IsZero() {
		now = time.Since(m.since)
	}
	waited = m.waited + now
	all := m.allWaited + now
	pace := min(1+all.Seconds()/paceGrowth.Seconds(), paceMost) * meterStep / patience.Seconds()
	if float64(m.allMoved) < all.Seconds()*pace-meterStep {
		waited = max(waited, all)
	}
	return waited, m.cut
}

// cutOff makes the read under way, and all that follow, fail. The request must not be
// over.
func (m *meter) cutOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = true
	_ = m.setDeadline(past)
}

// retire makes a gate leave the request alone from now on, though it keeps its place: it is about to be over.
func (m *meter) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = true
}
