package action

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/github"
)

// loginPatience is how long a server may be asleep, being deployed, or busy.
const loginPatience = 90 * time.Second

// patience waits for a server, and says so in one line.
type patience struct {
	server string
	runner *github.Runner
	now    func() time.Time
}

// do tries until there is no error, or one that another attempt would have too, or the time is up.
func (p patience) do(ctx context.Context, try func(ctx context.Context) error) error {
	deadline := p.now().Add(loginPatience)
	for attempt := 0; ; attempt++ {
		err := try(ctx)
		var again *temporary
		if err == nil || !errors.As(err, &again) {
			return err
		}
		wait := max(again.after, 500*time.Millisecond<<min(attempt, 3)) // up to 4 s
		wait += rand.N(wait/2 + 1)                                      // the jobs of a matrix come back apart
		if p.now().Add(wait).After(deadline) {
			return err
		}
		if attempt == 0 {
			p.runner.Printf("%s does not answer (%v); it may be asleep or being deployed, so trying for %s\n", p.server, err, loginPatience)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// temporary is a failure that another attempt may not have.
type temporary struct {
	err   error
	after time.Duration
}

func (t *temporary) Error() string { return t.err.Error() }
func (t *temporary) Unwrap() error { return t.err }

// worthAnother marks a failed connection as temporary, unless it is a name that nobody has or a certificate that
// nobody should accept.
func worthAnother(err error) error {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &certificate) {
		return err
	}
	return &temporary{err: err}
}

// worthAsking is worthAnother for what a client.Client returns.
func worthAsking(err error) error {
	var network net.Error
	status := client.Status(err)
	if status == 429 || status >= 500 && status != 501 && status != 505 && status != 507 {
		return &temporary{err: err}
	}
	if status == 0 && errors.As(err, &network) && !errors.Is(err, client.ErrToken) {
		return worthAnother(err)
	}
	return err
}
