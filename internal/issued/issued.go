// Package issued remembers the tokens that this server made, and takes them back.
//
//	exchange ────────────── Trade ──► issued_tokens    listed before anybody has it,
//	                                  seen_tokens      in one step with the ID token's use
//	make-token ──────────── Add ────► issued_tokens
//	token revoke ────────── Revoke ─► revoked_tokens   one number goes up
//	every request ───────── Revoked: a set in memory
//	                          │ older than a second: has the number changed?
//	                          └ yes: read the set again
//	every commit ────────── meta.Tx.CheckToken, in its own transaction
//
// The set makes a request cheap; that a revocation holds at once does not hang on
// it. This server's own revocations are in the set before they are acknowledged,
// those of another server on the same database within a second, and none of a
// revoked token's work is committed at all, for a commit asks the database.
//
// A token without jti is Attic's own and is not known here: it ends by itself, or
// with the secret that signed it.
package issued

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/token"
)

// maxAge is how old the set of revoked tokens may get without a look at the
// database.
const maxAge = time.Second

// Register lists and revokes tokens. Use it by pointer; it is safe for concurrent
// use.
type Register struct {
	DB *meta.DB

	loading sync.Mutex // held by whoever looks at the database
	known   atomic.Pointer[revoked]
}

// revoked is the set as of one moment. It is not changed.
type revoked struct {
	ids    map[string]struct{}
	number int64     // meta.Tx.Revocations
	asked  time.Time // before the database was asked
}

// Used is an ID token that is traded in.
type Used struct {
	Issuer, ID string
	Until      time.Time // when nobody would accept it any more
}

// ErrUsed says that an ID token was traded in before.
var ErrUsed = errors.New("the ID token was used before")

// Trade lists a token that is about to be signed with these claims, which have an ID,
// and notes that the ID token it is given for is used: both, or neither. A crash leaves
// no token that nobody can list, and uses up no ID token for nothing. policies are those
// that granted it.
func (g *Register) Trade(ctx context.Context, used Used, c token.Claims, policies []string) error {
	t := listed(c, policies)
	return g.DB.Update(ctx, func(tx *meta.Tx) error {
		err := tx.SeenToken(used.Issuer, used.ID, used.Until)
		if errors.Is(err, meta.ErrExists) {
			return ErrUsed
		}
		if err != nil {
			return err
		}
		return tx.IssueToken(&t)
	})
}

// listed is how the register keeps a token.
func listed(c token.Claims, policies []string) meta.IssuedToken {
	t := meta.IssuedToken{ID: c.ID, Subject: c.Subject, Policies: policies, Caches: Caches(c.Caches)}
	if c.Expires != nil {
		t.Expires = *c.Expires
	}
	if c.IssuedAt != nil {
		t.Issued = *c.IssuedAt
	}
	return t
}

// Add lists a token that was made by a command.
func (g *Register) Add(ctx context.Context, t meta.IssuedToken) error {
	return g.DB.Update(ctx, func(tx *meta.Tx) error { return tx.IssueToken(&t) })
}

// Caches writes permissions as the register keeps them: "main:pull,push".
func Caches(g token.Grants) []string {
	var list []string
	for pattern, perm := range g.All() {
		list = append(list, pattern+":"+perm.String())
	}
	return list
}

// List gives the tokens that are good, oldest first; with all, those too that were
// revoked or expired lately.
func (g *Register) List(ctx context.Context, all bool) (list []meta.IssuedToken, err error) {
	err = g.DB.View(ctx, func(tx *meta.Tx) error {
		list, err = tx.IssuedTokens(all)
		return err
	})
	return list, err
}

// Selection says which tokens to revoke: all that are named, and all listed ones
// of the policy, and all listed ones of the subject. Zero fields select none.
type Selection struct {
	IDs     []string // listed or not
	Policy  string
	Subject string
}

// ErrNothing says that a selection selects nothing at all.
var ErrNothing = errors.New("nothing says which tokens to revoke")

// Revoke takes the tokens back and returns those that were good until now. When it
// returns, no request that begins is served for them and none under way commits.
func (g *Register) Revoke(ctx context.Context, s Selection) ([]meta.IssuedToken, error) {
	if len(s.IDs) == 0 && s.Policy == "" && s.Subject == "" {
		return nil, ErrNothing
	}
	var done []meta.IssuedToken
	err := g.DB.Update(ctx, func(tx *meta.Tx) error {
		// Chosen in the transaction: a token that is issued meanwhile comes before
		// and is revoked, or after.
		ids, err := s.choose(tx)
		if err != nil {
			return err
		}
		if ids, err = tx.RevokeTokens(ids); err != nil {
			return err
		}
		for _, id := range ids {
			t, err := tx.IssuedToken(id)
			if errors.Is(err, meta.ErrNotFound) {
				t = &meta.IssuedToken{ID: id, Revoked: tx.Now()}
			} else if err != nil {
				return err
			}
			done = append(done, *t)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := g.refresh(ctx, time.Now()); err != nil {
		// The next request looks again, or is refused.
		g.known.Store(nil)
	}
	return done, nil
}

// choose lists the ids of what is selected.
func (s Selection) choose(tx *meta.Tx) ([]string, error) {
	if s.Policy == "" && s.Subject == "" {
		return s.IDs, nil
	}
	listed, err := tx.IssuedTokens(false)
	ids := slices.Clone(s.IDs)
	for _, t := range listed {
		if s.Policy != "" && slices.Contains(t.Policies, s.Policy) || s.Subject != "" && t.Subject == s.Subject {
			ids = append(ids, t.ID)
		}
	}
	return ids, err
}

// Revoked reports whether a token was revoked. An error means that nobody knows;
// the token must not be believed.
func (g *Register) Revoked(ctx context.Context, id string) (bool, error) {
	k := g.known.Load()
	if k == nil || time.Since(k.asked) >= maxAge {
		if err := g.refresh(ctx, time.Now().Add(-maxAge)); err != nil {
			return false, fmt.Errorf("look for revoked tokens: %w", err)
		}
		if k = g.known.Load(); k == nil { // forgotten by a Revoke meanwhile
			return false, errors.New("look for revoked tokens: they change just now")
		}
	}
	_, ok := k.ids[id]
	return ok, nil
}

// refresh looks at the database, unless somebody has since.
func (g *Register) refresh(ctx context.Context, since time.Time) error {
	g.loading.Lock()
	defer g.loading.Unlock()
	old := g.known.Load()
	if old != nil && old.asked.After(since) {
		return nil
	}
	fresh := &revoked{asked: time.Now()}
	// One client that goes away must not make the answer of the others an error.
	err := g.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
		if fresh.number, err = tx.Revocations(); err != nil {
			return err
		}
		if old != nil && old.number == fresh.number {
			fresh.ids = old.ids
			return nil
		}
		ids, err := tx.RevokedTokens()
		fresh.ids = make(map[string]struct{}, len(ids))
		for _, id := range ids {
			fresh.ids[id] = struct{}{}
		}
		return err
	})
	if err != nil {
		return err
	}
	g.known.Store(fresh)
	return nil
}
