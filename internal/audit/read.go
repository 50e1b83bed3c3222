package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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

// maxLine bounds a line of the file, in bytes. Ours are far shorter.
const maxLine = 256 << 10

// defaultPoll is soon for one who watches and seldom for a disk.
const defaultPoll = 300 * time.Millisecond

// Reader reads a log while it is written and rotated.
type Reader struct {
	Path   string // the present file
	Filter Filter
	Follow bool // go on until the context ends

	Skipped int64 // lines that were not events: torn by a crash, or not ours

	poll time.Duration // how often Follow looks for more; tests cannot wait
	file *os.File      // the newest that was opened
}

// Read calls each for the chosen events, oldest first, with their lines, which are
// valid during the call. A log that does not exist yet has no events.
func (r *Reader) Read(ctx context.Context, each func(e Event, line []byte) error) error {
	defer r.close()
	if r.poll <= 0 {
		r.poll = defaultPoll
	}
	for {
		files, err := r.newer()
		if err != nil {
			return fmt.Errorf("open audit log: %w", err)
		}
		if r.file != nil {
			// What came in before it was rotated away.
			if err := r.drain(ctx, each); err != nil {
				return errors.Join(err, closeAll(files))
			}
		}
		for i, f := range files {
			r.close()
			r.file = f
			if err := r.drain(ctx, each); err != nil {
				return errors.Join(err, closeAll(files[i+1:]))
			}
		}
		if !r.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.poll):
		}
	}
}

// newer opens the files that are newer than the one that is read, oldest first.
// It looks from the newest on: a rotation meanwhile shows one file twice, where
// the other way round it would hide one.
func (r *Reader) newer() (files []*os.File, err error) {
	var seen []os.FileInfo
	if r.file != nil {
		fi, err := r.file.Stat()
		if err != nil {
			return nil, err
		}
		seen = append(seen, fi)
	}
	current := len(seen)
	missing := 0
	for i := 0; missing < 2; i++ { // one may be missing within a rotation
		f, err := os.Open(rotated(r.Path, i))
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(files))
		}
		fi, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close(), closeAll(files))
		}
		again := false
		for j, s := range seen {
			if os.SameFile(s, fi) {
				again = true
				if j < current { // this is where we are
					missing = 2
				}
			}
		}
		if again {
			_ = f.Close() // only read
			continue
		}
		seen = append(seen, fi)
		files = append([]*os.File{f}, files...)
	}
	return files, nil
}

// drain reads the file to its present end. The rest of a line that is being
// written is left for the next time.
func (r *Reader) drain(ctx context.Context, each func(Event, []byte) error) error {
	start, err := r.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	in := bufio.NewReaderSize(r.file, 64<<10)
	for ctx.Err() == nil {
		line, n, err := readLine(in)
		if errors.Is(err, io.EOF) {
			_, err = r.file.Seek(start, io.SeekStart)
			return err
		}
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		start += n
		var e Event
		if len(line) == 0 || json.Unmarshal(line, &e) != nil || e.Time.IsZero() || e.Action == "" {
			if n > 1 { // not an empty line
				r.Skipped++
			}
			continue
		}
		if !r.Filter.Match(e) || r.Filter.Holds != "" && !bytes.Contains(line, []byte(r.Filter.Holds)) {
			continue
		}
		if err := each(e.clean(), line); err != nil {
			return err
		}
	}
	return nil
}

// readLine returns a line without its end, and how many bytes it took. Of a line
// that is too long it returns nothing.
func readLine(in *bufio.Reader) (line []byte, n int64, err error) {
	for {
		part, err := in.ReadSlice('\n')
		n += int64(len(part))
		if n <= maxLine {
			line = append(line, part...)
		} else {
			line = nil
		}
		if err == nil {
			return bytes.TrimSuffix(line, []byte("\n")), n, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, n, err
		}
	}
}

func (r *Reader) close() {
	if r.file != nil {
		_ = r.file.Close() // only read
		r.file = nil
	}
}

func closeAll(files []*os.File) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}
