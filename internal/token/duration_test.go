package token

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "12 hours": 12 * time.Hour, "1y 2months": 31557600*time.Second + 2*2630016*time.Second,
		"2h37min": 2*time.Hour + 37*time.Minute, "0.5 days": 12 * time.Hour, "1.5h": 90 * time.Minute,
		"6 months": 6 * 2630016 * time.Second, "1M": 2630016 * time.Second, "1m": time.Minute, "1 week 1wks2wk3w": 7 * 7 * day,
		"1nsec 1ns 1nanos": 3, "1usec 1us 1µs": 3000, "1msec 1ms 1millis": 3 * time.Millisecond,
		"1seconds1second1secs1sec1s": 5 * time.Second, "1minutes 1minute 1mins 1min": 4 * time.Minute,
		"1hours 1hour 1hrs 1hr": 4 * time.Hour, "1days 1day 1d": 3 * day, "1weeks 1w": 14 * day, "1month": 2630016 * time.Second,
		"1years 1year 1yrs 1yr 1y": 5 * 31557600 * time.Second, "  7 d  ": 7 * day, "1 2 s": 12 * time.Second, "7\td": 7 * day,
		"1000 years": math.MaxInt64, "18446744073709551615y": math.MaxInt64, "200y 200y": math.MaxInt64,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
}

func TestParseDurationRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "1", "00", "0 ", "s", "1 S", "1H", "1D", "1Y", "1 hour and", "1x", "-1s", "+1s", "1,5h", ".5h", "1.h", "1.5.5h", "1h 2",
		"18446744073709551616ns", "99999999999999999999999999s", "1ſ", "1h-2m", strings.Repeat("1s", 1000),
	} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%.40q) = %v", s, got)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	f.Add("1y 2months 0.5 days")
	f.Add("0")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDuration(s); err == nil && d < 0 {
			t.Errorf("%q is %v", s, d)
		}
	})
}
