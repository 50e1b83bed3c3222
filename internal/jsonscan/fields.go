package jsonscan

import (
	"errors"
	"slices"
)

// Field is a member that a reader knows.
type Field struct {
	Name     string
	Optional bool         // may be missing
	Read     func() error // reads the value
}

// Members reads an object of known fields. A known member that stands there
// twice and a missing one are of the wrong shape; unknown members are skipped.
func (s *Scanner) Members(fields []Field) error {
	seen := make([]bool, len(fields))
	err := s.Object(func(name string) error {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
		if i < 0 {
			return s.Skip()
		}
		if seen[i] {
			return s.Wrong("member %q stands there twice", name)
		}
		seen[i] = true
		return Within(name, fields[i].Read())
	})
	if err != nil {
		return err
	}
	for i, f := range fields {
		if !seen[i] && !f.Optional {
			return s.Wrong("member %q is missing", f.Name)
		}
	}
	return nil
}

// Positional is Members for a reader that also takes an array with the values of
// all fields, in their order.
func (s *Scanner) Positional(fields []Field) error {
	if s.Next() != '[' {
		return s.Members(fields)
	}
	n := 0
	err := s.Array(func(i int) error {
		if n++; i >= len(fields) {
			return s.Broken("more than %d values", len(fields))
		}
		return Within(fields[i].Name, fields[i].Read())
	})
	if err == nil && n < len(fields) {
		err = s.Wrong("%d values where there should be %d", n, len(fields))
	}
	return err
}

// Within adds a member's name to the path of err.
func Within(name string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	within := *e
	within.Path = name
	if e.Path != "" {
		within.Path += "." + e.Path
	}
	return &within
}

// Enum reads one of several variants: a string for one without a value, an
// object with a single member for one with a value. variant is called with the
// name and, for a member, valued; then it must read the value. Anything else is
// broken syntax, and not wrong shape, because Attic's reader says so.
func (s *Scanner) Enum(variant func(name string, valued bool) error) error {
	switch s.Next() {
	case '"':
		name, err := s.Text()
		if err != nil {
			return err
		}
		return variant(name, false)
	case '{':
	default:
		return s.Broken("no variant")
	}
	if err := s.open('{', ""); err != nil {
		return err
	}
	name, err := s.name()
	if err != nil {
		return err
	}
	if err := variant(name, true); err != nil {
		return err
	}
	if s.Next() != '}' {
		return s.Broken("a variant with more than one member")
	}
	s.pos++
	s.depth--
	return nil
}

// Unit reads null, the value of a variant that has none.
func (s *Scanner) Unit() error {
	null, err := s.Null()
	if !null {
		return s.not("null")
	}
	return err
}
