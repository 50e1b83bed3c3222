package meta

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func issue(t *testing.T, db *DB, id, sub string, expires time.Time) {
	t.Helper()
	update(t, db, func(tx *Tx) error {
		return tx.IssueToken(&IssuedToken{ID: id, Subject: sub, Policies: []string{"infra"}, Caches: []string{"main:pull,push"}, Expires: expires})
	})
}

func listed(t *testing.T, db *DB, all bool) (ids []string) {
	t.Helper()
	view(t, db, func(tx *Tx) error {
		list, err := tx.IssuedTokens(all)
		for _, tok := range list {
			ids = append(ids, tok.ID)
		}
		return err
	})
	return ids
}

func TestIssuedTokensAreListedUntilTheyEnd(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	j := &journal{}
	db := open(t, Options{Journal: j, Now: func() time.Time { return now }})
	issue(t, db, "a", "alice\nmallory", now.Add(time.Hour))
	issue(t, db, "b", "bob", time.Time{})
	view(t, db, func(tx *Tx) error {
		list, err := tx.IssuedTokens(false)
		if len(list) != 2 || list[0].Subject != "alice\nmallory" || !list[0].Expires.Equal(now.Add(time.Hour)) ||
			!slices.Equal(list[0].Policies, []string{"infra"}) || !slices.Equal(list[0].Caches, []string{"main:pull,push"}) || !list[1].Expires.IsZero() {
			t.Errorf("got %+v", list)
		}
		return err
	})
	if err := db.Update(t.Context(), func(tx *Tx) error { return tx.IssueToken(&IssuedToken{ID: "a"}) }); !errors.Is(err, ErrExists) {
		t.Errorf("a jti for the second time: got %v, want ErrExists", err)
	}
	now = now.Add(time.Hour)
	if got := listed(t, db, false); !slices.Equal(got, []string{"b"}) {
		t.Errorf("after a's end: %v", got)
	}
	if got := listed(t, db, true); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("all, after a's end: %v", got)
	}
	now = now.Add(keepExpired)
	issue(t, db, "c", "carol", now.Add(time.Minute))
	if got := listed(t, db, true); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("a day later: %v", got)
	}
	if recs := j.all(); len(recs) != 3 || recs[0].TokenIssued == nil || recs[0].TokenIssued.ID != "a" || recs[0].TokenIssued.Subject != "alice\nmallory" {
		t.Errorf("records: %+v", recs)
	}
}

func TestRevokedTokensAreKnownUntilTheyEnd(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	j := &journal{}
	db := open(t, Options{Journal: j, Now: func() time.Time { return now }})
	issue(t, db, "a", "alice", now.Add(time.Hour))
	issue(t, db, "b", "bob", now.Add(time.Hour))
	var before, after int64
	revoke := func(ids ...string) (done []string) {
		update(t, db, func(tx *Tx) (err error) { done, err = tx.RevokeTokens(ids); return err })
		return done
	}
	check := func(id string) (err error) {
		view(t, db, func(tx *Tx) error { err = tx.CheckToken(id); return nil })
		return err
	}
	number := func(n *int64) {
		view(t, db, func(tx *Tx) (err error) { *n, err = tx.Revocations(); return err })
	}
	number(&before)
	if got := revoke("a", "unlisted", "a"); !slices.Equal(got, []string{"a", "unlisted"}) {
		t.Errorf("revoked %v", got)
	}
	number(&after)
	if after == before {
		t.Error("the number of revocations did not change")
	}
	if got := revoke("a"); got != nil {
		t.Errorf("revoked once more: %v", got)
	}
	for id, want := range map[string]error{"a": ErrRevoked, "unlisted": ErrRevoked, "b": nil} {
		if got := check(id); !errors.Is(got, want) {
			t.Errorf("%s: got %v, want %v", id, got, want)
		}
	}
	if got := listed(t, db, false); !slices.Equal(got, []string{"b"}) {
		t.Errorf("good: %v", got)
	}
	if got := listed(t, db, true); !slices.Equal(got, []string{"a", "b", "unlisted"}) {
		t.Errorf("all: %v", got)
	}
	now = now.Add(2*time.Hour + time.Second)
	revoke("later")
	view(t, db, func(tx *Tx) error {
		ids, err := tx.RevokedTokens()
		slices.Sort(ids)
		if !slices.Equal(ids, []string{"later", "unlisted"}) {
			t.Errorf("after a's end: %v", ids)
		}
		return err
	})
	var revoked []string
	for _, r := range j.all() {
		if r.TokenRevoked != nil {
			revoked = append(revoked, r.TokenRevoked.ID)
		}
	}
	if !slices.Equal(revoked, []string{"a", "unlisted", "later"}) {
		t.Errorf("records of %v", revoked)
	}
}

func TestTokenIDsAreOneWord(t *testing.T) {
	db := open(t, Options{})
	for _, id := range []string{"", "a b", "a\nb", "ü", string(make([]byte, maxTokenID+1))} {
		if err := db.Update(t.Context(), func(tx *Tx) error { return tx.IssueToken(&IssuedToken{ID: id}) }); err == nil {
			t.Errorf("token %q was listed", id)
		}
		if err := db.Update(t.Context(), func(tx *Tx) error { _, err := tx.RevokeTokens([]string{id}); return err }); err == nil {
			t.Errorf("token %q was revoked", id)
		}
	}
}
