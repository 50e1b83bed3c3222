package rewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/spool"
)

const (
	// maxGap is how many dead bytes are read over rather than asked for anew, and maxStretch what one request
	// asks for at most: as much again is read when it breaks off.
	maxGap, maxStretch = 256 << 10, 8 << 20
	// sendTime bounds a transfer. It is not broken off for a request: it costs no CPU to speak of, and one that
	// is broken off again and again never ends.
	sendTime = 30 * time.Second
	// maxOld bounds the entries of a group's packs, dead ones included, of which each is remembered.
	maxOld = 1 << 20
)

// copying is a new pack in the making. It goes on from step to step.
type copying struct {
	group *group
	file  *spool.File
	limit int64 // bytes that it may have
	pack  *pack.Writer
	done  []*copied // packs of which all that is alive is in the file
	old   int       // entries that they have

	next  int     // of the group's sources
	open  *opened // the one that is read; nil: none yet
	again int     // the entry of it that was read wrong once; -1: none

	span, raw []byte
}

// copied is where the entries of a pack went.
type copied struct {
	source *source
	id     int64
	size   int64
	entry  []int32 // of the new pack, for each of the old one; -1: not alive
}

// opened is a pack that is being read.
type opened struct {
	copied
	key     string
	entries []pack.Entry
	offsets []int64
	alive   []int32 // entries, ascending
	at      int     // of alive
}

func (r *Rewriter) newCopying(ctx context.Context, g *group) (*copying, error) {
	c := &copying{group: g, again: -1}
	// What is alive is known about; how many entries, exactly.
	alive, all, index := int64(0), int64(0), int64(0)
	for _, s := range g.sources {
		alive, all, index = alive+s.Alive, all+s.Size, index+64*int64(s.Entries)
	}
	c.limit = min(min(all, max(alive*5/4, 2*r.target()))+index+1<<10, pack.MaxPackSize)
	var err error
	if c.file, err = r.Spool.Create(ctx, c.limit); err != nil {
		return nil, fmt.Errorf("spool pack: %w", err)
	}
	c.pack = pack.NewWriter(c.file, 0)
	return c, nil
}

func (c *copying) close() {
	if c.file != nil {
		_ = c.file.Close() // it has no name: nothing is left of it
	}
}

// step copies until all of the group is in the file, which it says, or ctx ends. It copies a frame at least.
func (r *Rewriter) step(ctx context.Context, c *copying) (done bool, err error) {
	for {
		if c.open == nil {
			if c.next == len(c.group.sources) || c.old >= maxOld {
				return true, nil
			}
			s := c.group.sources[c.next]
			if c.next++; s.Whole || s.Entries == 0 || r.damaged[s.ID] {
				continue // things have changed
			}
			if c.open, err = r.openPack(ctx, s); err != nil {
				return false, err
			}
			if c.open == nil {
				continue
			}
			if !c.fits() {
				return true, nil // it and what comes behind it wait for another run
			}
		}
		err := r.stretch(ctx, c)
		if isDamage(err) {
			if c.again != c.open.at {
				c.again, err = c.open.at, nil // a transfer may go wrong
			} else {
				return false, r.leave(ctx, c, err)
			}
		}
		if err != nil {
			return false, err
		}
		if c.open.at == len(c.open.alive) {
			c.done = append(c.done, &c.open.copied)
			c.old += len(c.open.entries)
			c.open, c.again = nil, -1
		}
		if ctx.Err() != nil {
			return c.open == nil && c.next == len(c.group.sources), nil
		}
	}
}

// openPack reads a pack's index; nil means that the pack is not to be touched.
func (r *Rewriter) openPack(ctx context.Context, s *source) (*opened, error) {
	o := &opened{copied: copied{source: s, id: s.ID, size: s.Size}}
	var bad *meta.Quarantined
	err := r.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
		if o.key, err = tx.PackKey(s.ID); err == nil {
			o.entries, err = tx.PackEntries(s.ID)
		}
		if err == nil {
			bad, err = tx.Quarantined(s.ID)
		}
		return err
	})
	if errors.Is(err, meta.ErrNotFound) || bad != nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	o.entry = make([]int32, len(o.entries))
	for i, e := range o.entries {
		o.entry[i] = -1
		if i>>3 >= len(s.bits) || s.bits[i>>3]&(1<<(i&7)) == 0 {
			continue
		}
		if e.Kind != chunk.Chunk {
			return nil, nil // a layout has a literal out of a pack: no shared pack may hold it
		}
		o.alive = append(o.alive, int32(i))
	}
	o.offsets = (&pack.Index{Entries: o.entries}).Offsets()
	if len(o.alive) == 0 {
		return nil, nil
	}
	return o, nil
}

// fits tells whether all that is alive in the open pack has room in the file.
func (c *copying) fits() bool {
	var size int64
	for _, i := range c.open.alive {
		size += int64(c.open.entries[i].Size)
	}
	n := c.pack.Len() + len(c.open.alive)
	if n > pack.MaxEntries {
		return false
	}
	size += c.pack.Size() + (&pack.Index{Entries: make([]pack.Entry, n)}).FrameSize()
	return size <= c.limit
}

// stretch copies what one request brings.
func (r *Rewriter) stretch(ctx context.Context, c *copying) error {
	s := c.open
	begin, end, last := s.stretch()
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	body, err := r.Blobs.Get(within, s.key, begin, end-begin)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.key, err)
	}
	defer body.Close()
	at := begin
	defer func() { r.run.result.Read += at - begin }()
	for s.at < last {
		i := s.alive[s.at]
		n, err := io.CopyN(io.Discard, body, s.offsets[i]-at)
		if at += n; err != nil {
			return fmt.Errorf("read %s at %d: %w", s.key, at, whole(err))
		}
		c.span = slices.Grow(c.span[:0], int(s.entries[i].Size))[:s.entries[i].Size]
		m, err := io.ReadFull(body, c.span)
		if at += int64(m); err != nil {
			return fmt.Errorf("read %s at %d: %w", s.key, at, whole(err))
		}
		if err := r.frame(c, s.entries[i]); err != nil {
			return fmt.Errorf("entry %d of %s: %w", i, s.key, err)
		}
		s.entry[i] = int32(c.pack.Len() - 1)
		s.at++
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// stretch is where the next request begins and ends, and the first of alive that is not in it.
func (o *opened) stretch() (begin, end int64, last int) {
	begin = o.offsets[o.alive[o.at]]
	end = begin
	for last = o.at; last < len(o.alive); last++ {
		i := o.alive[last]
		if from := o.offsets[i]; last > o.at && (from-end > maxGap || o.offsets[i+1]-begin > maxStretch) {
			break
		}
		end = o.offsets[i+1]
	}
	return begin, end, last
}

// frame adds a frame once it has proved to be what the index says.
func (r *Rewriter) frame(c *copying, e pack.Entry) (err error) {
	if r.decoder == nil {
		r.decoder = pack.NewDecoderFor(1)
	}
	if c.raw, err = r.decoder.Frame(c.raw, c.span, e.Raw); err != nil {
		return err
	}
	if sum := chunk.Sum(c.raw); sum != e.ID {
		return fmt.Errorf("%w: contents are %s, index says %s", pack.ErrHash, sum, e.ID)
	}
	return c.pack.Add(e.Kind, e.ID, c.span, int(e.Raw))
}

// whole: a body that ends early is no end.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// isDamage tells what is wrong with the object from what is wrong with the way to it.
func isDamage(err error) bool {
	for _, target := range []error{pack.ErrFormat, pack.ErrHash, blob.ErrNotFound, blob.ErrRange} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// leave begins the group anew without the pack that is open: what was copied of it must not be kept beside what
// cannot be.
func (r *Rewriter) leave(ctx context.Context, c *copying, err error) error {
	s := c.open
	if r.damaged == nil {
		r.damaged = map[int64]bool{}
	}
	r.damaged[s.id] = true
	r.run.result.Damaged++
	if r.Damaged != nil {
		r.Damaged(ctx, s.id, s.key, err)
	} else {
		r.log().Error("a pack is damaged; it is left as it is", "pack", s.key, "error", err)
	}
	c.close()
	fresh, err := r.newCopying(ctx, c.group)
	if err == nil {
		*c = *fresh
	}
	return err
}
