package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/org/attic-action/internal/peer"
)

const (
	maxRedirects = 5
	connectTime  = 15 * time.Second
	answerTime   = time.Minute // for the first byte
	// stallTime is how long a body may take for stallBytes: a source that sends a byte a minute would hold a
	// place, and its memory, for ever.
	stallTime  = 45 * time.Second
	stallBytes = 64 << 10
)

// IsPrivate resolves the host of a source that an operator has named, once, before anything was asked of it:
// a name that says later that it is an address of ours is not believed.
func IsPrivate(ctx context.Context, u *url.URL) (bool, error) {
	if u.Scheme == "file" {
		return true, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return false, fmt.Errorf("look up the source: %w", err)
	}
	for _, a := range addrs {
		if !peer.Public(a) {
			return true, nil
		}
	}
	return false, nil
}

// newClient returns a client for one source. No proxy: through one, the address that is looked at would be
// the proxy's.
func newClient(base *url.URL, private bool) *http.Client {
	dialer := &net.Dialer{Timeout: connectTime, Control: func(_, address string, _ syscall.RawConn) error {
		return mayConnect(address, private)
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
			TLSHandshakeTimeout: connectTime, ResponseHeaderTimeout: answerTime, IdleConnTimeout: time.Minute,
			MaxIdleConnsPerHost: lookups, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error { return mayFollow(req, via, base) },
	}
}

// mayConnect is asked with the address itself, after names were resolved.
func mayConnect(address string, private bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: address %q cannot be read", ErrRefused, address)
	}
	a := ap.Addr().Unmap()
	switch {
	case peer.Public(a):
		return nil
	case !private:
		return fmt.Errorf("%w: the source is on the internet and sends us to the private address %s", ErrRefused, a)
	case a.IsLinkLocalUnicast(), a.IsMulticast(), a == netip.MustParseAddr("fd00:ec2::254"):
		// Where clouds tell a machine its passwords.
		return fmt.Errorf("%w: the source sends us to the link-local address %s", ErrRefused, a)
	}
	return nil
}

// mayFollow lets redirects lead anywhere that mayConnect allows, never from https to http, and never with the token.
func mayFollow(req *http.Request, via []*http.Request, base *url.URL) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d redirects", ErrRefused, maxRedirects)
	case req.URL.Scheme != "https" && (req.URL.Scheme != "http" || via[0].URL.Scheme == "https"):
		return fmt.Errorf("%w: a redirect from https to %s://%.100s", ErrRefused, req.URL.Scheme, req.URL.Host)
	}
	if !sameOrigin(req.URL, base) {
		req.Header.Del("Authorization") // net/http would show it to hosts below this one
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

// pacedBody ends a body that does not go on. Only the time that a reader waits counts: it is the source
// that is judged, and not this machine.
type pacedBody struct {
	io.ReadCloser
	ctx    context.Context // of this one request
	cancel context.CancelCauseFunc
	stall  time.Duration
	waited time.Duration
	got    int64
}

var errStalled = fmt.Errorf("the source sends less than %d KiB in %v", stallBytes>>10, stallTime)

func (p *pacedBody) Read(b []byte) (int, error) {
	begun := time.Now()
	timer := time.AfterFunc(p.stall-p.waited, func() { p.cancel(errStalled) })
	n, err := p.ReadCloser.Read(b)
	timer.Stop()
	p.waited += time.Since(begun)
	if p.got += int64(n); p.got >= stallBytes {
		p.waited, p.got = 0, 0
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(p.ctx); cause != nil {
			if errors.Is(cause, errStalled) {
				return n, passing{cause}
			}
			return n, cause
		}
		err = passing{fmt.Errorf("read from the source: %w", err)}
	}
	return n, err
}

func (p *pacedBody) Close() error {
	err := p.ReadCloser.Close()
	p.cancel(nil)
	return err
}
