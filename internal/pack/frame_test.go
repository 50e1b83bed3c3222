package pack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/chunk"
)

// noise returns n bytes that no zstd makes shorter, always the same ones.
func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return b
}

// prose returns n bytes that compress like a program or a text.
func prose(n int) []byte {
	r := rand.New(rand.NewPCG(2, 2))
	words := []string{"store", "lib", "\x7fELF", "\x00\x00\x00\x00", "derivation ", "0123", "gcc-13.2.0", "\n"}
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(b, words[r.IntN(len(words))]...)
		b = append(b, byte(r.Uint32()))
	}
	return b[:n]
}

var contents = map[string]func(n int) []byte{
	"zeros": func(n int) []byte { return make([]byte, n) },
	"noise": noise,
	"prose": prose,
	"half":  func(n int) []byte { return append(noise(n/2), make([]byte, n-n/2)...) },
}

func TestEncoderWritesOnlyFramesThatConform(t *testing.T) {
	enc, dec := NewEncoder(), NewDecoder()
	sizes := []int{1, 2, 3, 9, 10, 31, 127, 128, 254, 255, 256, 257, 1000, 1023, 1024, 1025, 4095, 4096, 4097,
		65535, 65536, 65537, 65791, 65792, 65793, 128<<10 - 1, 128 << 10, 128<<10 + 1, 200000, 512 << 10, 1<<20 - 1, 1 << 20}
	for name, make := range contents {
		for _, n := range sizes {
			raw := make(n)
			span := enc.Frame(nil, raw)
			if err := CheckFrame(span, uint32(n)); err != nil {
				t.Errorf("%s of %d bytes: %v", name, n, err)
				continue
			}
			got, err := dec.Frame(nil, span, uint32(n))
			if err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%s of %d bytes: decodes to %d bytes, %v", name, n, len(got), err)
			}
		}
	}
	if testing.Short() {
		return
	}
	for n := 1; n < 3000; n++ { // the library's own limits lie here
		for name, make := range contents {
			if err := CheckFrame(enc.Frame(nil, make(n)), uint32(n)); err != nil {
				t.Fatalf("%s of %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestEncoderAppends(t *testing.T) {
	got := NewEncoder().Frame([]byte("before"), []byte("raw"))
	if !bytes.HasPrefix(got, []byte("before")) || CheckFrame(got[6:], 3) != nil {
		t.Errorf("Frame onto a prefix = %q", got)
	}
}

func TestFramesOfNoOrTooManyBytesAreRefused(t *testing.T) {
	enc := NewEncoder()
	for _, n := range []int{0, 1<<20 + 1} {
		span := enc.Frame(nil, make([]byte, n))
		if err := CheckFrame(span, uint32(n)); !errors.Is(err, ErrFormat) {
			t.Errorf("CheckFrame of %d bytes = %v, want ErrFormat", n, err)
		}
	}
}

// A form that holds literals must be the same bytes on every server, so these are written out.
func TestLiteralFrameIsFixed(t *testing.T) {
	dec := NewDecoder()
	for _, tt := range []struct {
		n      int
		header string
	}{
		{1, "\x28\xb5\x2f\xfd\x20\x01\x09\x00\x00"},
		{255, "\x28\xb5\x2f\xfd\x20\xff\xf9\x07\x00"},
		{256, "\x28\xb5\x2f\xfd\x60\x00\x00\x01\x08\x00"},
		{4096, "\x28\xb5\x2f\xfd\x60\x00\x0f\x01\x80\x00"},
	} {
		raw := prose(tt.n)
		span := LiteralFrame([]byte("x"), raw)[1:]
		if want := tt.header + string(raw); string(span) != want {
			t.Errorf("frame of %d bytes starts with %x, want %x", tt.n, span[:10], want[:10])
		}
		if got := LiteralFrameSize(tt.n); got != len(span) {
			t.Errorf("LiteralFrameSize(%d) = %d, want %d", tt.n, got, len(span))
		}
		if got, err := dec.Frame(nil, span, uint32(tt.n)); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("frame of %d bytes decodes to %d, %v", tt.n, len(got), err)
		}
	}
}

func TestCodecsAreSafeForConcurrentUse(t *testing.T) {
	enc, dec := NewEncoder(), NewDecoder()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var span, raw []byte
			for n := 1; n < 200000; n = n*3 + i {
				want := prose(n)
				span = enc.Frame(span[:0], want)
				got, err := dec.Frame(raw, span, uint32(n))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes: %d bytes, %v", n, len(got), err)
				}
				raw = got
			}
		})
	}
	wg.Wait()
}

// 256 MB of a server and a runner's many jobs: what an encoder keeps must be known.
func TestEncoderAndDecoderMemoryIsBounded(t *testing.T) {
	raw := prose(1 << 20)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const jobs = 3 // not one for each processor
	before := heap()
	enc, dec := NewEncoderFor(jobs), NewDecoderFor(jobs)
	span := make([]byte, 0, 2<<20)
	out := make([]byte, 0, 1<<20+decodeSlack)
	buffers := int64(cap(span) + cap(out))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { enc.Frame(nil, raw) })
	}
	wg.Wait()
	span = enc.Frame(span, raw)
	if _, err := dec.Frame(out, span, 1<<20); err != nil {
		t.Fatal(err)
	}
	kept := int64(heap()) - int64(before) - buffers
	each := kept / jobs
	t.Logf("%d KiB for each of %d", each>>10, jobs)
	if each > 4<<20 {
		t.Errorf("keeps %d bytes for each concurrent use, want at most 4 MiB", each)
	}
	runtime.KeepAlive(enc)
	runtime.KeepAlive(dec)
}

func FuzzCheckFrame(f *testing.F) {
	enc, dec := NewEncoder(), NewDecoder()
	for _, n := range []int{1, 255, 256, 5000, 70000} {
		f.Add(enc.Frame(nil, prose(n)), uint32(n))
		f.Add(LiteralFrame(nil, noise(n)), uint32(n))
	}
	f.Add([]byte(strings.Repeat("\x00", 20)), uint32(1))
	f.Fuzz(func(t *testing.T, span []byte, raw uint32) {
		if err := CheckFrame(span, raw); err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is no ErrFormat", err)
			}
			return
		}
		if raw > chunk.MaxSize || len(span) > int(raw)+maxOverhead {
			t.Fatalf("frame of %d bytes for %d is accepted", len(span), raw)
		}
		// The library must agree with our reading of the header: one frame, no more than raw.
		var h zstd.Header
		if err := h.Decode(span); err != nil || !h.SingleSegment || h.FrameContentSize != uint64(raw) || h.HasCheckSum || h.DictionaryID != 0 {
			t.Fatalf("header %+v, %v", h, err)
		}
		got, err := dec.Frame(nil, span, raw)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is no ErrFormat", err)
			}
			return
		}
		if len(got) != int(raw) {
			t.Fatalf("decodes to %d bytes, want %d", len(got), raw)
		}
	})
}

func BenchmarkFrame(b *testing.B) {
	raw := prose(128 << 10)
	enc := NewEncoder()
	span := enc.Frame(nil, raw)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		b.ReportAllocs()
		buf := make([]byte, 0, 1<<20)
		for b.Loop() {
			enc.Frame(buf, raw)
		}
	})
	b.Run("check", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			if err := CheckFrame(span, uint32(len(raw))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		dec := NewDecoder()
		buf := make([]byte, len(raw)+decodeSlack)
		b.SetBytes(int64(len(raw)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := dec.Frame(buf, span, uint32(len(raw))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
