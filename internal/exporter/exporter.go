// Package exporter writes paths of a cache into a folder that Nix reads without us: a plain binary cache.
//
//	DIR/nix-cache-info
//	DIR/<hash>.narinfo             last, in one step
//	DIR/nar/<file hash>.nar.zst    before it; the frames of our packs as they are
//
// Every NAR is decoded and hashed on its way, so what is damaged does not arrive. A path whose narinfo and NAR are
// there is left alone: an export that was stopped goes on with the next run.
package exporter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/unpack"
)

// Cache is the cache that is exported.
type Cache interface {
	// List calls each for the hashes of all paths that are to be exported.
	List(ctx context.Context, each func(hashes []string) error) error
	// Describe gives the narinfos of paths as a client would get them; those that went meanwhile are left out.
	Describe(ctx context.Context, hashes []string) ([]*nix.NarInfo, error)
	// NAR gives the bytes that the narinfo tells of.
	NAR(ctx context.Context, info *nix.NarInfo) (io.ReadCloser, error)
}

// Options say how to export. Compression is zstd or none.
type Options struct {
	Compression string
	Jobs        int            // paths written at a time; 0: 4
	StoreDir    string         // of the cache
	Priority    int32          // of the cache
	Progress    func(r Result) // after each path; nil: nobody asks
}

// Result is what came of an export.
type Result struct {
	Paths   int       `json:"paths"`   // of the cache that were looked at
	Present int       `json:"present"` // were in the folder
	Written int       `json:"written"` // were written
	Bytes   int64     `json:"bytes"`   // of the files written
	Failed  []Failure `json:"failed"`  // the first of them
	Failing int       `json:"failing"` // how many there are
}

// Failure is a path that was not written.
type Failure struct {
	Path    string `json:"path"`
	Problem string `json:"problem"`
}

const (
	maxFailures = 1000
	// describeAtOnce is how many narinfos are asked for at a time.
	describeAtOnce = 200
	// leftOver is the age from which a file that was begun is nobody's.
	leftOver = 24 * time.Hour
	begun    = ".export-" // what the names of such files begin with
)

// Run writes what the cache lists into the folder dir, which is made if need be. A path that cannot be read is in the
// result; an error of the folder ends the run.
func Run(ctx context.Context, from Cache, dir string, o Options) (Result, error) {
	r := &run{Options: o, from: from, result: Result{Failed: []Failure{}}}
	if r.Jobs <= 0 {
		r.Jobs = 4
	}
	if err := r.open(dir); err != nil {
		return r.result, fmt.Errorf("export to %s: %w", dir, err)
	}
	defer r.dir.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.Jobs) // bound by decoding
	err := from.List(ctx, func(hashes []string) error { return r.some(ctx, g, hashes) })
	if first := g.Wait(); first != nil {
		err = first // the list ended for it
	}
	if err != nil {
		return r.result, fmt.Errorf("export to %s: %w", dir, err)
	}
	return r.result, nil
}

type run struct {
	Options
	from Cache
	dir  *os.Root

	mu     sync.Mutex
	result Result
}

func (r *run) note(change func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.result)
	if r.Progress != nil {
		r.Progress(r.result)
	}
}

// open makes the folder, or sees that it is of the same store, and takes away what runs that were killed have left.
func (r *run) open(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if r.dir, err = os.OpenRoot(dir); err != nil {
		return err
	}
	if err := r.dir.Mkdir("nar", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, at := range []string{".", "nar"} {
		if err := r.sweep(at); err != nil {
			return err
		}
	}
	const name = "nix-cache-info"
	text, err := r.dir.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		info := fmt.Sprintf("StoreDir: %s\nWantMassQuery: 1\nPriority: %d\n", r.StoreDir, r.Priority)
		return r.write(name, func(w io.Writer) error { _, err := io.WriteString(w, info); return err })
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if there, ok := strings.CutPrefix(line, "StoreDir:"); ok && strings.TrimSpace(there) != r.StoreDir {
			return fmt.Errorf("it is a binary cache for %.100q, and the paths are in %s", strings.TrimSpace(there), r.StoreDir)
		}
	}
	return nil
}

func (r *run) sweep(at string) error {
	dir, err := r.dir.Open(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(1000)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), begun) {
				continue
			}
			if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > leftOver {
				_ = r.dir.Remove(at + "/" + e.Name()) // it only takes room
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// some exports some paths.
func (r *run) some(ctx context.Context, g *errgroup.Group, hashes []string) error {
	for len(hashes) > 0 {
		n := min(len(hashes), describeAtOnce)
		infos, err := r.from.Describe(ctx, hashes[:n])
		if err != nil {
			return err
		}
		hashes = hashes[n:]
		for _, info := range infos {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r.note(func(res *Result) { res.Paths++ })
			g.Go(func() error { return r.one(ctx, info) })
		}
	}
	return nil
}

// one exports one path, unless it is there.
func (r *run) one(ctx context.Context, info *nix.NarInfo) error {
	there := r.there(info)
	if there != nil {
		info.URL, info.Compression, info.FileHash, info.FileSize = there.URL, there.Compression, there.FileHash, there.FileSize
		if string(there.Format()) == string(info.Format()) {
			r.note(func(res *Result) { res.Present++ })
			return nil
		}
	} else if err := r.nar(ctx, info); err != nil {
		return r.failed(ctx, info, err)
	}
	text := info.Format()
	err := r.write(info.StorePath.Hash()+".narinfo", func(w io.Writer) error { _, err := w.Write(text); return err })
	if err != nil {
		return err
	}
	r.note(func(res *Result) { res.Written++; res.Bytes += int64(info.FileSize) })
	return nil
}

// there is the narinfo of the same NAR in the folder, if all of its file is there; else nil.
func (r *run) there(info *nix.NarInfo) *nix.NarInfo {
	f, err := r.dir.Open(info.StorePath.Hash() + ".narinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	there, err := nix.ParseNarInfo(f)
	if err != nil || there.StorePath != info.StorePath || there.NarHash != info.NarHash || there.NarSize != info.NarSize {
		return nil // what is broken is written anew
	}
	fi, err := r.dir.Stat(there.URL)
	if err != nil || there.FileSize == 0 || fi.Size() != int64(there.FileSize) {
		return nil
	}
	return there
}

// sourceError is what went wrong with a path, and not with the folder.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

func (r *run) failed(ctx context.Context, info *nix.NarInfo, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !errors.As(err, new(sourceError)) {
		return err
	}
	r.note(func(res *Result) {
		res.Failing++
		if len(res.Failed) < maxFailures {
			res.Failed = append(res.Failed, Failure{info.StorePath.String(), err.Error()})
		}
	})
	return nil
}

// nar writes the file of a NAR, and what it is into info.
func (r *run) nar(ctx context.Context, info *nix.NarInfo) error {
	body, err := r.from.NAR(ctx, info)
	if err != nil {
		return sourceError{fmt.Errorf("read NAR: %w", err)}
	}
	defer body.Close()
	file, narSum := sha256.New(), sha256.New()
	var size, narSize int64
	name, err := r.writeNamed("nar/", func(w io.Writer) (string, error) {
		packed := io.MultiWriter(w, file, (*counter)(&size))
		plain := io.MultiWriter(narSum, (*counter)(&narSize))
		raw := io.Reader(body)
		if r.Compression == "none" {
			plain = io.MultiWriter(plain, packed)
		} else {
			raw = io.TeeReader(body, failing{packed})
		}
		if err := decode(raw, info, plain); err != nil {
			return "", err
		}
		if got := nix.Hash(narSum.Sum(nil)); got != info.NarHash || uint64(narSize) != info.NarSize {
			return "", sourceError{fmt.Errorf("its NAR is damaged: %s of %d bytes, not %s of %d", got, narSize, info.NarHash, info.NarSize)}
		}
		info.FileHash, info.FileSize = nix.Hash(file.Sum(nil)), uint64(size)
		return info.FileHash.Base32() + suffixes[r.Compression], nil
	})
	info.URL, info.Compression = name, r.Compression
	return err
}

var suffixes = map[string]string{"zstd": ".nar.zst", "none": ".nar"}

// Compressions are those that Options takes.
func Compressions(name string) bool { return suffixes[name] != "" }

// decode writes what raw decodes to, at most one byte more than there should be, and reads raw to its end.
func decode(raw io.Reader, info *nix.NarInfo, to io.Writer) error {
	nar, err := unpack.NewReader(info.Compression, raw)
	if err != nil {
		return sourceError{err}
	}
	defer nar.Close()
	_, err = io.Copy(failing{to}, io.LimitReader(nar, int64(info.NarSize)+1))
	if err == nil {
		_, err = io.Copy(io.Discard, raw)
	}
	var w writeError
	if errors.As(err, &w) {
		return w.error // of the folder
	}
	if err != nil {
		return sourceError{fmt.Errorf("read NAR: %w", err)}
	}
	return nil
}

// failing marks errors of a writer, which come out of readers otherwise.
type failing struct{ io.Writer }

type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func (f failing) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	if err != nil {
		err = writeError{err}
	}
	return n, err
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }
