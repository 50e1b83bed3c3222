package s3test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Faults is what a proxy does to what passes. The zero value passes everything on.
type Faults struct {
	RTT  time.Duration // before each request
	Rate int64         // bytes per second and connection, each way; 0: no bound
	Fail float64       // share of the requests that are answered 503 SlowDown
	Down bool          // all are

	// The next so many requests of a kind meet their fate in the middle of the body.
	CutPut    int // the connection breaks when half of the body has come
	LosePut   int // the object is stored, and the connection breaks before the answer
	StallPut  int // half of the body is read and then nothing more
	CutGet    int // the connection breaks after half of the body
	StallGet  int // after half of the body nothing more comes
	StallHead int // no answer comes at all, to any method

	// Skew is how far the service's clock is ahead. A request that was signed by
	// another clock is refused.
	Skew time.Duration
	// Unconditional answers 501 to a conditional put, as old services do.
	Unconditional bool
}

// Counts is what has passed.
type Counts struct {
	Requests map[string]int64 // by method
	In, Out  int64            // bytes of bodies, into and out of the bucket
	Failed   int64            // answered by the proxy itself, or broken by it
	Peak     int64            // requests under way at once, at most
}

// Total is the number of requests.
func (c Counts) Total() int64 {
	var n int64
	for _, m := range c.Requests {
		n += m
	}
	return n
}

// Proxy stands before an S3 server. It is an http.Handler.
type Proxy struct {
	URL string // where it listens, if StartProxy or ListenProxy made it

	next   *httputil.ReverseProxy
	server *httptest.Server

	mu       sync.Mutex
	faults   Faults
	counts   Counts
	inFlight int64
	seen     []*http.Request // of the last requests, without bodies
	released chan struct{}   // closed when what is stalled shall end
}

// NewProxy makes the handler. Target is the server's URL.
func NewProxy(target string) (*Proxy, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("make proxy: %w", err)
	}
	p := &Proxy{released: make(chan struct{}), counts: Counts{Requests: map[string]int64{}}}
	p.next = &httputil.ReverseProxy{
		// The host is signed, so it stays.
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, _ error) {
			panic(http.ErrAbortHandler) // a broken connection passes on as one
		},
		ModifyResponse: p.onAnswer,
	}
	return p, nil
}

// ListenProxy makes a proxy and serves it on a free port until Close.
func ListenProxy(target string) (*Proxy, error) {
	p, err := NewProxy(target)
	if err != nil {
		return nil, err
	}
	p.server = httptest.NewServer(p)
	p.URL = p.server.URL
	return p, nil
}

// StartProxy serves a proxy until the test ends.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p, err := ListenProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Close ends everything, stalled requests too.
func (p *Proxy) Close() {
	p.mu.Lock()
	close(p.released)
	p.mu.Unlock()
	p.server.Close()
}

// Set changes what happens to requests from now on.
func (p *Proxy) Set(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

// Counts returns what has passed since the last Reset.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.Requests = map[string]int64{}
	for m, n := range p.counts.Requests {
		c.Requests[m] = n
	}
	return c
}

// Reset sets the counts to zero.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts = Counts{Requests: map[string]int64{}}
	p.seen = nil
}

// Seen returns the requests since the last Reset, the last hundred at most, for
// tests of what is sent.
func (p *Proxy) Seen() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.seen...)
}

// fate is what was decided for one request.
type fate struct {
	Faults
	fail                                                     bool
	cutPut, losePut, stallPut, cutGet, stallGet, stallAnswer bool
}

// admit counts a request and decides.
func (p *Proxy) admit(r *http.Request) fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.Requests[r.Method]++
	p.inFlight++
	p.counts.Peak = max(p.counts.Peak, p.inFlight)
	p.seen = append(p.seen[max(0, len(p.seen)-99):], r.Clone(r.Context()))
	f := fate{Faults: p.faults, fail: p.faults.Down || rand.Float64() < p.faults.Fail}
	if f.fail {
		p.counts.Failed++
		return f
	}
	take := func(left *int, fits bool) bool {
		if !fits || *left <= 0 {
			return false
		}
		*left--
		p.counts.Failed++
		return true
	}
	put, get := r.Method == http.MethodPut, r.Method == http.MethodGet && !r.URL.Query().Has("list-type")
	f.cutPut = take(&p.faults.CutPut, put)
	f.losePut = take(&p.faults.LosePut, put)
	f.stallPut = take(&p.faults.StallPut, put)
	f.cutGet = take(&p.faults.CutGet, get)
	f.stallGet = take(&p.faults.StallGet, get)
	f.stallAnswer = take(&p.faults.StallHead, true)
	return f
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.admit(r)
	defer p.leave()
	if f.Skew != 0 {
		w.Header().Set("Date", time.Now().Add(f.Skew).UTC().Format(http.TimeFormat))
	}
	pause(r, f.RTT)
	switch {
	case f.fail:
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
		return
	case f.stallAnswer:
		p.stall(r)
		panic(http.ErrAbortHandler)
	case f.Skew != 0 && !p.resign(r, f.Skew):
		refuse(w, http.StatusForbidden, "RequestTimeTooSkewed")
		return
	case f.Unconditional && r.Method == http.MethodPut && r.Header.Get("If-None-Match") != "":
		refuse(w, http.StatusNotImplemented, "NotImplemented")
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &incoming{ReadCloser: r.Body, p: p, r: r, f: f, half: r.ContentLength / 2}
	}
	p.next.ServeHTTP(&outgoing{ResponseWriter: w, p: p, r: r, f: f}, r)
}

func (p *Proxy) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight--
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>by order of the proxy</Message></Error>", code)
}

func pause(r *http.Request, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// stall waits until the client has gone, or the proxy ends.
func (p *Proxy) stall(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-p.released:
	}
}

func (p *Proxy) onAnswer(resp *http.Response) error {
	p.mu.Lock()
	skew := p.faults.Skew
	p.mu.Unlock()
	if skew != 0 {
		resp.Header.Del("Date") // ours is set already
	}
	return nil
}

func pace(r *http.Request, rate int64, n int) {
	if rate > 0 {
		pause(r, time.Duration(int64(n)*int64(time.Second)/rate))
	}
}

// incoming is a body on its way to the server.
type incoming struct {
	io.ReadCloser
	p    *Proxy
	r    *http.Request
	f    fate
	half int64
	read int64
}

func (b *incoming) Read(d []byte) (int, error) {
	if b.read >= b.half && (b.f.cutPut || b.f.stallPut) {
		if b.f.stallPut {
			b.p.stall(b.r)
		}
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(d[:min(len(d), 64<<10)])
	b.read += int64(n)
	b.p.mu.Lock()
	b.p.counts.In += int64(n)
	b.p.mu.Unlock()
	pace(b.r, b.f.Rate, n)
	return n, err
}

// outgoing is an answer on its way to the client.
type outgoing struct {
	http.ResponseWriter
	p       *Proxy
	r       *http.Request
	f       fate
	half    int64
	written int64
}

func (o *outgoing) WriteHeader(status int) {
	if status < 200 { // 100 Continue comes from another goroutine, and may come late
		o.ResponseWriter.WriteHeader(status)
		return
	}
	if o.f.losePut {
		panic(http.ErrAbortHandler)
	}
	o.half = -1
	if o.f.cutGet || o.f.stallGet {
		var size int64
		if _, err := fmt.Sscan(o.Header().Get("Content-Length"), &size); err == nil {
			o.half = size / 2
		}
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *outgoing) Write(d []byte) (int, error) {
	if o.half >= 0 && o.written+int64(len(d)) > o.half {
		n, _ := o.ResponseWriter.Write(d[:o.half-o.written]) // the connection breaks anyhow
		o.written += int64(n)
		o.Flush()
		if o.f.stallGet {
			o.p.stall(o.r)
		}
		panic(http.ErrAbortHandler)
	}
	n, err := o.ResponseWriter.Write(d)
	o.written += int64(n)
	o.p.mu.Lock()
	o.p.counts.Out += int64(n)
	o.p.mu.Unlock()
	pace(o.r, o.f.Rate, n)
	return n, err
}

// Flush implements http.Flusher.
func (o *outgoing) Flush() {
	_ = http.NewResponseController(o.ResponseWriter).Flush() // what can't be flushed comes later
}

// Unwrap is for http.ResponseController.
func (o *outgoing) Unwrap() http.ResponseWriter { return o.ResponseWriter }
