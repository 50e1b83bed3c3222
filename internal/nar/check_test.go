package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// words is the encoding of strings; a test puts NARs together from it that Dump would not write.
func words(all ...string) []byte {
	var b []byte
	for _, s := range all {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
		b = append(b, zeros[:padding(uint64(len(s)))]...)
	}
	return b
}

func file(contents string) []string {
	return []string{"(", "type", "regular", "contents", contents, ")"}
}

func dir(entries ...[]string) []string {
	all := []string{"(", "type", "directory"}
	for _, e := range entries {
		all = append(all, e...)
	}
	return append(all, ")")
}

func named(name string, node []string) []string {
	return append(append([]string{"entry", "(", "name", name, "node"}, node...), ")")
}

func archive(node []string) []byte { return words(append([]string{magic}, node...)...) }

func TestCheckTakesWhatNixWrites(t *testing.T) {
	for name, nar := range map[string][]byte{
		"file":       archive(file("hello")),
		"executable": archive([]string{"(", "type", "regular", "executable", "", "contents", "x", ")"}),
		"symlink":    archive([]string{"(", "type", "symlink", "target", "../x", ")"}),
		"directory":  archive(dir(named("B", file("")), named("a", dir()), named("a.", file("12345678")))),
	} {
		t.Run(name, func(t *testing.T) {
			if err := Check(iotest.OneByteReader(bytes.NewReader(nar))); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	nonZero := archive(file("hello"))
	nonZero[bytes.Index(nonZero, []byte("hello"))+6] = 1
	for name, nar := range map[string][]byte{
		"nothing":                    {},
		"other magic":                words(append([]string{"nix-archive-2"}, file("")...)...),
		"bytes after the end":        append(archive(file("hello")), 0),
		"padding that is not zero":   nonZero,
		"entries out of order":       archive(dir(named("b", file("")), named("a", file("")))),
		"one entry twice":            archive(dir(named("a", file("")), named("a", file("")))),
		"entry .. escapes":           archive(dir(named("..", file("")))),
		"entry .":                    archive(dir(named(".", file("")))),
		"entry with a slash":         archive(dir(named("a/b", file("")))),
		"entry with a zero":          archive(dir(named("a\x00", file("")))),
		"entry without a name":       archive(dir(named("", file("")))),
		"name beyond its limit":      archive(dir(named(strings.Repeat("n", maxNameLen+1), file("")))),
		"symlink to nothing":         archive([]string{"(", "type", "symlink", "target", "", ")"}),
		"unknown type":               archive([]string{"(", "type", "device", ")"}),
		"executable with a value":    archive([]string{"(", "type", "regular", "executable", "1", "contents", "", ")"}),
		"file without contents":      archive([]string{"(", "type", "regular", ")"}),
		"word where entry should be": archive([]string{"(", "type", "directory", "enter", ")"}),
		"contents beyond 2^63":       append(words(magic, "(", "type", "regular", "contents"), bytes.Repeat([]byte{0xff}, 8)...),
		"a word of a gigabyte":       binary.LittleEndian.AppendUint64(words(magic), 1<<30),
		"levels without end":         bytes.Join([][]byte{words(magic), bytes.Repeat(words("(", "type", "directory", "entry", "(", "name", "d", "node"), maxDepth+2)}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			if err := Check(bytes.NewReader(nar)); !errors.Is(err, ErrFormat) {
				t.Fatalf("error is %v, want ErrFormat", err)
			}
		})
	}
}

func TestCheckRefusesEveryTruncation(t *testing.T) {
	nar := archive(dir(named("a", file("hello")), named("b", []string{"(", "type", "symlink", "target", "a", ")"})))
	for n := range nar {
		if err := Check(bytes.NewReader(nar[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at byte %d: error is %v", n, err)
		}
	}
}

func TestCheckReturnsReadError(t *testing.T) {
	broken := errors.New("broken")
	r := io.MultiReader(bytes.NewReader(words(magic)), iotest.ErrReader(broken))
	if err := Check(r); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Fatalf("error is %v, want the reader's alone", err)
	}
}

// FuzzCheck unpacks what Check takes with a simple writer of its own and dumps that: the bytes must be the same, which
// is to say that Check takes nothing but the one NAR of a tree.
func FuzzCheck(f *testing.F) {
	f.Add(archive(file("hello")))
	f.Add(archive([]string{"(", "type", "regular", "executable", "", "contents", "x", ")"}))
	f.Add(archive(dir(named("a", file("hello")), named("b", []string{"(", "type", "symlink", "target", "a", ")"}))))
	f.Add(archive(dir(named("a", dir(named("b", dir()))))))
	f.Fuzz(func(t *testing.T, nar []byte) {
		if Check(bytes.NewReader(nar)) != nil {
			return
		}
		root := filepath.Join(t.TempDir(), "root")
		rest, ok := unpack(t, nar[len(words(magic)):], root)
		if !ok {
			return // the file system has no such name
		}
		if len(rest) != 0 {
			t.Fatalf("%d bytes after the archive were taken", len(rest))
		}
		if got := dump(t, root); !bytes.Equal(got, nar) {
			t.Fatalf("taken: %q\ndumped: %q", nar, got)
		}
	})
}

// unpack trusts its input wholly: Check has seen it.
func unpack(t *testing.T, b []byte, path string) (rest []byte, ok bool) {
	next := func() string {
		n := binary.LittleEndian.Uint64(b)
		s := string(b[8 : 8+n])
		b = b[8+n+uint64(padding(n)):]
		return s
	}
	next()
	next()
	switch next() {
	case "symlink":
		next()
		ok = os.Symlink(next(), path) == nil
		next()
	case "regular":
		mode := os.FileMode(0o644)
		if next() == "executable" {
			mode = 0o755
			next()
			next()
		}
		ok = os.WriteFile(path, []byte(next()), mode) == nil
		next()
	case "directory":
		ok = os.Mkdir(path, 0o755) == nil
		for ok && next() == "entry" {
			next()
			next()
			name := next()
			next()
			b, ok = unpack(t, b, filepath.Join(path, name))
			if ok {
				next()
			}
		}
	}
	return b, ok
}
