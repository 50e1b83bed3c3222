package pack

import (
	"fmt"
	"io"

	"github.com/org/attic-action/internal/chunk"
)

// Verify reads the frames of a pack from r, which starts at the pack's first byte, and checks each
// one: its grammar, that it decodes to exactly the bytes the index says, and their hash. It calls
// each, when given, with the entry's raw bytes, which are valid during the call, and returns its
// error as it is. It reads DataSize bytes and holds one entry at a time.
func Verify(r io.Reader, ix *Index, dec *Decoder, each func(i int, e Entry, raw []byte) error) error {
	var span, raw []byte
	var off int64
	for i := range ix.Entries {
		e := ix.Entries[i]
		if err := e.check(ix.Flags); err != nil { // before memory is taken by its word
			return fmt.Errorf("%w: entry %d: %w", ErrFormat, i, err)
		}
		if cap(span) < int(e.Size) {
			span = make([]byte, e.Size)
		}
		span = span[:e.Size]
		if _, err := io.ReadFull(r, span); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read entry %d of pack at %d: %w", i, off, err)
		}
		out, err := dec.Frame(raw, span, e.Raw)
		if err != nil {
			return fmt.Errorf("entry %d of pack at %d: %w", i, off, err)
		}
		raw = out
		if sum := chunk.Sum(raw); sum != e.ID {
			return fmt.Errorf("entry %d of pack at %d: %w: contents are %s, index says %s", i, off, ErrHash, sum, e.ID)
		}
		if each != nil {
			if err := each(i, e, raw); err != nil {
				return err
			}
		}
		off += int64(e.Size)
	}
	return nil
}
