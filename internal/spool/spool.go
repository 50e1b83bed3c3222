// Package spool holds bytes that are on their way: temporary files without a
// name, so that nothing of them is left after a crash, under a budget of bytes,
// so that parallel uploads cannot fill the volume that the database lives on.
//
//	Create(ctx, size) ── waits its turn for budget ── statfs ── O_TMPFILE
//	Write, ReadAt     ── statfs again every 64 MiB
//	Close             ── the bytes go back to the budget, the file is gone
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

	// MakeRoom, if there is one, is asked to free n bytes of the volume before anything is refused: what lies
	// there only because there was room.
	MakeRoom func(n int64)

	mu      sync.Mutex
	used    int64     // bytes reserved by open files
	waiting []*waiter // in order of arrival

	free func(dir string) (int64, error) // tests stand in for the volume here
}

// waiter is a Create that waits for room. ready is closed when it has it.
type waiter struct {
	size  int64
	ready chan struct{}
}

// Create makes an empty file and reserves size bytes for it. While the budget
// is taken it waits, first come first served, until ctx ends. When the volume
// could not hold size bytes beside the reserve, it is ErrFull at once: other
// uploads that end do not free the volume. A size above the whole budget is
// ErrBudget.
func (d *Dir) Create(ctx context.Context, size int64) (*File, error) {
	if size < 0 {
		return nil, fmt.Errorf("create spool file: size %d", size)
	}
	if err := d.acquire(ctx, size); err != nil {
		return nil, fmt.Errorf("create spool file of %d bytes: %w", size, err)
	}
	f, err := d.create(size)
	if err != nil {
		d.release(size)
		return nil, fmt.Errorf("create spool file of %d bytes: %w", size, err)
	}
	return &File{dir: d, f: f, reserved: size}, nil
}

func (d *Dir) create(size int64) (*os.File, error) {
	if err := d.checkVolume(size); err != nil {
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

// checkVolume says whether size more bytes leave the reserve free.
func (d *Dir) checkVolume(size int64) error {
	if d.Reserve <= 0 {
		return nil
	}
	free := d.free
	if free == nil {
		free = Free
	}
	n, err := free(d.path())
	if err == nil && n-size < d.Reserve && d.MakeRoom != nil {
		d.MakeRoom(d.Reserve + size - n)
		n, err = free(d.path())
	}
	if err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	if n-size < d.Reserve {
		return fmt.Errorf("%w: %d bytes free, %d of them in reserve", ErrFull, n, d.Reserve)
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
	if d.Budget > 0 && size > d.Budget {
		d.mu.Unlock()
		return fmt.Errorf("%w of %d bytes", ErrBudget, d.Budget)
	}
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

func (d *Dir) release(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used -= size
	d.wake()
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
