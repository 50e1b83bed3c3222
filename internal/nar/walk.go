package nar

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Kind is what an Entry is.
type Kind uint8

// What Walker.Visit is called for. Leave is the end of a directory: it follows what was in it.
const (
	Regular Kind = iota
	Symlink
	Directory
	Leave
)

// Entry is one file system object of a NAR.
type Entry struct {
	Kind       Kind
	Name       string // "" at the root, and of Leave
	Executable bool
	Size       uint64 // of a file, bytes
	Offset     uint64 // in the NAR, where a file's contents begin
	Target     string // of a symlink
}

// Walker takes a NAR as it passes by, in pieces of any size, and says what is in it. It is as strict as
// Check. It holds one name for each level of directories, at most 2048 of them.
type Walker struct {
	Visit func(Entry) error // in the order of the NAR
	Keep  func(b []byte)    // takes all bytes that are no file's contents nor their padding; nil: nobody does
	Bare  bool              // what is written has no contents and none of their padding, but their lengths

	state state
	phase phase
	err   error
	head  [8]byte // of a string: its length
	done  uint64  // bytes of the phase
	size  uint64  // of the string
	text  []byte  // of a string that is no contents
	at    uint64  // bytes of the NAR behind us, whether they were written or left out

	entry Entry
	dirs  []string // the last name in each directory that is open
}

// phase is the part of a string that comes next.
type phase uint8

const (
	inHead phase = iota
	inText
	inPadding
)

// state is which string comes next.
type state uint8

const (
	wantMagic state = iota
	wantOpen
	wantType
	wantKind
	wantFile  // "executable" or "contents"
	wantEmpty // behind "executable"
	wantContentsWord
	wantContents
	wantTargetWord
	wantTarget
	wantEntry // or the directory's end
	wantEntryOpen
	wantNameWord
	wantName
	wantNode
	wantClose      // of a file or a symlink
	wantEntryClose // of an entry, behind its node
	wantNothing
)

// only are the words where one alone can stand, and what comes behind them.
var only = map[state]struct {
	word string
	next state
}{
	wantMagic:        {magic, wantOpen},
	wantOpen:         {"(", wantType},
	wantType:         {"type", wantKind},
	wantEmpty:        {"", wantContentsWord},
	wantContentsWord: {"contents", wantContents},
	wantTargetWord:   {"target", wantTarget},
	wantEntryOpen:    {"(", wantNameWord},
	wantNameWord:     {"name", wantName},
	wantNode:         {"node", wantOpen},
	wantEntryClose:   {")", wantEntry},
}

// Write takes the next bytes. An error is ErrFormat's or Visit's, and stays.
func (w *Walker) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0 && w.err == nil; {
		var n int
		n, w.err = w.take(rest)
		rest = rest[n:]
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Close says whether what was written is a whole NAR.
func (w *Walker) Close() error {
	if w.err == nil && w.state != wantNothing {
		w.err = fmt.Errorf("%w: ends early: %w", ErrFormat, io.ErrUnexpectedEOF)
	}
	return w.err
}

// Size is how many bytes of the NAR have passed, those that were left out included.
func (w *Walker) Size() uint64 { return w.at }

// take uses some of p, and all that it can in one phase.
func (w *Walker) take(p []byte) (int, error) {
	switch w.phase {
	case inHead:
		if w.state == wantNothing {
			return 0, formatErrorf("bytes after its end")
		}
		n := copy(w.head[w.done:], p)
		w.keep(p[:n])
		if w.done += uint64(n); w.done < 8 {
			return n, nil
		}
		return n, w.begin(binary.LittleEndian.Uint64(w.head[:]))
	case inText:
		n := int(min(uint64(len(p)), w.size-w.done))
		if w.state != wantContents {
			w.text = append(w.text, p[:n]...)
			w.keep(p[:n])
		}
		if w.done += uint64(n); w.done < w.size {
			return n, nil
		}
		return n, w.pad()
	}
	n := min(len(p), padding(w.size)-int(w.done))
	if string(p[:n]) != string(zeros[:n]) {
		return n, formatErrorf("padding that is not zero")
	}
	if w.state != wantContents {
		w.keep(p[:n])
	}
	if w.done += uint64(n); int(w.done) < padding(w.size) {
		return n, nil
	}
	return n, w.end()
}

func (w *Walker) keep(b []byte) {
	if w.Keep != nil {
		w.Keep(b)
	}
}

// begin starts a string of n bytes.
func (w *Walker) begin(n uint64) error {
	w.size, w.text, w.done, w.phase, w.at = n, w.text[:0], 0, inText, w.at+8
	limit := uint64(len(magic))
	switch w.state {
	case wantContents:
		if limit = 1 << 62; n <= limit {
			w.entry.Size, w.entry.Offset = n, w.at
		}
	case wantTarget:
		limit = maxTargetLen
	case wantName:
		limit = maxNameLen
	}
	switch {
	case n > limit, w.at+n < n:
		return formatErrorf("a string of %d bytes where at most %d fit", n, limit)
	case w.state == wantContents && w.Bare:
		return w.end()
	case n == 0:
		return w.pad()
	}
	return nil
}

func (w *Walker) pad() error {
	if w.done, w.phase = 0, inPadding; padding(w.size) == 0 {
		return w.end()
	}
	return nil
}

// end is called behind a string and its padding.
func (w *Walker) end() error {
	w.at += w.size + uint64(padding(w.size))
	w.done, w.phase = 0, inHead
	if o, ok := only[w.state]; ok {
		if string(w.text) != o.word {
			return formatErrorf("%q where %q should be", w.text, o.word)
		}
		w.state = o.next
		return nil
	}
	return w.choose(string(w.text))
}

// choose takes a string where several can stand.
func (w *Walker) choose(text string) error {
	switch w.state {
	case wantKind:
		return w.kind(text)
	case wantFile:
		switch text {
		case "executable":
			w.entry.Executable, w.state = true, wantEmpty
			return nil
		case "contents":
			w.state = wantContents
			return nil
		}
		return formatErrorf("%q where contents should be", text)
	case wantContents:
		w.state = wantClose
	case wantTarget:
		if text == "" || strings.IndexByte(text, 0) >= 0 {
			return formatErrorf("a symlink to %q", text)
		}
		w.entry.Target, w.state = text, wantClose
	case wantName:
		return w.name(text)
	case wantClose:
		if text != ")" {
			return formatErrorf("%q where %q should be", text, ")")
		}
		return w.leave(w.entry)
	case wantEntry:
		switch text {
		case "entry":
			w.state = wantEntryOpen
			return nil
		case ")":
			w.dirs = w.dirs[:len(w.dirs)-1]
			return w.leave(Entry{Kind: Leave})
		}
		return formatErrorf("%q where entry should be", text)
	}
	return nil
}

func (w *Walker) kind(text string) error {
	if len(w.dirs) > maxDepth {
		return formatErrorf("more than %d levels of directories", maxDepth)
	}
	switch text {
	case "regular":
		w.entry.Kind, w.state = Regular, wantFile
	case "symlink":
		w.entry.Kind, w.state = Symlink, wantTargetWord
	case "directory":
		w.dirs, w.state = append(w.dirs, ""), wantEntry
		return w.visit(Entry{Kind: Directory, Name: w.entry.Name})
	default:
		return formatErrorf("unknown type %q", text)
	}
	return nil
}

func (w *Walker) name(text string) error {
	if err := checkName(text); err != nil {
		return err
	}
	last := &w.dirs[len(w.dirs)-1]
	if text <= *last {
		return formatErrorf("entry %q follows %q", text, *last)
	}
	*last, w.entry, w.state = text, Entry{Name: text}, wantNode
	return nil
}

// leave ends a node.
func (w *Walker) leave(e Entry) error {
	if w.state = wantEntryClose; len(w.dirs) == 0 {
		w.state = wantNothing
	}
	return w.visit(e)
}

func (w *Walker) visit(e Entry) error {
	if w.Visit == nil {
		return nil
	}
	return w.Visit(e)
}
