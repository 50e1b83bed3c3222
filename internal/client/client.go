// Package client speaks to a cache server, one method per endpoint. It knows
// the stock protocol and our extension of it and decides nothing about what is
// pushed.
//
//	method ── retryablehttp: backoff with jitter, Retry-After, bodies read again
//	             └─ wire: token, counts, watchdog (one per attempt)
//	                  └─ http.Transport: HTTP/1.1, keep-alive
//
// The token goes only to URLs that were built from the endpoint: redirects are
// never followed, they are an error that names where they lead.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// A TokenSource returns the token for the next attempt of a request, renewed if
// need be. An empty token sends none.
type TokenSource func(ctx context.Context) (string, error)

// StaticToken always returns token.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// Options configure a Client. Zero values are sensible.
type Options struct {
	Endpoint string      // absolute URL of the server
	Token    TokenSource // nil sends no token
	// Rejected is told of a token that got 401, and reports whether the next attempt will have a better one. Nil: never.
	Rejected  func(token string) bool
	UserAgent string // empty means "attic-action"
	Log       *slog.Logger

	Retries       int           // attempts after the first; zero means 8, negative none
	RetryWait     time.Duration // base of the backoff, doubled each time; zero means 500 ms
	MaxRetryWait  time.Duration // bound of one wait without Retry-After; zero means 20 s
	MaxRetryAfter time.Duration // bound of Retry-After; zero means 2 min
	Stall         time.Duration // an attempt without a byte of progress ends; zero means 60 s
	AnswerWait    time.Duration // from the last byte sent to the first received; zero means 2 min
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.RetryWait, 500*time.Millisecond)
	def(&o.MaxRetryWait, 20*time.Second)
	def(&o.MaxRetryAfter, 2*time.Minute)
	def(&o.Stall, time.Minute)
	def(&o.AnswerWait, 2*time.Minute)
	switch {
	case o.Retries == 0:
		o.Retries = 8
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.UserAgent == "" {
		o.UserAgent = "attic-action"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Client speaks to one server. It is safe for concurrent use.
type Client struct {
	base  *url.URL // absolute, http or https, without query
	o     Options
	wire  *wire
	retry *retryablehttp.Client
}

// New makes a client. It touches no network.
func New(o Options) (*Client, error) {
	base, err := ParseEndpoint(o.Endpoint)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, o: o.withDefaults()}
	c.wire = newWire(c.o)
	c.retry = newRetry(c.o, c.wire)
	return c, nil
}

// ErrEndpoint is a server URL that cannot be used.
var ErrEndpoint = errors.New("not a server URL")

// ParseEndpoint reads a server's URL.
func ParseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return nil, fmt.Errorf("%w: it is empty", ErrEndpoint)
	case !strings.Contains(s, "://") && !strings.Contains(s, "@"):
		return nil, fmt.Errorf("%w: %q has no http:// or https:// in front", ErrEndpoint, s)
	case err != nil: // the error text repeats the URL, which may hold a password
		return nil, fmt.Errorf("%w: it does not parse", ErrEndpoint)
	case u.User != nil:
		return nil, fmt.Errorf("%w: it holds a user or password; give the token with --token-file or $ATTIC_TOKEN", ErrEndpoint)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%w: %q has no http:// or https:// in front", ErrEndpoint, s)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%w: %q has a query or a fragment", ErrEndpoint, s)
	}
	return u, nil
}

// SameEndpoint reports whether a and b name the same server, whatever slash
// they end in.
func SameEndpoint(a, b string) bool {
	ua, errA := ParseEndpoint(a)
	ub, errB := ParseEndpoint(b)
	return errA == nil && errB == nil && ua.Scheme == ub.Scheme && strings.EqualFold(ua.Host, ub.Host) &&
		strings.TrimSuffix(ua.Path, "/") == strings.TrimSuffix(ub.Path, "/")
}

// Endpoint is the URL all requests start with.
func (c *Client) Endpoint() string { return c.base.String() }

// At returns a client for the api_endpoint that the server announced; it shares
// token, connections and counts with c. An endpoint that would send the token
// in clear text where it came encrypted so far is not followed: servers behind
// a proxy that hides its scheme announce such ones by mistake.
func (c *Client) At(endpoint string) (*Client, error) {
	base, err := ParseEndpoint(endpoint)
	if err != nil {
		return nil, fmt.Errorf("api_endpoint of the server: %w", err)
	}
	if c.base.Scheme == "https" && base.Scheme == "http" {
		c.o.Log.Warn("the server announces an unencrypted api_endpoint; staying with the URL given", "api_endpoint", base.Host)
		return c, nil
	}
	moved := *c
	moved.base = base
	return &moved, nil
}

// Stats are counts over the life of a client.
type Stats struct {
	Requests int64 // attempts, repeated ones too
	Sent     int64 // bytes of request bodies, repeated ones too
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	return Stats{Requests: c.wire.requests.Load(), Sent: c.wire.sent.Load()}
}
