package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/org/attic-action/internal/meta"
)

// touches gathers which paths were downloaded, so that a download writes
// nothing: one transaction a minute does.
type touches struct {
	mu    sync.Mutex
	paths map[int64]map[string]struct{} // cache ID → path hashes
	count int
}

// maxTouches bounds the memory between two flushes. Beyond it a use is
// forgotten; a path that is used so often is noted the next time.
const maxTouches = 20_000

func (t *touches) add(cache int64, hash string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count >= maxTouches {
		return
	}
	if t.paths == nil {
		t.paths = make(map[int64]map[string]struct{})
	}
	if t.paths[cache] == nil {
		t.paths[cache] = make(map[string]struct{})
	}
	if _, ok := t.paths[cache][hash]; !ok {
		t.paths[cache][hash] = struct{}{}
		t.count++
	}
}

// take returns what has gathered, by cache, and starts anew.
func (t *touches) take() map[int64][]string {
	t.mu.Lock()
	paths := t.paths
	t.paths, t.count = nil, 0
	t.mu.Unlock()
	out := make(map[int64][]string, len(paths))
	for cache, hashes := range paths {
		for h := range hashes {
			out[cache] = append(out[cache], h)
		}
	}
	return out
}

// WriteUses writes the last uses that have gathered since it was called before. Call it every minute or so; Serve
// does at its end. What could not be written is kept for the next time.
func (s *Server) WriteUses(ctx context.Context) (err error) {
	for cache, hashes := range s.touched.take() {
		if err == nil {
			err = s.DB.Update(ctx, func(tx *meta.Tx) error { return tx.TouchPaths(cache, hashes, tx.Now()) })
		}
		if err != nil {
			for _, h := range hashes {
				s.touched.add(cache, h)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("write last uses: %w", err)
	}
	return nil
}

// untilRevoked makes a download end where it is once its token is taken back.
func (s *Server) untilRevoked(r *http.Request, body io.ReadSeekCloser) io.ReadSeekCloser {
	id := callerOf(r).tokenID()
	if s.Revoked == nil || id == "" {
		return body
	}
	return &revocable{body, func() error {
		revoked, err := s.revoked(r.Context(), id)
		if revoked {
			err = meta.ErrRevoked
		}
		return err
	}}
}

type revocable struct {
	io.ReadSeekCloser
	check func() error
}

func (v *revocable) Read(p []byte) (int, error) {
	if err := v.check(); err != nil {
		return 0, err
	}
	return v.ReadSeekCloser.Read(p)
}

// watchedReader remembers why reading failed; http.ServeContent does not say.
type watchedReader struct {
	io.ReadSeekCloser
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.ReadSeekCloser.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}
