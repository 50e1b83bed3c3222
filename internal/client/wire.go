package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// wire is what stands between a retried request and the transport: each attempt
// gets its own token, is counted, and is broken off when it stops moving.
type wire struct {
	next      *http.Transport
	token     TokenSource
	rejected  func(token string) bool
	userAgent string
	stall     time.Duration
	answer    time.Duration

	requests, sent atomic.Int64
	reached        atomic.Bool // an answer has come once
	outage         atomic.Bool // people know that no answer comes
}

func newWire(o Options) *wire {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	return &wire{
		next: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         dialer.DialContext,
			TLSHandshakeTimeout: 15 * time.Second,
			MaxIdleConns:        64,
			MaxIdleConnsPerHost: 64, // one for each upload side by side
			IdleConnTimeout:     55 * time.Second,
			WriteBufferSize:     64 << 10,
			// HTTP/1.1 only: packs side by side are to have a connection each. Over HTTP/2 they
			// would share one, with one congestion window and the server's flow control.
			Protocols:              http1(),
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // answers are small, and a bomb less to defuse
		},
		token:     o.Token,
		rejected:  o.Rejected,
		userAgent: o.UserAgent,
		stall:     o.Stall,
		answer:    o.AnswerWait,
	}
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// RoundTrip makes one attempt.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	r := req.Clone(ctx)
	r.Header.Set("User-Agent", w.userAgent)
	if w.token != nil {
		token, err := w.token(ctx)
		if err != nil {
			cancel(nil)
			closeBody(req)
			return nil, fmt.Errorf("%w: %w", ErrToken, err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
	}
	dog := newWatchdog(w.stall, cancel)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &sentBody{ReadCloser: r.Body, wire: w, dog: dog}
	} else {
		dog.wait(w.answer)
	}
	w.requests.Add(1)
	resp, err := w.next.RoundTrip(r)
	if err != nil {
		dog.stop()
		if cause := context.Cause(ctx); errors.Is(cause, ErrStalled) {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	w.reached.Store(true)
	if resp.StatusCode < 500 {
		w.outage.Store(false)
	}
	dog.wait(w.stall)
	resp.Body = &answerBody{ReadCloser: resp.Body, ctx: ctx, dog: dog, stall: w.stall, cancel: cancel}
	return resp, nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// watchdog cancels an attempt when nobody has reported progress for a while.
type watchdog struct {
	mu    sync.Mutex
	timer *time.Timer
	ended bool
	limit time.Duration
}

func newWatchdog(limit time.Duration, cancel context.CancelCauseFunc) *watchdog {
	d := &watchdog{limit: limit}
	d.timer = time.AfterFunc(limit, func() {
		d.mu.Lock()
		after := d.limit
		d.mu.Unlock()
		cancel(fmt.Errorf("%w for %v", ErrStalled, after))
	})
	return d
}

// wait gives the attempt another limit, from now.
func (d *watchdog) wait(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.limit = limit
		d.timer.Reset(limit)
	}
}

func (d *watchdog) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.timer.Stop()
}

// sentBody counts what the transport takes of a request's body.
type sentBody struct {
	io.ReadCloser
	wire *wire
	dog  *watchdog
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.wire.sent.Add(int64(n))
	switch {
	case err == nil:
		b.dog.wait(b.wire.stall)
	case err == io.EOF:
		b.dog.wait(b.wire.answer) // all is sent; the server may have work to do before it answers
	default:
		err = fmt.Errorf("%w: %w", errBody, err) // not the network's fault
	}
	return n, err
}

// answerBody keeps the watchdog on while an answer is read.
type answerBody struct {
	io.ReadCloser
	ctx    context.Context
	dog    *watchdog
	stall  time.Duration
	cancel context.CancelCauseFunc
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.dog.wait(b.stall)
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); errors.Is(cause, ErrStalled) {
			err = cause
		}
	}
	return n, err
}

func (b *answerBody) Close() error {
	b.dog.stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
