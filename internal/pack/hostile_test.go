package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/chunk"
)

// Whoever may push to one cache may send these. Each is a way to make a server keep bytes that it
// does not understand, serve what Nix can't read, run out of memory, or store under a hash what does
// not have it. Frames are made by hand: our own Writer refuses them.

// rawIndex is an index frame for entries that need not make sense.
func rawIndex(flags uint16, entries ...Entry) []byte {
	return (&Index{Flags: flags, Entries: entries}).Encode()
}

// forged is a pack of one chunk that has the given frame, with an index that agrees.
func forged(frame, raw []byte) []byte {
	return append(slices.Clone(frame), rawIndex(0, Entry{chunk.Chunk, chunk.Sum(raw), uint32(len(frame)), uint32(len(raw))})...)
}

// block is a block with its header.
func block(last bool, kind, size int, body ...byte) []byte {
	h := size<<3 | kind<<1
	if last {
		h |= 1
	}
	return append([]byte{byte(h), byte(h >> 8), byte(h >> 16)}, body...)
}

func frameOf(raw uint32, blocks ...[]byte) []byte {
	return append(appendHeader(nil, raw), slices.Concat(blocks...)...)
}

func withOptions(t *testing.T, raw []byte, o ...zstd.EOption) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(raw, nil)
}

func TestHostilePacksAreRefused(t *testing.T) {
	enc := NewEncoder()
	raw := prose(3000)
	frame := enc.Frame(nil, raw)
	good := forged(frame, raw)
	if _, err := readPack(good); err != nil {
		t.Fatalf("the pack that all others are made from: %v", err)
	}
	a, b := chunkPart(enc, prose(1000)), chunkPart(enc, noise(1000))
	two := slices.Concat(a.frame, b.frame)
	entry := func(p part) Entry {
		return Entry{p.kind, p.id(), uint32(len(p.frame)), uint32(len(p.raw))}
	}
	twoIndex := rawIndex(0, entry(a), entry(b))
	lit := literalPart([]byte("literal"))
	bit := func(n int, mask byte) []byte { // of the good pack
		p := slices.Clone(good)
		p[n] |= mask
		return p
	}
	footer := func(at int, put func(b []byte)) []byte { // of the good pack, changes b[at:] of its last 16 bytes
		p := slices.Clone(good)
		put(p[len(p)-footerSize+at:])
		return p
	}
	u16 := func(v uint16) func([]byte) { return func(b []byte) { binary.LittleEndian.PutUint16(b, v) } }
	u32 := func(v uint32) func([]byte) { return func(b []byte) { binary.LittleEndian.PutUint32(b, v) } }
	change := func(e Entry, f func(*Entry)) Entry { f(&e); return e }
	one := Entry{chunk.Chunk, chunk.Sum(raw), uint32(len(frame)), 3000}
	bomb := make([]byte, 1<<20)
	rle := func(n int) []byte { return block(false, blockRLE, n, 0) }

	for _, tt := range []struct {
		name string
		pack []byte
		says string
	}{
		// frames
		{"two frames in a span", forged(slices.Concat(a.frame, b.frame), slices.Concat(a.raw, b.raw)), "content size is not 2000"},
		{"second frame behind the whole contents", forged(slices.Concat(a.frame, a.frame), a.raw), "is the last"},
		{"skippable frame before the frame", forged(slices.Concat([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), a.frame), a.raw), "magic number"},
		{"skippable frame behind the frame", forged(slices.Concat(a.frame, []byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x")), a.raw), "is the last"},
		{"nothing but a skippable frame", forged([]byte("\x50\x2a\x4d\x18\x08\x00\x00\x00aaaaaaaa"), a.raw), "magic number"},
		{"window of 2^28", forged(withOptions(t, raw, zstd.WithSingleSegment(false), zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<28)), raw), "single segment"},
		{"window of 2^28 written by hand", forged(slices.Concat([]byte("\x28\xb5\x2f\xfd\x00\x90"), block(true, blockRLE, 100, 0)), make([]byte, 100)), "single segment"},
		{"content size is missing", forged(slices.Concat([]byte("\x28\xb5\x2f\xfd\x00\x50"), block(true, blockRaw, 100, make([]byte, 100)...)), make([]byte, 100)), "single segment"},
		{"content size of another length", forged(enc.Frame(nil, raw[:2999]), raw), "content size is not 3000"},
		{"content size in a longer field", forged(slices.Concat([]byte("\x28\xb5\x2f\xfd\xa0\x64\x00\x00\x00"), block(true, blockRLE, 100, 0)), make([]byte, 100)), "content size is not 100"},
		{"content size of 8 bytes", forged(slices.Concat([]byte("\x28\xb5\x2f\xfd\xe0\x64\x00\x00\x00\x00\x00\x00\x00"), block(true, blockRLE, 100, 0)), make([]byte, 100)), "content size is not 100"},
		{"checksum", forged(withOptions(t, raw, zstd.WithSingleSegment(true)), raw), "announces a checksum"},
		{"checksum flag without a checksum", bit(4, 1<<2), "announces a checksum"},
		{"dictionary id", bit(4, 1), "names a dictionary"},
		{"dictionary id of 4 bytes", bit(4, 3), "names a dictionary"},
		{"reserved bit", bit(4, 1<<3), "reserved bit"},
		{"unused bit", bit(4, 1<<4), "reserved bit"},
		{"not a frame", forged(bytes.Repeat([]byte("x"), 100), raw), "magic number"},
		{"magic number of zstd 0.7", forged(append([]byte("\x27\xb5\x2f\xfd"), frame[4:]...), raw), "magic number"},

		// blocks
		{"reserved block type", forged(frameOf(100, block(true, blockNothing, 100, make([]byte, 100)...)), make([]byte, 100)), "reserved type"},
		{"no last block", forged(frameOf(100, block(false, blockRaw, 100, make([]byte, 100)...)), make([]byte, 100)), "not marked as the last"},
		{"block beyond the span", forged(frameOf(100, block(true, blockRaw, 100, make([]byte, 99)...)), make([]byte, 100)), "is cut off"},
		{"block header cut off", forged(frameOf(200, block(false, blockRaw, 100, make([]byte, 100)...), []byte{1, 2}), make([]byte, 200)), "is cut off"},
		{"empty block", forged(frameOf(100, block(false, blockRaw, 0), block(true, blockRLE, 100, 0)), make([]byte, 100)), "has 0 bytes"},
		{"ten thousand empty blocks", forged(frameOf(1<<20, bytes.Repeat(block(false, blockRaw, 0), 10000), block(true, blockRLE, 100, 0)), bomb), "has 0 bytes"},
		{"block above 128 KiB", forged(frameOf(1<<20, block(true, blockRLE, 128<<10+1, 0)), bomb), "has 131073 bytes"},
		{"block longer than the contents", forged(frameOf(100, block(true, blockRLE, 101, 0)), make([]byte, 100)), "has 101 bytes"},
		{"contents are shorter than announced", forged(frameOf(101, block(true, blockRaw, 100, make([]byte, 100)...)), make([]byte, 101)), "100 bytes at most"},

		// bombs
		{"a gigabyte in 64 KiB", forged(frameOf(1<<20, bytes.Repeat(rle(128<<10), 8192), block(true, blockRLE, 128<<10, 0)), bomb), "goes beyond the content size"},
		{"a block too many", forged(frameOf(1<<20, bytes.Repeat(rle(128<<10), 8), block(true, blockRLE, 1, 0)), bomb), "goes beyond the content size"},
		{"compressed blocks of more than announced", forged(frameOf(1<<20-1, blocksOf(t, enc, 1<<20)), bomb[:1<<20-1]), "decode frame"},
		{"compressed blocks of less than announced", forged(frameOf(1<<20, blocksOf(t, enc, 1<<20-1)), bomb), "decode frame"},
		{"compressed block of garbage", forged(frameOf(1000, block(true, blockZstd, 500, noise(500)...)), make([]byte, 1000)), "decode frame"},
		{"raw size above 1 MiB", append(slices.Clone(frame), rawIndex(0, change(one, func(e *Entry) { e.Raw = 1<<20 + 1 }))...), "entry 0: chunk of 1048577 bytes"},
		{"raw size of 4 GiB", append(slices.Clone(frame), rawIndex(0, change(one, func(e *Entry) { e.Raw = 1<<32 - 1 }))...), "entry 0: chunk of 4294967295 bytes"},
		{"raw size 0", append(slices.Clone(frame), rawIndex(0, change(one, func(e *Entry) { e.Raw = 0 }))...), "entry 0: chunk of 0 bytes"},
		{"span longer than its contents can need", append(make([]byte, 5000), rawIndex(0, change(one, func(e *Entry) { e.Size = 5000 }))...), "entry 0: frame of 5000 bytes"},
		{"span of 4 GiB", append(slices.Clone(frame), rawIndex(0, change(one, func(e *Entry) { e.Size = 1<<32 - 1 }))...), "entry 0: frame of 4294967295 bytes"},
		{"span of 9 bytes", append(slices.Clone(frame), rawIndex(0, change(one, func(e *Entry) { e.Size = 9 }))...), "entry 0: frame of 9 bytes"},

		// bytes that belong to no entry
		{"byte before the first frame", slices.Concat([]byte{0}, two, twoIndex), "in the file"},
		{"byte before, the size made to fit", slices.Concat([]byte{0}, two, rawIndex(0, change(entry(a), func(e *Entry) { e.Size++ }), entry(b))), "entry 0"},
		{"byte between two frames", slices.Concat(a.frame, []byte{0}, b.frame, twoIndex), "in the file"},
		{"byte between, the size made to fit", slices.Concat(a.frame, []byte{0}, b.frame, rawIndex(0, change(entry(a), func(e *Entry) { e.Size++ }), entry(b))), "entry 0"},
		{"byte before the index", slices.Concat(two, []byte{0}, twoIndex), "in the file"},
		{"byte before the index, the size made to fit", slices.Concat(two, []byte{0}, rawIndex(0, entry(a), change(entry(b), func(e *Entry) { e.Size++ }))), "entry 1"},
		{"byte behind the index", slices.Concat(two, twoIndex, []byte{0}), "does not end with"},
		{"bytes behind the index inside its frame", func() []byte {
			p := slices.Concat(two, twoIndex)
			binary.LittleEndian.PutUint32(p[len(two)+4:], uint32(len(twoIndex)-8+16))
			return append(p, p[len(p)-16:]...)
		}(), "index frame starts with"},
		{"sizes that sum to less", slices.Concat(two, rawIndex(0, entry(a))), "in the file"},
		{"sizes that sum to more", slices.Concat(two, rawIndex(0, entry(a), entry(b), entry(b))), "in the file"},
		{"border of two frames moved", slices.Concat(two, rawIndex(0, change(entry(a), func(e *Entry) { e.Size-- }), change(entry(b), func(e *Entry) { e.Size++ }))), "entry 0"},
		{"two packs in one", slices.Concat(two, twoIndex, two, twoIndex), "in the file"},

		// index
		{"empty file", nil, "0 bytes"},
		{"zero entries", rawIndex(0), "24 bytes"},
		{"zero entries behind a frame", slices.Concat(two, rawIndex(0)), "0 entries"},
		{"count above the file", footer(4, u32(2)), "index of 57 bytes, want 98"},
		{"count and length above the file", slices.Concat(frame, rawIndex(0, one)[:49], []byte{1, 0, 0, 0, 0, 1, 0, 0}, binary.LittleEndian.AppendUint32(nil, 256*entrySize+16), []byte("APK1")), "256 entries do not fit"},
		{"count that overflows", footer(4, u32(1<<32-1)), "4294967295 entries"},
		{"count above the limit", footer(4, u32(MaxEntries+1)), "65537 entries"},
		{"count times 41 overflows to the length", footer(4, u32(104755300)), "104755300 entries"},
		{"length of another count", footer(8, u32(56)), "index of 56 bytes"},
		{"header of another length", func() []byte { p := slices.Clone(good); p[len(frame)+4]++; return p }(), "its end says"},
		{"another skippable magic", func() []byte { p := slices.Clone(good); p[len(frame)]++; return p }(), "index frame starts with"},
		{"version 0", footer(0, u16(0)), "version 0"},
		{"version 2", footer(0, u16(2)), "version 2"},
		{"unknown flag", footer(2, u16(2)), "unknown flags 0x2"},
		{"unknown flag beside a known", footer(2, u16(0x8001)), "unknown flags 0x8000"},
		{"end magic", footer(12, u32(0)), "does not end with"},
		{"unknown kind", append(slices.Clone(frame), rawIndex(0, change(one, func(e *Entry) { e.Kind = 2 }))...), "entry 0: unknown kind 2"},
		{"literal in a shared pack", append(slices.Clone(lit.frame), rawIndex(0, entry(lit))...), "entry 0: literal in a shared pack"},
		{"literal above 4096 bytes", append(slices.Clone(frame), rawIndex(FlagOwn, change(one, func(e *Entry) { e.Kind = chunk.Literal; e.Raw = 4097 }))...), "entry 0: literal of 4097 bytes"},

		// contents
		{"wrong hash", append(slices.Clone(frame), rawIndex(0, change(one, func(e *Entry) { e.ID[31] ^= 1 }))...), "entry 0 of pack at 0: wrong hash"},
		{"wrong hash of a literal", slices.Concat(lit.frame, lit.frame, rawIndex(FlagOwn, entry(lit), change(entry(lit), func(e *Entry) { e.ID[0] ^= 1 }))), "entry 1 of pack at 16: wrong hash"},
		{"two hashes swapped", slices.Concat(two, rawIndex(0, change(entry(a), func(e *Entry) { e.ID = b.id() }), change(entry(b), func(e *Entry) { e.ID = a.id() }))), "wrong hash"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readPack(tt.pack)
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrHash) {
				t.Fatalf("error %v, want ErrFormat or ErrHash", err)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
}

// blocksOf returns the blocks, without a header, of a frame of n compressible bytes.
func blocksOf(t *testing.T, enc *Encoder, n int) []byte {
	t.Helper()
	frame := enc.Frame(nil, prose(n))
	return frame[len(appendHeader(nil, uint32(n))):]
}

func TestPackCutOffAtAnyByteIsRefused(t *testing.T) {
	enc := NewEncoder()
	pack, _ := writePack(t, FlagOwn, []part{chunkPart(enc, prose(60)), literalPart([]byte("literal")), chunkPart(enc, make([]byte, 500))})
	for n := range pack {
		if _, err := readPack(pack[:n]); !errors.Is(err, ErrFormat) {
			t.Errorf("first %d of %d bytes: %v, want ErrFormat", n, len(pack), err)
		}
		if _, err := readPack(pack[n+1:]); !errors.Is(err, ErrFormat) {
			t.Errorf("without the first %d of %d bytes: %v, want ErrFormat", n+1, len(pack), err)
		}
	}
}

// Every bit of a pack is told by something: a frame's bits by the hash of what it decodes to, unless
// the decoder has two spellings for the same bytes, the index's by what it must agree with.
func TestPackWithAFlippedBitGivesNoOtherBytes(t *testing.T) {
	enc := NewEncoder()
	pack, _ := writePack(t, FlagOwn, []part{chunkPart(enc, prose(200)), literalPart([]byte("literal"))})
	want, err := readPack(pack)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(pack) * 8 {
		bad := slices.Clone(pack)
		bad[n/8] ^= 1 << (n % 8)
		got, err := readPack(bad)
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("bit %d flipped: other bytes are accepted", n)
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrHash) {
			t.Errorf("bit %d flipped: %v, want ErrFormat or ErrHash", n, err)
		}
	}
}

// A server of 256 MB verifies many packs at a time. What one of them takes must not depend on what a
// stranger wrote into it: a frame's bombs, an index of millions.
func TestHostilePacksTakeLittleMemory(t *testing.T) {
	enc, dec := NewEncoder(), NewDecoder()
	gigabyte := forged(frameOf(1<<20, bytes.Repeat(block(false, blockRLE, 128<<10, 0), 8192), block(true, blockRLE, 128<<10, 0)), nil)
	binary.LittleEndian.PutUint32(gigabyte[len(gigabyte)-footerSize-4:], 1<<20)
	compressed := forged(frameOf(1000, blocksOf(t, enc, 1<<20)), make([]byte, 1000))
	millions := make([]byte, MaxPackSize)
	copy(millions[len(millions)-footerSize:], "\x01\x00\x00\x00\x00\x00\x1e\x00")
	binary.LittleEndian.PutUint32(millions[len(millions)-8:], 0x1e0000*entrySize+footerSize)
	copy(millions[len(millions)-4:], footerMagic)
	for name, pack := range map[string][]byte{"a gigabyte of zeros": gigabyte, "compressed blocks": compressed, "two million entries": millions} {
		t.Run(name, func(t *testing.T) {
			read := func() error {
				ix, err := ReadIndex(bytes.NewReader(pack), int64(len(pack)))
				if err != nil {
					return err
				}
				return Verify(bytes.NewReader(pack), ix, dec, nil)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := read()
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v, want ErrFormat", err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
				t.Errorf("allocates %d bytes, want at most 4 MiB", got)
			}
		})
	}
}
