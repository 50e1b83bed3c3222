package audit

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"
)

// Filter chooses events. Empty fields let everything through. Subject, Policy,
// Cache and Action may hold "*" for any text.
type Filter struct {
	Since, Until                  time.Time
	Subject, Token, Policy, Cache string
	Action, Result, Request       string
	Address                       string
	Holds                         string // any part of the line
}

// Match tells whether the event is chosen.
func (f Filter) Match(e Event) bool {
	if !f.Since.IsZero() && e.Time.Before(f.Since) || !f.Until.IsZero() && !e.Time.Before(f.Until) {
		return false
	}
	for _, c := range [][2]string{{f.Subject, e.Subject}, {f.Action, e.Action},
		{f.Result, e.Result}, {f.Request, e.Request}, {f.Address, e.Address}} {
		if !glob(c[0], c[1]) {
			return false
		}
	}
	return oneOf(f.Policy, e.Policy) && oneOf(f.Token, e.Token) && oneOf(f.Cache, e.Cache)
}

// oneOf matches one of several that are joined by commas.
func oneOf(pattern, list string) bool {
	if pattern == "" {
		return true
	}
	for one := range strings.SplitSeq(list, ",") {
		if glob(pattern, one) {
			return true
		}
	}
	return false
}

// glob matches the whole text; a star stands for any, slashes and colons too.
func glob(pattern, text string) bool {
	if pattern == "" || pattern == text {
		return true
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 || !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return strings.HasSuffix(text, last)
}

// defaultPoll is soon for one who watches and seldom for a disk.
const defaultPoll = 300 * time.Millisecond

// Reader reads a log while it is written and rotated.
type Reader struct {
	Path   string // the Log's
	Filter Filter
	Follow bool // go on until the context ends

	Skipped int64 // lines that were not events: torn by a crash, or not ours

	poll time.Duration // how often Follow looks for more; tests cannot wait
}

// Read calls each for the chosen events of both files, oldest first, with their lines,
// which are valid during the call. A log that does not exist yet has no events.
func (r *Reader) Read(ctx context.Context, each func(e Event, line []byte) error) error {
	if r.poll <= 0 {
		r.poll = defaultPoll
	}
	files := []*source{{path: r.Path}, {path: pushes(r.Path)}}
	defer func() {
		for _, s := range files {
			s.close()
		}
	}()
	for ctx.Err() == nil {
		next, err := r.oldest(ctx, files)
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		if next != nil {
			err := each(next.event.clean(), next.line)
			if next.line = nil; err != nil {
				return err
			}
			continue
		}
		if !r.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.poll):
		}
	}
	return nil
}

// oldest returns the source of the oldest event that is there, or nil.
func (r *Reader) oldest(ctx context.Context, files []*source) (oldest *source, err error) {
	for _, s := range files {
		for s.line == nil && ctx.Err() == nil {
			there, err := s.next()
			if err != nil {
				return nil, err
			}
			if !there {
				break
			}
			if s.line == nil {
				r.Skipped++
			} else if !r.Filter.Match(s.event) || r.Filter.Holds != "" && !bytes.Contains(s.line, []byte(r.Filter.Holds)) {
				s.line = nil
			}
		}
		if s.line != nil && (oldest == nil || s.event.Time.Before(oldest.event.Time)) {
			oldest = s
		}
	}
	return oldest, nil
}
