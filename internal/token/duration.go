package token

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
	"unicode"
)

// unit returns a unit's length in nanoseconds. Case matters: m is a minute, M a
// month. A month is 30.44 days and a year 365.25.
func unit(name string) (ns uint64, ok bool) {
	switch name {
	case "nsec", "ns", "nanos":
		return 1, true
	case "usec", "us", "µs":
		return 1e3, true
	case "msec", "ms", "millis":
		return 1e6, true
	case "seconds", "second", "secs", "sec", "s":
		return 1e9, true
	case "minutes", "minute", "mins", "min", "m":
		return 60e9, true
	case "hours", "hour", "hrs", "hr", "h":
		return 3600e9, true
	case "days", "day", "d":
		return 86400e9, true
	case "weeks", "week", "wks", "wk", "w":
		return 7 * 86400e9, true
	case "months", "month", "M":
		return 2630016e9, true
	case "years", "year", "yrs", "yr", "y":
		return 31557600e9, true
	}
	return 0, false
}

// maxDuration is the longest text that ParseDuration reads, in bytes.
const maxDuration = 256

// ParseDuration reads a duration as Attic's configuration and flags have it:
// one or more numbers with a unit ("12 hours", "1y 2months", "0.5 days"), or
// "0". What is longer than a time.Duration can be, 292 years, is 292 years.
func ParseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration like \"12 hours\" or \"1y 2months\": %w", s[:min(len(s), maxDuration)], err)
	}
	return d, nil
}

func parseDuration(s string) (time.Duration, error) {
	if len(s) > maxDuration {
		return 0, errors.New("too long")
	}
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, errors.New("it is empty")
	}
	var sum time.Duration
	for s != "" {
		whole, frac, rest, err := leadingNumber(s)
		if err != nil {
			return 0, err
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return !letter(r) })
		if end < 0 {
			end = len(rest)
		}
		ns, ok := unit(rest[:end])
		if !ok && end == 0 {
			return 0, errors.New("a number needs a unit, as in 30s or 12 hours")
		}
		if !ok {
			return 0, fmt.Errorf("unknown unit %q", rest[:end])
		}
		sum = saturate(sum, whole, frac, ns)
		s = strings.TrimSpace(rest[end:])
	}
	return sum, nil
}

func letter(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == 'µ'
}

// leadingNumber reads digits, with white space among and after them, and a
// fraction.
func leadingNumber(s string) (whole uint64, frac float64, rest string, err error) {
	digits, scale, point := 0, 1.0, false
	for i, r := range s {
		switch {
		case '0' <= r && r <= '9':
			digits++
			if point {
				scale /= 10
				frac += float64(r-'0') * scale
				continue
			}
			hi, lo := bits.Mul64(whole, 10)
			if whole = lo + uint64(r-'0'); hi > 0 || whole < lo {
				return 0, 0, "", errors.New("the number is too large")
			}
		case unicode.IsSpace(r) && digits > 0:
		case r == '.' && digits > 0 && !point:
			point, digits = true, 0 // at least one digit must follow
		default:
			if digits == 0 {
				return 0, 0, "", errors.New("a number is missing")
			}
			return whole, frac, s[i:], nil
		}
	}
	if digits == 0 {
		return 0, 0, "", errors.New("a number is missing")
	}
	return whole, frac, "", nil
}

// saturate adds whole+frac units of ns nanoseconds to sum.
func saturate(sum time.Duration, whole uint64, frac float64, ns uint64) time.Duration {
	hi, lo := bits.Mul64(whole, ns)
	total, carry := bits.Add64(lo, uint64(math.Round(frac*float64(ns))), 0)
	total, carry2 := bits.Add64(total, uint64(sum), 0)
	if hi+carry+carry2 > 0 || total > math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(total)
}
