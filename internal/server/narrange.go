package server

import (
	"strconv"
	"strings"
)

// parseRange reads "bytes=FIRST-" and "bytes=FIRST-LAST", which is what asks for a download to go on; last is -1 if
// it is not given. Everything else is left to http.ServeContent.
func parseRange(text string) (first, last int64, ok bool) {
	rest, ok := strings.CutPrefix(text, "bytes=")
	from, to, dash := strings.Cut(rest, "-")
	if !ok || !dash {
		return 0, 0, false
	}
	f, err := strconv.ParseUint(from, 10, 62)
	if err != nil {
		return 0, 0, false
	}
	if to == "" {
		return int64(f), -1, true
	}
	l, err := strconv.ParseUint(to, 10, 62)
	if err != nil || l < f {
		return 0, 0, false
	}
	return int64(f), int64(l), true
}

// expectedEnd is where in a body of size bytes an answer to this Range ends: only so far is read ahead.
func expectedEnd(text string, size int64) int64 {
	if _, last, ok := parseRange(text); ok && last >= 0 && last < size {
		return last + 1
	}
	return size
}
