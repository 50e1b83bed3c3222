package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/peer"
)

// gates hold back work that costs memory, disk or CPU.
type gates struct {
	uploads, packs, commits *gate
	bodies                  *gate // bytes
	waiting                 *gate // bytes of NARs without a narinfo
	limits                  Limits
}

func newGates(l Limits) gates {
	return gates{
		uploads: newGate(int64(l.Uploads), l.Patience),
		packs:   newGate(int64(l.Packs), l.Patience),
		commits: newGate(int64(l.Commits), l.Patience),
		bodies:  newGate(l.BodyBudget, l.Patience),
		waiting: newGate(l.Waiting, l.Patience),
		limits:  l,
	}
}

// enter waits for n places behind a gate. The stock client repeats nothing, so
// a request rather waits than fails; after Limits.Queue it is told to come
// again. Our client does come again, and is told so before it gives up on a
// connection that does not move (Limits.Return). The body stays in the client's socket meanwhile, except for its first
// byte: a request that sends nothing costs a connection, and no place.
func (g *gates) enter(r *http.Request, gate *gate, n int64) (leave func(), err error) {
	var m *meter
	if b, ok := r.Body.(body); ok {
		if err := b.arrive(); err != nil {
			return nil, err
		}
		m = &b.meter
		m.reset()
	}
	queue := g.limits.Queue
	if gate == g.packs || gate == g.commits {
		queue = g.limits.Return
	}
	ctx, cancel := context.WithTimeout(r.Context(), queue)
	defer cancel()
	leave, err = gate.acquire(ctx, holderOf(r), n, m)
	switch {
	case err == nil:
		return leave, nil
	case r.Context().Err() != nil:
		return nil, fmt.Errorf("wait for a turn: %w", r.Context().Err())
	}
	return nil, overloaded("Too many requests of this kind at once.")
}

// holderOf is who is counted as having a place: the subject, for tokens can be
// had in any number where runners get their own; without one, the address.
func holderOf(r *http.Request) string {
	rec := recordOf(r)
	if sub := rec.caller.subject(); sub != "" {
		return "sub " + sub
	}
	return "address " + peer.Key(rec.address)
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
	b, leave, err := s.readBody(r, limit, reserve)
	if err != nil {
		return err
	}
	defer leave()
	return use(b)
}

// bodyCost is how many times its bytes a body takes when it is decoded and answered: strings and slices, look-ups,
// the answer.
const bodyCost = 4

// readBody reads the whole body, of which reserve bytes are expected. Bytes of large ones are counted until leave
// is called: by who sent them while they come, and by what becomes of them, in the budget of all requests, once
// they are here. A slow client holds none of the latter.
func (s *Server) readBody(r *http.Request, limit, reserve int64) (b []byte, leave func(), err error) {
	leaveGate, release := func() {}, func() {}
	leave = func() { release(); leaveGate() }
	if reserve > smallBody {
		if leaveGate, err = s.heavy.enter(r, s.heavy.bodies, reserve); err != nil {
			return nil, nil, err
		}
	}
	b, err = readAtMost(r.Body, limit, r.ContentLength)
	if err == nil && reserve > smallBody {
		release, err = s.acquire(r.Context(), int64(len(b))*bodyCost)
	}
	if err != nil {
		leaveGate()
		return nil, nil, err
	}
	return b, leave, nil
}

// acquire takes n bytes of the budget of all requests, and gives up like a gate.
func (s *Server) acquire(ctx context.Context, n int64) (release func(), err error) {
	within, cancel := context.WithTimeout(ctx, s.Limits.Queue)
	defer cancel()
	release, err = s.Memory.Acquire(within, n)
	if err != nil && ctx.Err() == nil {
		return nil, overloaded("The server has no memory for this request at the moment.")
	}
	return release, err
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
