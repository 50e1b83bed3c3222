package server

import (
	"sync/atomic"
	"time"
)

// quietAfter is how long after the last answer nobody is taken to wait for the next one. Nix asks for narinfos with
// pauses of milliseconds, a push thinks between two requests for no more than that.
const quietAfter = 2 * time.Second

// busy knows whether requests are under way.
type busy struct {
	under atomic.Int64
	last  atomic.Pointer[time.Time] // when the last one ended
}

// begin notes a request; the function it returns notes its end.
func (b *busy) begin() (end func()) {
	b.under.Add(1)
	return func() {
		now := time.Now()
		b.last.Store(&now)
		b.under.Add(-1)
	}
}

// Busy tells whether requests are under way, or were within the last two seconds. What is not urgent waits for it
// to end.
func (s *Server) Busy() bool {
	if s.busy.under.Load() > 0 {
		return true
	}
	last := s.busy.last.Load()
	return last != nil && time.Since(*last) < quietAfter
}
