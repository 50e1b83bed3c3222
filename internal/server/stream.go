package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// errBody marks errors of reading the request body.
var errBody = errors.New("read request body")

// progress is how many bytes count as progress: a client that sends or takes
// less than this in a whole Limits.Stall is cut off, be it ever so steady.
const progress = 4 << 10

// A stream is the connection under one request, seen from its handler. Reads
// and writes get deadlines that only moving bytes renew; what moved is counted.
// It stands in for both the ResponseWriter and the request's body.
//
// The deadlines are taken off again when nothing is being read or written: in
// HTTP/1 net/http reads on in the background to notice a client that hangs up,
// and in HTTP/2 a deadline resets the stream even while a handler thinks.
type stream struct {
	http.ResponseWriter
	ctl   *http.ResponseController
	stall time.Duration

	body  io.ReadCloser
	left  time.Duration // what is left for the reads until progress is made
	moved int64         // bytes read since then
	ended bool          // the body was read to its end, or cannot be read any more
	meter meter         // for the gates
	first []byte        // a byte that was read to see whether any comes
	waits bool          // the client sends its body after "100 Continue"
	torn  bool          // the answer broke off: the connection is to be cut

	status        int
	read, written int64
	err           error // the first write error
}

// newStream returns the stream and the request to hand on. The request is a
// copy: net/http looks at the body of its own one when the handler is done.
func newStream(w http.ResponseWriter, r *http.Request, stall time.Duration) (*stream, *http.Request) {
	st := &stream{ResponseWriter: w, ctl: http.NewResponseController(w), stall: stall, left: stall, body: r.Body}
	st.meter.setDeadline = st.ctl.SetReadDeadline
	// What the request before left behind on this connection.
	_ = st.ctl.SetWriteDeadline(time.Time{}) // a recorder in a test has no deadlines
	st.waits = r.Header.Get("Expect") != ""
	r = r.WithContext(r.Context())
	if r.Body == nil || r.Body == http.NoBody {
		st.ended = true
	} else {
		r.Body = body{st}
	}
	return st, r
}

// body is the reading half of a stream.
type body struct{ *stream }

func (b body) Read(p []byte) (int, error) { return b.stream.readBody(p) }
func (b body) Close() error               { return nil } // net/http closes the real one

// arrive waits until the body has begun to come, or has ended.
func (st *stream) arrive() error {
	for len(st.first) == 0 && !st.ended {
		b := make([]byte, 1)
		n, err := st.readBody(b)
		st.first = b[:n]
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

func (st *stream) readBody(p []byte) (int, error) {
	if len(st.first) > 0 && len(p) > 0 {
		n := copy(p, st.first)
		st.first = st.first[n:]
		return n, nil
	}
	if st.left <= 0 {
		st.left = time.Millisecond // the deadline error comes from the connection, as always
	}
	start := time.Now()
	st.meter.begin(start, start.Add(st.left))
	n, err := st.body.Read(p)
	displaced := st.meter.end(n)
	st.left -= time.Since(start)
	st.read += int64(n)
	if st.moved += int64(n); st.moved >= progress {
		st.left, st.moved = st.stall, 0
	}
	if err != nil {
		st.ended = true
		_ = st.ctl.SetReadDeadline(time.Time{})
	}
	if err != nil && err != io.EOF {
		if displaced {
			err = fmt.Errorf("%w: %w", errDisplaced, err)
		}
		return n, fmt.Errorf("%w: %w", errBody, err)
	}
	return n, err
}

func (st *stream) WriteHeader(status int) {
	if st.status == 0 {
		st.status = status
	}
	st.ResponseWriter.WriteHeader(status)
}

func (st *stream) Write(p []byte) (int, error) {
	if st.status == 0 {
		st.status = http.StatusOK
	}
	defer func() { _ = st.ctl.SetWriteDeadline(time.Time{}) }()
	var total int
	for {
		piece := p[total:min(len(p), total+writePiece)]
		_ = st.ctl.SetWriteDeadline(time.Now().Add(st.stall))
		n, err := st.ResponseWriter.Write(piece)
		total += n
		st.written += int64(n)
		if err != nil && st.err == nil && !errors.Is(err, http.ErrBodyNotAllowed) {
			st.err = err
		}
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// writePiece is how many bytes one write deadline covers.
const writePiece = 64 << 10

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, writePiece); return &b }}

// Unwrap lets a ResponseController reach the connection.
func (st *stream) Unwrap() http.ResponseWriter { return st.ResponseWriter }

// finish ends the exchange. An answer that came before the body was read is
// followed by a bounded reading away of the rest: the stock client sends while
// it waits for the answer, and a connection that is closed on unread data is
// reset, which takes the answer away from it.
func (st *stream) finish(l Limits) {
	deadline := time.Now().Add(st.stall)
	defer func() {
		// For what net/http still has to flush after the handler.
		_ = st.ctl.SetWriteDeadline(deadline)
	}()
	if st.ended || st.status == 0 || st.torn || st.waits && st.read == 0 {
		return
	}
	_ = st.ctl.SetWriteDeadline(time.Now().Add(l.DrainTime))
	_ = st.ctl.EnableFullDuplex() // so that the answer goes out before the body is in
	if st.ctl.Flush() != nil {
		return
	}
	_ = st.ctl.SetReadDeadline(time.Now().Add(l.DrainTime))
	buf := make([]byte, 32<<10)
	for drained := int64(0); drained < l.Drain; {
		n, err := st.body.Read(buf)
		drained += int64(n)
		if err != nil {
			return
		}
	}
}
