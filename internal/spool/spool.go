// Package spool holds bytes that are on their way: temporary files without a
// name, so that nothing of them is left after a crash, under a budget of bytes,
// so that parallel uploads cannot fill the volume that the database lives on.
//
//	Create(ctx, size) ── waits its turn for budget ── statfs ── O_TMPFILE
//	Write, ReadAt     ── with a Step: the next bytes of the budget; statfs again
//	Close             ── the bytes go back to the budget, the file is gone
//
// What is reserved and not yet written counts as taken, of the budget and of the
// volume: many files that each look at the volume alone would fill it together. So
// who only announces bytes holds up others with a Step of them and no more.
package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

var (
	// ErrFull says that the volume has no room. A server answers 507.
	ErrFull = errors.New("the volume is full")
	// ErrBudget says that a file cannot grow: the budget is taken, or smaller
	// than the file alone.
	ErrBudget = errors.New("over the spool budget")
)

// Dir is a directory for spool files. Its zero limits mean none. It is safe for
// concurrent use and must not be copied.
type Dir struct {
	Path    string // empty means os.TempDir()
	Budget  int64  // bytes that all open files may take together; 0 means no limit
	Reserve int64  // bytes of the volume that stay free whatever is spooled; 0 means none
	Step    int64  // bytes that a file reserves at a time, as they come; 0 means all at once

	// MakeRoom, if there is one, is asked to free n bytes of the volume before anything is refused: what lies
	// there only because there was room.
	MakeRoom func(n int64)

	mu      sync.Mutex
	used    int64     // bytes reserved by open files
	written int64     // of them
	waiting []*waiter // in order of arrival

	free func(dir string) (int64, error) // tests stand in for the volume here
}

// waiter is a Create that waits for room. ready is closed when it has it.
type waiter struct {
	size  int64
	ready chan struct{}
}

// Create makes an empty file for up to size bytes and reserves them, or the first
// Step of them. While the budget is taken it waits, first come first served, until
// ctx ends. When the volume could not hold what is reserved beside the reserve, it
// is ErrFull at once: other uploads that end do not free the volume. A size above
// the whole budget is ErrBudget.
func (d *Dir) Create(ctx context.Context, size int64) (*File, error) {
	if size < 0 {
		return nil, fmt.Errorf("create spool file: size %d", size)
	}
	first := size
	if d.Step > 0 {
		first = min(size, d.Step)
	}
	err := d.fitsAtAll(size)
	if err == nil {
		err = d.acquire(ctx, first)
	}
	if err != nil {
		return nil, fmt.Errorf("create spool file of %d bytes: %w", size, err)
	}
	f, err := d.create()
	if err != nil {
		d.release(first, 0)
		return nil, fmt.Errorf("create spool file of %d bytes: %w", size, err)
	}
	return &File{dir: d, f: f, reserved: first, most: size}, nil
}

func (d *Dir) create() (*os.File, error) {
	if err := d.checkVolume(); err != nil {
		return nil, err
	}
	f, err := unnamed(d.path())
	return f, AsFull(err)
}

func (d *Dir) path() string {
	if d.Path == "" {
		return os.TempDir()
	}
	return d.Path
}

// checkVolume says whether what is reserved and not yet written leaves the reserve free.
func (d *Dir) checkVolume() error {
	if d.Reserve <= 0 {
		return nil
	}
	free := d.free
	if free == nil {
		free = Free
	}
	d.mu.Lock()
	coming := d.used - d.written
	d.mu.Unlock()
	n, err := free(d.path())
	if err == nil && n-coming < d.Reserve && d.MakeRoom != nil {
		d.MakeRoom(d.Reserve + coming - n)
		n, err = free(d.path())
	}
	if err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	if n-coming < d.Reserve {
		return fmt.Errorf("%w: %d bytes free, %d of them in reserve and %d announced", ErrFull, n, d.Reserve, coming)
	}
	return nil
}

func (d *Dir) fitsAtAll(size int64) error {
	if d.Budget > 0 && size > d.Budget {
		return fmt.Errorf("%w of %d bytes", ErrBudget, d.Budget)
	}
	return nil
}

// acquire takes size bytes of the budget, in the order of calls: a large upload
// that had to let small ones pass would never start.
func (d *Dir) acquire(ctx context.Context, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	if len(d.waiting) == 0 && d.fits(size) {
		d.used += size
		d.mu.Unlock()
		return nil
	}
	w := &waiter{size: size, ready: make(chan struct{})}
	d.waiting = append(d.waiting, w)
	d.mu.Unlock()

	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		d.abandon(w)
		return fmt.Errorf("wait for the spool budget: %w", ctx.Err())
	}
}

// abandon takes w out of the queue, or gives back what it was granted while its
// context ended.
func (d *Dir) abandon(w *waiter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-w.ready:
		d.used -= w.size
	default:
		for i, other := range d.waiting {
			if other == w {
				d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
				break
			}
		}
	}
	d.wake() // w may have been the one that held up the others
}

// release gives bytes back, some of which were written.
func (d *Dir) release(size, written int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used -= size
	d.written -= written
	d.wake()
}

func (d *Dir) wrote(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written += n
}

// wake grants from the head of the queue; d.mu is held.
func (d *Dir) wake() {
	for len(d.waiting) > 0 && d.fits(d.waiting[0].size) {
		w := d.waiting[0]
		d.waiting = d.waiting[1:]
		d.used += w.size
		close(w.ready)
	}
}

func (d *Dir) fits(size int64) bool { return d.Budget <= 0 || size <= d.Budget-d.used }

// grow takes size more bytes for an open file. It never waits: a file that held
// on to its bytes while waiting for more could wait for itself.
func (d *Dir) grow(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.fits(size) {
		return fmt.Errorf("%w of %d bytes", ErrBudget, d.Budget)
	}
	d.used += size
	return nil
}
