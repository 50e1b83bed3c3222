package pack

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/org/attic-action/internal/chunk"
)

const (
	skippableMagic = 0x184D2A5E
	footerMagic    = "APK1"
	version        = 1

	frameHeaderSize = 8  // skippable magic, payload length
	entrySize       = 41 // kind u8, SHA-256, size u32, raw u32
	footerSize      = 16 // version u16, flags u16, count u32, payload length u32, APK1
)

// frameSize is the bytes of an index frame with n entries.
func frameSize(n int) int64 { return frameHeaderSize + int64(n)*entrySize + footerSize }

// Encode returns the index frame, byte for byte as at the pack's end.
func (ix *Index) Encode() []byte {
	b := make([]byte, 0, ix.FrameSize())
	payload := uint32(ix.FrameSize() - frameHeaderSize)
	b = binary.LittleEndian.AppendUint32(b, skippableMagic)
	b = binary.LittleEndian.AppendUint32(b, payload)
	for i := range ix.Entries {
		e := &ix.Entries[i]
		b = append(b, byte(e.Kind))
		b = append(b, e.ID[:]...)
		b = binary.LittleEndian.AppendUint32(b, e.Size)
		b = binary.LittleEndian.AppendUint32(b, e.Raw)
	}
	b = binary.LittleEndian.AppendUint16(b, version)
	b = binary.LittleEndian.AppendUint16(b, ix.Flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ix.Entries)))
	b = binary.LittleEndian.AppendUint32(b, payload)
	return append(b, footerMagic...)
}

// footer is what the last 16 bytes of a pack say, once they are checked.
type footer struct {
	flags uint16
	count int
}

func parseFooter(b []byte) (footer, error) {
	if string(b[12:]) != footerMagic {
		return footer{}, fmt.Errorf("%w: does not end with %q", ErrFormat, footerMagic)
	}
	if v := binary.LittleEndian.Uint16(b); v != version {
		return footer{}, fmt.Errorf("%w: version %d, want %d", ErrFormat, v, version)
	}
	flags := binary.LittleEndian.Uint16(b[2:])
	if flags&^FlagOwn != 0 {
		return footer{}, fmt.Errorf("%w: unknown flags %#x", ErrFormat, flags&^FlagOwn)
	}
	count := binary.LittleEndian.Uint32(b[4:])
	if count < 1 || count > MaxEntries {
		return footer{}, fmt.Errorf("%w: %d entries, want 1 to %d", ErrFormat, count, MaxEntries)
	}
	want := frameSize(int(count)) - frameHeaderSize
	if n := binary.LittleEndian.Uint32(b[8:]); int64(n) != want {
		return footer{}, fmt.Errorf("%w: index of %d bytes, want %d for %d entries", ErrFormat, n, want, count)
	}
	return footer{flags: flags, count: int(count)}, nil
}

func (f footer) checkHeader(b []byte) error {
	if m := binary.LittleEndian.Uint32(b); m != skippableMagic {
		return fmt.Errorf("%w: index frame starts with %#08x, want %#08x", ErrFormat, m, uint32(skippableMagic))
	}
	want := frameSize(f.count) - frameHeaderSize
	if n := binary.LittleEndian.Uint32(b[4:]); int64(n) != want {
		return fmt.Errorf("%w: index frame of %d bytes, its end says %d", ErrFormat, n, want)
	}
	return nil
}

// appendEntries decodes whole entries and checks each by itself.
func (ix *Index) appendEntries(b []byte) error {
	for ; len(b) >= entrySize; b = b[entrySize:] {
		e := Entry{
			Kind: chunk.Kind(b[0]),
			ID:   chunk.ID(b[1:33]),
			Size: binary.LittleEndian.Uint32(b[33:]),
			Raw:  binary.LittleEndian.Uint32(b[37:]),
		}
		if err := e.check(ix.Flags); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrFormat, len(ix.Entries), err)
		}
		ix.Entries = append(ix.Entries, e)
	}
	return nil
}

// DecodeIndex reads what Encode returns, and nothing else. Whether the entries fit the pack's length
// is for the caller: DataSize()+FrameSize().
func DecodeIndex(frame []byte) (*Index, error) {
	if len(frame) < frameHeaderSize+entrySize+footerSize {
		return nil, fmt.Errorf("%w: index frame of %d bytes is too short", ErrFormat, len(frame))
	}
	f, err := parseFooter(frame[len(frame)-footerSize:])
	if err != nil {
		return nil, err
	}
	if want := frameSize(f.count); int64(len(frame)) != want {
		return nil, fmt.Errorf("%w: index frame of %d bytes, want %d for %d entries", ErrFormat, len(frame), want, f.count)
	}
	if err := f.checkHeader(frame); err != nil {
		return nil, err
	}
	ix := &Index{Flags: f.flags, Entries: make([]Entry, 0, f.count)}
	if err := ix.appendEntries(frame[frameHeaderSize : len(frame)-footerSize]); err != nil {
		return nil, err
	}
	if n := ix.Size(); n > MaxPackSize {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrFormat, n, MaxPackSize)
	}
	return ix, nil
}

// CountEntries is how many entries the index of a pack of size bytes has, by its end alone: what ReadIndex will
// take can be known before.
func CountEntries(r io.ReaderAt, size int64) (int, error) {
	if least := minSpan + frameSize(1); size < least || size > MaxPackSize {
		return 0, fmt.Errorf("%w: %d bytes, want %d to %d", ErrFormat, size, least, MaxPackSize)
	}
	var b [footerSize]byte
	if err := readAt(r, b[:], size-footerSize); err != nil {
		return 0, err
	}
	f, err := parseFooter(b[:])
	return f.count, err
}

// ReadIndex reads the index of a pack of size bytes from its end. The entries it returns cover the
// pack from its first byte to the index frame. Nothing of the frames is read.
func ReadIndex(r io.ReaderAt, size int64) (*Index, error) {
	if least := minSpan + frameSize(1); size < least || size > MaxPackSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d to %d", ErrFormat, size, least, MaxPackSize)
	}
	var b [footerSize]byte
	if err := readAt(r, b[:], size-footerSize); err != nil {
		return nil, err
	}
	f, err := parseFooter(b[:])
	if err != nil {
		return nil, err
	}
	start := size - frameSize(f.count)
	if start < int64(f.count)*minSpan { // before anything is allocated for that many
		return nil, fmt.Errorf("%w: %d entries do not fit %d bytes", ErrFormat, f.count, size)
	}
	if err := readAt(r, b[:frameHeaderSize], start); err != nil {
		return nil, err
	}
	if err := f.checkHeader(b[:]); err != nil {
		return nil, err
	}
	ix := &Index{Flags: f.flags, Entries: make([]Entry, 0, f.count)}
	if err := ix.readEntries(r, start+frameHeaderSize, f.count); err != nil {
		return nil, err
	}
	if n := ix.DataSize(); n != start {
		return nil, fmt.Errorf("%w: frames of %d bytes by the index, %d in the file", ErrFormat, n, start)
	}
	return ix, nil
}

// readEntries reads count entries at off through a small buffer, so that an index is in memory once.
func (ix *Index) readEntries(r io.ReaderAt, off int64, count int) error {
	const batch = 1024
	buf := make([]byte, min(count, batch)*entrySize)
	for count > 0 {
		b := buf[:min(count, batch)*entrySize]
		if err := readAt(r, b, off); err != nil {
			return err
		}
		if err := ix.appendEntries(b); err != nil {
			return err
		}
		off += int64(len(b))
		count -= len(b) / entrySize
	}
	return nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read pack at %d: %w", off, err)
	}
	return nil
}
