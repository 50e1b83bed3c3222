package jsonscan

import (
	"unicode/utf16"
	"unicode/utf8"
)

// open reads the bracket that begins a what.
func (s *Scanner) open(bracket byte, what string) error {
	if s.Next() != bracket {
		return s.not(what)
	}
	s.depth++
	if s.maxDepth > 0 && s.depth > s.maxDepth {
		return s.Broken("nested deeper than %d", s.maxDepth)
	}
	s.pos++
	return nil
}

// next reads what stands before a member or element: a comma unless it is the
// first, or the bracket that ends all.
func (s *Scanner) next(first bool, bracket byte) (done bool, err error) {
	c := s.Next()
	if c == bracket {
		s.pos++
		s.depth--
		return true, nil
	}
	if first {
		return false, nil
	}
	if c != ',' {
		return false, s.Broken("no comma and no %q", bracket)
	}
	s.pos++
	if s.Next() == bracket {
		return false, s.Broken("nothing follows the comma")
	}
	return false, nil
}

// name reads a member's name and the colon.
func (s *Scanner) name() (string, error) {
	if s.Next() != '"' {
		return "", s.Broken("a member's name is not a string")
	}
	name, err := s.Text()
	if err != nil {
		return "", err
	}
	if s.Next() != ':' {
		return "", s.Broken("no colon after a member's name")
	}
	s.pos++
	return name, nil
}

// not is the error for a value that is not a what: wrong shape if it is a
// value at all, and no JSON otherwise.
func (s *Scanner) not(what string) error {
	var err error
	switch c := s.Next(); c {
	case '{', '[':
	case '"':
		_, err = s.Text()
	case 'n':
		err = s.word("null")
	case 't':
		err = s.word("true")
	case 'f':
		err = s.word("false")
	default:
		if c != '-' && (c < '0' || c > '9') {
			return s.Broken("no value")
		}
		_, err = s.Number()
	}
	if err != nil {
		return err
	}
	return s.Wrong("not %s", what)
}

func (s *Scanner) word(w string) error {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return s.Broken("no value")
	}
	s.pos += len(w)
	return nil
}

// digits reads the text of a number and reports whether it is without fraction
// and exponent.
func (s *Scanner) digits() (text string, integer bool, err error) {
	start := s.pos
	if s.at() == '-' {
		s.pos++
	}
	zero := s.at() == '0'
	if n := s.run(); n == 0 || zero && n > 1 {
		return "", false, s.Broken("malformed number")
	}
	integer = true
	if s.at() == '.' {
		integer = false
		s.pos++
		if s.run() == 0 {
			return "", false, s.Broken("malformed number")
		}
	}
	if c := s.at(); c == 'e' || c == 'E' {
		integer = false
		s.pos++
		if c := s.at(); c == '+' || c == '-' {
			s.pos++
		}
		if s.run() == 0 {
			return "", false, s.Broken("malformed number")
		}
	}
	return string(s.data[start:s.pos]), integer, nil
}

func (s *Scanner) at() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// run skips decimal digits and returns how many there were.
func (s *Scanner) run() int {
	start := s.pos
	for c := s.at(); c >= '0' && c <= '9'; c = s.at() {
		s.pos++
	}
	return s.pos - start
}

// Text reads a string.
func (s *Scanner) Text() (string, error) {
	if s.Next() != '"' {
		return "", s.not("a string")
	}
	s.pos++
	start := s.pos
	var text []byte // what is unescaped so far; nil while there is no escape
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			last := s.data[start:s.pos]
			if text != nil {
				last = append(text, last...)
			}
			if !utf8.Valid(last) {
				return "", s.Broken("string is not UTF-8")
			}
			s.pos++
			return string(last), nil
		case c == '\\':
			text = append(text, s.data[start:s.pos]...)
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			text = utf8.AppendRune(text, r)
			start = s.pos
		case c < 0x20:
			return "", s.Broken("control character in a string")
		default:
			s.pos++
		}
	}
	return "", s.Broken("string has no end")
}

// escape reads a backslash and what belongs to it.
func (s *Scanner) escape() (rune, error) {
	s.pos++
	c := s.at()
	s.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		return s.unicode()
	}
	return 0, s.Broken("unknown escape in a string")
}

// unicode reads the digits of \u, and the second half of a surrogate pair.
func (s *Scanner) unicode() (rune, error) {
	r, err := s.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if s.at() != '\\' || s.pos+1 >= len(s.data) || s.data[s.pos+1] != 'u' {
		return 0, s.Broken("half a surrogate pair")
	}
	s.pos += 2
	low, err := s.hex4()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, s.Broken("half a surrogate pair")
	}
	return r, nil
}

func (s *Scanner) hex4() (rune, error) {
	var r rune
	for range 4 {
		c := s.at()
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, s.Broken("malformed \\u escape")
		}
		s.pos++
	}
	return r, nil
}

// Skip reads any value, of any depth.
func (s *Scanner) Skip() error {
	var open []byte // the brackets to come, innermost last
	for {
		closed, err := s.skipOne(&open)
		if err != nil {
			return err
		}
		for closed { // a value ended: so may the ones around it
			if len(open) == 0 {
				return nil
			}
			if closed, err = s.next(false, open[len(open)-1]); err != nil {
				return err
			}
			if closed {
				open = open[:len(open)-1]
			} else if err := s.skipName(open); err != nil {
				return err
			}
		}
	}
}

// skipOne reads a scalar, or the beginning of an object or array; done means
// that the value is complete.
func (s *Scanner) skipOne(open *[]byte) (done bool, err error) {
	switch c := s.Next(); c {
	case '"':
		_, err = s.Text()
	case '{', '[':
		if err := s.open(c, ""); err != nil {
			return false, err
		}
		*open = append(*open, c+2) // '{'+2 is '}', '['+2 is ']'
		if done, err = s.next(true, c+2); done {
			*open = (*open)[:len(*open)-1]
		} else if err == nil {
			err = s.skipName(*open)
		}
		return done, err
	case 'n':
		err = s.word("null")
	case 't':
		err = s.word("true")
	case 'f':
		err = s.word("false")
	default:
		if c != '-' && (c < '0' || c > '9') {
			return false, s.Broken("no value")
		}
		_, _, err = s.digits()
	}
	return true, err
}

func (s *Scanner) skipName(open []byte) error {
	if open[len(open)-1] != '}' {
		return nil
	}
	_, err := s.name()
	return err
}
