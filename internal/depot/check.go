package depot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// Check reads what lies in the blob store and compares it with what the database says of it, past all caches.
// It changes nothing. What looks damaged is read once more before it is called so, and an error of the store
// that may be another one next time is returned as an error: a bucket that is away is not damage.
type Check struct {
	Depot *Depot
	// Read is told of bytes that were read, and may take its time; nil means nobody is.
	Read func(ctx context.Context, bytes int64) error
	// Late says that it is time to stop, after at least one entry was read; nil means never.
	Late func() bool
	Part int64 // bytes of a request; 0 means 8 MiB
	// Again is how long to wait before something is read once more; 0 means half a second.
	Again time.Duration

	near around
}

// around is a stretch of a pack in a bucket that was read last. NARs that were pushed together lie together, and a
// request for each would take hours.
type around struct {
	pack int64
	off  int64
	data []byte
}

const (
	aroundSize = 1 << 20
	aroundMost = aroundSize / 4 // what is longer is worth a request of its own
)

// open reads n bytes of a pack at off.
func (c *Check) open(ctx context.Context, p *packInfo, off, n int64) (io.ReadCloser, error) {
	if c.Depot.Near == nil || n > aroundMost {
		return c.Depot.Blobs.Get(ctx, p.Key, off, n)
	}
	w := &c.near
	if w.pack != p.ID || off < w.off || off+n > w.off+int64(len(w.data)) {
		if err := c.slide(ctx, p, off); err != nil {
			w.data = nil
			return c.Depot.Blobs.Get(ctx, p.Key, off, n) // of just what is needed, something may be there
		}
	}
	return io.NopCloser(bytes.NewReader(w.data[off-w.off:][:n])), nil
}

func (c *Check) slide(ctx context.Context, p *packInfo, off int64) error {
	w := &c.near
	n := min(aroundSize, p.index.DataSize()-off)
	rc, err := c.Depot.Blobs.Get(ctx, p.Key, off, n)
	if err != nil {
		return err
	}
	defer rc.Close()
	w.pack, w.off = p.ID, off
	if int64(cap(w.data)) < n {
		w.data = make([]byte, n)
	}
	w.data = w.data[:n]
	_, err = io.ReadFull(rc, w.data)
	return err
}

// PackPosition is how far a pack was read. Its zero value is the beginning.
type PackPosition struct {
	Pack  int64  `json:"id,omitempty"`    // of another one it says nothing: that one may be gone by now
	Entry int    `json:"entry,omitempty"` // that comes next
	Hash  []byte `json:"hash,omitempty"`  // the SHA-256's state, of the file; none once something of it was damaged
}

// PackReport is what was found of a pack.
type PackReport struct {
	Pack   int64
	Key    string
	Next   int     // the entry to go on with; 0: all was read
	Bytes  int64   // that were read
	Chunks int     // entries that were read
	Gone   string  // why the pack is of no use as a whole; empty: it is not
	Bad    []int32 // entries that are not what was stored
	Why    string  // of the last of them
}

// Damaged says whether anything is.
func (r *PackReport) Damaged() bool { return r.Gone != "" || len(r.Bad) > 0 }

const (
	checkPart  = 8 << 20 // bytes of one request
	checkAgain = 500 * time.Millisecond
)

// Pack checks a pack: its index and, with deep, its entries from a position on, and the hash of the whole file.
// A pack that has no row any more has nothing to tell.
func (c *Check) Pack(ctx context.Context, id int64, pos *PackPosition, deep bool) (*PackReport, error) {
	c.Depot.init()
	if pos.Pack != id {
		*pos = PackPosition{Pack: id}
	}
	out := &PackReport{Pack: id}
	p, err := c.pack(ctx, id)
	if err == nil {
		out.Key = p.Key
		err = c.wholePack(ctx, p, pos, deep, out)
	}
	if errors.Is(err, meta.ErrNotFound) || errors.Is(err, errCollected) {
		return &PackReport{Pack: id}, nil
	}
	return out, err
}

func (c *Check) wholePack(ctx context.Context, p *packInfo, pos *PackPosition, deep bool, out *PackReport) (err error) {
	h := sha256.New()
	if pos.Entry == 0 {
		if out.Gone, err = c.index(ctx, p, out); err != nil || out.Gone != "" || !deep {
			return err
		}
	} else if len(pos.Hash) == 0 {
		h = nil // something was damaged
	} else if err := unmarshal(h, pos.Hash); err != nil {
		return fmt.Errorf("go on with %s: %w", p.Key, err)
	}
	release, err := c.Depot.acquire(ctx, verifyCost+aroundSize, packWait)
	if err != nil {
		return err
	}
	defer release()
	err = c.run(ctx, p, pos.Entry, len(p.index.Entries), out, func(_ int, span, _ []byte) error {
		if h != nil {
			h.Write(span)
		}
		return nil
	})
	if err != nil || out.Gone != "" {
		return err
	}
	return c.file(p, h, pos, out)
}

// file compares the hash of the whole, or keeps it until the next time. A frame has bits that nothing decodes.
func (c *Check) file(p *packInfo, h hash.Hash, pos *PackPosition, out *PackReport) (err error) {
	*pos = PackPosition{Pack: p.ID, Entry: out.Next}
	switch {
	case h == nil || len(out.Bad) > 0:
	case out.Next > 0:
		pos.Hash, err = h.(encoding.BinaryMarshaler).MarshalBinary()
	default:
		h.Write(p.index.Encode())
		if sum := h.Sum(nil); !bytes.Equal(sum, p.SHA256[:]) {
			out.Gone = fmt.Sprintf("its SHA-256 is %x, not the one in its name", sum)
		}
	}
	return err
}

func (c *Check) pack(ctx context.Context, id int64) (p *packInfo, err error) {
	err = c.Depot.DB.View(ctx, func(tx *meta.Tx) error { p, err = c.Depot.packInfo(tx, id); return err })
	return p, err
}

// lost says of an error of the store why it means that an object is not what it was; empty when it does not.
func lost(err error) string {
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return "it is not in the storage"
	case errors.Is(err, blob.ErrRange), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "it is shorter than what was stored"
	}
	return ""
}

// index compares a pack's end with the index in its row.
func (c *Check) index(ctx context.Context, p *packInfo, out *PackReport) (gone string, err error) {
	for try := 0; try < 2; try++ {
		if try > 0 {
			if err := c.pause(ctx); err != nil {
				return "", err
			}
		}
		if gone, err = c.indexOnce(ctx, p, out); err != nil || gone == "" {
			return "", err
		}
	}
	return gone, c.stillThere(ctx, p.ID)
}

// errCollected is what a reader finds of a pack that a collection has taken meanwhile.
var errCollected = errors.New("the pack was collected meanwhile")

// stillThere is errCollected when a pack's row has gone. The row: the cache of indexes may know it still.
func (c *Check) stillThere(ctx context.Context, id int64) error {
	err := c.Depot.DB.View(ctx, func(tx *meta.Tx) error { _, err := tx.PackKey(id); return err })
	if errors.Is(err, meta.ErrNotFound) {
		return errCollected
	}
	return err
}

func (c *Check) indexOnce(ctx context.Context, p *packInfo, out *PackReport) (gone string, err error) {
	want := p.index.Encode()
	rc, err := c.Depot.Blobs.Get(ctx, p.Key, p.index.DataSize(), -1)
	if err != nil {
		if gone := lost(err); gone != "" {
			return gone, nil
		}
		return "", err
	}
	defer rc.Close()
	got, err := io.ReadAll(io.LimitReader(rc, int64(len(want))+1))
	if err != nil {
		if gone := lost(err); gone != "" {
			return gone, nil
		}
		return "", fmt.Errorf("read %s: %w", p.Key, err)
	}
	out.Bytes += int64(len(got))
	if err := c.read(ctx, int64(len(got))); err != nil {
		return "", err
	}
	switch {
	case len(got) < len(want):
		return "it is shorter than what was stored", nil
	case len(got) > len(want):
		return "it is longer than what was stored", nil
	case !bytes.Equal(got, want):
		return "its index is not the one that was stored", nil
	}
	return "", nil
}

func (c *Check) read(ctx context.Context, n int64) error {
	if c.Read == nil {
		return ctx.Err()
	}
	return c.Read(ctx, n)
}

func (c *Check) pause(ctx context.Context) error {
	wait := c.Again
	if wait == 0 {
		wait = checkAgain
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run reads entries [from, end) of a pack and gives their frames and raw bytes to each. Those that are damaged it notes in
// out and passes over. When it is late it stops, and out.Next says where.
func (c *Check) run(ctx context.Context, p *packInfo, from, end int, out *PackReport, each func(i int, span, raw []byte) error) error {
	var span, raw []byte
	most := c.Part
	if most == 0 {
		most = checkPart
	}
	failed := -1 // where a read has failed, once
	for from < end {
		to := from + 1
		for to < end && p.offsets[to+1]-p.offsets[from] <= most {
			to++
		}
		next, err := c.part(ctx, p, from, to, out, &span, &raw, each)
		if err != nil && ctx.Err() != nil && next > from { // asked to stop: what was read was read
			if next < end {
				out.Next = next
			}
			return nil
		}
		if err != nil && failed != next && ctx.Err() == nil && !errors.Is(err, blob.ErrUnavailable) && !errors.Is(err, errCollected) {
			if err = c.pause(ctx); err == nil {
				from, failed = next, next
				continue
			}
		}
		if err != nil || out.Gone != "" {
			return err
		}
		if from = next; from < to || from < end && c.late() {
			out.Next = from
			return nil
		}
	}
	return nil
}

func (c *Check) late() bool { return c.Late != nil && c.Late() }

// part reads entries with one request.
func (c *Check) part(ctx context.Context, p *packInfo, from, to int, out *PackReport, span, raw *[]byte, each func(int, []byte, []byte) error) (next int, err error) {
	rc, err := c.open(ctx, p, p.offsets[from], p.offsets[to]-p.offsets[from])
	if err != nil {
		return from, c.whole(ctx, p, err, out)
	}
	defer rc.Close()
	for i := from; i < to; i++ {
		e := p.index.Entries[i]
		*span = grow(*span, int(e.Size))
		if _, err := io.ReadFull(rc, *span); err != nil {
			return i, c.whole(ctx, p, err, out)
		}
		why := c.entry(*span, raw, p, i)
		if why != "" {
			if why, err = c.entryAgain(ctx, p, i, span, raw); err != nil {
				return i, err
			}
		}
		out.Bytes, out.Chunks = out.Bytes+int64(e.Size), out.Chunks+1
		if why != "" {
			out.Bad, out.Why = append(out.Bad, int32(i)), why
		} else if err := each(i, *span, *raw); err != nil {
			return i, err
		}
		if err := c.read(ctx, int64(e.Size)); err != nil {
			return i + 1, err
		}
		if c.late() {
			return i + 1, nil
		}
	}
	return to, nil
}

// entry decodes a frame and compares it with the index; the answer is what is wrong.
func (c *Check) entry(span []byte, raw *[]byte, p *packInfo, i int) (why string) {
	e := p.index.Entries[i]
	out, err := c.Depot.decoder.Frame(*raw, span, e.Raw)
	if err != nil {
		return err.Error()
	}
	*raw = out
	if sum := chunk.Sum(out); sum != e.ID {
		return fmt.Sprintf("its contents have the SHA-256 %s, not %s", sum, e.ID)
	}
	return ""
}

// entryAgain asks for a single entry anew: the way from the store may have been what was wrong.
func (c *Check) entryAgain(ctx context.Context, p *packInfo, i int, span, raw *[]byte) (why string, err error) {
	if err := c.pause(ctx); err != nil {
		return "", err
	}
	rc, err := c.Depot.Blobs.Get(ctx, p.Key, p.offsets[i], p.offsets[i+1]-p.offsets[i])
	if err == nil {
		_, err = io.ReadFull(rc, *span)
		_ = rc.Close() // was only read from
	}
	if err != nil {
		return "", fmt.Errorf("read %s once more: %w", p.Key, err)
	}
	return c.entry(*span, raw, p, i), nil
}

// whole looks once more at a pack that could not be read: if its object is not what it was, that is damage.
func (c *Check) whole(ctx context.Context, p *packInfo, cause error, out *PackReport) error {
	if lost(cause) == "" {
		return fmt.Errorf("read %s: %w", p.Key, cause)
	}
	gone, err := c.index(ctx, p, out)
	if err == nil && gone == "" {
		if err = c.stillThere(ctx, p.ID); err == nil {
			err = fmt.Errorf("read %s, which is there: %w", p.Key, cause)
		}
	}
	out.Gone = gone
	return err
}

// NARPosition is how far a NAR was read. Its zero value with a NAR is the beginning.
type NARPosition struct {
	NAR    int64  `json:"nar"`
	Layout []byte `json:"layout,omitempty"` // the first bytes of its row's SHA-256
	Span   int    `json:"span,omitempty"`
	Entry  int    `json:"entry,omitempty"` // of the pack
	Size   uint64 `json:"size,omitempty"`  // raw bytes so far
	Hash   []byte `json:"hash,omitempty"`  // the SHA-256's state
}

// NARReport is what was found of a NAR.
type NARReport struct {
	Done   bool          // else it goes on from the position
	Bytes  int64         // that were read
	Chunks int           // entries that were read
	Packs  []*PackReport // what is damaged in the packs that it lies in; then it is read no further
	Wrong  string        // why it is not the NAR that its hash names, though its packs are as they were stored
	Right  bool          // it is that NAR, to the last byte
}

// NAR reads a NAR from pos on and hashes it.
func (c *Check) NAR(ctx context.Context, pos *NARPosition) (*NARReport, error) {
	c.Depot.init()
	out := &NARReport{}
	nar, err := c.nar(ctx, pos.NAR)
	if errors.Is(err, meta.ErrNotFound) {
		return &NARReport{Done: true}, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := c.Depot.layout(nar.Layout)
	if err != nil {
		return &NARReport{Done: true, Wrong: err.Error()}, nil
	}
	h, err := pos.hash(nar.Layout)
	if err != nil {
		return nil, err
	}
	release, err := c.Depot.acquire(ctx, verifyCost+aroundSize, packWait)
	if err != nil {
		return nil, err
	}
	defer release()
	write := func(_ int, _, raw []byte) error {
		h.Write(raw)
		pos.Size += uint64(len(raw))
		return nil
	}
	for pos.Span < len(l) {
		done, err := c.span(ctx, l[pos.Span], pos, out, write)
		if errors.Is(err, errCollected) || errors.Is(err, meta.ErrNotFound) {
			return c.moved(ctx, pos, err)
		}
		if err != nil {
			return nil, err
		}
		if !done || len(out.Packs) > 0 {
			out.Done = len(out.Packs) > 0
			return out, pos.keep(h)
		}
		if pos.Span, pos.Entry = pos.Span+1, 0; pos.Span < len(l) && (c.late() || ctx.Err() != nil) {
			return out, pos.keep(h)
		}
	}
	out.Done = true
	switch got := nix.Hash(h.Sum(nil)); {
	case got == nar.Hash && pos.Size == nar.Size:
		out.Right = true
	default:
		out.Wrong = fmt.Sprintf("its chunks together are %d bytes with the hash %s, and %d bytes with %s were claimed", pos.Size, got, nar.Size, nar.Hash)
	}
	return out, nil
}

func (c *Check) nar(ctx context.Context, id int64) (n *meta.NAR, err error) {
	err = c.Depot.DB.View(ctx, func(tx *meta.Tx) error { n, err = tx.NAR(id); return err })
	return n, err
}

// moved says how to go on when a pack has gone that a NAR lay in: it is gone as well, or lies elsewhere and is read
// anew. Otherwise the cause is an error.
func (c *Check) moved(ctx context.Context, pos *NARPosition, cause error) (*NARReport, error) {
	nar, err := c.nar(ctx, pos.NAR)
	if errors.Is(err, meta.ErrNotFound) {
		return &NARReport{Done: true}, nil
	}
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(nar.Layout); bytes.Equal(pos.Layout, sum[:8]) {
		return nil, cause
	}
	*pos = NARPosition{NAR: pos.NAR}
	return &NARReport{}, nil
}

func (pos *NARPosition) hash(layout []byte) (hash.Hash, error) {
	sum := sha256.Sum256(layout)
	h := sha256.New()
	if !bytes.Equal(pos.Layout, sum[:8]) { // it lies elsewhere than before
		*pos = NARPosition{NAR: pos.NAR, Layout: sum[:8]}
	}
	if len(pos.Hash) == 0 {
		return h, nil
	}
	if err := unmarshal(h, pos.Hash); err != nil {
		return nil, fmt.Errorf("go on with NAR %d: %w", pos.NAR, err)
	}
	return h, nil
}

func (pos *NARPosition) keep(h hash.Hash) (err error) {
	pos.Hash, err = h.(encoding.BinaryMarshaler).MarshalBinary()
	return err
}

func (c *Check) span(ctx context.Context, s span, pos *NARPosition, out *NARReport, write func(int, []byte, []byte) error) (done bool, err error) {
	switch s.kind {
	case literalSpan:
		return true, write(0, nil, s.literal)
	case trailerSpan:
		return true, nil
	}
	p, err := c.pack(ctx, s.pack)
	if err != nil {
		return false, err
	}
	end := s.first + s.count
	if s.first < 0 || s.count < 1 || end > len(p.index.Entries) {
		return false, fmt.Errorf("%w: %d entries from %d of %s", errSpan, s.count, s.first, p.Key)
	}
	rep := &PackReport{Pack: p.ID, Key: p.Key}
	err = c.run(ctx, p, max(pos.Entry, s.first), end, rep, write)
	out.Bytes, out.Chunks = out.Bytes+rep.Bytes, out.Chunks+rep.Chunks
	if rep.Damaged() {
		out.Packs = append(out.Packs, rep)
	}
	pos.Entry = rep.Next
	return rep.Next == 0, err
}

// Layout says what is wrong with a layout's row by what the database has of its packs; empty: nothing.
func (c *Check) Layout(tx *meta.Tx, row []byte) (why string, err error) {
	c.Depot.init()
	l, err := c.Depot.layout(row)
	if err != nil {
		return err.Error(), nil
	}
	for _, s := range l {
		if s.kind == literalSpan {
			continue
		}
		p, err := c.Depot.packInfo(tx, s.pack)
		if errors.Is(err, meta.ErrNotFound) {
			return fmt.Sprintf("pack %d, which it needs, is in no row", s.pack), nil
		}
		if err != nil {
			return "", err
		}
		if s.kind == runSpan && (s.first < 0 || s.count < 1 || s.first+s.count > len(p.index.Entries) ||
			p.run(s.first, s.count).off != s.off || p.run(s.first, s.count).size != s.size) {
			return fmt.Sprintf("%v: %d entries from %d of %s", errSpan, s.count, s.first, p.Key), nil
		}
	}
	return "", nil
}
