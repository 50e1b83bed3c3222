package nar

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// maxNameLen is above what file systems take (255 bytes, or 255 UTF-16 units).
	maxNameLen = 1023
	// maxTargetLen is PATH_MAX without its final zero.
	maxTargetLen = 4095
	// maxDepth bounds the parser's stack; a path of PATH_MAX bytes can't go much deeper either.
	maxDepth = 2048
)

// ErrFormat is what every error of Check about the bytes wraps.
var ErrFormat = errors.New("not a NAR")

// Check reads r to its end and says whether it was exactly one NAR, in the only form Nix writes: names in
// order, each once, and none that is no file name; zeros as padding; nothing after the end. It holds
// one buffer of 64 KiB and one name a level of directories, at most 2048 levels.
//
// Every byte of r is read when Check returns nil, so an io.TeeReader beneath it sees the whole NAR.
func Check(r io.Reader) error {
	c := checker{r: bufio.NewReaderSize(r, 64<<10)}
	if err := c.archive(); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: ends early: %w", ErrFormat, io.ErrUnexpectedEOF)
		}
		return fmt.Errorf("check NAR near byte %d: %w", c.offset, err)
	}
	return nil
}

type checker struct {
	r      *bufio.Reader
	offset uint64
}

func (c *checker) archive() error {
	if err := c.expect(magic); err != nil {
		return err
	}
	if err := c.node(0); err != nil {
		return err
	}
	switch _, err := c.r.ReadByte(); err {
	case io.EOF:
		return nil
	case nil:
		return formatErrorf("bytes after its end")
	default:
		return err
	}
}

func (c *checker) node(depth int) error {
	if depth > maxDepth {
		return formatErrorf("more than %d levels of directories", maxDepth)
	}
	if err := c.expect("(", "type"); err != nil {
		return err
	}
	kind, err := c.word()
	if err != nil {
		return err
	}
	switch kind {
	case "regular":
		return c.regular()
	case "symlink":
		return c.symlink()
	case "directory":
		return c.directory(depth)
	}
	return formatErrorf("unknown type %q", kind)
}

func (c *checker) regular() error {
	word, err := c.word()
	if err != nil {
		return err
	}
	if word == "executable" {
		if err := c.expect("", "contents"); err != nil {
			return err
		}
	} else if word != "contents" {
		return formatErrorf("%q where contents should be", word)
	}
	if err := c.contents(); err != nil {
		return err
	}
	return c.expect(")")
}

func (c *checker) symlink() error {
	if err := c.expect("target"); err != nil {
		return err
	}
	target, err := c.string(maxTargetLen)
	if err != nil {
		return err
	}
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return formatErrorf("a symlink to %q", target)
	}
	return c.expect(")")
}

func (c *checker) directory(depth int) error {
	for last := ""; ; {
		switch word, err := c.word(); {
		case err != nil:
			return err
		case word == ")":
			return nil
		case word != "entry":
			return formatErrorf("%q where entry should be", word)
		}
		name, err := c.entry(depth)
		if err != nil {
			return err
		}
		if name <= last {
			return formatErrorf("entry %q follows %q", name, last)
		}
		last = name
	}
}

// entry reads what follows the word "entry".
func (c *checker) entry(depth int) (name string, err error) {
	if err := c.expect("(", "name"); err != nil {
		return "", err
	}
	if name, err = c.string(maxNameLen); err != nil {
		return "", err
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	if err := c.expect("node"); err != nil {
		return "", err
	}
	if err := c.node(depth + 1); err != nil {
		return "", err
	}
	return name, c.expect(")")
}

// checkName refuses names that, unpacked, would write outside their directory.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return formatErrorf("an entry named %q", name)
	}
	return nil
}

func (c *checker) expect(words ...string) error {
	for _, want := range words {
		got, err := c.word()
		if err != nil {
			return err
		}
		if got != want {
			return formatErrorf("%q where %q should be", got, want)
		}
	}
	return nil
}

// word reads a string that the grammar names; the longest is its magic.
func (c *checker) word() (string, error) { return c.string(len(magic)) }

func (c *checker) string(limit int) (string, error) {
	n, err := c.length()
	if err != nil {
		return "", err
	}
	if n > uint64(limit) {
		return "", formatErrorf("a string of %d bytes where at most %d fit", n, limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return "", err
	}
	c.offset += n
	return string(b), c.pad(n)
}

func (c *checker) contents() error {
	n, err := c.length()
	if err != nil {
		return err
	}
	for left := n; left > 0; {
		done, err := c.r.Discard(int(min(left, 1<<30)))
		c.offset += uint64(done)
		if err != nil {
			return err
		}
		left -= uint64(done)
	}
	return c.pad(n)
}

func (c *checker) length() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(c.r, b[:]); err != nil {
		return 0, err
	}
	c.offset += 8
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (c *checker) pad(n uint64) error {
	var b [8]byte
	p := b[:padding(n)]
	if _, err := io.ReadFull(c.r, p); err != nil {
		return err
	}
	c.offset += uint64(len(p))
	if b != zeros {
		return formatErrorf("padding that is not zero")
	}
	return nil
}

func formatErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}
