package oidc

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/org/attic-action/internal/peer"
)

// newClient returns a client that follows no redirect and, unless insecure, connects to
// public addresses only. It knows no proxy: through one, the address would be the
// proxy's and the check worthless.
func newClient(rt http.RoundTripper, insecure bool) *http.Client {
	if rt == nil {
		dialer := &net.Dialer{Timeout: fetchTimeout}
		if !insecure {
			dialer.Control = publicOnly
		}
		rt = &http.Transport{
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			IdleConnTimeout:        10 * time.Second,
			TLSHandshakeTimeout:    fetchTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // a bound on bytes read is one on bytes held
		}
	}
	return &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// publicOnly is asked with the address that is being connected to, after the name was
// resolved: a name that points into the private network (DNS rebinding) stops here.
func publicOnly(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q cannot be read", address)
	}
	if !peer.Public(ap.Addr()) {
		return fmt.Errorf("address %s is not a public one (allow-insecure = true is for tests)", ap.Addr())
	}
	return nil
}
