package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/org/attic-action/internal/nix"
)

// blockSize is how many bytes of a content are of one kind.
const blockSize = 64 << 10

// content is deterministic bytes that compress as programs do, to about half: of each three blocks one is
// random, one words, one a short pattern with numbers in it.
type content struct {
	seed uint64
	size int64
	at   int64
	buf  []byte // what is left of the block
}

func (c *content) Read(p []byte) (int, error) {
	if c.at >= c.size {
		return 0, io.EOF
	}
	if len(c.buf) == 0 {
		c.buf = block(c.buf[:0:cap(c.buf)], c.seed, uint64(c.at/blockSize))
		c.buf = c.buf[:min(int64(len(c.buf)), c.size-c.at)]
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	c.at += int64(n)
	return n, nil
}

var words = []string{"the ", "store ", "path ", "return ", "static ", "inline ", "derivation\n", "libc.so.6\x00", "0x7f", "\x00\x00\x00\x00", "error: ", "buildInputs "}

// block makes the n-th block.
func block(dst []byte, seed, n uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], n)
	rng := rand.NewChaCha8(key)
	switch n % 3 {
	case 0:
		dst = append(dst, make([]byte, blockSize)...)
		rng.Read(dst) // never fails
	case 1:
		for len(dst) < blockSize {
			r := rng.Uint64()
			for range 8 {
				dst = append(dst, words[r&0xff%uint64(len(words))]...)
				r >>= 8
			}
		}
	default:
		for i := rng.Uint64(); len(dst) < blockSize; i++ {
			dst = append(dst, "\x48\x8b\x05\x00\x00\x00\x00\x48\x89\xc7\xe8"...)
			dst = binary.LittleEndian.AppendUint32(dst, uint32(i))
		}
	}
	return dst[:blockSize]
}

// narBytes is the NAR of one regular file with this content.
func narBytes(c *content) (r io.Reader, size int64) {
	var head, tail []byte
	str := func(b []byte, s string) []byte {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		return append(append(b, s...), make([]byte, -len(s)&7)...)
	}
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "contents"} {
		head = str(head, s)
	}
	head = binary.LittleEndian.AppendUint64(head, uint64(c.size))
	tail = str(make([]byte, -c.size&7), ")")
	return io.MultiReader(bytes.NewReader(head), c, bytes.NewReader(tail)), int64(len(head)) + c.size + int64(len(tail))
}

// object is a store path with one generated file.
type object struct {
	path nix.StorePath
	seed uint64
	size int64 // of the file
	nar  int64
	hash nix.Hash
}

func newObject(dir, name string, seed uint64, size int64) (object, error) {
	o := object{seed: seed, size: size}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, seed))
	var err error
	if o.path, err = nix.ParseBaseName(dir, nix.EncodeBase32(sum[:20])+"-"+name); err != nil {
		return o, err
	}
	var r io.Reader
	r, o.nar = o.open()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return o, err
	}
	o.hash = nix.Hash(h.Sum(nil))
	return o, nil
}

func (o object) open() (io.Reader, int64) { return narBytes(&content{seed: o.seed, size: o.size}) }
