package server

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/org/attic-action/internal/depot"
)

// lookahead holds NARs that are on their way from the bucket before they were asked for. Who takes one has passed
// the same checks as for any other: what is here are bytes of a form, and nobody's. Its zero value is ready.
type lookahead struct {
	mu    sync.Mutex
	ready map[aheadKey]*aheadNAR
}

type aheadKey struct {
	cache int64
	hash  string
	form  [32]byte
}

type aheadNAR struct {
	nar    *depot.Early
	expire *time.Timer
}

const (
	maxReady = 64
	// readyFor is how long a NAR waits to be asked for.
	readyFor = 20 * time.Second
)

// put keeps a NAR until it is taken, or for some seconds. It takes none while it has many.
func (l *lookahead) put(key aheadKey, nar *depot.Early) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ready) >= maxReady || l.ready[key] != nil {
		return false
	}
	if l.ready == nil {
		l.ready = map[aheadKey]*aheadNAR{}
	}
	l.ready[key] = &aheadNAR{nar: nar, expire: time.AfterFunc(readyFor, func() {
		if nar := l.take(key); nar != nil {
			_ = nar.Close() // was only read from
		}
	})}
	return true
}

func (l *lookahead) take(key aheadKey) *depot.Early {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.ready[key]
	if a == nil {
		return nil
	}
	delete(l.ready, key)
	a.expire.Stop()
	return a.nar
}

// openNAR is the reader for a request, of what is on its way already if the request is for all of it.
func (s *Server) openNAR(r *http.Request, o *object, nar *depot.NAR) io.ReadSeekCloser {
	if r.Method == http.MethodGet && r.Header.Get("Range") == "" {
		early := s.ahead.take(aheadKey{o.cache.ID, o.path.Hash, nar.Form})
		switch {
		case early == nil:
		case early.Failed(): // the bucket may be well again
			_ = early.Close() // was only read from
		default:
			return early.Reader(r.Context())
		}
	}
	return nar.Reader(r.Context(), expectedEnd(r.Header.Get("Range"), nar.Size))
}

// lookAhead begins with what a client will ask for next, as far as there is room.
func (s *Server) lookAhead(ctx context.Context, cacheID int64, p *puller) {
	if !s.ReadAhead {
		return
	}
	for _, hash := range p.next() {
		nar, err := s.Depot.Open(ctx, cacheID, hash)
		if ctx.Err() != nil {
			return
		}
		if err != nil { // gone, or damaged: that is told when it is asked for, and what is behind it comes all the same
			p.has(hash)
			continue
		}
		early, more := nar.Early()
		if early == nil && !more {
			return // no room; the next request tries again
		}
		p.has(hash)
		if early != nil && !s.ahead.put(aheadKey{cacheID, hash, nar.Form}, early) {
			_ = early.Close() // was only read from
		}
	}
}
