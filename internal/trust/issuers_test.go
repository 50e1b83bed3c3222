package trust_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/trust"
)

const (
	gitlab  = "https://gitlab.example.com"
	forgejo = "https://git.example.org/api/actions"
	ghes    = "https://github.example.com/_services/token"
)

var kinds = trust.Issuers{gitlab: trust.KindGitLab}

// The claims are shaped as the services write them, with invented identifiers.
func issuerClaims(issuer string) (map[string]any, trust.Policy) {
	switch issuer {
	case gitlab:
		return map[string]any{
				"iss": gitlab, "sub": "project_path:acme/platform/infra:ref_type:branch:ref:main",
				"project_id": "4711", "namespace_id": "815", "project_path": "acme/platform/infra", "namespace_path": "acme/platform",
				"pipeline_source": "push", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
				"environment": "production", "ci_config_ref_uri": "gitlab.example.com/acme/platform/infra//.gitlab-ci.yml@refs/heads/main",
				"runner_id": json.Number("3"), "runner_environment": "self-hosted", "project_visibility": "private",
			}, trust.Policy{Name: "p", Issuer: gitlab, ProjectID: 4711, NamespaceID: 815, Repository: "acme/platform/infra", RepositoryOwner: "acme/platform",
				Ref: "refs/heads/main", RefProtected: true, Environment: "production", RunnerEnvironment: "self-hosted",
				JobWorkflowRef: "gitlab.example.com/acme/platform/infra//.gitlab-ci.yml@refs/heads/main",
				Caches:         []string{"a"}, Grant: []string{"push"}}
	case forgejo:
		return map[string]any{
				"iss": forgejo, "sub": "repo:acme-7/infra-9:ref:refs/heads/main", "repository": "acme/infra", "repository_id": "9",
				"repository_owner": "acme", "repository_owner_id": "7", "ref": "refs/heads/main", "ref_protected": "true", "event_name": "push",
				"workflow_ref": "acme/infra/.forgejo/workflows/ci.yml@refs/heads/main",
			}, trust.Policy{Name: "p", Issuer: forgejo, RepositoryID: 9, RepositoryOwnerID: 7, Repository: "acme/infra", RepositoryOwner: "acme",
				Ref: "refs/heads/main", RefProtected: true, JobWorkflowRef: "acme/infra/.forgejo/workflows/ci.yml@refs/heads/main",
				Caches: []string{"a"}, Grant: []string{"push"}}
	case trust.Buildkite:
		return map[string]any{
				"iss": trust.Buildkite, "sub": "organization:acme:pipeline:infra:ref:refs/heads/main:commit:abc:step:build",
				"organization_slug": "acme", "pipeline_slug": "infra", "organization_id": "018f2a31-0000-4000-8000-00000000000a",
				"pipeline_id": "018f2a31-0000-4000-8000-00000000000b", "build_number": json.Number("42"), "build_branch": "main", "build_tag": nil,
				"build_source": "webhook", "runner_environment": "buildkite-hosted",
			}, trust.Policy{Name: "p", Issuer: trust.Buildkite, PipelineID: "018f2a31-0000-4000-8000-00000000000b",
				OrganizationID: "018f2a31-0000-4000-8000-00000000000a", Repository: "acme/infra", RepositoryOwner: "acme",
				Ref: "refs/heads/main", RunnerEnvironment: "buildkite-hosted", Allow: []string{trust.AllowForkBranchPush},
				Caches: []string{"a"}, Grant: []string{"push"}}
	}
	c := with(map[string]any{"iss": ghes})
	p := infra()
	p.Issuer = ghes
	return c, p
}

func TestEachKindOfIssuerMatchesByItsOwnClaims(t *testing.T) {
	for _, issuer := range []string{gitlab, forgejo, trust.Buildkite, ghes} {
		t.Run(issuer, func(t *testing.T) {
			good, p := issuerClaims(issuer)
			s, err := kinds.Compile([]trust.Policy{p})
			if err != nil {
				t.Fatal(err)
			}
			if grants, why := s.Match(issuer, good); len(grants) != 1 {
				t.Fatalf("the good token is refused: %+v", why)
			}
			// Every claim that a rule looks at counts: changed or gone, the token is refused.
			for _, r := range s.Explain(issuer, good)[0].Rules[1:] {
				for name := range good {
					if !slices.Contains(strings.FieldsFunc(r.Claim, func(r rune) bool { return r == ' ' || r == '/' }), name) || name == "build_tag" || name == "repository_visibility" || name == "runner_environment" && r.Key == "allow" {
						continue
					}
					for _, v := range []any{"x", nil, json.Number("1"), true, []any{good[name]}} {
						bad := maps.Clone(good)
						bad[name] = v
						if grants, _ := s.Match(issuer, bad); len(grants) != 0 {
							t.Errorf("%s = %v: granted", name, v)
						}
						delete(bad, name)
						if grants, _ := s.Match(issuer, bad); len(grants) != 0 {
							t.Errorf("without %s: granted", name)
						}
					}
				}
			}
		})
	}
}

// A build of a tag has a branch too, and a tag may have a branch's name.
func TestBuildkiteTagIsNoBranch(t *testing.T) {
	good, p := issuerClaims(trust.Buildkite)
	s, err := trust.Compile([]trust.Policy{p})
	if err != nil {
		t.Fatal(err)
	}
	for name, tag := range map[string]any{"tag": "v1", "tag of the branch's name": "main", "tag of another type": json.Number("1")} {
		c := maps.Clone(good)
		c["build_tag"] = tag
		if grants, _ := s.Match(trust.Buildkite, c); len(grants) != 0 {
			t.Errorf("%s: granted for a branch", name)
		}
	}
	p.Ref = "refs/tags/v1"
	if s, err = trust.Compile([]trust.Policy{p}); err != nil {
		t.Fatal(err)
	}
	good["build_tag"] = "v1"
	if grants, why := s.Match(trust.Buildkite, good); len(grants) != 1 {
		t.Errorf("the tag itself is refused: %+v", why)
	}
}

func TestIssuersHaveTheirOwnDefaultsAndDangers(t *testing.T) {
	for _, tt := range []struct {
		issuer, event string
		want          string // part of the error; empty: compiles
	}{
		{gitlab, "merge_request_event", trust.AllowPullRequestPush},
		{gitlab, "parent_pipeline", trust.AllowPullRequestPush}, // of a merge request, perhaps
		{gitlab, "external", trust.AllowOutsiderEventPush},
		{gitlab, "schedule", ""},
		{forgejo, "pull_request", trust.AllowPullRequestPush},
		{forgejo, "pull_request_target", trust.AllowOutsiderEventPush},
		{trust.Buildkite, "api", ""},
	} {
		_, p := issuerClaims(tt.issuer)
		p.Events = []string{tt.event}
		_, err := kinds.Compile([]trust.Policy{p})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %s: got %v, want %q", tt.issuer, tt.event, err, tt.want)
		}
	}
	for issuer, bad := range map[string]string{gitlab: "merge_request_event", forgejo: "pull_request", trust.Buildkite: "ui"} {
		good, p := issuerClaims(issuer)
		s, err := kinds.Compile([]trust.Policy{p})
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"pipeline_source", "event_name", "build_source"} {
			if _, ok := good[key]; ok {
				good[key] = bad
			}
		}
		if grants, _ := s.Match(issuer, good); len(grants) != 0 {
			t.Errorf("%s: %s is admitted by default", issuer, bad)
		}
	}
	_, p := issuerClaims(trust.Buildkite)
	p.Allow = nil
	if _, err := trust.Compile([]trust.Policy{p}); err == nil || !strings.Contains(err.Error(), trust.AllowForkBranchPush) {
		t.Errorf("Buildkite's branches without a word about forks: got %v", err)
	}
}

// A key that the issuer's tokens do not have would never match, or worse, be read by
// somebody as if it did.
func TestKeysOfOtherIssuersAreRefused(t *testing.T) {
	for _, tt := range []struct {
		issuer string
		change func(*trust.Policy)
		want   string
	}{
		{ghes, func(p *trust.Policy) { p.ProjectID = 1 }, "project-id"},
		{ghes, func(p *trust.Policy) { p.PipelineID = "018f2a31-0000-4000-8000-00000000000b" }, "pipeline-id"},
		{gitlab, func(p *trust.Policy) { p.RepositoryID = 1 }, "repository-id"},
		{gitlab, func(p *trust.Policy) { p.ProjectID, p.NamespaceID = 0, 0 }, "project-id or namespace-id is required"},
		{gitlab, func(p *trust.Policy) { p.RunnerEnvironment = "github-hosted" }, "gitlab-hosted"},
		{forgejo, func(p *trust.Policy) { p.Environment = "production" }, "environment"},
		{forgejo, func(p *trust.Policy) { p.RunnerEnvironment = "self-hosted" }, "runner-environment"},
		{trust.Buildkite, func(p *trust.Policy) { p.RefProtected = true }, "ref-protected"},
		{trust.Buildkite, func(p *trust.Policy) { p.JobWorkflowRef = "a/b/c@refs/heads/main" }, "job-workflow-ref"},
		{trust.Buildkite, func(p *trust.Policy) { p.PipelineID = "infra" }, "UUID"},
		{trust.Buildkite, func(p *trust.Policy) { p.PipelineID = "018F2A31-0000-4000-8000-00000000000B" }, "UUID"},
	} {
		_, p := issuerClaims(tt.issuer)
		tt.change(&p)
		if _, err := kinds.Compile([]trust.Policy{p}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %s: got %v", tt.issuer, tt.want, err)
		}
	}
}

func TestKindsOfWellKnownIssuers(t *testing.T) {
	for _, tt := range []struct {
		kind, url string
		want      trust.Kind
	}{
		{"", trust.GitHub, trust.KindGitHub}, {"", ghes, trust.KindGitHub}, {"", forgejo, trust.KindForgejo},
		{"", "https://gitlab.com", trust.KindGitLab}, {"", trust.Buildkite, trust.KindBuildkite}, {"", gitlab, trust.KindGitHub}, {"gitlab", gitlab, trust.KindGitLab},
	} {
		if got, err := trust.ParseKind(tt.kind, tt.url); err != nil || got != tt.want {
			t.Errorf("%q, %s: got %s, %v, want %s", tt.kind, tt.url, got, err, tt.want)
		}
	}
	if _, err := trust.ParseKind("jenkins", gitlab); err == nil {
		t.Error("an unknown kind was accepted")
	}
}
