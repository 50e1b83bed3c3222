// Package report tells what became of each host, as Markdown for a job's summary and as plain text for a log. It is pure:
// results in, text out. Every name in the results may come from a stranger, so none of them is ever markup.
package report

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/org/attic-action/internal/closurediff"
)

// Result is what became of a host.
type Result string

// The results. Only Failed fails a job.
const (
	Pushed  Result = "pushed"  // built, and its whole closure is on the cache
	Built   Result = "built"   // built, but not pushed: there was no token
	Cached  Result = "cached"  // its whole closure was on the cache already, so it was not built
	Planned Result = "planned" // not built, for that was not asked for: a dry run, or the first job of a matrix
	Skipped Result = "skipped" // not for this machine
	Failed  Result = "failed"  // did not evaluate, build or push
)

// Host is a row of the table. Numbers that make no sense for a result are zero.
type Host struct {
	Name, System string
	Result       Result
	Reason       string // one line: why it failed or was skipped
	Log          string // of a failed build: its last lines
	StorePath    string
	Closure      int64         // bytes of the closure as a machine holds it; 0: nobody looked
	Since        *Since        // the last pinned revision; nil: there is none, or nobody looked
	Made         int           // derivations that were built
	Fetched      int           // store paths that came from a cache
	Paths        int           // store paths of the closure that this cache must have
	Pushed       int           // sent now: of them, and of what only the build needs
	Raw          int64         // bytes of what was pushed, as NARs
	Bytes        int64         // sent, as request bodies
	Time         time.Duration // building and pushing
}

// Since is what changed in a host since the revision that a pin holds.
type Since struct {
	Pin  string // its name
	Same bool   // it is the same store path
	closurediff.Diff
}

// Report is the whole of a run.
type Report struct {
	Server, Cache string
	Hosts         []Host
	Notes         []string // what the reader should do, one sentence each
	Requests      int
	Time          time.Duration
}

// Failed returns the names of the hosts that failed.
func (r Report) Failed() []string {
	names := []string{}
	for _, h := range r.Hosts {
		if h.Result == Failed {
			names = append(names, h.Name)
		}
	}
	return names
}

var columns = []string{"host", "system", "result", "closure", "change", "built", "fetched", "pushed", "raw", "sent", "time"}

// textColumns are those of columns that are no numbers.
const textColumns = 3

// cells are a row's cells, unescaped, in the order of columns.
func (h Host) cells() []string {
	row := make([]string, len(columns))
	row[0], row[1], row[2] = h.Name, h.System, string(h.Result)
	if h.Closure > 0 {
		row[3] = Bytes(h.Closure)
	}
	switch {
	case h.Since == nil:
	case h.Since.Same:
		row[4] = "none"
	default:
		row[4] = signed(h.Since.Size)
	}
	if h.Result == Built || h.Result == Pushed || h.Made+h.Fetched > 0 {
		row[5], row[6] = fmt.Sprint(h.Made), fmt.Sprint(h.Fetched)
	}
	if h.Result == Pushed || h.Paths+h.Pushed > 0 {
		row[7], row[8], row[9] = fmt.Sprint(h.Pushed), Bytes(h.Raw), Bytes(h.Bytes)
	}
	if h.Time > 0 {
		row[10] = Duration(h.Time)
	}
	return row
}

// signed is a change of size as people read it: +1.2 MB, -17 B.
func signed(n int64) string {
	switch {
	case n < 0:
		return "-" + Bytes(-max(n, -math.MaxInt64))
	case n == 0:
		return "±0 B"
	}
	return "+" + Bytes(n)
}

// total says in one line what all hosts came to.
func (r Report) total() string {
	count := map[Result]int{}
	var sent int64
	pushed := 0
	for _, h := range r.Hosts {
		count[h.Result]++
		sent += h.Bytes
		pushed += h.Pushed
	}
	var parts []string
	for _, result := range []Result{Pushed, Built, Cached, Planned, Skipped, Failed} {
		if n := count[result]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, result))
		}
	}
	line := plural(len(r.Hosts), "host") + ": " + strings.Join(parts, ", ")
	if len(parts) == 0 {
		line = "no hosts"
	}
	if r.Requests > 0 {
		line += fmt.Sprintf("; %s and %s sent in %s", plural(pushed, "path"), Bytes(sent), plural(r.Requests, "request"))
	}
	if r.Time > 0 {
		line += ", " + Duration(r.Time)
	}
	return line
}

// plural is "1 path", "2 paths".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Bytes is a number of bytes as people read it: 17 B, 1.2 kB, 340 MB.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.5 && unit < 4 {
		f, unit = f/1000, unit+1
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %cB", f, "kMGTP"[unit])
	}
	return fmt.Sprintf("%.0f %cB", f, "kMGTP"[unit])
}

// Duration is a time as people read it: 0.4 s, 12 s, 3 min 5 s.
func Duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
}
