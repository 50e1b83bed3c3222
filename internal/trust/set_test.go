package trust_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

// infra is the policy of the design's example.
func infra() trust.Policy {
	return trust.Policy{
		Name: "infra", RepositoryID: 123456789, Repository: "acme/infra", Ref: "refs/heads/main",
		Events: []string{"push", "workflow_dispatch", "schedule"}, Environment: "production",
		Caches: []string{"system"}, Grant: []string{"pull", "push"}, Pins: []string{"acme/infra/*"}, TTL: "15m",
	}
}

// claims are those of a token that infra admits.
func claims() map[string]any {
	return map[string]any{
		"iss": trust.GitHub, "sub": "repo:acme/infra:environment:production", "aud": "https://cache.example.com",
		"repository": "acme/infra", "repository_id": "123456789", "repository_owner": "acme", "repository_owner_id": "987654",
		"ref": "refs/heads/main", "ref_protected": "true", "event_name": "push", "environment": "production",
		"job_workflow_ref":   "acme/infra/.github/workflows/deploy.yml@refs/heads/main",
		"runner_environment": "github-hosted", "exp": json.Number("1700000300"),
	}
}

func with(changes map[string]any) map[string]any {
	c := claims()
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func compile(t *testing.T, policies ...trust.Policy) *trust.Set {
	t.Helper()
	s, err := trust.Compile(policies)
	if err != nil {
		t.Fatalf("Compile: %v", err)
	}
	return s
}

func TestPolicyOfTheDesignGrantsWhatItSays(t *testing.T) {
	grants, why := compile(t, infra()).Match(trust.GitHub, claims())
	if len(grants) != 1 {
		t.Fatalf("got %d grants, want 1; %+v", len(grants), why)
	}
	g := grants[0]
	if g.Policy != "infra" || strings.Join(g.Caches, " ") != "system" || g.Perm != token.Pull|token.Push ||
		strings.Join(g.Pins, " ") != "acme/infra/*" || g.TTL != 15*time.Minute {
		t.Errorf("got grant %+v", g)
	}
	if len(why) != 1 || !why[0].Matched || why[0].Reason != "" {
		t.Errorf("got explanation %+v, want one that matched", why)
	}
}

// Each row is an attack or an accident that a policy must not let through, as a change
// of the one token that it admits.
func TestMatchRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes map[string]any
		reason  string
	}{
		{"another repository", map[string]any{"repository_id": "5", "repository": "evil/infra"}, "repository_id"},
		{"recycled name: same repository, other id", map[string]any{"repository_id": "123456790"}, "repository_id"},
		{"renamed repository: same id, other name", map[string]any{"repository": "acme/infra-old"}, "repository"},
		{"id with leading zeros", map[string]any{"repository_id": "0123456789"}, "repository_id"},
		{"id with a sign", map[string]any{"repository_id": "+123456789"}, "repository_id"},
		{"id with a space", map[string]any{"repository_id": "123456789 "}, "repository_id"},
		{"id with a fraction", map[string]any{"repository_id": "123456789.0"}, "repository_id"},
		{"id in other digits (Arabic-Indic)", map[string]any{"repository_id": "١٢٣٤٥٦٧٨٩"}, "repository_id"},
		{"id as a JSON number", map[string]any{"repository_id": json.Number("123456789")}, "number"},
		{"id as a float", map[string]any{"repository_id": float64(123456789)}, "number"},
		{"id in a list", map[string]any{"repository_id": []any{"123456789"}}, "list"},
		{"id is null", map[string]any{"repository_id": nil, "repository": "acme/infra"}, "absent"},
		{"id member in another case", map[string]any{"repository_id": nil, "Repository_Id": "123456789"}, "absent"},
		{"repository in another case", map[string]any{"repository": "Acme/Infra"}, "repository"},
		{"repository with a Cyrillic look-alike", map[string]any{"repository": "аcme/infra"}, `\u0430`},
		{"repository prefix", map[string]any{"repository": "acme/infra-evil"}, "repository"},
		{"another branch", map[string]any{"ref": "refs/heads/dev"}, "ref"},
		{"tag of the same name", map[string]any{"ref": "refs/tags/main"}, "ref"},
		{"branch below", map[string]any{"ref": "refs/heads/main/x"}, "ref"},
		{"branch with a line break", map[string]any{"ref": "refs/heads/main\n"}, "ref"},
		{"empty ref of a deployment", map[string]any{"ref": ""}, "ref"},
		{"pull request", map[string]any{"event_name": "pull_request", "ref": "refs/pull/7/merge"}, "event_name"},
		{"pull request from a fork", map[string]any{"event_name": "pull_request", "head_ref": "evil", "repository_id": "123456789"}, "event_name"},
		{"pull_request_target in the base repository", map[string]any{"event_name": "pull_request_target"}, "event_name"},
		{"workflow_run in the base repository", map[string]any{"event_name": "workflow_run"}, "event_name"},
		{"issue_comment in the base repository", map[string]any{"event_name": "issue_comment"}, "event_name"},
		{"event in another case", map[string]any{"event_name": "Push"}, "event_name"},
		{"no environment", map[string]any{"environment": nil}, "absent"},
		{"another environment", map[string]any{"environment": "production2"}, "environment"},
		{"sub that looks right with claims that do not", map[string]any{"sub": "repo:acme/infra:ref:refs/heads/main", "repository_id": "6"}, "repository_id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			grants, why := compile(t, infra()).Match(trust.GitHub, with(tt.changes))
			if len(grants) != 0 {
				t.Fatalf("granted %+v", grants)
			}
			if len(why) != 1 || why[0].Matched || !strings.Contains(why[0].Reason, tt.reason) {
				t.Errorf("got explanation %+v, want one that names %q", why, tt.reason)
			}
			if strings.ContainsAny(why[0].Reason, "\n\r") {
				t.Errorf("reason %q holds a line break", why[0].Reason)
			}
		})
	}
}

func TestMatchRefusesTheSameClaimsOfAnotherIssuer(t *testing.T) {
	// Whoever runs another listed issuer can write any claim into its tokens.
	for _, issuer := range []string{"https://gitlab.example.com", trust.GitHub + "/acme", trust.GitHub + "/", "", strings.ToUpper(trust.GitHub)} {
		if grants, why := compile(t, infra()).Match(issuer, claims()); len(grants) != 0 || !strings.Contains(why[0].Reason, "iss") {
			t.Errorf("issuer %q: got grants %v, %+v", issuer, grants, why)
		}
	}
}

func TestEventsDefaultAdmitsNoPullRequest(t *testing.T) {
	p := infra()
	p.Events = nil
	s := compile(t, p)
	for event, want := range map[string]int{
		"push": 1, "workflow_dispatch": 1, "schedule": 1,
		"pull_request": 0, "pull_request_target": 0, "workflow_run": 0, "issue_comment": 0, "release": 0, "merge_group": 0, "": 0,
	} {
		if grants, _ := s.Match(trust.GitHub, with(map[string]any{"event_name": event})); len(grants) != want {
			t.Errorf("event %q: got %d grants, want %d", event, len(grants), want)
		}
	}
	p.Events, p.Allow = []string{"pull_request"}, []string{trust.AllowPullRequestPush}
	if grants, _ := compile(t, p).Match(trust.GitHub, with(map[string]any{"event_name": "pull_request"})); len(grants) != 1 {
		t.Error("a listed event is not admitted")
	}
}

func TestOptionalRulesMustAllHold(t *testing.T) {
	p := infra()
	p.RepositoryOwnerID, p.RefProtected, p.RunnerEnvironment = 987654, true, "github-hosted"
	p.JobWorkflowRef = "acme/infra/.github/workflows/deploy.yml@refs/heads/main"
	s := compile(t, p)
	if grants, why := s.Match(trust.GitHub, claims()); len(grants) != 1 {
		t.Fatalf("good token refused: %+v", why)
	}
	for claim, value := range map[string]any{
		"repository_owner_id": "987655", "ref_protected": "false", "runner_environment": "self-hosted",
		"job_workflow_ref": "acme/infra/.github/workflows/evil.yml@refs/heads/main",
	} {
		if grants, why := s.Match(trust.GitHub, with(map[string]any{claim: value})); len(grants) != 0 || !strings.Contains(why[0].Reason, claim) {
			t.Errorf("%s = %v: got grants %v, %+v", claim, value, grants, why)
		}
		if grants, _ := s.Match(trust.GitHub, with(map[string]any{claim: nil})); len(grants) != 0 {
			t.Errorf("without %s: granted", claim)
		}
	}
	// GitHub writes booleans as strings; a real one is somebody else's.
	if grants, _ := s.Match(trust.GitHub, with(map[string]any{"ref_protected": true})); len(grants) != 0 {
		t.Error("ref_protected as a JSON boolean was accepted")
	}
}

// An environment that only begins or ends like the pattern's, or reaches over a '/', is another one.
func TestEnvironmentGlobIsAnchored(t *testing.T) {
	p := infra()
	p.Environment, p.EnvironmentGlob = "", "prod-*" // beside the ref
	set := compile(t, p)
	for environment, want := range map[string]int{
		"prod-eu": 1, "prod-": 1, "prod": 0, "xprod-eu": 0, "prod-eu/x": 0, "Prod-eu": 0, "staging": 0,
	} {
		grants, why := set.Match(trust.GitHub, with(map[string]any{"environment": environment}))
		if len(grants) != want {
			t.Errorf("environment %q: %d grants, want %d (%v)", environment, len(grants), want, why)
		}
	}
	if grants, _ := set.Match(trust.GitHub, with(map[string]any{"environment": nil})); len(grants) != 0 {
		t.Error("a job without an environment fits")
	}
}

func TestMatchingPoliciesAreNotUnited(t *testing.T) {
	reader := infra()
	reader.Name, reader.Caches, reader.Grant = "reader", []string{"shared"}, []string{"pull"}
	grants, _ := compile(t, infra(), reader).Match(trust.GitHub, claims())
	if len(grants) != 2 || grants[0].Perm != token.Pull|token.Push || grants[1].Perm != token.Pull ||
		grants[0].Caches[0] != "system" || grants[1].Caches[0] != "shared" {
		t.Errorf("got %+v, want two grants apart", grants)
	}
}

func TestSetCannotBeChangedFromOutside(t *testing.T) {
	p := infra()
	s := compile(t, p)
	p.Caches[0], p.Events[0], p.Pins[0] = "other", "pull_request", "**"
	grants, _ := s.Match(trust.GitHub, claims())
	if len(grants) != 1 || grants[0].Caches[0] != "system" || grants[0].Pins[0] != "acme/infra/*" {
		t.Fatalf("changing the Policy changed the Set: %+v", grants)
	}
	grants[0].Caches[0] = "other"
	if again, _ := s.Match(trust.GitHub, claims()); again[0].Caches[0] != "system" {
		t.Error("changing a Grant changed the Set")
	}
}

func TestNothingIsGrantedByDefault(t *testing.T) {
	var nothing *trust.Set
	for _, s := range []*trust.Set{nothing, new(trust.Set), compile(t)} {
		if grants, _ := s.Match(trust.GitHub, claims()); len(grants) != 0 {
			t.Errorf("an empty set granted %v", grants)
		}
	}
}
