// Package follow hands on what a build has made, while it goes on.
//
//	log of the build ── "building '….drv'" ── one of the build's own derivations?   lines.go
//	   │                                         │ its outputs
//	every second ────── there, and not locked ───┤ looked for in the file system
//	   │                                         │
//	gathered: 16 MiB, 5 s or the end ─── valid? ─┤ asked of Nix, once for all of them
//	                                             │ a root for the garbage collector
//	                                           Offer
//
// Three ways lead to the paths of a build that is not over yet. A post-build hook runs for trusted users only, takes the place of the
// user's own hook, and the build waits for it. A watch of the whole store sees what any other job on the machine makes, what was
// substituted, and what is not valid yet. What is taken here is Nix's own log, which every user gets, through a daemon and from
// remote builders as well: it costs the build nothing, and names what this build makes and nothing else. A path that is missed, such as one of a
// derivation whose output is known only once it is built, is no loss: the push of the whole closure finds it.
//
// Builders write to the same log. A line of theirs can only name a derivation of their own build, so they can't have
// another project's paths pushed from a machine that both use.
package follow

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/org/attic-action/internal/nix"
)

// Store is what is asked of Nix. *nixcli.Nix is one.
type Store interface {
	Requisites(ctx context.Context, drv nix.StorePath) ([]nix.StorePath, error)
	Outputs(ctx context.Context, drvs []nix.StorePath) ([]nix.StorePath, error)
	Valid(ctx context.Context, paths []nix.StorePath) ([]nix.StorePath, error)
	Root(ctx context.Context, link string, paths []nix.StorePath) error
}

// How paths are gathered, so that small ones lie together on the server.
const (
	lookEvery = time.Second
	gatherFor = 5 * time.Second
	gatherTo  = 16 << 20 // bytes, about
)

// Build is one build that is followed. The build's log is written to it.
type Build struct {
	Store Store
	Drv   nix.StorePath            // what is built
	Roots string                   // folder for symlinks, which must be there; whoever makes it removes it
	Skip  func(nix.StorePath) bool // paths that nobody wants; nil skips none
	Offer func(Made) bool          // takes paths, or reports that it has no time; it must not wait
	Log   *slog.Logger             // nil discards

	lines lines

	// Of the goroutine that Start makes, and of stop after it.
	known   map[nix.StorePath]bool // the build's own derivations; nil before one is needed
	waiting map[nix.StorePath]bool // outputs to be looked for; true when it was seen
	size    int64                  // of those seen, about
	since   time.Time              // when the first of them was seen
	ready   Made                   // to be offered
	warned  map[string]bool
}

// Made are paths that are valid and kept from the garbage collector.
type Made struct {
	Paths []nix.StorePath
	roots []string // folders
}

// Add adds others.
func (m *Made) Add(others Made) {
	m.Paths = append(m.Paths, others.Paths...)
	m.roots = append(m.roots, others.roots...)
}

// Release lets the garbage collector have them.
func (m Made) Release() error {
	var errs []error
	for _, dir := range m.roots {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// Write takes a piece of the log. It never fails, and never waits for long.
func (b *Build) Write(p []byte) (int, error) { return b.lines.Write(p) }

// Start begins to look. Stop ends that, looks a last time, and returns what was not taken. Its context may be one that
// outlives ctx.
func (b *Build) Start(ctx context.Context) (stop func(ctx context.Context) Made) {
	ctx, cancel := context.WithCancel(ctx)
	b.waiting, b.warned = map[nix.StorePath]bool{}, map[string]bool{}
	var done sync.WaitGroup
	done.Go(func() { b.follow(ctx) })
	return func(ctx context.Context) Made {
		cancel()
		done.Wait()
		b.look(ctx)
		b.collect(ctx)
		return b.ready
	}
}

func (b *Build) follow(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		b.look(ctx)
		if !b.since.IsZero() && (b.size >= gatherTo || time.Since(b.since) >= gatherFor) {
			b.collect(ctx)
		}
		if len(b.ready.Paths) > 0 && b.Offer(b.ready) {
			b.ready = Made{}
		}
	}
}

// look finds what has come into the file system. That costs next to nothing, so it is done often.
func (b *Build) look(ctx context.Context) {
	if err := b.begun(ctx); err != nil && ctx.Err() == nil {
		b.log().Debug("what is built now is pushed at the end", "err", err)
	}
	for path, seen := range b.waiting {
		if seen || !isThere(path.String()) || isThere(path.String()+".lock") { // Nix locks what it writes, until it is valid
			continue
		}
		b.waiting[path] = true
		b.size += about(path.String(), gatherTo)
		if b.since.IsZero() {
			b.since = time.Now()
		}
	}
}

// begun notes the outputs of derivations that Nix has begun to build.
func (b *Build) begun(ctx context.Context) error {
	drvs := b.lines.take()
	if len(drvs) == 0 {
		return nil
	}
	if b.known == nil {
		all, err := b.Store.Requisites(ctx, b.Drv)
		if err != nil {
			return err
		}
		b.known = map[nix.StorePath]bool{}
		for _, drv := range all {
			b.known[drv] = true
		}
	}
	drvs = slices.DeleteFunc(drvs, func(drv nix.StorePath) bool { return !b.known[drv] })
	if len(drvs) == 0 {
		return nil
	}
	outputs, err := b.Store.Outputs(ctx, drvs)
	if err != nil {
		return err
	}
	for _, path := range outputs {
		if _, known := b.waiting[path]; !known && (b.Skip == nil || !b.Skip(path)) {
			b.waiting[path] = false
		}
	}
	return nil
}

// collect makes what was seen ready, if it is valid. What is not is looked for again.
func (b *Build) collect(ctx context.Context) {
	var seen []nix.StorePath
	for path, is := range b.waiting {
		if is {
			seen = append(seen, path)
			b.waiting[path] = false
		}
	}
	b.size, b.since = 0, time.Time{}
	if len(seen) == 0 {
		return
	}
	slices.SortFunc(seen, func(p, q nix.StorePath) int { return slices.Compare([]byte(p.String()), []byte(q.String())) })
	valid, err := b.Store.Valid(ctx, seen)
	if err != nil {
		if ctx.Err() == nil {
			b.warn("what was built can't be looked at; it is tried again", err)
		}
		return
	}
	if len(valid) == 0 {
		return
	}
	for _, path := range valid {
		delete(b.waiting, path)
	}
	b.ready.Add(b.hold(ctx, valid))
}

// hold makes roots. Without one, a collection that came before the push would fail it, and nothing else.
func (b *Build) hold(ctx context.Context, paths []nix.StorePath) Made {
	made := Made{Paths: paths}
	dir, err := os.MkdirTemp(b.Roots, "made-*")
	if err == nil {
		made.roots = []string{dir}
		err = b.Store.Root(ctx, filepath.Join(dir, "root"), paths)
	}
	if err != nil && ctx.Err() == nil {
		b.warn("what waits for its push is not kept from a garbage collection", err)
	}
	return made
}

// warn says a thing once: what fails now fails again in a few seconds.
func (b *Build) warn(text string, err error) {
	if !b.warned[text] {
		b.warned[text] = true
		b.log().Warn(text, "err", err)
	}
}

func (b *Build) log() *slog.Logger {
	if b.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return b.Log
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

var errEnough = errors.New("enough")

// about is the size in bytes of a file or of all files in a folder, as far as it matters: many files take long to count, and to push.
func about(path string, enough int64) (size int64) {
	const perFile = 4 << 10
	_ = filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // what can't be seen is not counted
		}
		size += perFile
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		if size >= enough {
			return errEnough
		}
		return nil
	})
	return size
}
