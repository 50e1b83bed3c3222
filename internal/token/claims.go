package token

import (
	"math"
	"strings"
	"time"

	"github.com/org/attic-action/internal/jsonscan"
)

// Names of the two private claims.
const (
	atticClaim = "https://jwt.attic.rs/v1"
	ourClaim   = "https://github.com/org/attic-action/v1"
)

// Limits of the claim that is ours.
const (
	maxPins   = 1024
	maxPin    = 512 // bytes
	maxOrigin = 16  // members
)

// Claims are what a token says.
type Claims struct {
	Subject   string // whom it was made for; empty: not said, as are ID and Issuer
	ID        string
	Issuer    string
	Audience  []string
	Expires   *time.Time // the first moment at which it is invalid; nil: never
	NotBefore *time.Time
	IssuedAt  *time.Time
	Caches    Grants
	Pins      []string // patterns of pin names that its bearer may set
	// Origin says what the token was given for: the policy, and of the ID token what
	// leads to the job. It grants nothing; records show it.
	Origin map[string]string
}

// parseClaims reads the payload of a token. The shapes of registered claims are
// checked even where nothing depends on them, as Attic does.
func parseClaims(payload []byte) (*Claims, error) {
	c := new(Claims)
	s := jsonscan.New(payload, maxDepth)
	text := func(name string, to *string) jsonscan.Field {
		return jsonscan.Field{Name: name, Optional: true, Read: func() (err error) { *to, err = nullable(s); return }}
	}
	moment := func(name string, to **time.Time) jsonscan.Field {
		return jsonscan.Field{Name: name, Optional: true, Read: func() (err error) { *to, err = readTime(s); return }}
	}
	var nonce string
	err := s.Members([]jsonscan.Field{
		text("sub", &c.Subject), text("jti", &c.ID), text("iss", &c.Issuer), text("nonce", &nonce),
		moment("exp", &c.Expires), moment("nbf", &c.NotBefore), moment("iat", &c.IssuedAt),
		{Name: "aud", Optional: true, Read: func() (err error) { c.Audience, err = readAudience(s); return }},
		{Name: atticClaim, Read: func() error {
			return s.Members([]jsonscan.Field{{Name: "caches", Read: func() (err error) { c.Caches, err = readCaches(s); return }}})
		}},
		{Name: ourClaim, Optional: true, Read: func() error {
			return s.Members([]jsonscan.Field{
				{Name: "pins", Optional: true, Read: func() (err error) { c.Pins, err = readPins(s); return }},
				{Name: "act", Optional: true, Read: func() (err error) { c.Origin, err = readOrigin(s); return }},
			})
		}},
	})
	if err != nil {
		return nil, err
	}
	return c, s.End()
}

// Years 1 and 9999: a time.Time computes with what lies between.
const minUnix, maxUnix = -62135596800, 253402300799

// readTime reads seconds since 1970. A fraction is cut off.
func readTime(s *jsonscan.Scanner) (*time.Time, error) {
	n, err := s.Number()
	if err != nil {
		return nil, err
	}
	sec := math.Trunc(min(max(n.Float(), minUnix), maxUnix))
	t := time.Unix(int64(sec), 0)
	return &t, nil
}

func readAudience(s *jsonscan.Scanner) ([]string, error) {
	if s.Next() == '[' {
		return s.Texts()
	}
	one, err := s.Text()
	return []string{one}, err
}

// readCaches reads permissions by pattern. A pattern that stands there twice
// keeps its first place and has its last value.
func readCaches(s *jsonscan.Scanner) (Grants, error) {
	var g Grants
	at := map[string]int{}
	err := s.Object(func(pattern string) error {
		if err := ParsePattern(pattern); err != nil {
			return s.Wrong("%v", err)
		}
		p, err := readPerm(s)
		if err != nil {
			return jsonscan.Within(pattern, err)
		}
		if i, ok := at[pattern]; ok {
			g.entries[i].perm = p
			return nil
		}
		at[pattern] = len(g.entries)
		g.entries = append(g.entries, grant{pattern, p})
		return nil
	})
	return g, err
}

// readPerm reads {"r":1,"w":0}: the integers 0 and 1 and nothing that some
// other reader might take for them.
func readPerm(s *jsonscan.Scanner) (p Perm, err error) {
	fields := make([]jsonscan.Field, len(perms))
	for i, x := range perms {
		fields[i] = jsonscan.Field{Name: x.key, Optional: true, Read: func() error {
			granted, err := s.Integer(0, 1)
			if granted == 1 {
				p |= x.perm
			}
			return err
		}}
	}
	err = s.Members(fields)
	return p, err
}

// readPins reads our claim. It is stricter than Attic's: nobody else writes it.
func readPins(s *jsonscan.Scanner) ([]string, error) {
	var pins []string
	err := s.Array(func(i int) error {
		pin, err := s.Text()
		if err == nil && (i >= maxPins || !ValidPin(pin)) {
			err = s.Wrong("not at most %d names of pins", maxPins)
		}
		pins = append(pins, pin)
		return err
	})
	return pins, err
}

func readOrigin(s *jsonscan.Scanner) (map[string]string, error) {
	origin := map[string]string{}
	err := s.Object(func(name string) error {
		text, err := s.Text()
		if err == nil && len(origin) == maxOrigin {
			err = s.Wrong("not at most %d members", maxOrigin)
		}
		origin[name] = text
		return err
	})
	return origin, err
}

// ValidPin reports whether s can be the pattern of a pin's name: printable
// ASCII without spaces, so that it can stand in a log line.
func ValidPin(s string) bool {
	return s != "" && len(s) <= maxPin && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
