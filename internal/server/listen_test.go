package server

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/org/attic-action/internal/peer"
)

// calls is a listener whose callers a test makes up.
type calls struct {
	net.Listener
	from chan string
}

func (c calls) Accept() (net.Conn, error) {
	from, ok := <-c.from
	if !ok {
		return nil, net.ErrClosed
	}
	return &call{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}, nil
}

type call struct {
	net.Conn
	from   net.Addr
	closed bool
}

func (c *call) RemoteAddr() net.Addr            { return c.from }
func (c *call) SetReadDeadline(time.Time) error { return nil }
func (c *call) Close() error                    { c.closed = true; return nil }

// Attack: one machine opens every connection that there may be, and holds them with a slow header each.
func TestOneAddressHasHalfOfTheConnections(t *testing.T) {
	for name, c := range map[string]struct {
		peers    peer.Finder
		from     []string
		accepted []string
	}{
		"one address": {peer.Finder{}, []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "192.0.2.2:1"},
			[]string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"}},
		"one network of IPv6": {peer.Finder{}, []string{"[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8::3]:3", "[2001:db8:0:1::1]:1"},
			[]string{"[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8:0:1::1]:1"}},
		"a proxy": {peer.Finder{Header: peer.FlyHeader}, []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"},
			[]string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"}},
	} {
		t.Run(name, func(t *testing.T) {
			from := make(chan string, len(c.from)+1)
			for _, f := range c.from {
				from <- f
			}
			l := newHostListener(calls{from: from}, Limits{Connections: 4}, c.peers)
			var open []net.Conn
			for _, want := range c.accepted {
				conn, err := l.Accept()
				if err != nil || conn.RemoteAddr().String() != want {
					t.Fatalf("got %v, %v, want %s", conn.RemoteAddr(), err, want)
				}
				open = append(open, conn)
			}
			for _, conn := range open {
				if err := conn.Close(); err != nil {
					t.Fatal(err)
				}
				_ = conn.Close() // a second time changes nothing
			}
			from <- c.from[0] // there is room again
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			if len(l.from) != 0 || len(l.places) != 0 {
				t.Errorf("left: %v and %d places", l.from, len(l.places))
			}
		})
	}
}
