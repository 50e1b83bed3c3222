// Package waiting holds NARs as Nix uploads them, compressed, until the narinfo comes that says which
// path each one is: without its references a NAR cannot be cut as everybody else cuts it.
//
//	PUT nar/<file hash>.nar.xz ── Put ──► an unnamed file of the spool
//	HEAD the same              ── Promise   a client that hears yes sends no bytes
//	PUT <hash>.narinfo         ── Take ──► read ── Done(true): one narinfo less to wait for
//
// A NAR waits for as many narinfos as were promised it, since two store paths can have equal contents,
// and for Life after the last of them stirred. It is known to who sent it alone, and in the cache that it
// was sent to. Nothing of it is left after the process.
package waiting

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/org/attic-action/internal/spool"
)

// DefaultLife is how long a NAR waits. Nix sends the narinfo at once.
const DefaultLife = 15 * time.Minute

var (
	// ErrHash says that the bytes are not those of the name.
	ErrHash = errors.New("the bytes have another SHA-256 than the name")
	// ErrShort says that there were fewer bytes than announced.
	ErrShort = errors.New("the bytes ended early")
)

// Key is whose NAR it is: a name alone is no right to read.
type Key struct {
	Cache  int64
	Holder string
	File   [32]byte // SHA-256 of the compressed NAR
}

// Room is where NARs wait. Fill in the fields, then use it from any number of goroutines. How many bytes
// it takes is for the caller to bound.
type Room struct {
	Spool *spool.Dir
	Life  time.Duration // 0 means DefaultLife

	mu      sync.Mutex
	nars    map[Key]*entry
	changed chan struct{} // closed when something comes
}

type entry struct {
	file    *spool.File
	leave   func() // gives back what the caller took for it
	wanted  int    // narinfos that it waits for
	readers int
	gone    bool // no longer in the room; the last reader closes it
	expiry  *time.Timer
}

// Put takes a NAR of size bytes. leave is called once, when it is gone, or at once after an error. A NAR
// that is here already waits for one more narinfo.
func (r *Room) Put(ctx context.Context, key Key, size int64, body io.Reader, leave func()) error {
	file, err := r.receive(ctx, key, size, body)
	if err != nil {
		leave()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.signal()
	if e := r.nars[key]; e != nil {
		e.wanted++
		e.expiry.Reset(r.life())
		leave()
		return file.Close()
	}
	if r.nars == nil {
		r.nars = map[Key]*entry{}
	}
	e := &entry{file: file, leave: leave, wanted: 1}
	e.expiry = time.AfterFunc(r.life(), func() { r.expire(key, e) })
	r.nars[key] = e
	return nil
}

func (r *Room) receive(ctx context.Context, key Key, size int64, body io.Reader) (*spool.File, error) {
	file, err := r.Spool.Create(ctx, size)
	if err != nil {
		return nil, fmt.Errorf("keep NAR: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, h), io.LimitReader(body, size))
	switch {
	case err != nil:
		err = fmt.Errorf("keep NAR: %w", err)
	case n < size:
		err = fmt.Errorf("%w: after %d of %d", ErrShort, n, size)
	case [32]byte(h.Sum(nil)) != key.File:
		err = fmt.Errorf("%w: %x", ErrHash, h.Sum(nil))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (r *Room) life() time.Duration {
	if r.Life > 0 {
		return r.Life
	}
	return DefaultLife
}

// signal wakes who waits for a change; r.mu is held.
func (r *Room) signal() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Changed is closed when the next NAR has come, or Stir is called. Ask for it before looking.
func (r *Room) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// Stir says that something else has come that somebody may wait for.
func (r *Room) Stir() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signal()
}

// Promise reports the bytes of a NAR that waits. Who hears of it will send no other, so it then waits for
// one more narinfo.
func (r *Room) Promise(key Key) (size int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.nars[key]
	if e == nil {
		return 0, false
	}
	e.wanted++
	e.expiry.Reset(r.life())
	return e.file.Size(), true
}

// NAR is one that is being read.
type NAR struct {
	*io.SectionReader
	room  *Room
	key   Key
	entry *entry
}

// Take gives the NAR to read; it goes on waiting. Call Done in the end.
func (r *Room) Take(key Key) (n *NAR, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.nars[key]
	if e == nil {
		return nil, false
	}
	e.readers++
	e.expiry.Reset(r.life())
	return &NAR{io.NewSectionReader(e.file, 0, e.file.Size()), r, key, e}, true
}

// Done ends the reading. used says that a narinfo has got what it came for.
func (n *NAR) Done(used bool) {
	n.room.mu.Lock()
	defer n.room.mu.Unlock()
	n.entry.readers--
	if used {
		n.entry.wanted--
	}
	if n.entry.wanted <= 0 {
		n.room.drop(n.key, n.entry)
	}
	n.entry.shut()
}

func (r *Room) expire(key Key, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(key, e)
	e.shut()
}

// drop takes e out of the room; r.mu is held.
func (r *Room) drop(key Key, e *entry) {
	if r.nars[key] == e {
		delete(r.nars, key)
		e.expiry.Stop()
		e.gone = true
	}
}

// shut closes what is gone and nobody reads.
func (e *entry) shut() {
	if e.gone && e.readers == 0 && e.leave != nil {
		_ = e.file.Close() // an unnamed file: nothing is lost with it
		e.leave()
		e.leave = nil
	}
}
