package trust_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/trust"
)

// Each row is a policy that is wider than it looks. It must be refused with the name of
// the allowance, taken with that name, and the name refused where it is not needed.
func TestWidePoliciesNeedTheirName(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*trust.Policy)
		allow  string
	}{
		{"push for pull requests", func(p *trust.Policy) { p.Events = []string{"push", "pull_request"} }, trust.AllowPullRequestPush},
		{"push for pull_request_target", func(p *trust.Policy) { p.Events = []string{"pull_request_target"} }, trust.AllowOutsiderEventPush},
		{"push for workflow_run", func(p *trust.Policy) { p.Events = []string{"workflow_run"} }, trust.AllowOutsiderEventPush},
		{"push for comments", func(p *trust.Policy) { p.Events = []string{"issue_comment"} }, trust.AllowOutsiderEventPush},
		{"push for an event of the future", func(p *trust.Policy) { p.Events = []string{"moon_phase"} }, trust.AllowOutsiderEventPush},
		{"push for every repository of an owner", func(p *trust.Policy) { p.RepositoryID, p.RepositoryOwnerID = 0, 987654 }, trust.AllowOwnerWidePush},
		{"reusable workflow without its caller", func(p *trust.Policy) {
			p.RepositoryID, p.RepositoryOwnerID, p.JobWorkflowRef = 0, 987654, "acme/ci/.github/workflows/build.yml@refs/heads/main"
		}, trust.AllowReusableWithoutCaller},
		{"push for every branch", func(p *trust.Policy) { p.Ref, p.RefGlob, p.Environment = "", "refs/heads/**", "" }, trust.AllowAnyBranchPush},
		{"push for every branch without slash", func(p *trust.Policy) { p.Ref, p.RefGlob, p.Environment = "", "refs/heads/*", "" }, trust.AllowAnyBranchPush},
		{"push for every tag", func(p *trust.Policy) { p.Ref, p.RefGlob, p.Environment = "", "refs/tags/*", "" }, trust.AllowAnyBranchPush},
		{"push for every environment that a branch makes up", func(p *trust.Policy) { p.Ref, p.Environment, p.EnvironmentGlob = "", "", "prod-*" }, trust.AllowAnyBranchPush},
		{"the same for every branch", func(p *trust.Policy) {
			p.Ref, p.RefGlob, p.Environment, p.EnvironmentGlob = "", "refs/heads/**", "", "prod-*"
		}, trust.AllowAnyBranchPush},
		{"push for pull requests whose job names an environment", func(p *trust.Policy) {
			p.Events, p.Ref, p.Environment = []string{"pull_request"}, "", "production"
		}, trust.AllowPullRequestPush},
		{"workflow of any branch", func(p *trust.Policy) {
			p.JobWorkflowRefGlob = "acme/infra/.github/workflows/ci.yml@refs/heads/*"
		}, trust.AllowAnyWorkflowRef},
		{"workflow of any ref", func(p *trust.Policy) { p.JobWorkflowRefGlob = "acme/infra/.github/workflows/ci.yml@**" }, trust.AllowAnyWorkflowRef},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := infra()
			tt.change(&p)
			if _, err := trust.Compile([]trust.Policy{p}); err == nil || !strings.Contains(err.Error(), `allow = ["`+tt.allow+`"]`) {
				t.Fatalf("without allow: got %v, want a refusal that says %s", err, tt.allow)
			}
			p.Allow = []string{tt.allow}
			if _, err := trust.Compile([]trust.Policy{p}); err != nil {
				t.Errorf("with allow: %v", err)
			}
			p = infra()
			p.Allow = []string{tt.allow}
			if _, err := trust.Compile([]trust.Policy{p}); err == nil || !strings.Contains(err.Error(), "no need") {
				t.Errorf("an allowance that is not needed: got %v", err)
			}
			// Reading is another matter.
			p = infra()
			tt.change(&p)
			p.Grant = []string{"pull"}
			if _, err := trust.Compile([]trust.Policy{p}); err != nil && tt.allow != trust.AllowAnyWorkflowRef {
				t.Errorf("pull alone: %v", err)
			}
		})
	}
}

// An environment is as narrow as the repository's settings make it, which no token tells: its owner is told.
func TestEnvironmentAloneIsWarnedAbout(t *testing.T) {
	p := infra()
	p.Ref, p.RefGlob, p.Environment = "", "", "production"
	if _, err := trust.Compile([]trust.Policy{p}); err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(trust.Warnings(p), "\n"); !strings.Contains(w, "deployment branches") {
		t.Errorf("warned of %q", w)
	}
	p.Ref = "refs/heads/main"
	if w := trust.Warnings(p); len(w) != 0 {
		t.Errorf("with a ref: warned of %q", w)
	}
}

func TestAllowTakesKnownNamesOnly(t *testing.T) {
	p := infra()
	p.Allow = []string{"everything"}
	if _, err := trust.Compile([]trust.Policy{p}); err == nil || !strings.Contains(err.Error(), "owner-wide-push") {
		t.Errorf("got %v, want a refusal that lists the names", err)
	}
}

// A runner that stays is changed by one job and used by the next; in a public repository
// the first may come from a fork's pull request.
func TestSelfHostedRunnerOfAPublicRepositoryMayNotPush(t *testing.T) {
	job := func(runner, visibility any) map[string]any {
		return with(map[string]any{"runner_environment": runner, "repository_visibility": visibility})
	}
	allowed := infra()
	allowed.Allow = []string{trust.AllowSelfHostedPublic}
	reader := infra()
	reader.Grant = []string{"pull"}
	for _, tt := range []struct {
		name               string
		claims             map[string]any
		want, always, read int
	}{
		{"hosted, public", job("github-hosted", "public"), 1, 1, 1},
		{"self-hosted, private", job("self-hosted", "private"), 1, 1, 1},
		{"self-hosted, internal", job("self-hosted", "internal"), 1, 1, 1},
		{"self-hosted, public", job("self-hosted", "public"), 0, 1, 1},
		{"self-hosted, not told", job("self-hosted", nil), 0, 1, 1},
		{"runner not told, public", job(nil, "public"), 0, 1, 1},
		{"runner of another type, public", job([]any{"github-hosted"}, "public"), 0, 1, 1},
		{"visibility in another case", job("self-hosted", "Private"), 0, 1, 1},
	} {
		for which, c := range map[string]struct {
			policy trust.Policy
			want   int
		}{"push": {infra(), tt.want}, "push, allowed": {allowed, tt.always}, "pull": {reader, tt.read}} {
			if grants, why := compile(t, c.policy).Match(trust.GitHub, tt.claims); len(grants) != c.want {
				t.Errorf("%s, %s: got %d grants, want %d: %+v", tt.name, which, len(grants), c.want, why)
			}
		}
	}
	// An allowance for a policy that wants hosted runners, or only reads, is a mistake.
	allowed.RunnerEnvironment = "github-hosted"
	if _, err := trust.Compile([]trust.Policy{allowed}); err == nil {
		t.Error("self-hosted-public was taken beside runner-environment = github-hosted")
	}
}

// Sub's text has two forms, can be replaced by a template, and its parts were confused
// before ("Sleeper Squats").
func TestSubIsNoRule(t *testing.T) {
	for _, sub := range []string{"repo:acme/*", "repo:acme/infra:ref:refs/heads/main"} {
		p := infra()
		p.Sub = sub
		if _, err := trust.Compile([]trust.Policy{p}); err == nil || !strings.Contains(err.Error(), "repository-id") {
			t.Errorf("%s: got %v, want a refusal that says what to use", sub, err)
		}
	}
}

// No spelling of a policy may match every repository of an issuer.
func TestNoPolicyMatchesEveryRepository(t *testing.T) {
	strangers := with(map[string]any{"repository_id": "5", "repository_owner_id": "6", "repository": "evil/x", "repository_owner": "evil"})
	all := make([]string, len(trust.Allowances))
	for i, a := range trust.Allowances {
		all[i] = a.Name
	}
	for _, grant := range []string{"pull", "push"} {
		for _, allow := range slices.Concat([][]string{nil, all}, each(all)) {
			for _, events := range [][]string{nil, {"push"}, {"pull_request"}} {
				p := trust.Policy{Name: "p", RefGlob: "refs/heads/**", Events: events, Caches: []string{"*"}, Grant: []string{grant}, Allow: allow, Repository: "evil/x"}
				s, err := trust.Compile([]trust.Policy{p})
				if err != nil {
					continue
				}
				if grants, _ := s.Match(trust.GitHub, strangers); len(grants) > 0 {
					t.Errorf("%+v matches a stranger's repository", p)
				}
			}
		}
	}
}

func each(names []string) (lists [][]string) {
	for _, n := range names {
		lists = append(lists, []string{n})
	}
	return lists
}

func TestWarningsTellOfUnguardedEnvironments(t *testing.T) {
	p := infra()
	if w := trust.Warnings(p); len(w) != 0 {
		t.Errorf("a policy with ref and environment: got %v", w)
	}
	p.Ref, p.Caches = "", []string{"*"}
	if w := strings.Join(trust.Warnings(p), "\n"); !strings.Contains(w, "deployment branches") || !strings.Contains(w, "every cache") {
		t.Errorf("got %q", w)
	}
}
