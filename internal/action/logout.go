package action

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/org/attic-action/internal/api"
)

// logoutPatience is how long a job's end waits for the server.
const logoutPatience = 5 * time.Second

// Logout gives the tokens back that exchanges brought: a later step of the job, or whoever finds one in
// the job's leavings, can do nothing with it. A token that was given by hand stays good. Without an
// answer they end by themselves, within minutes.
func (l *Login) Logout(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := append(l.former, spent{l.current, l.ends})
	l.former, l.current = nil, ""
	// A run that was cancelled has tokens, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutPatience)
	defer cancel()
	for _, h := range held {
		if h.token != "" && l.Now().Before(h.ends) {
			l.revoke(ctx, h.token)
		}
	}
}

// logoutFormer gives back what the token at hand took the place of, once nobody uses it any more.
func (l *Login) logoutFormer(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.former
	l.former = nil
	ctx, cancel := context.WithTimeout(ctx, logoutPatience)
	defer cancel()
	for _, h := range held {
		if l.Now().Before(h.ends) {
			l.revoke(ctx, h.token)
		}
	}
}

// revoke gives one token back.
func (l *Login) revoke(ctx context.Context, token string) {
	if address, err := api.URL(l.Server, api.OIDCRevokeRoute); err == nil {
		// Not even a warning: other servers have no such route, and nothing hangs on it.
		_, _, _ = l.call(ctx, http.MethodPost, address, url.Values{"token": {token}})
	}
}
