package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

func newRetry(o Options, w *wire) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport: w,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse // the token must not travel to where a server points
			},
		},
		RetryMax:     o.Retries,
		RetryWaitMin: o.RetryWait,
		RetryWaitMax: o.MaxRetryWait,
		CheckRetry: func(ctx context.Context, resp *http.Response, err error) (bool, error) {
			again, final := checkRetry(ctx, w, resp, err)
			if again {
				o.Log.Debug("request will be repeated", "status", statusOf(resp), "err", err)
			}
			return again, final
		},
		Backoff: func(base, limit time.Duration, attempt int, resp *http.Response) time.Duration {
			return backoff(base, limit, o.MaxRetryAfter, attempt, resp, time.Now())
		},
		RequestLogHook: func(_ retryablehttp.Logger, req *http.Request, attempt int) {
			if attempt == outageAfter && w.outage.CompareAndSwap(false, true) { // one line, however many requests wait
				o.Log.Warn("the server does not answer; it may be asleep or being deployed, so waiting for it", "server", req.URL.Host)
			}
		},
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// outageAfter is the repetition of a request from which on people are told: it comes a second or two after the first.
const outageAfter = 3

func statusOf(resp *http.Response) int {
	if resp == nil {
		return 0
	}
	return resp.StatusCode
}

// checkRetry decides whether an attempt is worth repeating: what can change by
// itself is, what a user has to change is not.
func checkRetry(ctx context.Context, w *wire, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		return !permanent(w, err), nil
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		sent := strings.TrimPrefix(resp.Request.Header.Get("Authorization"), "Bearer ")
		return sent != "" && w.rejected != nil && w.rejected(sent), nil
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true, nil
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
		return false, nil
	}
	return resp.StatusCode >= 500, nil
}

func permanent(w *wire, err error) bool {
	if errors.Is(err, ErrToken) || errors.Is(err, ErrAnswer) || errors.Is(err, errBody) {
		return true
	}
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	if errors.As(err, &unknown) || errors.As(err, &invalid) || errors.As(err, &host) ||
		errors.As(err, &verify) || errors.As(err, &record) ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return true
	}
	// A server that never answered is mostly a mistyped URL. One that did is being restarted.
	var dns *net.DNSError
	var op *net.OpError
	if !w.reached.Load() && (errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &op) && op.Op == "dial") {
		return w.requests.Load() > firstContact
	}
	return false
}

// firstContact is how often an unreachable server is tried at the start.
const firstContact = 2

// backoff is exponential with full jitter: many clients that failed together
// do not come back together. A server's Retry-After is honoured up to a bound.
func backoff(base, limit, maxAfter time.Duration, attempt int, resp *http.Response, now time.Time) time.Duration {
	wait := limit
	if attempt < 20 && base<<attempt < limit {
		wait = base << attempt
	}
	jitter := rand.N(wait + 1)
	if after, ok := retryAfter(resp, now); ok {
		return min(after, maxAfter) + min(jitter, time.Second)
	}
	return jitter
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(resp *http.Response, now time.Time) (time.Duration, bool) {
	if resp == nil {
		return 0, false
	}
	text := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}
