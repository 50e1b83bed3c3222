package issued_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/issued"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/token"
)

func open(t *testing.T, file string) *issued.Register {
	t.Helper()
	db, err := meta.Open(t.Context(), file, meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &issued.Register{DB: db}
}

func issue(t *testing.T, g *issued.Register, id, sub string, policies ...string) {
	t.Helper()
	now := time.Now()
	exp := now.Add(time.Hour)
	c := token.Claims{ID: id, Subject: sub, IssuedAt: &now, Expires: &exp}
	if err := c.Caches.Add("main", token.Pull|token.Push); err != nil {
		t.Fatal(err)
	}
	if err := g.Trade(t.Context(), issued.Used{Issuer: "https://issuer", ID: "of " + id, Until: exp}, c, policies); err != nil {
		t.Fatal(err)
	}
}

func ids(list []meta.IssuedToken) (ids []string) {
	for _, t := range list {
		ids = append(ids, t.ID)
	}
	slices.Sort(ids)
	return ids
}

func isRevoked(t *testing.T, g *issued.Register, id string) bool {
	t.Helper()
	r, err := g.Revoked(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRevokeSelects(t *testing.T) {
	for _, tt := range []struct {
		name string
		sel  issued.Selection
		want []string
	}{
		{"by id", issued.Selection{IDs: []string{"a", "not-listed"}}, []string{"a", "not-listed"}},
		{"by policy", issued.Selection{Policy: "infra"}, []string{"a", "b"}},
		{"by a policy whose name is part of another's", issued.Selection{Policy: "inf"}, nil},
		{"by subject", issued.Selection{Subject: "alice"}, []string{"a", "d"}},
		{"by the empty subject's neighbour", issued.Selection{Subject: "Alice"}, nil},
		{"by two things", issued.Selection{IDs: []string{"c"}, Subject: "alice"}, []string{"a", "c", "d"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := open(t, ":memory:")
			issue(t, g, "a", "alice", "infra")
			issue(t, g, "b", "bob", "app", "infra")
			issue(t, g, "c", "", "infra-2")
			issue(t, g, "d", "alice")
			done, err := g.Revoke(t.Context(), tt.sel)
			if err != nil || !slices.Equal(ids(done), tt.want) {
				t.Errorf("revoked %v, %v, want %v", ids(done), err, tt.want)
			}
			for _, id := range []string{"a", "b", "c", "d", "not-listed"} {
				if got, want := isRevoked(t, g, id), slices.Contains(tt.want, id); got != want {
					t.Errorf("%s: revoked %v, want %v", id, got, want)
				}
			}
		})
	}
}

// Without this, revoke --sub "$UNSET" would take back every token without one.
func TestRevokeNeedsASelection(t *testing.T) {
	g := open(t, ":memory:")
	issue(t, g, "a", "")
	if _, err := g.Revoke(t.Context(), issued.Selection{}); !errors.Is(err, issued.ErrNothing) {
		t.Errorf("got %v, want ErrNothing", err)
	}
	if isRevoked(t, g, "a") {
		t.Error("the token was revoked")
	}
}

func TestRevocationHoldsOnReturn(t *testing.T) {
	g := open(t, ":memory:")
	for i := range 20 {
		id := fmt.Sprint("t", i)
		issue(t, g, id, "s")
		if isRevoked(t, g, id) { // and the set in memory is fresh
			t.Fatal("revoked too early")
		}
		if _, err := g.Revoke(t.Context(), issued.Selection{IDs: []string{id}}); err != nil {
			t.Fatal(err)
		}
		if !isRevoked(t, g, id) {
			t.Fatalf("%s is good after its revocation", id)
		}
	}
}

// Two servers on one database: what one revokes, the other learns by itself.
func TestRevocationReachesAnotherServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meta.db")
	one, two := open(t, file), open(t, file)
	issue(t, one, "a", "s")
	if isRevoked(t, two, "a") {
		t.Fatal("revoked too early")
	}
	if _, err := one.Revoke(t.Context(), issued.Selection{IDs: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	for !isRevoked(t, two, "a") { // the test's own time limit ends this
		time.Sleep(10 * time.Millisecond)
	}
}

// A database that does not answer must not make revoked tokens good again.
func TestUnknownIsAnError(t *testing.T) {
	g := open(t, ":memory:")
	g.DB.Close()
	if _, err := g.Revoked(t.Context(), "a"); err == nil {
		t.Error("got no error from a closed database")
	}
}

func TestRegisterIsSafeForConcurrentUse(t *testing.T) {
	g := open(t, ":memory:")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := fmt.Sprint("t", i)
			issue(t, g, id, "s")
			for range 50 {
				isRevoked(t, g, id)
			}
			if _, err := g.Revoke(t.Context(), issued.Selection{IDs: []string{id}}); err != nil {
				t.Error(err)
			}
			if !isRevoked(t, g, id) {
				t.Errorf("%s is good after its revocation", id)
			}
		})
	}
	wg.Wait()
}

// The attack: one ID token for two access tokens, the second after a crash or at another server; and its
// mirror, an ID token that is used up while nobody has anything for it.
func TestTradeIsOneStep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	g := open(t, file)
	until := time.Now().Add(time.Hour)
	trade := func(g *issued.Register, idToken, jti string) error {
		c := token.Claims{ID: jti, Subject: "s", Expires: &until}
		return g.Trade(t.Context(), issued.Used{Issuer: "i", ID: idToken, Until: until}, c, []string{"p"})
	}
	if err := trade(g, "one", "first"); err != nil {
		t.Fatal(err)
	}
	// What cannot be listed uses nothing up: the jti is taken, then one that is none.
	for _, jti := range []string{"first", "not an id"} {
		if err := trade(g, "two", jti); err == nil || errors.Is(err, issued.ErrUsed) {
			t.Errorf("token %q was listed: %v", jti, err)
		}
	}
	// What is used lists nothing, here and at another server.
	other := open(t, file)
	for _, g := range []*issued.Register{g, other} {
		if err := trade(g, "one", "second"); !errors.Is(err, issued.ErrUsed) {
			t.Errorf("got %v, want ErrUsed", err)
		}
	}
	if err := trade(other, "two", "third"); err != nil {
		t.Errorf("the ID token was used up by what failed: %v", err)
	}
	list, err := g.List(t.Context(), true)
	if want := []string{"first", "third"}; err != nil || !slices.Equal(ids(list), want) {
		t.Errorf("listed %v, want %v (%v)", ids(list), want, err)
	}
}
