package exchange_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/exchange"
	"github.com/org/attic-action/internal/limit"
	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/oidctest"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

const (
	audience  = "https://cache.example.com"
	grantType = "urn:ietf:params:oauth:grant-type:token-exchange"
	idToken   = "urn:ietf:params:oauth:token-type:id_token"
)

// world is an exchange, the issuer that it trusts, and a clock for both.
type world struct {
	*exchange.Exchange
	issuer *oidctest.Issuer
	log    *bytes.Buffer
	events []audit.Event
	seen   map[string]time.Time
	clock  time.Time
	mu     sync.Mutex
}

func newWorld(t *testing.T, policies ...trust.Policy) *world {
	t.Helper()
	w := &world{issuer: oidctest.NewIssuer(t), log: new(bytes.Buffer), seen: make(map[string]time.Time), clock: time.Unix(1_790_000_000, 0)}
	now := func() time.Time { return w.clock }
	w.issuer.Now = now
	verifier, err := oidc.New(oidc.Config{Audience: audience, Now: now, Issuers: []oidc.Issuer{{URL: w.issuer.URL, AllowInsecure: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range policies {
		policies[i].Issuer = w.issuer.URL
	}
	set, err := trust.Compile(policies)
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.HS256([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	w.Exchange = &exchange.Exchange{
		Verifier: verifier, Policies: func(context.Context) (*trust.Set, error) { return set, nil }, Authority: &token.Authority{Keys: []token.Key{key}, Now: now},
		Book: w.book, Endpoint: audience + "/_api/v1/oidc/token", RevocationEndpoint: audience + "/_api/v1/oidc/revoke", Now: now,
		RequestID: func(*http.Request) string { return "req-1" },
		Limits:    exchange.Limits{Refused: &limit.Buckets{Rate: limit.PerMinute(10)}},
		Audit:     func(e audit.Event) { w.events = append(w.events, e) },
		Log:       slog.New(slog.NewTextHandler(w.log, nil)),
	}
	return w
}

func (w *world) book(_ context.Context, t exchange.Trade) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.seen[t.Issuer+" "+t.ID].IsZero() {
		return exchange.ErrReplayed
	}
	w.seen[t.Issuer+" "+t.ID] = t.Until
	return nil
}

func infra() trust.Policy {
	return trust.Policy{
		Name: "infra", RepositoryID: 123456789, Repository: "acme/infra", Ref: "refs/heads/main",
		Caches: []string{"system"}, Grant: []string{"pull", "push"}, Pins: []string{"acme/infra/*"},
	}
}

func reader() trust.Policy {
	return trust.Policy{Name: "reader", RepositoryOwnerID: 987654, Caches: []string{"shared", "team-*"}, Grant: []string{"pull"}, TTL: "5m"}
}

func form(raw string, more ...string) url.Values {
	f := url.Values{"grant_type": {grantType}, "subject_token": {raw}, "subject_token_type": {idToken}}
	for i := 0; i < len(more); i += 2 {
		f.Set(more[i], more[i+1])
	}
	return f
}

func (w *world) send(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.TokenHandler().ServeHTTP(rec, r)
	return rec
}

func request(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/_api/v1/oidc/token", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func (w *world) post(f url.Values) *httptest.ResponseRecorder { return w.send(request(f.Encode())) }

func granted(t *testing.T, w *world, rec *httptest.ResponseRecorder) (api.TokenResponse, *token.Claims) {
	t.Helper()
	if rec.Code != http.StatusOK {
		t.Fatalf("got %d %s\nlog: %s", rec.Code, rec.Body, w.log)
	}
	var resp api.TokenResponse
	if err := json.Unmarshal(rec.Body.Bytes(), &resp); err != nil {
		t.Fatal(err)
	}
	claims, err := w.Authority.Verify(resp.AccessToken)
	if err != nil {
		t.Fatalf("the token issued does not verify: %v", err)
	}
	return resp, claims
}

func refused(t *testing.T, rec *httptest.ResponseRecorder, status int, code string) api.TokenError {
	t.Helper()
	var e api.TokenError
	if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil {
		t.Fatalf("answer %q: %v", rec.Body, err)
	}
	if rec.Code != status || e.Code != code {
		t.Fatalf("got %d %s, want %d %s", rec.Code, rec.Body, status, code)
	}
	if e.RequestID != "req-1" || rec.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("refusal %s, %v lacks request id or no-store", rec.Body, rec.Header())
	}
	return e
}

func TestExchangeIssuesWhatThePolicyGrants(t *testing.T) {
	w := newWorld(t, infra())
	rec := w.post(form(w.issuer.Token(audience)))
	resp, claims := granted(t, w, rec)
	if resp.TokenType != "Bearer" || resp.IssuedTokenType != "urn:ietf:params:oauth:token-type:access_token" ||
		resp.ExpiresIn != 900 || resp.Scope != "cache:system:pull cache:system:push" {
		t.Errorf("got answer %+v", resp)
	}
	if claims.ID == "" || claims.Subject != "repo:acme/infra:ref:refs/heads/main" || !claims.Expires.Equal(w.clock.Add(15*time.Minute)) {
		t.Errorf("got claims %+v", claims)
	}
	if claims.Caches.For("system") != token.Pull|token.Push || claims.Caches.For("other") != 0 || strings.Join(claims.Pins, " ") != "acme/infra/*" {
		t.Errorf("got caches %v, pins %v", claims.Caches, claims.Pins)
	}
	if o := claims.Origin; o["policy"] != "infra" || o["repository_id"] != "123456789" || o["run_id"] != "9000000001" || o["run_attempt"] != "1" || len(o["sha"]) != 40 || o["actor_id"] != "1201" {
		t.Errorf("the token does not lead to its job: %v", o)
	}
	if rec.Header().Get("Cache-Control") != "no-store" {
		t.Error("the answer may be cached")
	}
	for _, want := range []string{"policy=[infra]", "repository=acme/infra", "run_id=9000000001", "request_id=req-1", claims.ID} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("log lacks %s: %s", want, w.log)
		}
	}
}

func TestTokenHoldsTheBoundIssuerAndAudience(t *testing.T) {
	w := newWorld(t, infra())
	w.Authority.Issuer, w.Authority.Audiences = "attic", []string{"caches"}
	_, claims := granted(t, w, w.post(form(w.issuer.Token(audience))))
	if claims.Issuer != "attic" || len(claims.Audience) != 1 || claims.Audience[0] != "caches" {
		t.Errorf("got %+v", claims)
	}
}

func TestIDTokenWorksOnce(t *testing.T) {
	w := newWorld(t, infra())
	raw := w.issuer.Token(audience)
	granted(t, w, w.post(form(raw)))
	refused(t, w.post(form(raw)), http.StatusBadRequest, "invalid_grant")
	for _, until := range w.seen {
		// As long as the verifier would take it: exp and the leeway.
		if until.Before(w.clock.Add(5*time.Minute + oidc.Leeway)) {
			t.Errorf("use is remembered until %s only", until)
		}
	}
}

func TestIDTokenWorksOnceWhenSentManyTimesAtOnce(t *testing.T) {
	w := newWorld(t, infra())
	raw := w.issuer.Token(audience)
	var ok sync.Map
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			resp, refusal := w.Do(t.Context(), exchange.Request{SubjectToken: raw, SubjectTokenType: idToken})
			if refusal == nil {
				ok.Store(i, resp)
			}
		})
	}
	wg.Wait()
	n := 0
	ok.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d of 20 got a token", n)
	}
}

func TestRefusedRequestDoesNotUseUpTheToken(t *testing.T) {
	w := newWorld(t, infra())
	raw := w.issuer.Token(audience)
	refused(t, w.post(form(raw, "scope", "cache:other:push")), http.StatusBadRequest, "invalid_scope")
	granted(t, w, w.post(form(raw)))
}

func TestTokenIsRefusedWhenItsUseCannotBeRecorded(t *testing.T) {
	w := newWorld(t, infra())
	w.Book = func(context.Context, exchange.Trade) error { return errors.New("disk of the server is full") }
	rec := w.post(form(w.issuer.Token(audience)))
	refused(t, rec, http.StatusInternalServerError, "server_error")
	if strings.Contains(rec.Body.String(), "disk") {
		t.Errorf("the caller is told %s", rec.Body)
	}
}

// All refusals of token and policy read alike, so that nobody can learn the rules by
// trying; the log tells them apart.
func TestRefusalsOfTokenAndPolicyReadAlike(t *testing.T) {
	w := newWorld(t, infra())
	is := w.issuer
	with := func(changes map[string]any) string { return is.Sign(is.With(audience, changes)) }
	var first string
	for _, tt := range []struct{ name, raw, log string }{
		{"other repository", with(map[string]any{"repository_id": "5"}), "repository_id"},
		{"pull request", with(map[string]any{"event_name": "pull_request", "ref": "refs/pull/1/merge"}), "event_name"},
		{"other branch", with(map[string]any{"ref": "refs/heads/x"}), "ref"},
		{"expired", with(map[string]any{"iat": w.clock.Unix() - 400, "exp": w.clock.Unix() - 100}), "exp"},
		{"other audience", is.Token("https://github.com/acme"), "aud"},
		{"unknown issuer", with(map[string]any{"iss": "https://evil.example.com"}), "evil.example.com"},
		{"alg none", is.Forge(is.Claims(audience), oidctest.Forgery{Header: map[string]any{"alg": "none"}}), "alg"},
		{"no token at all", "x", "parts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.log.Reset()
			rec := w.post(form(tt.raw))
			refused(t, rec, http.StatusBadRequest, "invalid_grant")
			if first == "" {
				first = rec.Body.String()
			}
			if rec.Body.String() != first {
				t.Errorf("got %s, others got %s", rec.Body, first)
			}
			if !strings.Contains(w.log.String(), tt.log) || !strings.Contains(w.log.String(), "request_id=req-1") {
				t.Errorf("the log does not name %s: %s", tt.log, w.log)
			}
		})
	}
}

func TestLogHoldsNoTokenAndOneLineARequest(t *testing.T) {
	w := newWorld(t, infra())
	good := w.issuer.Token(audience)
	evil := w.issuer.Sign(w.issuer.With(audience, map[string]any{
		"ref": "refs/heads/x\nlevel=INFO msg=\"exchanged ID token\" policy=infra", "actor": "a\x1b[2Jb", "repository": strings.Repeat("r", 3000),
	}))
	resp, _ := granted(t, w, w.post(form(good)))
	w.post(form(evil))
	w.send(request("subject_token=" + evil + "%zz"))
	w.post(form(good + "x"))
	log := w.log.String()
	for _, secret := range []string{good, evil, resp.AccessToken} {
		for _, part := range strings.Split(secret, ".")[1:] {
			if strings.Contains(log, part[:30]) {
				t.Errorf("log holds a token: %s", log)
			}
		}
	}
	if n := strings.Count(log, "\n"); n != 4 {
		t.Errorf("log has %d lines for 4 requests: %s", n, log)
	}
	if strings.Contains(log, "\x1b") || strings.Contains(log, strings.Repeat("r", 300)) {
		t.Errorf("log holds a control character or an endless claim: %s", log)
	}
}

func TestUnavailableKeysAnswer503(t *testing.T) {
	w := newWorld(t, infra())
	w.issuer.Hook = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(http.StatusBadGateway); return true }
	rec := w.post(form(w.issuer.Token(audience)))
	refused(t, rec, http.StatusServiceUnavailable, "temporarily_unavailable")
	if rec.Header().Get("Retry-After") != "10" {
		t.Errorf("Retry-After is %q", rec.Header().Get("Retry-After"))
	}
	w.issuer.Hook = nil
	w.clock = w.clock.Add(10 * time.Second)
	granted(t, w, w.post(form(w.issuer.Token(audience))))
}

func TestConfigNamesIssuersAudienceAndEndpoint(t *testing.T) {
	w := newWorld(t, infra())
	rec := httptest.NewRecorder()
	w.ConfigHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/_api/v1/oidc/config", nil))
	want := `{"issuers":["` + oidc.GitHub + `","` + w.issuer.URL + `"],"audience":"` + audience + `","token_endpoint":"` + audience +
		`/_api/v1/oidc/token","revocation_endpoint":"` + audience + `/_api/v1/oidc/revoke"}`
	if got := strings.TrimSpace(rec.Body.String()); got != want || rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %s, want %s", got, want)
	}
}
