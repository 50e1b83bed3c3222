// Package s3 keeps objects in a bucket of Amazon S3 or of one of the many
// services that speak its protocol: R2, Tigris, MinIO, Ceph, versitygw.
//
// What those services agree on is less than what the SDK does by itself, so:
//
//   - one PutObject per object, with the SHA-256 of the body signed, and with
//     neither trailers nor checksum headers: several services refuse them;
//   - If-None-Match: * keeps objects from being replaced; a service that does not
//     know it is asked with HEAD first;
//   - HTTP/1.1, connections kept and bounded;
//   - a deadline on progress, never on a whole request: a connection that is
//     silent for too long is given up, whether in the middle of a body or before
//     an answer, and what was read of an object is not read again;
//   - everything that may pass is tried again, with a growing and random pause,
//     until the patience is over or the caller's context is;
//   - clocks may differ: the service's is used for signing.
//
// An attempt whose outcome is unknown (the connection broke, or a 5xx) may have
// stored the object. So each Put leaves a random id in the object's metadata, and
// one that meets an object of its own has succeeded.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/org/attic-action/internal/blob"
)

const (
	// idleConns is how many connections wait for the next request.
	idleConns = 32
	// defaultPatience outlives a service that answers 503 for a minute.
	defaultPatience = 90 * time.Second
	// defaultStall is far above what a service needs between two bytes.
	defaultStall = 30 * time.Second
)

// Options say where a bucket is.
type Options struct {
	// Endpoint is a URL such as https://s3.example.org; empty means Amazon's for
	// the region.
	Endpoint string
	Region   string // empty means "auto", which is what services without regions say
	Bucket   string
	// Without AccessKeyID credentials are found as Amazon's tools find them:
	// environment, profile, web identity, role of the container or machine.
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // of temporary credentials; usually empty
	// PathStyle puts the bucket into the path of URLs (true) or before the host
	// (false). Nil chooses: see pathStyle.
	PathStyle *bool
	// Patience is how long an operation is tried again after it failed first, and
	// Stall how long a request may go without a byte. Zero means 90 and 30 seconds.
	Patience time.Duration
	Stall    time.Duration

	dial func(ctx context.Context, network, addr string) (net.Conn, error) // tests answer for other hosts
}

// Store is a bucket. It is safe for concurrent use.
type Store struct {
	client   *awss3.Client
	presign  *awss3.PresignClient
	bucket   string
	where    string // for messages: the endpoint's host, or "Amazon S3"
	patience time.Duration
	stall    time.Duration
	pause    time.Duration // the bound of the first one between two attempts
	clock    *clock
	plain    atomic.Bool // the service has no conditional put
}

var (
	_ blob.Store     = (*Store)(nil)
	_ blob.Presigner = (*Store)(nil)
)

// Open prepares a store. It sends nothing: Check does.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Bucket == "" {
		return nil, fmt.Errorf("open bucket: %w: no name", ErrSetup)
	}
	if o.Region == "" {
		o.Region = "auto"
	}
	creds, err := credentialsOf(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	path, err := pathStyle(o)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	s := &Store{bucket: o.Bucket, where: "Amazon S3", patience: o.Patience, stall: o.Stall, pause: firstPause, clock: &clock{}}
	if s.patience <= 0 {
		s.patience = defaultPatience
	}
	if s.stall <= 0 {
		s.stall = defaultStall
	}
	options := awss3.Options{
		Region:       o.Region,
		Credentials:  creds,
		UsePathStyle: path,
		HTTPClient:   s.httpClient(o.dial),
		// Ours is the loop that tries again: it knows about outcomes that are unknown.
		Retryer: aws.NopRetryer{},
		// R2 and others refuse what is not required.
		RequestChecksumCalculation:  aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:  aws.ResponseChecksumValidationWhenRequired,
		DisableS3ExpressSessionAuth: aws.Bool(true),
	}
	if o.Endpoint != "" {
		s.where = o.Endpoint
		options.BaseEndpoint = aws.String(o.Endpoint)
	}
	s.client = awss3.New(options)
	s.presign = awss3.NewPresignClient(s.client, s.clock.presigner)
	return s, nil
}

// credentialsOf returns given credentials, or the SDK's chain. The chain alone
// reads files and variables of Amazon's tools.
func credentialsOf(ctx context.Context, o Options) (aws.CredentialsProvider, error) {
	if o.AccessKeyID != "" {
		return credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, o.SessionToken), nil
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(o.Region),
		awsconfig.WithLogger(logging.Nop{})) // its default writes to stderr by itself
	if err != nil {
		return nil, fmt.Errorf("%w: find credentials: %w", ErrSetup, err)
	}
	return aws.NewCredentialsCache(chain{cfg.Credentials}), nil
}

// chain names what is missing when nothing has credentials.
type chain struct{ aws.CredentialsProvider }

func (c chain) Retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		return creds, errNoCredentials
	}
	return creds, err
}

// virtualHosts are the services that want the bucket before the host. Amazon's
// own wants it too; Tigris takes nothing else for buckets made since 2025.
var virtualHosts = []string{".amazonaws.com", ".amazonaws.com.cn", ".storage.tigris.dev", ".storage.dev"}

// pathStyle chooses the style of URLs: what the options say; else the path for
// every endpoint that was given, as Attic does, but for services known to refuse
// it. An address of numbers or a name without a dot has no place for a bucket.
func pathStyle(o Options) (bool, error) {
	if o.Endpoint == "" {
		// The certificate of *.s3.amazonaws.com is not for a.b.s3.amazonaws.com.
		return o.PathStyle != nil && *o.PathStyle || strings.Contains(o.Bucket, "."), nil
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return false, fmt.Errorf("%w: the endpoint is not a URL like https://s3.example.org", ErrSetup) // which may hold a password
	}
	host := strings.ToLower(u.Hostname())
	if _, err := netip.ParseAddr(host); err == nil {
		return true, nil
	}
	if o.PathStyle != nil {
		return *o.PathStyle, nil
	}
	for _, suffix := range virtualHosts {
		if strings.HasSuffix("."+host, suffix) {
			return strings.Contains(o.Bucket, ".") && u.Scheme == "https", nil
		}
	}
	return true, nil
}

// httpClient speaks HTTP/1.1: with HTTP/2 all requests share one connection, and
// one lost segment stalls all of them.
func (s *Store) httpClient(dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: s.clock.watch(&http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dial,
			Protocols:             protocols,
			DisableCompression:    true, // what is asked for is what is stored
			MaxIdleConns:          idleConns,
			MaxIdleConnsPerHost:   idleConns,
			IdleConnTimeout:       50 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: time.Second,
			ReadBufferSize:        32 << 10,
			WriteBufferSize:       32 << 10,
		}),
		// A signed request is for one host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Check makes one cheap request that needs the credentials, the bucket and the
// region to be right. What only a human can mend is ErrSetup, with a line that
// says what to do. A service that refuses connections is given ten seconds, one
// that says nothing at all thirty.
func (s *Store) Check(ctx context.Context) error {
	patience := min(s.patience, 10*time.Second)
	limited, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	err := s.retry(limited, patience, func(ctx context.Context, _ *watch) error {
		_, err := s.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: &s.bucket, MaxKeys: aws.Int32(1)})
		return err
	})
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", blob.ErrUnavailable, &refusal{err: fmt.Errorf("no word from %s", s.where)})
	}
	var r *refusal
	switch {
	case errors.Is(err, blob.ErrNotFound):
		err = fmt.Errorf("%w: %s does not answer like S3; check storage.endpoint (AWS_ENDPOINT_URL_S3)", ErrSetup, s.where)
	case errors.As(err, &r) && r.status == 0:
		err = fmt.Errorf("%w; check storage.endpoint (AWS_ENDPOINT_URL_S3) and the network", err)
	}
	if err != nil {
		return fmt.Errorf("open bucket %s at %s: %w", s.bucket, s.where, err)
	}
	return nil
}
