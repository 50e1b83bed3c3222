package server

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/org/attic-action/internal/depot"
)

// redirectLife is how long the URL of a redirect is good. Nix comes back to us when a download breaks off, so it
// need only outlive the beginning of one: stores look at the time when a request arrives.
const redirectLife = 10 * time.Minute

// redirect sends a client to the bucket, if the form that it asks for is one object there and the client can be
// expected to reach it. The pull check has passed. What is not a plain GET of bytes is answered here: URLs are
// signed for GET alone, and the object's ETag is not the form's.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, nar *depot.NAR, p *puller) bool {
	if s.Presigner == nil || r.Method != http.MethodGet {
		return false
	}
	for _, conditional := range []string{"If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since"} {
		if r.Header.Get(conditional) != "" {
			return false
		}
	}
	key, ok := nar.Object()
	if !ok || !plainRange(r.Header.Get("Range"), nar.Size) {
		return false
	}
	target, err := s.Presigner.Presign(r.Context(), key, redirectLife)
	if err != nil {
		s.Log.WarnContext(r.Context(), "no URL for a redirect; sending the bytes instead", "error", err)
		return false
	}
	u, err := url.Parse(target)
	if err != nil || !s.reaches(r, u) || s.ReadAhead && p.few() || s.redirected.again(r, key, s.Now()) {
		return false
	}
	h := w.Header()
	h.Set("Location", target)
	h.Set("Cache-Control", "no-store") // the URL is a key for ten minutes
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusTemporaryRedirect)
	return true
}

// redirects remembers for a short while whom we have sent where. Nix tries again when a bucket refuses it or cannot
// be reached, at once and with us; then it gets the bytes from here, with all the patience that we have with
// buckets. Its zero value is ready.
type redirects struct {
	mu   sync.Mutex
	sent map[string]time.Time
}

const (
	retriesWithin = 10 * time.Second // Nix begins with a quarter of a second
	maxRedirects  = 4096             // remembered
)

// again tells whether this Nix was sent to the object just now, and notes that it is.
func (d *redirects) again(r *http.Request, object string, now time.Time) bool {
	agent := r.UserAgent()
	if !strings.Contains(agent, "Nix/") {
		return false
	}
	key := strings.Join([]string{recordOf(r).address.String(), shorten(agent), object}, " ")
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.sent[key]
	if ok && now.Sub(at) < retriesWithin {
		return true
	}
	if d.sent == nil || len(d.sent) >= maxRedirects {
		d.sent = map[string]time.Time{}
	}
	d.sent[key] = now
	return false
}

// plainRange tells whether a Range is none, or one that every store answers as we would: "bytes=5-", "bytes=5-9".
func plainRange(text string, size int64) bool {
	if text == "" {
		return true
	}
	first, _, ok := parseRange(text)
	return ok && first < size
}

// reaches tells whether the client of r can be expected to get to u.
//
//	u is                         who is sent there
//	public                       everybody
//	an address of this network   who is in it, and this machine
//	a name of this network       this machine: others may not know the name
//	this machine (loopback)      this machine
//
// From https nobody is sent down to http, except on this machine.
func (s *Server) reaches(r *http.Request, u *url.URL) bool {
	if r.Header.Get("Authorization") != "" && strings.EqualFold(u.Hostname(), hostname(r.Host)) {
		return false // netrc goes by the name of the host: the bucket would get the token, and refuse the request for it
	}
	to, at := hostKind(u.Hostname())
	from, client := s.origin(r)
	if u.Scheme != "https" && s.secure(r) && (to != hereHost || from != hereHost) {
		return false
	}
	switch to {
	case publicHost:
		return true
	case networkHost:
		return from == hereHost || from == networkHost && at.IsValid() && sameNetwork(client, at)
	}
	return from == hereHost
}

// hosts by who can reach them.
type hosts int

const (
	publicHost  hosts = iota
	networkHost       // private addresses, and names that only a network knows
	hereHost          // loopback
)

// hostKind says who can reach a host, and its address if that is what it is.
func hostKind(host string) (hosts, netip.Addr) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap().WithZone("")
		return addressKind(a), a
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	switch {
	case last == "localhost":
		return hereHost, netip.Addr{}
	case last == host, networkNames[last], strings.HasSuffix(host, ".home.arpa"), strings.Trim(last, "0123456789") == "", strings.HasPrefix(last, "0x"):
		return networkHost, netip.Addr{} // a single label, or an address as only some programs read it
	}
	return publicHost, netip.Addr{}
}

// networkNames are top-level domains that no public name server knows.
var networkNames = map[string]bool{
	"internal": true, "local": true, "localdomain": true, "lan": true, "home": true, "corp": true, "intranet": true,
	"private": true, "flycast": true, "test": true, "invalid": true, "onion": true,
}

func addressKind(a netip.Addr) hosts {
	switch {
	case a.IsLoopback():
		return hereHost
	case a.IsPrivate(), !a.IsGlobalUnicast(), sharedNet.Contains(a):
		return networkHost
	}
	return publicHost
}

// sharedNet is that of carriers, and of overlay networks.
var sharedNet = netip.MustParsePrefix("100.64.0.0/10")

// sameNetwork compares as many bits as a site usually has in common.
func sameNetwork(a, b netip.Addr) bool {
	bits := 48
	if a.Is4() {
		bits = 16
	}
	p, err := a.Prefix(bits)
	return err == nil && p.Contains(b)
}

// origin says where a request comes from: from this machine, from its network, or from elsewhere. A proxy that is
// not in trusted-proxies makes everybody look like itself. So an address of this machine or network counts only if
// nothing hints at one: neither a header that proxies add, nor a public name that we go by.
func (s *Server) origin(r *http.Request) (hosts, netip.Addr) {
	client := recordOf(r).address
	if !client.IsValid() {
		return publicHost, client
	}
	kind := addressKind(client)
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	if at := peer.Addr().Unmap().WithZone(""); kind == publicHost || at != client {
		return kind, client // what a trusted proxy says
	} else if slices.ContainsFunc(s.Peers.Proxies, func(p netip.Prefix) bool { return p.Contains(at) }) {
		return publicHost, client // which did not say
	}
	for _, added := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "Via", "Cf-Connecting-Ip", "True-Client-Ip", "Fly-Client-Ip"} {
		if r.Header.Get(added) != "" {
			return publicHost, client
		}
	}
	for _, name := range []string{r.Host, hostOf(s.APIEndpoint), hostOf(s.SubstituterEndpoint)} {
		if kind, _ := hostKind(hostname(name)); name != "" && kind == publicHost {
			return publicHost, client
		}
	}
	return kind, client
}

// hostname is an authority without its port.
func hostname(authority string) string { return (&url.URL{Host: authority}).Hostname() }

func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Host
}

// secure tells whether the client came, or may have come, by https.
func (s *Server) secure(r *http.Request) bool {
	return r.TLS != nil || strings.Contains(r.Header.Get("X-Forwarded-Proto"), "https") ||
		strings.HasPrefix(s.APIEndpoint, "https:") || strings.HasPrefix(s.SubstituterEndpoint, "https:")
}
