package s3

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
)

// skewAllowed is a difference of clocks that no service minds; they refuse at
// five minutes or later.
const skewAllowed = 4 * time.Minute

// clock knows how far the service's clock is ahead, from the dates of its answers.
// The SDK keeps the same for requests, but does not use it for presigned URLs, and
// does not tell a wrong clock from a wrong key where an answer has no body.
type clock struct{ ahead atomic.Int64 }

func (c *clock) skew() time.Duration { return time.Duration(c.ahead.Load()) }

// watched notes the date of every answer.
type watched struct {
	*clock
	next http.RoundTripper
}

func (c *clock) watch(next http.RoundTripper) http.RoundTripper { return watched{c, next} }

// RoundTrip implements http.RoundTripper.
func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(r)
	if err != nil || resp.Header.Get("Age") != "" { // a cache's answer is old
		return resp, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		w.ahead.Store(int64(time.Until(date)))
	}
	return resp, nil
}

// presigner makes URLs dated by the service's clock.
func (c *clock) presigner(o *awss3.PresignOptions) {
	o.Presigner = skewed{c, v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })}
}

type skewed struct {
	*clock
	*v4.Signer
}

// PresignHTTP implements awss3.HTTPPresignerV4.
func (s skewed) PresignHTTP(ctx context.Context, creds aws.Credentials, r *http.Request, payloadHash, service, region string,
	at time.Time, opts ...func(*v4.SignerOptions)) (string, http.Header, error) {
	if skew := s.skew(); skew.Abs() > time.Minute {
		at = at.Add(skew)
	}
	return s.Signer.PresignHTTP(ctx, creds, r, payloadHash, service, region, at, opts...)
}
