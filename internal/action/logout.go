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

// Logout gives the token back that an exchange brought: a later step of the job, or whoever finds it in
// the job's leavings, can do nothing with it. A token that was given by hand stays good. Without an
// answer it ends by itself, within minutes.
func (l *Login) Logout(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tok := l.current
	l.current = ""
	address, err := api.URL(l.Server, api.OIDCRevokeRoute)
	if tok == "" || err != nil {
		return
	}
	// A run that was cancelled has a token, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutPatience)
	defer cancel()
	// Not even a warning: other servers have no such route, and nothing hangs on it.
	_, _, _ = l.call(ctx, http.MethodPost, address, url.Values{"token": {tok}})
}
