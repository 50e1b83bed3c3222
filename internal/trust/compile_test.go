package trust_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/trust"
)

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*trust.Policy)
		want   []string // in the error: key and value
	}{
		{"policy without an id, which would go by name", func(p *trust.Policy) { p.RepositoryID = 0 }, []string{"repository-id", "required"}},
		{"negative id", func(p *trust.Policy) { p.RepositoryID = -1 }, []string{"repository-id", "-1"}},
		{"negative owner id", func(p *trust.Policy) { p.RepositoryOwnerID = -7 }, []string{"repository-owner-id", "-7"}},
		{"push from every ref", func(p *trust.Policy) { p.Ref, p.Environment = "", "" }, []string{"grant", "ref-glob"}},
		{"create-cache from every ref", func(p *trust.Policy) { p.Ref, p.Environment, p.Grant = "", "", []string{"create-cache"} }, []string{"grant"}},
		{"pattern as repository", func(p *trust.Policy) { p.Repository = "acme/*" }, []string{"repository", "acme/*"}},
		{"repository without owner", func(p *trust.Policy) { p.Repository = "infra" }, []string{"repository"}},
		{"pattern as ref", func(p *trust.Policy) { p.Ref = "refs/heads/*" }, []string{"ref", "ref-glob"}},
		{"short ref, which never matches", func(p *trust.Policy) { p.Ref = "main" }, []string{"refs/heads/main"}},
		{"ref and glob", func(p *trust.Policy) { p.RefGlob = "refs/heads/*" }, []string{"exclude"}},
		{"glob of all refs", func(p *trust.Policy) { p.Ref, p.RefGlob = "", "**" }, []string{"ref-glob"}},
		{"glob of branches, tags and pull requests", func(p *trust.Policy) { p.Ref, p.RefGlob = "", "refs/**" }, []string{"ref-glob"}},
		{"glob with alternatives", func(p *trust.Policy) { p.Ref, p.RefGlob = "", "refs/heads/a|refs/heads/*" }, []string{"ref-glob"}},
		{"glob with a class", func(p *trust.Policy) { p.Ref, p.RefGlob = "", "refs/heads/[a-z]*" }, []string{"ref-glob"}},
		{"glob with braces", func(p *trust.Policy) { p.Ref, p.RefGlob = "", "refs/heads/{a,b}*" }, []string{"ref-glob"}},
		{"glob that is none", func(p *trust.Policy) { p.Ref, p.RefGlob = "", "refs/heads/main" }, []string{"ref-glob"}},
		{"glob of all environments, which a job may name as it likes", func(p *trust.Policy) { p.EnvironmentGlob = "*" }, []string{"environment-glob"}},
		{"environment and its glob", func(p *trust.Policy) { p.Environment, p.EnvironmentGlob = "prod", "prod-*" }, []string{"exclude"}},
		{"no event at all", func(p *trust.Policy) { p.Events = []string{} }, []string{"events"}},
		{"pattern as event", func(p *trust.Policy) { p.Events = []string{"*"} }, []string{"events", `"*"`}},
		{"workflow without ref", func(p *trust.Policy) { p.JobWorkflowRef = "acme/infra/.github/workflows/a.yml" }, []string{"job-workflow-ref"}},
		{"workflow glob that runs on into the ref", func(p *trust.Policy) { p.JobWorkflowRefGlob = "acme/infra/**@refs/heads/main" }, []string{"job-workflow-ref-glob"}},
		{"workflow glob of any repository", func(p *trust.Policy) { p.JobWorkflowRefGlob = "*/infra/.github/workflows/a.yml@refs/heads/main" }, []string{"job-workflow-ref-glob"}},
		{"unknown runner", func(p *trust.Policy) { p.RunnerEnvironment = "any" }, []string{"runner-environment", "any"}},
		{"no caches", func(p *trust.Policy) { p.Caches = nil }, []string{"caches"}},
		{"bad cache name", func(p *trust.Policy) { p.Caches = []string{"_api"} }, []string{"caches", "_api"}},
		{"no grant", func(p *trust.Policy) { p.Grant = nil }, []string{"grant"}},
		{"unknown grant", func(p *trust.Policy) { p.Grant = []string{"write"} }, []string{"grant", "write", "push"}},
		{"pin of everything", func(p *trust.Policy) { p.Pins = []string{"**"} }, []string{"pins"}},
		{"life longer than six hours", func(p *trust.Policy) { p.TTL = "6h 1s" }, []string{"ttl", "6h"}},
		{"no life", func(p *trust.Policy) { p.TTL = "0s" }, []string{"ttl"}},
		{"life that is no duration", func(p *trust.Policy) { p.TTL = "soon" }, []string{"ttl", "soon"}},
		{"issuer that is no URL", func(p *trust.Policy) { p.Issuer = "github" }, []string{"issuer", "github"}},
		{"issuer with user", func(p *trust.Policy) { p.Issuer = "https://a@github.com" }, []string{"issuer"}},
		{"control character", func(p *trust.Policy) { p.Environment = "prod\x1b[2J" }, []string{"environment"}},
		{"broken UTF-8", func(p *trust.Policy) { p.Environment = "prod\xff" }, []string{"environment"}},
		{"huge text", func(p *trust.Policy) { p.Environment = strings.Repeat("x", 1000) }, []string{"environment"}},
		{"huge list", func(p *trust.Policy) { p.Caches = slices.Repeat([]string{"a"}, 100) }, []string{"caches"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := infra()
			tt.change(&p)
			s, err := trust.Compile([]trust.Policy{p})
			if err == nil {
				t.Fatalf("compiled to %+v", s)
			}
			for _, want := range append(tt.want, `"infra"`) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %s", err, want)
				}
			}
			if len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error is not one short line: %q", err)
			}
		})
	}
}

func TestCompileNamesPoliciesByNumberWhenTheyHaveNoName(t *testing.T) {
	_, err := trust.Compile([]trust.Policy{infra(), {}})
	if err == nil || !strings.Contains(err.Error(), "policy 2") || !strings.Contains(err.Error(), "name") {
		t.Errorf("got %v", err)
	}
	_, err = trust.Compile([]trust.Policy{infra(), infra()})
	if err == nil || !strings.Contains(err.Error(), `"infra"`) {
		t.Errorf("the same name twice: got %v", err)
	}
}

func TestPullNeedsNoRef(t *testing.T) {
	p := trust.Policy{Name: "readers", RepositoryOwnerID: 987654, Caches: []string{"*"}, Grant: []string{"pull"}}
	grants, why := compile(t, p).Match(trust.GitHub, claims())
	if len(grants) != 1 || grants[0].TTL != trust.DefaultTTL {
		t.Errorf("got %+v, %+v", grants, why)
	}
}

func TestPushNeedsOneOfFourConditions(t *testing.T) {
	for name, change := range map[string]func(*trust.Policy){
		"ref":           func(p *trust.Policy) { p.Ref = "refs/heads/main" },
		"ref-glob":      func(p *trust.Policy) { p.RefGlob = "refs/heads/ma*" },
		"environment":   func(p *trust.Policy) { p.Environment = "production" },
		"ref-protected": func(p *trust.Policy) { p.RefProtected = true },
	} {
		p := trust.Policy{Name: "p", RepositoryID: 123456789, Caches: []string{"system"}, Grant: []string{"push"}}
		change(&p)
		if grants, why := compile(t, p).Match(trust.GitHub, claims()); len(grants) != 1 {
			t.Errorf("%s: %+v", name, why)
		}
	}
}

func TestRefGlobs(t *testing.T) {
	for _, tt := range []struct {
		glob, ref string
		want      bool
	}{
		{"refs/heads/release/*", "refs/heads/release/1.0", true},
		{"refs/heads/release/*", "refs/heads/release/1/0", false}, // * stops at '/'
		{"refs/heads/release/*", "refs/heads/release/", true},
		{"refs/heads/release/*", "refs/heads/release", false},
		{"refs/heads/release/**", "refs/heads/release/1/0", true},
		{"refs/heads/*/x", "refs/heads/a/x", true},
		{"refs/heads/*/x", "refs/heads/a/b/x", false},
		{"refs/heads/**/x", "refs/heads/a/b/x", true},
		{"refs/heads/v*.*", "refs/heads/v1.2", true},
		{"refs/heads/v*.*", "refs/heads/v12", false}, // the dot is a dot
		{"refs/heads/*-rc", "refs/heads/1-rc-rc", true},
		{"refs/heads/*-rc", "refs/heads/1-rcx", false},
		{"refs/heads/a*", "xrefs/heads/a", false}, // anchored in front
		{"refs/heads/a*", "refs/heads/a\nb", true},
		{"refs/heads/a*", "refs/tags/a", false},
		{"refs/heads/A*", "refs/heads/a", false},
		{"refs/heads/+*", "refs/heads//", false},
	} {
		p := trust.Policy{Name: "p", RepositoryID: 123456789, RefGlob: tt.glob, Caches: []string{"system"}, Grant: []string{"push"}}
		grants, why := compile(t, p).Match(trust.GitHub, with(map[string]any{"ref": tt.ref}))
		if got := len(grants) == 1; got != tt.want {
			t.Errorf("%s against %q: got %v, want %v (%+v)", tt.glob, tt.ref, got, tt.want, why)
		}
	}
}

// A branch may have '@' and slashes in its name, so a workflow ref has more than one '@'.
func TestWorkflowGlobDoesNotRunOnIntoTheRef(t *testing.T) {
	p := infra()
	p.JobWorkflowRefGlob = "acme/infra/.github/workflows/*@refs/heads/main"
	s := compile(t, p)
	for ref, want := range map[string]int{
		"acme/infra/.github/workflows/deploy.yml@refs/heads/main":                 1,
		"acme/infra/.github/workflows/deploy.yml@refs/heads/evil@refs/heads/main": 0,
		"acme/infra/.github/workflows/deploy.yml@refs/heads/main2":                0,
		"evil/infra/.github/workflows/deploy.yml@refs/heads/main":                 0,
	} {
		if grants, _ := s.Match(trust.GitHub, with(map[string]any{"job_workflow_ref": ref})); len(grants) != want {
			t.Errorf("%s: got %d grants, want %d", ref, len(grants), want)
		}
	}
}
