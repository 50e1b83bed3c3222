package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/sync/semaphore"

	"github.com/org/attic-action/internal/api"
)

// gates hold back work that costs memory, disk or CPU.
type gates struct {
	uploads, packs, commits *semaphore.Weighted
	bodies                  *semaphore.Weighted // bytes
	limits                  Limits
}

func newGates(l Limits) gates {
	return gates{
		uploads: semaphore.NewWeighted(int64(l.Uploads)),
		packs:   semaphore.NewWeighted(int64(l.Packs)),
		commits: semaphore.NewWeighted(int64(l.Commits)),
		bodies:  semaphore.NewWeighted(l.BodyBudget),
		limits:  l,
	}
}

// enter waits for n places behind a gate. The stock client repeats nothing, so
// a request rather waits than fails; after Limits.Queue it is told to come
// again. The body stays in the client's socket meanwhile.
func (g *gates) enter(ctx context.Context, gate *semaphore.Weighted, n int64) (leave func(), err error) {
	wait, cancel := context.WithTimeout(ctx, g.limits.Queue)
	defer cancel()
	if err := gate.Acquire(wait, n); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for a turn: %w", ctx.Err())
		}
		return nil, overloaded("Too many requests of this kind at once.")
	}
	return func() { gate.Release(n) }, nil
}

// smallBody is read without waiting for the byte budget.
const smallBody = 64 << 10

// withBody reads the whole body, which is bounded, and hands it to use while
// its bytes are counted against the budget of all such bodies.
func (s *Server) withBody(r *http.Request, use func(body []byte) error) error {
	if err := api.CheckContentType(r.Header.Get("Content-Type")); err != nil {
		return asText(err) // before the body: 415 comes before 413
	}
	limit := s.Limits.Body
	if callerOf(r).claims == nil {
		limit = min(limit, s.Limits.Anonymous) // nothing it says could succeed
	}
	reserve := limit
	if r.ContentLength >= 0 {
		reserve = r.ContentLength
	}
	if reserve > limit {
		return tooLarge(limit)
	}
	if reserve > smallBody {
		leave, err := s.heavy.enter(r.Context(), s.heavy.bodies, reserve)
		if err != nil {
			return err
		}
		defer leave()
	}
	b, err := readAtMost(r.Body, limit, r.ContentLength)
	if err != nil {
		return err
	}
	return use(b)
}

// readAtMost reads all of r, up to limit bytes. The hint may be -1.
func readAtMost(r io.Reader, limit, hint int64) ([]byte, error) {
	if hint < 0 || hint > limit {
		hint = 512
	}
	// Grown as bytes come, past a start: a header alone must not cost its claim.
	buf := make([]byte, 0, min(hint+1, smallBody))
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, tooLarge(limit)
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func tooLarge(limit int64) error {
	return &statusError{status: http.StatusRequestEntityTooLarge,
		msg: fmt.Sprintf("Failed to buffer the request body: the limit is %d bytes", limit)}
}

// asText makes the refusal of a JSON body plain text, as Attic's framework
// answers it.
func asText(err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return err
	}
	return &statusError{status: e.Code, msg: e.Message, cause: err}
}
