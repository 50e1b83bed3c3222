package oidc

import (
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	fetchTimeout = 10 * time.Second // for discovery and key set together
	// cooldown lies between two fetches while there are keys: a flood of tokens with
	// made-up kids costs the issuer one request a minute.
	cooldown = time.Minute
	// retryAfter lies between two fetches while there are none.
	retryAfter = 10 * time.Second
	freshFor   = time.Hour      // how long keys are used without asking again
	staleFor   = 12 * time.Hour // how long they are used when asking fails
)

// keySource finds an issuer's key. An error is ErrUnavailable when nothing is known.
type keySource interface {
	key(ctx context.Context, name keyName) (crypto.PublicKey, error)
}

type fileKeys struct{ set keySet }

func (f fileKeys) key(_ context.Context, name keyName) (crypto.PublicKey, error) {
	if k := f.set[name]; k != nil {
		return k, nil
	}
	return nil, unknownKey(name)
}

func unknownKey(name keyName) error {
	return fmt.Errorf("kid %s is no %s key of the issuer", quote(name.kid), name.alg)
}

// remoteKeys are the keys of an issuer on the network. Each issuer has its own, so that
// a slow one holds up nobody else's tokens; nor its own tokens whose key is known.
type remoteKeys struct {
	issuer string
	base   *url.URL
	client *http.Client
	now    func() time.Time
	log    *slog.Logger

	// fetching holds one element while a fetch is under way: one at a time.
	fetching chan struct{}

	mu      sync.Mutex
	keys    keySet
	fetched time.Time // when keys arrived
	tried   time.Time // when the last fetch ended, well or not
}

func newRemoteKeys(is Issuer, base *url.URL, rt http.RoundTripper, now func() time.Time, log *slog.Logger) *remoteKeys {
	return &remoteKeys{
		issuer: is.URL, base: base, client: newClient(rt, is.AllowInsecure),
		now: now, log: log, fetching: make(chan struct{}, 1),
	}
}

func (r *remoteKeys) key(ctx context.Context, name keyName) (crypto.PublicKey, error) {
	known, age, _ := r.look(name)
	if known != nil && age <= freshFor {
		return known, nil
	}
	if known != nil {
		// Due for renewal. Whoever comes first does it, the others need not wait.
		select {
		case r.fetching <- struct{}{}:
		default:
			return known, nil
		}
	} else {
		select {
		case r.fetching <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
	defer func() { <-r.fetching }()
	r.refreshIfDue(ctx)
	switch known, _, usable := r.look(name); {
	case known != nil:
		return known, nil
	case !usable:
		return nil, fmt.Errorf("%w: none could be fetched from %s", ErrUnavailable, r.issuer)
	}
	return nil, unknownKey(name)
}

// look returns the key if it is cached, the cache's age, and whether there is one that
// is still to be used.
func (r *remoteKeys) look(name keyName) (key crypto.PublicKey, age time.Duration, usable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	age = r.now().Sub(r.fetched)
	if r.keys == nil || age > staleFor {
		return nil, age, false
	}
	return r.keys[name], age, true
}

// refreshIfDue fetches unless that was tried a moment ago. The caller holds fetching.
func (r *remoteKeys) refreshIfDue(ctx context.Context) {
	r.mu.Lock()
	now := r.now()
	wait := retryAfter
	if r.keys != nil && now.Sub(r.fetched) <= staleFor {
		wait = cooldown
	}
	due := r.tried.IsZero() || now.Sub(r.tried) >= wait
	r.mu.Unlock()
	if !due {
		return
	}
	// Not cancelled with the request: otherwise a client that sends an unknown kid and
	// hangs up would use up the minute's fetch, and a new key would never arrive.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	keys, err := r.fetch(ctx)
	if err != nil {
		r.log.Warn("fetch of issuer keys", "issuer", r.issuer, "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried = r.now()
	if err == nil {
		r.keys, r.fetched = keys, r.tried // replaced, not added to: a key taken back is gone
	}
}
