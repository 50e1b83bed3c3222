package trust

import (
	"errors"
	"strings"
)

// matchGlob reports whether the whole of s fits the pattern. * stands for any run of
// bytes without '/', ** for any run; everything else, the characters that regular
// expressions treat specially included, stands for itself. There is no alternation and
// no way to unanchor a pattern, because nothing is ever handed to a regexp.
//
// The cost is bounded by len(pattern)·len(s), whatever the pattern: it is a table of
// reachable states and never backtracks.
func matchGlob(pattern, s string) bool {
	steps := globSteps(pattern)
	reach := make([]bool, len(steps)+1)
	reach[0] = true
	skipStars(steps, reach)
	for i := range len(s) {
		next := make([]bool, len(steps)+1)
		alive := false
		for j, st := range steps {
			if !reach[j] {
				continue
			}
			switch {
			case st.kind == literal && st.b == s[i]:
				next[j+1], alive = true, true
			case st.kind == starStar, st.kind == star && s[i] != '/':
				next[j], alive = true, true
			}
		}
		if !alive {
			return false
		}
		skipStars(steps, next)
		reach = next
	}
	return reach[len(steps)]
}

// skipStars marks what is reachable by letting stars stand for nothing.
func skipStars(steps []globStep, reach []bool) {
	for j, st := range steps {
		if reach[j] && st.kind != literal {
			reach[j+1] = true
		}
	}
}

type globKind uint8

const (
	literal globKind = iota
	star
	starStar
)

type globStep struct {
	kind globKind
	b    byte
}

func globSteps(pattern string) []globStep {
	steps := make([]globStep, 0, len(pattern))
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			steps = append(steps, globStep{kind: starStar})
			i++
		case pattern[i] == '*':
			steps = append(steps, globStep{kind: star})
		default:
			steps = append(steps, globStep{kind: literal, b: pattern[i]})
		}
	}
	return steps
}

// checkGlob refuses patterns that do not mean what they seem to: the characters with
// which other globs spell classes and alternatives would stand for themselves here.
func checkGlob(pattern string) error {
	switch {
	case strings.Contains(pattern, "***"):
		return errors.New("*** has no meaning, use * (stops at '/') or ** (does not)")
	case strings.ContainsAny(pattern, `?[]{}|\^$()`):
		return errors.New("only * and ** are special; ? [ ] { } | \\ ^ $ ( ) are not accepted")
	case !strings.Contains(pattern, "*"):
		return errors.New("is without *, use the exact form of the key")
	}
	return nil
}

// fixedPrefix is what every match of the pattern begins with.
func fixedPrefix(pattern string) string {
	prefix, _, _ := strings.Cut(pattern, "*")
	return prefix
}
