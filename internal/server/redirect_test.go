package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"

	"github.com/org/attic-action/internal/peer"
)

// A client that is sent where it cannot go has no NAR at all; bytes that go through the server only take longer.
func TestNobodyIsSentWhereHeCannotGo(t *testing.T) {
	const (
		public, cloud = "https://b.s3.eu-west-1.amazonaws.com/k?X=1", "http://203.0.113.7:9000/b/k"
		here          = "http://127.0.0.1:9000/b/k"
		lan           = "http://192.168.1.9:9000/b/k"
	)
	for _, c := range []struct {
		bucket, client, host, api string
		header                    [2]string
		want                      bool
	}{
		// A public bucket is for everybody.
		{public, "198.51.100.3", "cache.example.com", "", [2]string{}, true},
		{public, "127.0.0.1", "localhost:8080", "", [2]string{}, true},
		{public, "192.168.1.4", "cache.example.com", "https://cache.example.com/", [2]string{}, true},
		{"https://[2001:db8::7]/b/k", "2001:db8::1", "cache.example.com", "", [2]string{}, true},
		// One on this machine is for this machine.
		{here, "127.0.0.1", "127.0.0.1:8080", "", [2]string{}, true},
		{here, "::1", "[::1]:8080", "", [2]string{}, true},
		{"http://localhost:9000/b/k", "127.0.0.1", "localhost", "", [2]string{}, true},
		{"http://s3.localhost:9000/b/k", "127.0.0.1", "localhost", "", [2]string{}, true},
		{here, "198.51.100.3", "127.0.0.1:8080", "", [2]string{}, false},
		{here, "192.168.1.4", "127.0.0.1:8080", "", [2]string{}, false},
		{"http://[::1]:9000/b/k", "2001:db8::1", "cache", "", [2]string{}, false},
		{"http://[::ffff:127.0.0.1]:9000/b/k", "192.168.1.4", "cache", "", [2]string{}, false},
		{"http://LOCALHOST.:9000/b/k", "198.51.100.3", "cache", "", [2]string{}, false},
		{"http://127.1:9000/b/k", "198.51.100.3", "cache", "", [2]string{}, false},
		{"http://0x7f000001:9000/b/k", "198.51.100.3", "cache", "", [2]string{}, false},
		{"http://2130706433:9000/b/k", "198.51.100.3", "cache", "", [2]string{}, false},
		{"http://0.0.0.0:9000/b/k", "198.51.100.3", "cache", "", [2]string{}, false},
		// Behind a proxy that nobody told of, everybody seems to be on this machine.
		{here, "127.0.0.1", "cache.example.com", "", [2]string{}, false},
		{here, "127.0.0.1", "127.0.0.1:8080", "https://cache.example.com/", [2]string{}, false},
		{here, "127.0.0.1", "127.0.0.1:8080", "", [2]string{"X-Forwarded-For", "198.51.100.3"}, false},
		{here, "127.0.0.1", "127.0.0.1:8080", "", [2]string{"Via", "1.1 proxy"}, false},
		{here, "127.0.0.1", "127.0.0.1:8080", "", [2]string{"X-Real-Ip", "198.51.100.3"}, false},
		{here, "127.0.0.1", "127.0.0.1:8080", "", [2]string{"X-Forwarded-Proto", "http"}, false},
		{lan, "192.168.1.2", "cache.example.com", "", [2]string{}, false},
		// An address of a network is for who is in it.
		{lan, "192.168.1.4", "192.168.1.2:8080", "", [2]string{}, true},
		{lan, "192.168.1.4", "nas:8080", "", [2]string{}, true},
		{lan, "127.0.0.1", "localhost:8080", "", [2]string{}, true},
		{lan, "10.0.0.4", "nas:8080", "", [2]string{}, false},
		{lan, "198.51.100.3", "nas:8080", "", [2]string{}, false},
		{"http://172.18.0.3:9000/b/k", "192.168.1.4", "nas:8080", "", [2]string{}, false},
		{"http://100.64.1.1:9000/b/k", "198.51.100.3", "cache", "", [2]string{}, false},
		{"http://169.254.1.1:9000/b/k", "198.51.100.3", "cache", "", [2]string{}, false},
		{"http://[fd00::9]:9000/b/k", "2001:db8::1", "cache", "", [2]string{}, false},
		{"http://[fd00::9]:9000/b/k", "fd00::4", "cache", "", [2]string{}, true},
		// A name of a network may be known to this machine alone, as those of containers are.
		{"http://minio:9000/b/k", "192.168.1.4", "nas:8080", "", [2]string{}, false},
		{"http://minio:9000/b/k", "198.51.100.3", "cache.example.com", "", [2]string{}, false},
		{"http://s3.flycast/b/k", "198.51.100.3", "cache.example.com", "", [2]string{}, false},
		{"https://s3.svc.cluster.local/b/k", "198.51.100.3", "cache.example.com", "", [2]string{}, false},
		{"https://bucket.internal/b/k", "198.51.100.3", "cache.example.com", "", [2]string{}, false},
		{"https://s3.home.arpa/b/k", "198.51.100.3", "cache.example.com", "", [2]string{}, false},
		{"http://minio:9000/b/k", "127.0.0.1", "localhost", "", [2]string{}, true},
		// Nobody who came by https goes on without.
		{cloud, "198.51.100.3", "cache.example.com", "", [2]string{}, true},
		{cloud, "198.51.100.3", "cache.example.com", "https://cache.example.com/", [2]string{}, false},
		{cloud, "198.51.100.3", "cache.example.com", "", [2]string{"X-Forwarded-Proto", "https"}, false},
		{cloud, "127.0.0.1", "localhost", "https://localhost/", [2]string{}, false},
		{here, "127.0.0.1", "localhost", "https://localhost/", [2]string{}, true},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			r := httptest.NewRequest("GET", "/pub/nar/x.nar", nil)
			r.Host, r.RemoteAddr = c.host, netip.AddrPortFrom(netip.MustParseAddr(c.client), 4711).String()
			if c.header[0] != "" {
				r.Header.Set(c.header[0], c.header[1])
			}
			s := &Server{APIEndpoint: c.api}
			if got := reachesAs(t, s, r, c.bucket); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// reachesAs asks as the pipeline would, with the address that it finds.
func reachesAs(t *testing.T, s *Server, r *http.Request, bucket string) bool {
	t.Helper()
	u, err := url.Parse(bucket)
	if err != nil {
		t.Fatal(err)
	}
	return s.reaches(r.WithContext(context.WithValue(r.Context(), recordKey{}, &record{address: s.Peers.Address(r)})), u)
}

func TestTrustedProxySaysWhoIsNear(t *testing.T) {
	s := &Server{Peers: peer.Finder{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
	for from, want := range map[string]bool{"192.168.1.4": true, "198.51.100.3": false, "": false, "127.0.0.1": false, "garbage": false} {
		r := httptest.NewRequest("GET", "/pub/nar/x.nar", nil)
		r.Host, r.RemoteAddr = "nas:8080", "127.0.0.1:4711"
		if from != "" {
			r.Header.Set("X-Forwarded-For", from)
		}
		if got := reachesAs(t, s, r, "http://192.168.1.9:9000/b/k"); got != want {
			t.Errorf("from %q: got %v, want %v", from, got, want)
		}
	}
}

func TestRangesThatAreReadAsAsked(t *testing.T) {
	for text, want := range map[string][3]int64{
		"bytes=0-": {0, -1, 1}, "bytes=5-9": {5, 9, 1}, "bytes=5-5": {5, 5, 1},
		"": {}, "bytes=-5": {}, "bytes=9-5": {}, "bytes=1-2,3-4": {}, "lines=1-": {}, "bytes=+1-": {}, "bytes=1-x": {}, "bytes= 1-": {},
		"bytes=99999999999999999999-": {}, "bytes": {}, "bytes=": {}, "bytes=--": {},
	} {
		first, last, ok := parseRange(text)
		if ok != (want[2] == 1) || ok && (first != want[0] || last != want[1]) {
			t.Errorf("%q: got %d %d %v", text, first, last, ok)
		}
	}
}
