// Package peer says which machine a request comes from, for limits and records.
//
//	client ── proxy ── proxy ── us        X-Forwarded-For: forged, client, proxy
//	                     └ the peer       read from the right, as long as we know the proxies
//
// The address of the TCP connection is the only thing that nobody can make up.
// Behind a proxy it is the proxy's; then a header has the client's, and whoever can
// set that header is whoever he wants to be: he evades every limit, and can have
// another one limited in his place. So a header counts only as far as it was written
// by proxies that are named in the configuration. Without any, none is read.
package peer

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// Finder finds addresses. Its zero value trusts no proxy.
type Finder struct {
	// Proxies are the networks of reverse proxies that add the address of their
	// peer to X-Forwarded-For.
	Proxies []netip.Prefix
	// Header is one that the platform's proxy sets on every request, whatever the
	// client sent: FlyHeader on fly.io. Use it only where nothing else can connect.
	Header string
}

// FlyHeader is what fly.io's proxy sets to the address that connected to it.
const FlyHeader = "Fly-Client-IP"

// maxHops bounds how much of a header is looked at.
const maxHops = 32

// Address returns the client's address, of IPv4 in its own form and without a
// zone. It is the zero Addr when there is none, as over a socket.
func (f Finder) Address(r *http.Request) netip.Addr {
	peer := parse(r.RemoteAddr)
	if f.Header != "" {
		// Two of them, or a list: not what the proxy does, so nobody knows whose it is.
		if v := r.Header.Values(f.Header); len(v) == 1 {
			if a := parse(v[0]); a.IsValid() {
				return a
			}
		}
		return peer
	}
	if !f.knows(peer) {
		return peer
	}
	return f.forwarded(r.Header.Values("X-Forwarded-For"), peer)
}

// Direct reports whether the address of a connection is its client's own: not that of a
// proxy that is known, and not this machine's, where one may be.
func (f Finder) Direct(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return f.Header == "" && !f.knows(a) && !a.IsLoopback()
}

// forwarded goes back along the proxies that are known. The first address that is
// none of them is the client's: what stands before it, he may have written himself.
func (f Finder) forwarded(lines []string, at netip.Addr) netip.Addr {
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		rest, more := lines[i], true
		for more {
			var last string
			if j := strings.LastIndexByte(rest, ','); j >= 0 {
				rest, last = rest[:j], rest[j+1:]
			} else {
				last, more = rest, false
			}
			a := parse(strings.TrimSpace(last))
			if hops++; hops > maxHops || !a.IsValid() {
				return at
			}
			if at = a; !f.knows(a) {
				return at
			}
		}
	}
	return at
}

func (f Finder) knows(a netip.Addr) bool {
	for _, p := range f.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parse reads an address with or without a port.
func parse(s string) netip.Addr {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone("")
}

// Key is what a limit counts by: the address, of IPv6 the /64, for whoever has one
// such address has them all.
func Key(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "-"
	case a.Is4():
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil { // 64 fits every IPv6 address
		return a.String()
	}
	return p.String()
}

// ParseProxy reads a network, "10.0.0.0/8", or one address. A network that holds
// everything is refused: with it, every client would be believed.
func ParseProxy(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return p, fmt.Errorf("%q is not a network like 10.0.0.0/8, or an address", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q: write an IPv4 network in its own form, like 10.0.0.0/8", s)
	case p.Bits() == 0:
		return p, fmt.Errorf("%q is everybody: any client could then say that it is another; name the proxies' own network", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q has bits behind its length; is it %s that is meant?", s, p.Masked())
	}
	return p, nil
}
