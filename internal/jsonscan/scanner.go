// Package jsonscan reads a JSON document front to back and keeps what
// encoding/json loses: the order of an object's members, members given twice,
// the difference between 1 and 1.0, and whether a document is no JSON or JSON
// of the wrong shape. Attic's server makes all these differences, so its tokens
// and requests can only be judged alike by a reader that sees them.
//
// A Scanner stands before a value. Each method reads one value of the kind in
// its name; the first fault ends the reading. Strings must be UTF-8 without lone
// surrogates. Nothing here recurses: the nesting that a caller reads is the
// nesting of his code, and Skip keeps its own stack.
package jsonscan

import (
	"fmt"
	"math"
	"strconv"
)

// Error says what is wrong with a document.
type Error struct {
	Syntax bool   // it is no JSON; otherwise it is JSON of the wrong shape
	Path   string // the member, "a.b", when it is known
	Offset int    // bytes before the fault
	Msg    string
}

func (e *Error) Error() string {
	if e.Path != "" {
		return e.Path + ": " + e.Msg
	}
	return fmt.Sprintf("%s at byte %d", e.Msg, e.Offset)
}

// Scanner reads one document.
type Scanner struct {
	data     []byte
	pos      int
	depth    int
	maxDepth int
}

// New returns a Scanner over data. Values nested deeper than maxDepth are
// refused; 0 means that only the length of data bounds them.
func New(data []byte, maxDepth int) *Scanner {
	return &Scanner{data: data, maxDepth: maxDepth}
}

// Wrong returns an error about the shape of what was just read.
func (s *Scanner) Wrong(format string, args ...any) error {
	return &Error{Offset: s.pos, Msg: fmt.Sprintf(format, args...)}
}

// Broken returns an error about the syntax at the present place.
func (s *Scanner) Broken(format string, args ...any) error {
	return &Error{Syntax: true, Offset: s.pos, Msg: fmt.Sprintf(format, args...)}
}

// Next returns the first byte of the next value without reading it, 0 at the
// end of the document.
func (s *Scanner) Next() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// End checks that nothing follows.
func (s *Scanner) End() error {
	s.Next()
	if s.pos < len(s.data) {
		return s.Broken("something follows the document")
	}
	return nil
}

// Object reads an object and calls member before each value, which member must
// read.
func (s *Scanner) Object(member func(name string) error) error {
	if err := s.open('{', "an object"); err != nil {
		return err
	}
	for first := true; ; first = false {
		done, err := s.next(first, '}')
		if done || err != nil {
			return err
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
	}
}

// Array reads an array and calls element before each value, which element must
// read.
func (s *Scanner) Array(element func(i int) error) error {
	if err := s.open('[', "an array"); err != nil {
		return err
	}
	for i := 0; ; i++ {
		done, err := s.next(i == 0, ']')
		if done || err != nil {
			return err
		}
		if err := element(i); err != nil {
			return err
		}
	}
}

// Texts reads an array of strings; the result is never nil.
func (s *Scanner) Texts() ([]string, error) {
	texts := []string{}
	err := s.Array(func(int) error {
		text, err := s.Text()
		texts = append(texts, text)
		return err
	})
	return texts, err
}

// Null reads null if it is next, and reports whether it was.
func (s *Scanner) Null() (bool, error) {
	if s.Next() != 'n' {
		return false, nil
	}
	return true, s.word("null")
}

// Bool reads true or false.
func (s *Scanner) Bool() (bool, error) {
	switch s.Next() {
	case 't':
		return true, s.word("true")
	case 'f':
		return false, s.word("false")
	}
	return false, s.not("true or false")
}

// Integer reads a number without fraction and exponent that lies between min
// and max; -0 is no integer.
func (s *Scanner) Integer(min, max int64) (int64, error) {
	n, err := s.Number()
	if err != nil {
		return 0, err
	}
	if n.integer && n.negative && n.magnitude <= 1<<63 && int64(-n.magnitude) >= min {
		return int64(-n.magnitude), nil
	}
	if n.integer && !n.negative && n.magnitude <= math.MaxInt64 && int64(n.magnitude) >= min && int64(n.magnitude) <= max {
		return int64(n.magnitude), nil
	}
	return 0, s.Wrong("not an integer from %d to %d", min, max)
}

// Uint reads a number without fraction, exponent and sign.
func (s *Scanner) Uint() (uint64, error) {
	n, err := s.Number()
	if err == nil && (!n.integer || n.negative) {
		err = s.Wrong("not an unsigned integer of 64 bits")
	}
	return n.magnitude, err
}

// Number is a JSON number.
type Number struct {
	integer   bool // magnitude holds it exactly
	negative  bool
	magnitude uint64
	float     float64
}

// Float returns the number, rounded.
func (n Number) Float() float64 { return n.float }

// Number reads any number.
func (s *Scanner) Number() (Number, error) {
	if c := s.Next(); c != '-' && (c < '0' || c > '9') {
		return Number{}, s.not("a number")
	}
	text, integer, err := s.digits()
	if err != nil {
		return Number{}, err
	}
	n := Number{negative: text[0] == '-'}
	// digits let nothing through but numbers, so out of range is the only error there can be.
	if n.float, err = strconv.ParseFloat(text, 64); err != nil || math.IsInf(n.float, 0) {
		return Number{}, s.Broken("number out of range")
	}
	if integer {
		if n.negative {
			text = text[1:]
		}
		n.magnitude, err = strconv.ParseUint(text, 10, 64)
		n.integer = err == nil && (!n.negative || n.magnitude > 0 && n.magnitude <= 1<<63)
	}
	return n, nil
}
