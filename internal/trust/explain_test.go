package trust_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/trust"
)

func TestExplainTellsEveryRule(t *testing.T) {
	s := compile(t, infra())
	bad := with(map[string]any{"ref": "refs/heads/dev", "environment": nil, "event_name": "evil\nline"})
	r := s.Explain(trust.GitHub, bad)
	if len(r) != 1 || r[0].Matched || r[0].Policy != "infra" {
		t.Fatalf("got %+v", r)
	}
	got := map[string]trust.RuleReport{}
	for _, rule := range r[0].Rules {
		got[rule.Key] = rule
		if strings.ContainsAny(rule.Got+rule.Want, "\n\x1b") {
			t.Errorf("rule %+v holds a line break", rule)
		}
	}
	for key, ok := range map[string]bool{"issuer": true, "repository-id": true, "repository": true, "events": false, "ref": false, "environment": false} {
		if rule, there := got[key]; !there || rule.OK != ok {
			t.Errorf("rule %s: got %+v, want OK %v", key, rule, ok)
		}
	}
	if rule := got["ref"]; rule.Claim != "ref" || rule.Got != `"refs/heads/dev"` || rule.Want != `wants "refs/heads/main"` {
		t.Errorf("got %+v", rule)
	}
	if got["environment"].Got != "absent" {
		t.Errorf("got %+v, want absent", got["environment"])
	}
}

func TestExplainAndMatchAgree(t *testing.T) {
	s := compile(t, infra())
	for _, c := range []map[string]any{claims(), with(map[string]any{"ref": "x"}), with(map[string]any{"repository_id": nil}), {}, nil} {
		grants, _ := s.Match(trust.GitHub, c)
		if r := s.Explain(trust.GitHub, c); r[0].Matched != (len(grants) == 1) {
			t.Errorf("%v: Explain says %v, Match %d grants", c, r[0].Matched, len(grants))
		}
	}
	if s.Explain("https://other.example", claims())[0].Matched {
		t.Error("another issuer matches")
	}
	if got := (*trust.Set)(nil).Explain(trust.GitHub, claims()); got != nil {
		t.Errorf("a nil set: got %v", got)
	}
}

// A renamed repository and a name that somebody else took look alike by name, and are
// told apart by id.
func TestExplainTellsWhenNamesAndIDsPart(t *testing.T) {
	p := infra()
	p.RepositoryOwnerID, p.RepositoryOwner = 987654, "acme"
	s := compile(t, p)
	for name, tt := range map[string]struct {
		changes map[string]any
		want    []string
	}{
		"nothing changed":    {nil, nil},
		"renamed":            {map[string]any{"repository": "acme/new"}, []string{"renamed"}},
		"recycled":           {map[string]any{"repository_id": "5"}, []string{"somebody else"}},
		"transferred":        {map[string]any{"repository": "corp/infra", "repository_owner": "corp", "repository_owner_id": "11"}, []string{"renamed"}},
		"owner renamed":      {map[string]any{"repository": "new/infra", "repository_owner": "new"}, []string{"renamed", "renamed"}},
		"another repository": {map[string]any{"repository": "x/y", "repository_id": "5"}, nil},
	} {
		notes := s.Explain(trust.GitHub, with(tt.changes))[0].Notes
		if len(notes) != len(tt.want) {
			t.Errorf("%s: got %q, want %d notes", name, notes, len(tt.want))
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(notes[i], want) {
				t.Errorf("%s: got %q, want %q", name, notes[i], want)
			}
		}
	}
}

func TestKeysAreThoseOfThePolicy(t *testing.T) {
	keys := trust.Keys()
	for _, want := range []string{"name", "issuer", "repository-id", "allow", "ttl"} {
		if !slices.Contains(keys, want) {
			t.Errorf("no key %s in %v", want, keys)
		}
	}
	text := infra().TOML()
	for _, want := range []string{"[[trust]]\nname = \"infra\"\n", "repository-id = 123456789\n", `events = ["push", "workflow_dispatch", "schedule"]`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "ref-glob") {
		t.Errorf("a key that is not given is in\n%s", text)
	}
}
