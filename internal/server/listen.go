package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/org/attic-action/internal/peer"
)

// Serve answers on ln until ctx ends, then finishes what is in flight within
// Limits.Shutdown, cuts off the rest, and writes what it held back. It closes
// ln. The database stays open.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.init()
	srv := s.httpServer()
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(newHostListener(ln, s.Limits, s.Peers)) }()

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
		err = s.stop(srv)
		<-failed
	}
	// The requests are over and so may be ctx; what they left must be written all the same.
	return errors.Join(err, s.WriteUses(context.WithoutCancel(ctx)))
}

// stop lets requests finish. One that does not in time is cut off; a push goes
// on where it stopped.
func (s *Server) stop(srv *http.Server) error {
	s.Log.Info("stopping", "within", s.Limits.Shutdown)
	within, cancel := context.WithTimeout(context.Background(), s.Limits.Shutdown)
	defer cancel()
	err := srv.Shutdown(within)
	if errors.Is(err, context.DeadlineExceeded) {
		s.Log.Warn("cut off requests that did not end in time")
		return srv.Close()
	}
	return err
}

func (s *Server) httpServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // with prior knowledge, behind a TLS proxy that speaks it
	return &http.Server{
		Handler:                      s.Handler(),
		Protocols:                    protocols,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            s.Limits.Header,
		IdleTimeout:                  s.Limits.Idle,
		MaxHeaderBytes:               64 << 10,
		ErrorLog:                     slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          128,
			MaxReceiveBufferPerStream:     1 << 20,
			MaxReceiveBufferPerConnection: 4 << 20,
			WriteByteTimeout:              s.Limits.Stall,
			SendPingTimeout:               s.Limits.Stall,
			PingTimeout:                   s.Limits.Stall,
		},
	}
}

// hostListener bounds how many connections there are, and of one address half of them,
// and gives net/http's refusal of a missing Host the shape of Attic's.
type hostListener struct {
	net.Listener
	places chan struct{}
	header time.Duration // how long the first request's header may take
	direct func(netip.Addr) bool

	mu   sync.Mutex
	from map[string]int // connections, by address
}

func newHostListener(ln net.Listener, limits Limits, peers peer.Finder) *hostListener {
	return &hostListener{
		Listener: ln, places: make(chan struct{}, limits.Connections), header: limits.Header,
		direct: peers.Direct, from: map[string]int{},
	}
}

// Accept waits for a place first: connections over the bound queue in the
// kernel. Those over their address's share are closed: who waited behind them
// would wait for nothing.
func (l *hostListener) Accept() (net.Conn, error) {
	for {
		l.places <- struct{}{}
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.places
			return nil, err
		}
		// The first releases of Go 1.26 wait without a deadline for bytes that may be HTTP/2's preface.
		err = c.SetReadDeadline(time.Now().Add(l.header))
		leave, ok := l.enter(c.RemoteAddr())
		if err == nil && ok {
			return &hostConn{Conn: c, leave: sync.OnceFunc(func() { leave(); <-l.places })}, nil
		}
		_ = c.Close() // refused, or gone already
		leave()
		<-l.places
	}
}

// enter counts a connection by its address, unless that is a proxy's.
func (l *hostListener) enter(from net.Addr) (leave func(), ok bool) {
	a, err := netip.ParseAddrPort(from.String())
	if err != nil || !l.direct(a.Addr()) {
		return func() {}, true
	}
	key := peer.Key(a.Addr().Unmap().WithZone(""))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from[key] >= max(cap(l.places)/2, 1) {
		return func() {}, false
	}
	l.from[key]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.from[key]--; l.from[key] == 0 {
			delete(l.from, key)
		}
	}, true
}

type hostConn struct {
	net.Conn
	leave func()
}

func (c *hostConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite lets net/http half-close, so that an early answer arrives.
func (c *hostConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// ReadFrom keeps sendfile for those who can use it.
func (c *hostConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// net/http refuses these before any handler runs, in plain text and in one write.
var (
	missingHost   = []byte("HTTP/1.1 400 Bad Request: missing required Host header\r\n")
	malformedHost = []byte("HTTP/1.1 400 Bad Request: malformed Host header\r\n")
)

func (c *hostConn) Write(p []byte) (int, error) {
	var text string
	switch {
	case bytes.HasPrefix(p, missingHost):
		text = "Missing Host header"
	case bytes.HasPrefix(p, malformedHost):
		text = "Invalid Host header"
	default:
		return c.Conn.Write(p)
	}
	body := `{"code":400,"error":"RequestError","message":"` + text + `"}`
	_, err := io.WriteString(c.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: "+
		strconv.Itoa(len(body))+"\r\nConnection: close\r\n\r\n"+body)
	return len(p), err
}
