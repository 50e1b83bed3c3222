package nar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Contents takes the NAR of one regular file that is not executable, and passes the file's bytes on:
// what a flat content address hashes. Writing never fails; Whole says whether it was such a NAR.
type Contents struct {
	To io.Writer // must not fail, as a hash does not

	head, tail []byte
	left       uint64 // bytes of the file to come
	wrong      bool
}

// fileHead are the bytes before the file's size.
var fileHead = appendStrings(nil, "nix-archive-1", "(", "type", "regular", "contents")

func appendStrings(b []byte, list ...string) []byte {
	for _, s := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
		b = append(b, make([]byte, -len(s)&7)...)
	}
	return b
}

func (c *Contents) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0 && !c.wrong; {
		rest = rest[c.take(rest):]
	}
	return len(p), nil
}

// take uses some of p, at least one byte.
func (c *Contents) take(p []byte) int {
	if want := len(fileHead) + 8; len(c.head) < want {
		n := min(len(p), want-len(c.head))
		c.head = append(c.head, p[:n]...)
		if len(c.head) == want {
			c.wrong = !bytes.Equal(c.head[:len(fileHead)], fileHead)
			c.left = binary.LittleEndian.Uint64(c.head[len(fileHead):])
		}
		return n
	}
	if c.left > 0 {
		n := int(min(uint64(len(p)), c.left))
		_, _ = c.To.Write(p[:n])
		c.left -= uint64(n)
		return n
	}
	c.tail = append(c.tail, p...)
	c.wrong = len(c.tail) > maxTail
	return len(p)
}

// maxTail is the padding and the closing parenthesis.
const maxTail = 7 + 16

// Whole tells whether all that was written is one such NAR, to its last byte.
func (c *Contents) Whole() bool {
	if c.wrong || c.left > 0 || len(c.head) < len(fileHead)+8 {
		return false
	}
	size := binary.LittleEndian.Uint64(c.head[len(fileHead):])
	return bytes.Equal(c.tail, appendStrings(make([]byte, -size&7), ")"))
}

// AppendState appends to b what RestoreState goes on from, To left out.
func (c *Contents) AppendState(b []byte) []byte {
	if c.wrong {
		return append(b, 1)
	}
	b = append(b, 0, byte(len(c.head)), byte(len(c.tail)))
	b = append(append(b, c.head...), c.tail...)
	return binary.LittleEndian.AppendUint64(b, c.left)
}

// RestoreState puts c where another one was. Bytes that AppendState did not write are ErrFormat.
func (c *Contents) RestoreState(b []byte) error {
	if len(b) == 1 && b[0] == 1 {
		c.Spoil()
		return nil
	}
	if len(b) < 3 || b[0] != 0 || len(b) != 3+int(b[1])+int(b[2])+8 || int(b[1]) > len(fileHead)+8 || int(b[2]) > maxTail {
		return fmt.Errorf("restore contents: %w", ErrFormat)
	}
	head, rest := b[3:3+b[1]], b[3+b[1]:]
	c.head, c.tail, c.wrong = bytes.Clone(head), bytes.Clone(rest[:b[2]]), false
	c.left = binary.LittleEndian.Uint64(rest[b[2]:])
	return nil
}

// Spoil makes c one that has seen something else than a file.
func (c *Contents) Spoil() { c.wrong, c.head, c.tail = true, nil, nil }
