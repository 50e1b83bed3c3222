package s3

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/org/attic-action/internal/blob"
)

// ErrSetup says that no repetition helps: credentials, bucket, region or endpoint
// are not right, and the error's text says which and what to do.
var ErrSetup = errors.New("the storage is set up wrong")

var errNoCredentials = fmt.Errorf("%w: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or [storage.credentials] in server.toml, or give the machine a role", ErrSetup)

// refusal is why an attempt failed, short enough for a line of a log.
type refusal struct {
	status     int    // 0: there was no answer
	code       string // S3's, such as SlowDown
	message    string // the service's own words, cut and on one line
	transient  bool   // another attempt may succeed
	clock      bool   // it was the clock, and the right time is known now
	retryAfter time.Duration
	err        error // blob's sentinel, or ErrSetup, or what happened to the connection
}

func (r *refusal) Unwrap() error { return r.err }

func (r *refusal) Error() string {
	if r.status == 0 {
		return r.err.Error()
	}
	said := strings.TrimSpace(strconv.Itoa(r.status) + " " + r.code)
	if r.message != "" {
		said += ": " + r.message
	}
	if r.err != nil {
		return r.err.Error() + " (" + said + ")"
	}
	return "the service answered " + said
}

// explain makes one line of the SDK's error. skewed says that the service's clock
// was found to be another one than was signed with.
func (s *Store) explain(err error, skewed bool) error {
	var answered *smithyhttp.ResponseError
	switch {
	case errors.Is(err, errNoCredentials):
		return errNoCredentials
	case errors.As(err, new(*sourceError)) || errors.As(err, new(*refusal)):
		return err
	case !errors.As(err, &answered) || answered.Response == nil || answered.HTTPStatusCode() == 0:
		return s.unreached(err)
	}
	r := &refusal{status: answered.HTTPStatusCode()}
	var api smithy.APIError
	if errors.As(err, &api) {
		r.code, r.message = word(api.ErrorCode()), line(api.ErrorMessage())
	} else if r.status/100 == 2 {
		// The answer broke off in the middle, or is not S3's.
		return &refusal{transient: true, err: fmt.Errorf("read answer of %s: %s", s.where, line(innermost(err).Error()))}
	}
	header := answered.Response.Header
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err == nil && seconds > 0 {
		r.retryAfter = min(time.Duration(seconds)*time.Second, time.Hour)
	}
	s.judge(r, header, skewed)
	return r
}

// judge says what an answer means.
func (s *Store) judge(r *refusal, header http.Header, skewed bool) {
	switch r.code {
	case "InvalidBucketName":
		r.err = fmt.Errorf("%w: %q cannot be the name of a bucket: correct storage.bucket (BUCKET_NAME)", ErrSetup, s.bucket)
		return
	case "NoSuchBucket":
		r.err = fmt.Errorf("%w: there is no bucket %q: make it, or correct storage.bucket (BUCKET_NAME)", ErrSetup, s.bucket)
		return
	case "NoSuchKey", "NotFound":
		r.err = blob.ErrNotFound
		return
	case "InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "TokenRefreshRequired", "InvalidClientTokenId", "Unauthorized",
		"XAdminUserNotFound": // versitygw says 404 to it
		r.err = fmt.Errorf("%w: the access key id is not accepted: correct AWS_ACCESS_KEY_ID (access_key_id of [storage.credentials])", ErrSetup)
		return
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect", "MovedPermanently", "Redirect":
		r.err = s.elsewhere(header)
		return
	case "RequestTimeTooSkewed":
		r.transient, r.clock = true, skewed
		r.err = fmt.Errorf("the clock of this machine is wrong by %v", s.clock.skew().Round(time.Second))
		return
	case "SlowDown", "RequestTimeout", "IncompleteBody", "InternalError", "ServiceUnavailable", "OperationAborted",
		"ConditionalRequestConflict", "Throttling", "ThrottlingException", "BadDigest", "XAmzContentSHA256Mismatch":
		r.transient = true
		return
	}
	s.judgeStatus(r, header, skewed)
}

// judgeStatus is for codes that are not known, and for answers to HEAD, which have none.
func (s *Store) judgeStatus(r *refusal, header http.Header, skewed bool) {
	switch {
	case skewed && (r.status == http.StatusForbidden || r.status == http.StatusBadRequest):
		r.transient, r.clock = true, true
	case r.code == "SignatureDoesNotMatch":
		r.err = fmt.Errorf("%w: the secret access key is not that of the access key id: correct AWS_SECRET_ACCESS_KEY (secret_access_key of [storage.credentials])", ErrSetup)
	case r.status == http.StatusUnauthorized || r.status == http.StatusForbidden:
		r.err = fmt.Errorf("%w: the credentials do not allow it: let them list, get, put and delete in bucket %q", ErrSetup, s.bucket)
	case r.status == http.StatusNotFound:
		r.err = blob.ErrNotFound
	case r.status == http.StatusRequestedRangeNotSatisfiable:
		r.err = blob.ErrRange
	case r.status/100 == 3 && r.status != http.StatusNotModified:
		r.err = s.elsewhere(header)
	case passing(r.status):
		r.transient = true
	}
}

// elsewhere names the region that a bucket is in, if the service says it.
func (s *Store) elsewhere(header http.Header) error {
	region := word(header.Get("X-Amz-Bucket-Region"))
	if region == "" {
		return fmt.Errorf("%w: bucket %q is in another region or at another endpoint: correct storage.region (AWS_REGION) or storage.endpoint (AWS_ENDPOINT_URL_S3)", ErrSetup, s.bucket)
	}
	return fmt.Errorf("%w: bucket %q is in region %s: correct storage.region (AWS_REGION)", ErrSetup, s.bucket, region)
}

// unreached is for attempts without an answer. The URL is left out of the text,
// for it may be a presigned one.
func (s *Store) unreached(err error) error {
	cause := innermost(err)
	var untrusted *tls.CertificateVerificationError
	var records tls.RecordHeaderError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("%w: the certificate of %s is not trusted: %s", ErrSetup, s.where, line(untrusted.Err.Error()))
	}
	if errors.As(err, &records) || strings.Contains(cause.Error(), "server gave HTTP response to HTTPS client") {
		return fmt.Errorf("%w: %s does not speak TLS: write http:// in storage.endpoint (AWS_ENDPOINT_URL_S3)", ErrSetup, s.where)
	}
	return &refusal{transient: true, err: fmt.Errorf("reach %s: %s", s.where, line(cause.Error()))}
}

// innermost is what the HTTP client said, without the SDK's words around it.
func innermost(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// line keeps a service's words on one line of bearable length.
func line(text string) string {
	const most = 200
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd }), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// word is line for what has no blanks.
func word(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}) || len(text) > 64 {
		return ""
	}
	return text
}
