package github

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// ErrNoIDToken means that this job may not ask for ID tokens: the workflow does not permit it, or the run belongs to
// a fork.
var ErrNoIDToken = errors.New("the job has no permission to ask for an ID token")

const (
	idTokenAnswerMax = 64 << 10 // bytes of GitHub's answer that are read
	idTokenTries     = 5
)

// Secret is a text that prints as [redacted], whatever verb or logger prints it.
type Secret struct {
	text *string // a pointer, because fmt calls no method on another struct's unexported field, but follows none there either
}

// NewSecret wraps a secret.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Format keeps every verb of fmt from the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// LogValue keeps slog from the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalText keeps encoders from the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// CanRequestIDToken reports whether this job may ask for ID tokens.
func (r *Runner) CanRequestIDToken() bool {
	return r.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") != "" && r.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN") != ""
}

// IDToken asks GitHub for a token that proves to audience which workflow this is. It lives five minutes and is good for
// one exchange, so every attempt at one asks for its own. The token is masked before it is looked at.
func (r *Runner) IDToken(ctx context.Context, audience string) (Secret, error) {
	address, bearer := r.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), r.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if !r.CanRequestIDToken() {
		return Secret{}, ErrNoIDToken
	}
	r.Mask(bearer) // the runner has done so; another one might not
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return Secret{}, errors.New("ask for an ID token: $ACTIONS_ID_TOKEN_REQUEST_URL is no URL")
	}
	if u.RawQuery != "" { // GitHub's has one; the parameters in it stay as they are
		u.RawQuery += "&"
	}
	u.RawQuery += "audience=" + url.QueryEscape(audience)
	token, err := r.requestIDToken(ctx, u, bearer)
	if err != nil {
		return Secret{}, fmt.Errorf("ask for an ID token: %w", err)
	}
	return token, nil
}

func (r *Runner) requestIDToken(ctx context.Context, u *url.URL, bearer string) (Secret, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Secret{}, err
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/json")
	res, err := r.retrying().Do(req)
	if err != nil {
		return Secret{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Secret{}, fmt.Errorf("%s answers %d", u.Host, res.StatusCode) // not the body: it could hold a token
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, idTokenAnswerMax+1))
	if err != nil {
		return Secret{}, fmt.Errorf("read the answer of %s: %w", u.Host, err)
	}
	var answer struct {
		Value string `json:"value"`
	}
	if len(body) > idTokenAnswerMax || json.Unmarshal(body, &answer) != nil {
		return Secret{}, fmt.Errorf("the answer of %s is not a small JSON object", u.Host)
	}
	r.Mask(answer.Value)
	if strings.Count(answer.Value, ".") != 2 || strings.ContainsAny(answer.Value, " \t\r\n") {
		return Secret{}, fmt.Errorf("the answer of %s holds no JWT", u.Host)
	}
	return NewSecret(answer.Value), nil
}

// retrying is a client that asks again after a 5xx, a 429 and a lost connection, each time after a random wait: the
// jobs of a matrix start together, and would come back together.
func (r *Runner) retrying() *retryablehttp.Client {
	plain := &http.Client{Timeout: 10 * time.Second}
	if r.HTTP != nil {
		c := *r.HTTP
		plain = &c
	}
	plain.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the bearer goes nowhere else
	return &retryablehttp.Client{
		HTTPClient: plain,
		RetryMax:   idTokenTries - 1,
		CheckRetry: retryablehttp.DefaultRetryPolicy,
		Backoff: func(_, _ time.Duration, attempt int, _ *http.Response) time.Duration {
			return 200*time.Millisecond + rand.N(500*time.Millisecond<<min(attempt, 4))
		},
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// shownClaims are the claims of an ID token that a policy may ask for and that are no secret, in the order in which
// they are shown.
var shownClaims = []string{
	"iss", "aud", "sub", "repository", "repository_id", "repository_owner", "repository_owner_id", "ref", "ref_protected",
	"event_name", "environment", "workflow_ref", "job_workflow_ref", "runner_environment",
}

// Claim is one claim of an ID token as text.
type Claim struct{ Name, Value string }

// Claims returns what an ID token says of this workflow, without checking it and without anything that would let its
// reader use the token.
func Claims(token Secret) ([]Claim, error) {
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		return nil, errors.New("read the ID token: not a JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("read the ID token: not base64url") // not the cause: it quotes the input
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		return nil, errors.New("read the ID token: its claims are no JSON object")
	}
	var shown []Claim
	for _, name := range shownClaims {
		if s, ok := claims[name].(string); ok {
			shown = append(shown, Claim{name, s})
		}
	}
	return shown, nil
}
