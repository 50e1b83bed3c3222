package exchange_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/oidc"
)

// The attack: an ID token is read in a job's log after the job has traded it in. Which
// ones were traded in is in the database alone; so after a recovery from the bucket
// the token would be good once more.
func TestIDTokenFromBeforeARecoveryIsRefused(t *testing.T) {
	w := newWorld(t, infra())
	stolen := w.issuer.Token(audience)
	granted(t, w, w.post(form(stolen)))

	w.clock = w.clock.Add(time.Minute)
	w.Since, w.seen = w.clock, map[string]time.Time{} // the server comes back from its bucket
	e := refused(t, w.post(form(stolen)), http.StatusBadRequest, "invalid_grant")
	if strings.Contains(e.Description, "rebuilt") || !strings.Contains(w.log.String(), "the database was rebuilt at") {
		t.Errorf("the caller is told %q, the log %s", e.Description, w.log)
	}
	// The issuer's clock may be ahead of ours by the leeway: what it stamps now may
	// have been used as well.
	w.clock = w.clock.Add(oidc.Leeway)
	refused(t, w.post(form(w.issuer.Token(audience))), http.StatusBadRequest, "invalid_grant")
	w.clock = w.clock.Add(time.Second)
	granted(t, w, w.post(form(w.issuer.Token(audience))))
}
