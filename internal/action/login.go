package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/github"
)

const answerMax = 64 << 10 // bytes of an answer that are read

// Login trades GitHub's ID tokens for the cache's tokens. It is safe for concurrent use.
type Login struct {
	Server   string
	Static   github.Secret // used in place of an exchange, if there is one
	Audience string        // of ID tokens; empty: what the server says
	Cache    string        // of which the token is to be
	Rights   []string      // that it is to have, such as push
	Runner   *github.Runner
	HTTP     *http.Client // follows no redirects, whatever it is set to
	Now      func() time.Time

	mu      sync.Mutex // held during an exchange: whoever needs the token waits for it
	current string
	scope   string    // what current may do, as the server says
	got     time.Time // times are this machine's own: its clock may be off
	renew   time.Time // from when on another one is asked for
	ends    time.Time
	former  []spent        // what current took the place of: requests under way still use it
	claims  []github.Claim // of the last ID token, for people
}

// spent is a token that another one took the place of.
type spent struct {
	token string
	ends  time.Time
}

// Token returns a token for the cache, the same one until three quarters of its life are over. It is a
// client.TokenSource. github.ErrNoIDToken means that this job can't have one.
func (l *Login) Token(ctx context.Context) (string, error) {
	if t := l.Static.Reveal(); t != "" {
		return t, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
	if l.current != "" && now.Before(l.renew) {
		return l.current, nil
	}
	answer, err := l.exchange(ctx)
	if err != nil {
		if l.current != "" && now.Before(l.ends) { // it is good for a while; ask again soon
			l.renew = now.Add(15 * time.Second)
			return l.current, nil
		}
		return "", fmt.Errorf("log in at %s: %w", l.Server, err)
	}
	now = l.Now() // the server may have been waited for
	if l.current != "" {
		l.former = slices.DeleteFunc(append(l.former, spent{l.current, l.ends}), func(f spent) bool { return !now.Before(f.ends) })
	}
	life := time.Duration(answer.ExpiresIn) * time.Second
	l.current, l.scope, l.got, l.renew, l.ends = answer.AccessToken, answer.Scope, now, now.Add(life*3/4), now.Add(life)
	return l.current, nil
}

// May reports whether the token at hand holds a right to the cache, such as push. A token that was given, and one of
// which the server does not say, is believed to.
func (l *Login) May(right string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.scope == "" || slices.Contains(strings.Fields(l.scope), "cache:"+l.Cache+":"+right)
}

// lacks is the error of a token without a right.
func (l *Login) lacks(right string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &RefusedError{Answer: api.TokenError{Code: "the policy that accepts it grants no " + right}, Claims: l.claims, Cache: l.Cache}
}

// Rejected is told that the server answered 401 to a token, and reports whether another one may do better: the clocks
// disagree, the token was revoked, or the server has a new secret. One that was refused when it was new is not replaced.
func (l *Login) Rejected(token string) bool {
	if l.Static.Reveal() != "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case token != l.current:
		return l.current != "" // somebody else has noticed
	case l.Now().Sub(l.got) < newFor:
		return false
	}
	l.current = ""
	return true
}

// forPulls is another login at the same server, of tokens that may pull and nothing else.
func (l *Login) forPulls() *Login {
	return &Login{Server: l.Server, Static: l.Static, Audience: l.Audience, Cache: l.Cache, Rights: []string{"pull"}, Runner: l.Runner, HTTP: l.HTTP, Now: l.Now}
}

// asked is the scope to ask the exchange for.
func (l *Login) asked() string {
	var items []string
	for _, right := range l.Rights {
		items = append(items, "cache:"+l.Cache+":"+right)
	}
	return strings.Join(items, " ")
}

// renewSoon has the next call of Token ask for another one, unless the one at hand is new.
func (l *Login) renewSoon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.Now(); l.current != "" && now.Sub(l.got) > newFor {
		l.renew = now
	}
}

// newFor is how long a token counts as new.
const newFor = 10 * time.Second

// exchange asks until there is an answer that asking again won't change. Each attempt has an ID token of its own, for a
// server accepts one only once, and an answer may have been lost.
func (l *Login) exchange(ctx context.Context) (api.TokenResponse, error) {
	var answer api.TokenResponse
	err := l.patience().do(ctx, func(ctx context.Context) (err error) {
		answer, err = l.try(ctx)
		return err
	})
	return answer, err
}

func (l *Login) patience() patience { return patience{l.Server, l.Runner, l.Now} }

// try makes one attempt.
func (l *Login) try(ctx context.Context) (api.TokenResponse, error) {
	var none api.TokenResponse
	if !l.Runner.CanRequestIDToken() { // before the network: a fork's job has no use for it
		return none, github.ErrNoIDToken
	}
	audience, endpoint, err := l.config(ctx)
	if err != nil {
		return none, err
	}
	id, err := l.Runner.IDToken(ctx, audience)
	if err != nil {
		return none, err
	}
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {id.Reveal()},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
	}
	if scope := l.asked(); scope != "" { // a scope picks one policy, should several match
		form.Set("scope", scope)
	}
	l.claims, _ = github.Claims(id) // without them a refusal is still one
	status, body, err := l.call(ctx, http.MethodPost, endpoint, form)
	if err != nil {
		return none, fmt.Errorf("exchange the ID token: %w", err)
	}
	if status != http.StatusOK {
		refused := &RefusedError{Claims: l.claims, Cache: l.Cache}
		if json.Unmarshal(body, &refused.Answer) != nil || refused.Answer.Code == "" {
			refused.Answer = api.TokenError{Code: fmt.Sprintf("status %d", status)}
		}
		return none, refused
	}
	var answer api.TokenResponse
	err = json.Unmarshal(body, &answer)
	l.Runner.Mask(answer.AccessToken)
	if err != nil || answer.AccessToken == "" || strings.ContainsAny(answer.AccessToken, " \t\r\n") || answer.ExpiresIn <= 0 || answer.ExpiresIn > 1<<31 {
		return none, errors.New("exchange the ID token: the answer holds no token with a life")
	}
	return answer, nil
}

// config asks for the audience of ID tokens and where to exchange them.
func (l *Login) config(ctx context.Context) (audience, endpoint string, err error) {
	address, err := api.URL(l.Server, api.OIDCConfigRoute)
	if err != nil {
		return "", "", err
	}
	status, body, err := l.call(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", "", fmt.Errorf("ask how to log in: %w", err)
	}
	var c api.TrustConfig
	if status != http.StatusOK || json.Unmarshal(body, &c) != nil || c.Audience == "" {
		return "", "", fmt.Errorf("this server takes no ID tokens (status %d); set the input token", status)
	}
	if audience, err = l.audience(c.Audience); err != nil {
		return "", "", err
	}
	endpoint, err = api.URL(l.Server, api.OIDCTokenRoute)
	if c.TokenEndpoint != "" && sameOrigin(c.TokenEndpoint, l.Server) {
		endpoint = c.TokenEndpoint
	}
	return audience, endpoint, err
}

// audience returns the audience to ask an ID token for. Only the server's own name will do, unless the workflow names another:
// a server that could choose freely would be handed tokens that are good at somebody else's.
func (l *Login) audience(announced string) (string, error) {
	if l.Audience != "" {
		return l.Audience, nil
	}
	a, err := url.Parse(announced)
	s, _ := url.Parse(l.Server)
	if err != nil || s == nil || !strings.EqualFold(a.Host, s.Host) {
		return "", fmt.Errorf("the server asks for an ID token for %q, which is not its own URL; if that is right, set the input audience to it", clean(announced))
	}
	return announced, nil
}

func sameOrigin(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	return errA == nil && errB == nil && ua.Scheme == ub.Scheme && strings.EqualFold(ua.Host, ub.Host) && ua.User == nil
}

// call makes one request and reads its answer. A temporary error is one to come back from.
func (l *Login) call(ctx context.Context, method, address string, form url.Values) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := *l.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // an ID token goes nowhere else
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, worthAnother(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerMax+1))
	switch {
	case err != nil:
		return 0, nil, &temporary{err: fmt.Errorf("read the answer: %w", err)}
	case len(answer) > answerMax:
		return 0, nil, fmt.Errorf("the answer is longer than %d bytes", answerMax)
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500:
		after, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return 0, nil, &temporary{fmt.Errorf("status %d", res.StatusCode), time.Duration(min(max(after, 0), 120)) * time.Second}
	}
	return res.StatusCode, answer, nil
}

// clean makes a stranger's text fit for a line of a log.
func clean(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
