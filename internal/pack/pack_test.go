package pack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/attic-action/internal/chunk"
)

// part is an entry to be written, with its frame.
type part struct {
	kind  chunk.Kind
	frame []byte
	raw   []byte
}

func (p part) id() chunk.ID { return chunk.Sum(p.raw) }

func chunkPart(enc *Encoder, raw []byte) part {
	return part{chunk.Chunk, enc.Frame(nil, raw), raw}
}

func literalPart(raw []byte) part { return part{chunk.Literal, LiteralFrame(nil, raw), raw} }

func writePack(t testing.TB, flags uint16, parts []part) ([]byte, *Index) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, flags)
	for i, p := range parts {
		if err := w.Add(p.kind, p.id(), p.frame, len(p.raw)); err != nil {
			t.Fatalf("Add part %d: %v", i, err)
		}
	}
	sum, ix, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if sum != sha256.Sum256(b.Bytes()) {
		t.Fatal("Finish returned another sum than that of what it wrote")
	}
	return b.Bytes(), ix
}

var oneDecoder = sync.OnceValue(NewDecoder) // for thousands of packs

// readPack does what a server does with what it received, and returns the raw bytes.
func readPack(pack []byte) ([]byte, error) {
	ix, err := ReadIndex(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		return nil, err
	}
	var raw []byte
	err = Verify(bytes.NewReader(pack), ix, oneDecoder(), func(_ int, _ Entry, b []byte) error {
		raw = append(raw, b...)
		return nil
	})
	return raw, err
}

func TestPackIsReadBackAsWritten(t *testing.T) {
	enc := NewEncoder()
	shared := []part{chunkPart(enc, prose(100000)), chunkPart(enc, noise(1<<20)), chunkPart(enc, []byte("x")), chunkPart(enc, make([]byte, 1<<20))}
	own := []part{chunkPart(enc, prose(50000)), literalPart([]byte("literal")), shared[0], shared[0], literalPart(prose(4096))}
	for name, tt := range map[string]struct {
		flags uint16
		parts []part
	}{"shared": {0, shared}, "own": {FlagOwn, own}, "one entry": {0, shared[2:3]}} {
		t.Run(name, func(t *testing.T) {
			pack, ix := writePack(t, tt.flags, tt.parts)
			got, err := ReadIndex(bytes.NewReader(pack), int64(len(pack)))
			if err != nil {
				t.Fatal(err)
			}
			if got.Flags != tt.flags || !slices.Equal(got.Entries, ix.Entries) {
				t.Errorf("index read = %+v, written %+v", got, ix)
			}
			if !bytes.HasSuffix(pack, got.Encode()) || got.Size() != int64(len(pack)) || got.FrameSize() != int64(len(got.Encode())) {
				t.Error("Encode, Size or FrameSize is not what the file ends with")
			}
			var want []byte
			for _, p := range tt.parts {
				want = append(want, p.raw...)
			}
			raw, err := readPack(pack)
			if err != nil || !bytes.Equal(raw, want) || got.RawSize() != int64(len(want)) {
				t.Errorf("contents: %d bytes, %v, want %d", len(raw), err, len(want))
			}
			offs := got.Offsets()
			for i, p := range tt.parts {
				if span := pack[offs[i]:offs[i+1]]; offs[i] != got.Offset(i) || !bytes.Equal(span, p.frame) {
					t.Errorf("entry %d is not at %d", i, offs[i])
				}
			}
			if offs[len(tt.parts)] != got.DataSize() {
				t.Errorf("offsets end at %d, data at %d", offs[len(tt.parts)], got.DataSize())
			}
		})
	}
}

// An own pack is served from the bucket to Nix, which knows zstd and nothing of us. The zstd tool
// stands for every such reader; without it this test cannot say anything, so it fails.
func TestOwnPackIsANARForTheZstdTool(t *testing.T) {
	tool, err := exec.LookPath("zstd")
	if err != nil {
		t.Fatalf("install zstd, a tool that the tests need: %v", err)
	}
	enc := NewEncoder()
	nar := slices.Concat(prose(300000), make([]byte, 700000), noise(200000), prose(1<<20))
	hash := "0123456789abcdfghijklmnpqrsvwxyz"
	for _, at := range []int{10, 100000, 101000, 500000, 1400000} {
		copy(nar[at:], hash)
	}
	// Two packs in a row, each with its index frame: how a long NAR is stored.
	file := filepath.Join(t.TempDir(), "own.pack")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(f, FlagOwn)
	c := chunk.NewCutter(chunk.DefaultParams, []string{hash}, func(k chunk.Kind, raw []byte) error {
		if w.Len() == 4 {
			if _, _, err := w.Finish(); err != nil {
				return err
			}
			w = NewWriter(f, FlagOwn)
		}
		frame := enc.Frame(nil, raw)
		if k == chunk.Literal {
			frame = LiteralFrame(nil, raw)
		}
		return w.Add(k, chunk.Sum(raw), frame, len(raw))
	})
	if _, err := c.Write(nar); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	cmd := exec.Command(tool, "-dc", file)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("zstd -dc: %v: %s", err, &stderr)
	}
	if !bytes.Equal(out.Bytes(), nar) {
		t.Errorf("zstd -dc gives %d bytes, want the NAR of %d", out.Len(), len(nar))
	}
}

func TestWriterRefusesWhatAReaderWould(t *testing.T) {
	enc := NewEncoder()
	good := chunkPart(enc, prose(1000))
	var b bytes.Buffer
	w := NewWriter(&b, 0)
	for name, add := range map[string]func() error{
		"literal in a shared pack": func() error { p := literalPart([]byte("x")); return w.Add(p.kind, p.id(), p.frame, 1) },
		"unknown kind":             func() error { return w.Add(2, good.id(), good.frame, 1000) },
		"wrong raw size":           func() error { return w.Add(chunk.Chunk, good.id(), good.frame, 999) },
		"raw size 0":               func() error { return w.Add(chunk.Chunk, good.id(), good.frame, 0) },
		"raw size below 0":         func() error { return w.Add(chunk.Chunk, good.id(), good.frame, -1) },
		"raw size above 32 bits":   func() error { return w.Add(chunk.Chunk, good.id(), good.frame, 1000+1<<32) },
		"two frames":               func() error { return w.Add(chunk.Chunk, good.id(), slices.Concat(good.frame, good.frame), 1000) },
		"no frame":                 func() error { return w.Add(chunk.Chunk, good.id(), nil, 1000) },
	} {
		if err := add(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	if b.Len() != 0 || w.Size() != 0 || w.Len() != 0 {
		t.Errorf("refused entries left %d bytes, Size %d, Len %d", b.Len(), w.Size(), w.Len())
	}
	if err := w.Add(good.kind, good.id(), good.frame, 1000); err != nil {
		t.Errorf("Add after refused entries: %v", err)
	}
	if _, _, err := w.Finish(); err != nil {
		t.Errorf("Finish after refused entries: %v", err)
	}
	if err := w.Add(good.kind, good.id(), good.frame, 1000); err == nil {
		t.Error("Add after Finish = nil")
	}
	if _, _, err := w.Finish(); err == nil {
		t.Error("second Finish = nil")
	}
	if _, _, err := NewWriter(io.Discard, 0).Finish(); !errors.Is(err, ErrFormat) {
		t.Errorf("Finish without entries: %v, want ErrFormat", err)
	}
	if err := NewWriter(io.Discard, 2).Add(good.kind, good.id(), good.frame, 1000); err == nil {
		t.Error("Add with unknown flags = nil")
	}
}

type failingWriter struct{ left int }

var errDisk = errors.New("disk is gone")

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

func TestWriterIsBrokenAfterAWriteError(t *testing.T) {
	p := chunkPart(NewEncoder(), prose(1000))
	w := NewWriter(&failingWriter{len(p.frame)}, 0)
	if err := w.Add(p.kind, p.id(), p.frame, 1000); err != nil {
		t.Fatal(err)
	}
	if err := w.Add(p.kind, p.id(), p.frame, 1000); !errors.Is(err, errDisk) {
		t.Errorf("Add: %v, want the disk's error", err)
	}
	if err := w.Add(p.kind, p.id(), p.frame, 1000); !errors.Is(err, ErrBroken) {
		t.Errorf("next Add: %v, want ErrBroken", err)
	}
	if _, _, err := w.Finish(); !errors.Is(err, ErrBroken) {
		t.Errorf("Finish: %v, want ErrBroken", err)
	}
	w = NewWriter(&failingWriter{len(p.frame)}, 0)
	if err := w.Add(p.kind, p.id(), p.frame, 1000); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(); !errors.Is(err, errDisk) {
		t.Errorf("Finish onto a full disk: %v, want the disk's error", err)
	}
	if _, _, err := w.Finish(); !errors.Is(err, ErrBroken) {
		t.Errorf("Finish again: %v, want ErrBroken", err)
	}
}

func TestWriterSaysWhenThePackIsFull(t *testing.T) {
	big := chunkPart(NewEncoder(), noise(1<<20))
	w := NewWriter(io.Discard, 0)
	for w.Fits(len(big.frame)) {
		if err := w.Add(big.kind, big.id(), big.frame, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(big.kind, big.id(), big.frame, 1<<20); !errors.Is(err, ErrFull) {
		t.Errorf("Add beyond %d bytes: %v, want ErrFull", MaxPackSize, err)
	}
	if w.Size() != 95*int64(len(big.frame)) {
		t.Errorf("full at %d bytes", w.Size())
	}
	if _, ix, err := w.Finish(); err != nil || ix.Size() > MaxPackSize {
		t.Errorf("Finish of a full pack: %v", err)
	}

	small := literalPart([]byte("x"))
	var b bytes.Buffer
	w = NewWriter(&b, FlagOwn)
	for range MaxEntries {
		if err := w.Add(small.kind, small.id(), small.frame, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(small.kind, small.id(), small.frame, 1); !errors.Is(err, ErrFull) {
		t.Errorf("Add beyond %d entries: %v, want ErrFull", MaxEntries, err)
	}
	if _, _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if raw, err := readPack(b.Bytes()); err != nil || string(raw) != strings.Repeat("x", MaxEntries) {
		t.Errorf("pack of %d entries: %d bytes, %v", MaxEntries, len(raw), err)
	}
}

func TestVerifyPassesOnTheErrorOfEach(t *testing.T) {
	pack, ix := writePack(t, 0, []part{chunkPart(NewEncoder(), prose(10))})
	err := Verify(bytes.NewReader(pack), ix, NewDecoder(), func(int, Entry, []byte) error { return errDisk })
	if err != errDisk {
		t.Errorf("error %v, want it as it was returned", err)
	}
}

func TestReadErrorsAreNotCalledMalformed(t *testing.T) {
	pack, ix := writePack(t, 0, []part{chunkPart(NewEncoder(), prose(10))})
	_, err := ReadIndex(bytes.NewReader(pack[:40]), int64(len(pack)))
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrFormat) {
		t.Errorf("ReadIndex of a file that is shorter than announced: %v", err)
	}
	err = Verify(io.MultiReader(bytes.NewReader(pack[:5])), ix, NewDecoder(), nil)
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrFormat) {
		t.Errorf("Verify of a stream that ends early: %v", err)
	}
}

func FuzzReadIndex(f *testing.F) {
	enc := NewEncoder()
	shared, _ := writePack(f, 0, []part{chunkPart(enc, prose(100)), chunkPart(enc, prose(200))})
	own, _ := writePack(f, FlagOwn, []part{chunkPart(enc, prose(100)), literalPart([]byte("x"))})
	f.Add(shared)
	f.Add(own)
	f.Add(shared[len(shared)-24:])
	dec := NewDecoder()
	f.Fuzz(func(t *testing.T, b []byte) {
		ix, err := ReadIndex(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is no ErrFormat", err)
			}
			return
		}
		if ix.Size() != int64(len(b)) || !bytes.HasSuffix(b, ix.Encode()) {
			t.Fatal("index does not cover the file, or encodes to other bytes")
		}
		again, err := DecodeIndex(b[ix.DataSize():])
		if err != nil || !slices.Equal(again.Entries, ix.Entries) || again.Flags != ix.Flags {
			t.Fatalf("DecodeIndex disagrees: %v", err)
		}
		var n int64
		err = Verify(bytes.NewReader(b), ix, dec, func(_ int, e Entry, raw []byte) error {
			n += int64(len(raw))
			return nil
		})
		if err == nil && n != ix.RawSize() {
			t.Fatalf("verified %d bytes, index says %d", n, ix.RawSize())
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrHash) {
			t.Fatalf("error %v is neither ErrFormat nor ErrHash", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	enc := NewEncoder()
	var parts []part
	for range 64 {
		parts = append(parts, chunkPart(enc, prose(128<<10)))
	}
	pack, ix := writePack(b, 0, parts)
	dec := NewDecoder()
	b.SetBytes(ix.RawSize())
	b.ReportAllocs()
	for b.Loop() {
		if err := Verify(bytes.NewReader(pack), ix, dec, nil); err != nil {
			b.Fatal(err)
		}
	}
}
