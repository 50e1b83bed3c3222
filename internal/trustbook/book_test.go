package trustbook_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/trust"
	"github.com/org/attic-action/internal/trustbook"
)

func policy(name string, id int64) trust.Policy {
	return trust.Policy{Name: name, RepositoryID: id, Ref: "refs/heads/main", Caches: []string{"system"}, Grant: []string{"pull", "push"}}
}

func claims(id string) map[string]any {
	return map[string]any{"repository_id": id, "ref": "refs/heads/main", "event_name": "push", "runner_environment": "github-hosted"}
}

func book(t *testing.T, file ...trust.Policy) *trustbook.Book {
	t.Helper()
	db, err := meta.Open(t.Context(), ":memory:", meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &trustbook.Book{DB: db, File: file, Listed: func(issuer string) bool { return issuer == "" || issuer == trust.GitHub }}
}

// grants is who grants something to a repository now.
func grants(t *testing.T, b *trustbook.Book, id string) string {
	t.Helper()
	set, err := b.Set(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, _ := set.Match(trust.GitHub, claims(id))
	var names []string
	for _, g := range list {
		names = append(names, g.Policy)
	}
	return strings.Join(names, " ")
}

func TestPoliciesHoldAndEndAtOnce(t *testing.T) {
	b := book(t, policy("file", 1))
	if got := grants(t, b, "1") + "," + grants(t, b, "2"); got != "file," {
		t.Fatalf("got %q at the start", got)
	}
	if err := b.Add(t.Context(), policy("added", 2), "ops", false); err != nil {
		t.Fatal(err)
	}
	if got := grants(t, b, "2"); got != "added" {
		t.Errorf("after add: got %q", got)
	}
	if err := b.Add(t.Context(), policy("added", 3), "ops", true); err != nil {
		t.Fatal(err)
	}
	if got := grants(t, b, "2") + "," + grants(t, b, "3"); got != ",added" {
		t.Errorf("after replace: got %q", got)
	}
	if err := b.Remove(t.Context(), "added"); err != nil {
		t.Fatal(err)
	}
	if got := grants(t, b, "3") + "," + grants(t, b, "1"); got != ",file" {
		t.Errorf("after remove: got %q", got)
	}
}

// Another replica, or another process, has a book of its own on the same database.
func TestPoliciesOfAnotherBookHoldAtOnce(t *testing.T) {
	b := book(t)
	other := &trustbook.Book{DB: b.DB}
	if got := grants(t, other, "2"); got != "" {
		t.Fatalf("got %q at the start", got)
	}
	if err := b.Add(t.Context(), policy("added", 2), "", false); err != nil {
		t.Fatal(err)
	}
	if got := grants(t, other, "2"); got != "added" {
		t.Errorf("got %q", got)
	}
}

func TestAddRefuses(t *testing.T) {
	b := book(t, policy("file", 1))
	if err := b.Add(t.Context(), policy("infra", 2), "", false); err != nil {
		t.Fatal(err)
	}
	foreign := policy("foreign", 2)
	foreign.Issuer = "https://evil.example"
	wide := policy("wide", 0)
	wide.RepositoryOwnerID = 7
	for name, tt := range map[string]struct {
		policy  trust.Policy
		replace bool
		want    string
		is      error
	}{
		"name of the database":               {policy("infra", 3), false, "infra", trustbook.ErrExists},
		"name of the file":                   {policy("file", 3), false, "server.toml", trustbook.ErrExists},
		"name of the file, to replace":       {policy("file", 3), true, "server.toml", trustbook.ErrExists},
		"issuer that is not listed":          {foreign, false, "[[oidc.issuer]]", nil},
		"wider than it looks":                {wide, false, trust.AllowOwnerWidePush, nil},
		"without an id":                      {policy("x", 0), false, "required", nil},
		"name that is none":                  {policy("a b", 1), false, "name", nil},
		"wider than it looks, as a replacer": {func() trust.Policy { p := wide; p.Name = "infra"; return p }(), true, trust.AllowOwnerWidePush, nil},
	} {
		err := b.Add(t.Context(), tt.policy, "", tt.replace)
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if err := b.Remove(t.Context(), "file"); !errors.Is(err, trustbook.ErrNotFound) || !strings.Contains(err.Error(), "server.toml") {
		t.Errorf("remove one of the file: got %v", err)
	}
	if err := b.Remove(t.Context(), "nobody"); !errors.Is(err, trustbook.ErrNotFound) {
		t.Errorf("remove none: got %v", err)
	}
	if got := grants(t, b, "2"); got != "infra" {
		t.Errorf("the policy that was there grants %q", got)
	}
}

// The file, or the program, may have changed since a policy was added. Such a policy
// grants nothing, and takes nobody else's grant away.
func TestPolicyThatCannotHoldGrantsNothing(t *testing.T) {
	b := book(t, policy("file", 1))
	text := func(p trust.Policy) json.RawMessage {
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	foreign := policy("foreign", 2)
	foreign.Issuer = "https://gone.example"
	wide := policy("wide", 0)
	wide.RepositoryOwnerID = 2
	for name, row := range map[string]json.RawMessage{
		"file": text(policy("file", 2)), "foreign": text(foreign), "wide": text(wide), "renamed": text(policy("other", 2)),
		// A newer program narrowed it by a key that this one does not know.
		"newer": json.RawMessage(strings.Replace(string(text(policy("newer", 2))), "{", `{"only-on-sundays":true,`, 1)),
		"list":  json.RawMessage(`[]`), "good": text(policy("good", 2)),
	} {
		err := b.DB.Update(t.Context(), func(tx *meta.Tx) error { return tx.AddPolicy(&meta.Policy{Name: name, Policy: row}) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := grants(t, b, "2") + "," + grants(t, b, "1"); got != "good,file" {
		t.Errorf("got %q, want good,file", got)
	}
	list, err := b.List(t.Context())
	if err != nil || len(list) != 8 {
		t.Fatalf("got %d entries, %v, want 8", len(list), err)
	}
	for _, e := range list {
		if holds := e.From == trustbook.FromFile || e.Policy.Name == "good"; holds != (e.Problem == "") {
			t.Errorf("%s from %s: problem %q", e.Policy.Name, e.From, e.Problem)
		}
	}
}
