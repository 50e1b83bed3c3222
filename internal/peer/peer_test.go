package peer

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func from(remote string, headers ...string) (f func(Finder) string) {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = remote
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return func(find Finder) string { return find.Address(r).String() }
}

func behind(t *testing.T, networks ...string) Finder {
	t.Helper()
	var f Finder
	for _, n := range networks {
		p, err := ParseProxy(n)
		if err != nil {
			t.Fatal(err)
		}
		f.Proxies = append(f.Proxies, p)
	}
	return f
}

const xff = "X-Forwarded-For"

// The attack: a header with another address for every guess evades the limit on bad
// tokens; a header with a victim's address has the victim limited.
func TestHeadersOfStrangersAreNotBelieved(t *testing.T) {
	all := []string{xff, "1.1.1.1", "X-Real-Ip", "1.1.1.1", "Forwarded", "for=1.1.1.1", FlyHeader, "1.1.1.1",
		"Cf-Connecting-Ip", "1.1.1.1", "True-Client-Ip", "1.1.1.1"}
	for name, find := range map[string]Finder{"no proxy": {}, "a proxy elsewhere": behind(t, "10.0.0.0/8")} {
		if got := from("203.0.113.9:4711", all...)(find); got != "203.0.113.9" {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// The attack: the client sends a header of its own, to which the proxy adds.
func TestForwardedIsReadFromTheRight(t *testing.T) {
	find := behind(t, "10.0.0.0/8", "2001:db8:1::/48")
	for _, c := range []struct {
		name    string
		headers []string
		want    string
	}{
		{"one proxy", []string{xff, "203.0.113.9"}, "203.0.113.9"},
		{"forged before it", []string{xff, "1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		{"forged in a line of its own", []string{xff, "1.1.1.1", xff, "203.0.113.9"}, "203.0.113.9"},
		{"forged as a proxy", []string{xff, "1.1.1.1, 10.0.0.9, 203.0.113.9"}, "203.0.113.9"},
		{"two proxies", []string{xff, "203.0.113.9, 10.0.0.3"}, "203.0.113.9"},
		{"proxies of both families", []string{xff, "203.0.113.9,2001:db8:1::5 , 10.0.0.3"}, "203.0.113.9"},
		{"with a port", []string{xff, "203.0.113.9:1234"}, "203.0.113.9"},
		{"IPv6 with brackets and port", []string{xff, "[2001:db8:9::1]:1234"}, "2001:db8:9::1"},
		{"IPv4 in IPv6", []string{xff, "::ffff:203.0.113.9"}, "203.0.113.9"},
		{"garbage", []string{xff, "203.0.113.9, unknown"}, "10.0.0.1"},
		{"garbage behind a proxy", []string{xff, "203.0.113.9, _x, 10.0.0.3"}, "10.0.0.3"},
		{"empty", []string{xff, ""}, "10.0.0.1"},
		{"none", nil, "10.0.0.1"},
		{"from within", []string{xff, "10.1.2.3"}, "10.1.2.3"},
		{"endless", []string{xff, "203.0.113.9" + strings.Repeat(", 10.0.0.3", 100_000)}, "10.0.0.3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := from("10.0.0.1:80", c.headers...)(find); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestFlyHeaderCountsOnce(t *testing.T) {
	find := Finder{Header: FlyHeader}
	for _, c := range []struct {
		name    string
		headers []string
		want    string
	}{
		{"the proxy's", []string{FlyHeader, "203.0.113.9", xff, "1.1.1.1"}, "203.0.113.9"},
		{"two of them", []string{FlyHeader, "1.1.1.1", FlyHeader, "203.0.113.9"}, "172.16.0.2"},
		{"a list", []string{FlyHeader, "1.1.1.1, 203.0.113.9"}, "172.16.0.2"},
		{"none", []string{xff, "1.1.1.1"}, "172.16.0.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := from("172.16.0.2:80", c.headers...)(find); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// The attack: a host with a /64 has 2^64 addresses to guess from.
func TestNeighboursInIPv6AreOne(t *testing.T) {
	key := func(s string) string { return Key(netip.MustParseAddr(s)) }
	if key("2001:db8::1") != key("2001:db8::ffff:2") || key("2001:db8::1") == key("2001:db8:0:1::1") {
		t.Error("the key of IPv6 is not the /64")
	}
	if key("192.0.2.1") == key("192.0.2.2") {
		t.Error("the key of IPv4 is not the address")
	}
	if got := Key(netip.Addr{}); got != "-" {
		t.Errorf("no address: got %q", got)
	}
}

func TestParseProxyRefusesWhatTrustsEverybody(t *testing.T) {
	for _, s := range []string{"0.0.0.0/0", "::/0", "10.0.0.1/8", "::ffff:10.0.0.0/104", "10.0.0.0/33", "proxy.internal", "fe80::1%eth0", ""} {
		if p, err := ParseProxy(s); err == nil {
			t.Errorf("%q is taken as %s", s, p)
		}
	}
	for s, want := range map[string]string{"10.0.0.0/8": "10.0.0.0/8", "127.0.0.1": "127.0.0.1/32", "::1": "::1/128", "::ffff:127.0.0.1": "127.0.0.1/32"} {
		if p, err := ParseProxy(s); err != nil || p.String() != want {
			t.Errorf("%q: got %s, %v", s, p, err)
		}
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add("203.0.113.9, 10.0.0.3")
	f.Add(",,[::1]:80")
	find := Finder{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, s string) {
		a := find.forwarded([]string{s}, netip.MustParseAddr("10.0.0.1"))
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			t.Errorf("%q gives %v", s, a)
		}
		// Whatever stands before the client's address changes nothing.
		if b := find.forwarded([]string{s + ",192.0.2.1"}, netip.MustParseAddr("10.0.0.1")); b.String() != "192.0.2.1" {
			t.Errorf("%q moves the client to %v", s, b)
		}
	})
}

// Connections are counted by address only where the address is one client's.
func TestProxiesAreNotDirect(t *testing.T) {
	proxied := Finder{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, c := range []struct {
		finder  Finder
		address string
		want    bool
	}{
		{Finder{}, "192.0.2.1", true}, {Finder{}, "::ffff:192.0.2.1", true}, {Finder{}, "127.0.0.1", false}, {Finder{}, "::1", false},
		{proxied, "10.1.2.3", false}, {proxied, "::ffff:10.1.2.3", false}, {proxied, "192.0.2.1", true},
		{Finder{Header: FlyHeader}, "192.0.2.1", false},
	} {
		if got := c.finder.Direct(netip.MustParseAddr(c.address)); got != c.want {
			t.Errorf("%+v, %s: %v, want %v", c.finder, c.address, got, c.want)
		}
	}
}

func TestOnlyPublicAddressesArePublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"140.82.112.3": true, "2606:50c0::1": true, "::ffff:140.82.112.3": true, "64:ff9b::8c52:7003": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "0.0.0.0": false, "::": false,
		"10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "fd00::1": false, "fdaa::3": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "100.64.0.1": false,
		"224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "198.18.0.1": false,
		"::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::7f00:1": false,
		"2002:7f00:1::": false, "::127.0.0.1": false, "fd00:ec2::254": false,
	} {
		if got := Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Public(%s) = %v, want %v", addr, got, want)
		}
	}
}
