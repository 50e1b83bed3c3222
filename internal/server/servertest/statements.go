package servertest

import "sync"

// statements remembers what the database ran while somebody wanted to know.
type statements struct {
	mu     sync.Mutex
	wanted bool
	list   []string
}

func (s *statements) add(query string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted {
		s.list = append(s.list, query)
	}
}

// Statements lists what the database runs while fn does: the work behind an answer, in a measure that
// does not depend on the machine.
func (s *Server) Statements(fn func()) []string {
	set := func(wanted bool) []string {
		s.statements.mu.Lock()
		defer s.statements.mu.Unlock()
		list := s.statements.list
		s.statements.wanted, s.statements.list = wanted, nil
		return list
	}
	set(true)
	fn()
	return set(false)
}
