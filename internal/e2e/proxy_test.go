package e2e

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands between a client and a server and is a bad network: it holds back what is sent, and cuts
// NARs in the middle.
type proxy struct {
	url    string // without a slash at the end
	target string // host:port

	mu    sync.Mutex
	moved *sync.Cond
	sent  int64   // bytes that went to the server
	allow int64   // how many may; < 0: all
	cuts  []int64 // where the next answers that hold a NAR end, in bytes of the NAR
	made  int     // cuts
	conns map[net.Conn]bool
}

func startProxy(t testing.TB, s *server) *proxy {
	t.Helper()
	ln := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	p := &proxy{url: "http://" + ln.Addr().String(), target: s.addr(), allow: -1, conns: map[net.Conn]bool{}}
	p.moved = sync.NewCond(&p.mu)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close() // was only read from
		p.pass(-1)
		p.mu.Lock()
		for c := range p.conns {
			_ = c.Close() // ends the copying below
		}
		p.mu.Unlock()
		serving.Wait()
	})
	return p
}

// pass lets n bytes in all go to the server, and no more; < 0 lifts that.
func (p *proxy) pass(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allow = n
	p.moved.Broadcast()
}

// held waits until the client has sent all that may pass.
func (p *proxy) held(t testing.TB) {
	t.Helper()
	until(t, "the proxy holds back", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.sent >= p.allow
	})
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close() // as if nobody had listened
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		p.upload(server, client)
		half(server)
	})
	both.Go(func() {
		if p.download(client, server) {
			_ = client.(*net.TCPConn).SetLinger(0) // a reset, as when a router forgets the connection
			_ = client.Close()
			_ = server.Close()
			return
		}
		half(client)
	})
	both.Wait()
	_, _ = client.Close(), server.Close() // all is through, or nobody listens
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// half passes on that one side has ended.
func half(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() } // it may be gone altogether

func (p *proxy) upload(server, client net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := client.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			m := p.take(len(rest))
			if _, err := server.Write(rest[:m]); err != nil {
				_ = client.Close() // what the server closed is closed for the client
				return
			}
			rest = rest[m:]
		}
		if err != nil {
			return
		}
	}
}

// take waits until some of n bytes may pass, and says how many.
func (p *proxy) take(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.allow >= 0 && p.sent >= p.allow {
		p.moved.Wait()
	}
	if p.allow >= 0 {
		n = int(min(int64(n), p.allow-p.sent))
	}
	p.sent += int64(n)
	return n
}

// download copies answers to the client until one is to be cut.
func (p *proxy) download(client, server net.Conn) (cut bool) {
	buf := make([]byte, 32<<10)
	left := int64(-1)
	for {
		n, err := server.Read(buf)
		if i := bytes.Index(buf[:n], []byte("application/x-nix-nar")); i >= 0 {
			if at, some := p.nextCut(); some {
				left = int64(i) + at + 200 // about the rest of the header
			}
		}
		if left >= 0 && int64(n) >= left {
			_, _ = client.Write(buf[:left]) // the client may be gone, which is no different
			p.mu.Lock()
			p.made++
			p.mu.Unlock()
			return true
		}
		if left >= 0 {
			left -= int64(n)
		}
		if _, werr := client.Write(buf[:n]); werr != nil || err != nil {
			if err != io.EOF {
				_ = server.Close() // the client is gone
			}
			return false
		}
	}
}

func (p *proxy) nextCut() (at int64, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cuts) == 0 {
		return 0, false
	}
	at, p.cuts = p.cuts[0], p.cuts[1:]
	return at, true
}

func (p *proxy) cutAt(at ...int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts, p.made = at, 0
}

// state is how many cuts were made and how many bytes went to the server.
func (p *proxy) state() (made int, sent int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made, p.sent
}
