package unpack_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/unpack"
)

func compress(t testing.TB, data []byte, command ...string) []byte {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	return out
}

// contents are some megabytes that compress in parts.
func contents() []byte {
	data := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data[:2<<20])
	copy(data[3<<20:], data[:1<<20])
	return data
}

var commands = map[string][][]string{
	"none":  {{"cat"}},
	"zstd":  {{"zstd", "-c"}, {"zstd", "-c", "--ultra", "-22", "--long=27"}},
	"xz":    {{"xz", "-c"}, {"xz", "-c", "-9"}, {"xz", "-c", "-T2", "--block-size=1MiB"}, {"xz", "-c", "-0", "--check=none"}, {"xz", "-c", "--check=sha256"}},
	"bzip2": {{"bzip2", "-c"}},
	"gzip":  {{"gzip", "-c"}},
}

func TestWhatTheToolsWriteIsRead(t *testing.T) {
	for _, data := range [][]byte{contents(), nil, []byte("x")} {
		for name, lines := range commands {
			for _, line := range lines {
				packed := compress(t, data, line...)
				r, err := unpack.NewReader(name, bytes.NewReader(packed))
				if err != nil {
					t.Fatalf("%v: %v", line, err)
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%v: %d of %d bytes: %v", line, len(got), len(data), err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestWhatEndsEarlyIsAnError(t *testing.T) {
	data := contents()
	for name, lines := range commands {
		if name == "none" {
			continue // whose end nobody can tell; its reader knows the length
		}
		packed := compress(t, data, lines[0]...)
		for _, cut := range []int{3, 20, len(packed) / 2} {
			r, err := unpack.NewReader(name, bytes.NewReader(packed[:cut]))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if err == nil {
				t.Errorf("%s: %d of %d bytes are no error", name, cut, len(packed))
			}
		}
	}
}

// A header of a few bytes must not make a server allocate gigabytes.
func TestXZThatWantsTooMuchMemoryIsRefused(t *testing.T) {
	packed := compress(t, []byte("small"), "xz", "-c", "--lzma2=preset=6,dict=1GiB")
	r, err := unpack.NewReader("xz", bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, unpack.ErrXZ) || !unpack.WantsMemory(err) {
		t.Errorf("%v", err)
	}
}

func TestZstdThatWantsTooMuchMemoryIsRefused(t *testing.T) {
	packed := compress(t, make([]byte, 1<<20), "sh", "-c", "zstd -c --ultra -22 --long=30 --no-content-size")
	r, err := unpack.NewReader("zstd", bytes.NewReader(packed))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if !unpack.WantsMemory(err) {
		t.Errorf("a window of 1 GiB: %v", err)
	}
}

func TestUnknownCompressionIsNamed(t *testing.T) {
	_, err := unpack.NewReader("br", nil)
	if !errors.Is(err, unpack.ErrUnknown) || unpack.Known("br") || !unpack.Known("") {
		t.Errorf("%v", err)
	}
}

func FuzzNewReader(f *testing.F) {
	for name, lines := range commands {
		for _, line := range lines {
			f.Add(name, compress(f, []byte("hello, hello, hello"), line...))
		}
	}
	f.Fuzz(func(t *testing.T, name string, packed []byte) {
		r, err := unpack.NewReader(name, bytes.NewReader(packed))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 8<<20))
		_ = r.Close()
	})
}

func TestMemoryIsWhatTheHeaderAsksFor(t *testing.T) {
	for _, c := range []struct {
		name string
		line []string
		want int64
	}{
		{"xz", []string{"xz", "-c"}, 8 << 20},
		{"xz", []string{"xz", "-c", "-9"}, 64 << 20},
		{"zstd", []string{"sh", "-c", "zstd -c -3 --no-content-size"}, 2 << 20},
		{"zstd", []string{"sh", "-c", "zstd -c --ultra -22 --long=27 --no-content-size"}, 128 << 20},
		{"bzip2", []string{"bzip2", "-c"}, 4 << 20},
		{"none", []string{"cat"}, 1 << 20},
	} {
		data := contents()
		packed := compress(t, data, c.line...)
		got := unpack.Memory(c.name, packed[:unpack.HeadSize])
		if got != c.want {
			t.Errorf("%v: %d in place of %d", c.line, got, c.want)
		}
		r, err := unpack.NewReaderWithin(c.name, bytes.NewReader(packed), got)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(r); err != nil || !bytes.Equal(out, data) {
			t.Errorf("%v: %d bytes within its memory: %v", c.line, len(out), err)
		}
	}
}

// The attack: a modest header in front, of which the budget is taken, and a greedy one behind it.
func TestWhatWantsMoreMemoryLaterIsRefused(t *testing.T) {
	for _, c := range []struct {
		name          string
		modest, greed []string
	}{
		{"zstd", []string{"zstd", "-c", "--no-content-size"}, []string{"sh", "-c", "zstd -c --ultra -22 --long=27 --no-content-size"}},
		{"xz", []string{"xz", "-c", "-0"}, []string{"xz", "-c", "-9"}},
	} {
		packed := compress(t, []byte("small"), c.modest...)
		memory := unpack.Memory(c.name, packed)
		greedy := compress(t, contents(), c.greed...)
		if c.name == "xz" { // a block of the one stream behind that of the other
			const head, block = 12, 32
			packed = append(packed[:head+block:head+block], greedy[head:]...)
		} else {
			packed = append(packed, greedy...)
		}
		r, err := unpack.NewReaderWithin(c.name, bytes.NewReader(packed), memory)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err == nil || !strings.Contains(err.Error(), "wants") && !errors.Is(err, zstd.ErrWindowSizeExceeded) {
			t.Errorf("%s: decoded within %d bytes: %v", c.name, memory, err)
		}
	}
}
