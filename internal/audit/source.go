package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
)

// maxLine bounds a line of the file, in bytes. Ours are far shorter.
const maxLine = 256 << 10

// source reads one of a log's files, and those that it was before, line by line.
type source struct {
	path  string
	file  *os.File      // the one that is read
	in    *bufio.Reader // of file
	at    int64         // where its next line begins
	newer []*os.File    // that come after it, oldest first

	event Event  // the last that was read
	line  []byte // its line; nil when that was none, or is used up
}

// next reads the next line and tells whether there was one. The rest of a line that is
// being written is left for the next time.
func (s *source) next() (bool, error) {
	for {
		if s.file != nil {
			line, n, err := readLine(s.in)
			if err == nil {
				s.at += n
				if n == 1 {
					continue // an empty line
				}
				s.event = Event{}
				if s.line = line; len(line) == 0 || json.Unmarshal(line, &s.event) != nil || s.event.Time.IsZero() || s.event.Action == "" {
					s.line = nil
				}
				return true, nil
			}
			if !errors.Is(err, io.EOF) {
				return false, err
			}
			if _, err := s.file.Seek(s.at, io.SeekStart); err != nil {
				return false, err
			}
			s.in.Reset(s.file)
		}
		if len(s.newer) == 0 {
			// Looked for before the end of this one is believed: what came in before it was
			// rotated away is read first.
			var err error
			if s.newer, err = s.look(); err != nil || len(s.newer) == 0 {
				return false, err
			}
			if s.file != nil {
				continue
			}
		}
		if s.file != nil {
			_ = s.file.Close() // only read
		}
		s.file, s.newer, s.at = s.newer[0], s.newer[1:], 0
		s.in = bufio.NewReaderSize(s.file, 64<<10)
	}
}

// look opens the files that are newer than the one that is read, oldest first. It goes
// from the newest on: a rotation meanwhile shows one file twice, where the other way
// round it would hide one.
func (s *source) look() (files []*os.File, err error) {
	var seen []os.FileInfo
	if s.file != nil {
		fi, err := s.file.Stat()
		if err != nil {
			return nil, err
		}
		seen = append(seen, fi)
	}
	current := len(seen)
	missing := 0
	for i := 0; missing < 2; i++ { // one may be missing within a rotation
		f, err := os.Open(rotated(s.path, i))
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
		for j, old := range seen {
			if os.SameFile(old, fi) {
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

func (s *source) close() {
	_ = closeAll(s.newer) // only read
	if s.file != nil {
		_ = s.file.Close()
	}
}

func closeAll(files []*os.File) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}
