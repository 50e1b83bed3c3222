package trust

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Kind says whose claims an issuer's tokens have.
type Kind string

// The kinds of issuers.
const (
	KindGitHub    Kind = "github" // github.com and GitHub Enterprise Server
	KindGitLab    Kind = "gitlab"
	KindForgejo   Kind = "forgejo"
	KindBuildkite Kind = "buildkite"
)

// Buildkite is the issuer of every Buildkite organization.
const Buildkite = "https://agent.buildkite.com"

// ParseKind reads the kind of an issuer; empty means the one that its URL tells.
func ParseKind(kind, issuer string) (Kind, error) {
	switch k := Kind(kind); {
	case kind != "":
		if _, ok := profiles[k]; !ok {
			return "", fmt.Errorf("kind = %s: must be one of github, gitlab, forgejo, buildkite", quote(kind))
		}
		return k, nil
	case issuer == Buildkite:
		return KindBuildkite, nil
	case issuer == "https://gitlab.com":
		return KindGitLab, nil
	case strings.HasSuffix(issuer, "/api/actions"):
		return KindForgejo, nil
	}
	return KindGitHub, nil
}

// Issuers says of what kind issuers are, by URL. One that is not there is of the kind
// that its URL tells.
type Issuers map[string]Kind

func (is Issuers) profile(issuer string) *profile {
	kind, ok := is[issuer]
	if !ok {
		kind, _ = ParseKind("", issuer) // fails for a kind that is named only
	}
	return profiles[kind]
}

// profile is how one kind of issuer names what policies speak of. An empty name means
// that its tokens don't tell.
type profile struct {
	kind         Kind
	id, owner    claimKey // what a policy is bound to
	repository   value    // owner/name
	ownerName    value
	ref          value // a full ref
	event        string
	defaults     []string // events of a policy that names none
	trusted      []string // events that need write access and run a ref's own code
	requests     []string // events of pull or merge requests
	environment  string
	refProtected string
	workflow     string
	runner       string
	hosted       string // the value of runner for machines of the service
	visibility   string // of the repository
}

// claimKey is a key of the policy and the claim that it must equal.
type claimKey struct{ key, claim string }

// value is a claim, or what is made of several.
type value struct {
	name string // for people
	get  func(claims map[string]any) (any, bool)
}

func claim(name string) value {
	return value{name, func(claims map[string]any) (any, bool) { v, ok := claims[name]; return v, ok }}
}

var profiles = map[Kind]*profile{
	KindGitHub: {
		kind: KindGitHub,
		id:   claimKey{"repository-id", "repository_id"}, owner: claimKey{"repository-owner-id", "repository_owner_id"},
		repository: claim("repository"), ownerName: claim("repository_owner"), ref: claim("ref"),
		event: "event_name", defaults: DefaultEvents, requests: []string{"pull_request"},
		trusted: []string{"push", "workflow_dispatch", "schedule", "release", "merge_group", "create", "delete",
			"deployment", "repository_dispatch", "registry_package", "page_build"},
		environment: "environment", refProtected: "ref_protected", workflow: "job_workflow_ref",
		runner: "runner_environment", hosted: "github-hosted", visibility: "repository_visibility",
	},
	KindGitLab: {
		kind: KindGitLab,
		id:   claimKey{"project-id", "project_id"}, owner: claimKey{"namespace-id", "namespace_id"},
		// ref is the short name; ref_path the whole one.
		repository: claim("project_path"), ownerName: claim("namespace_path"), ref: claim("ref_path"),
		event: "pipeline_source", defaults: []string{"push", "web", "schedule"},
		trusted: []string{"push", "web", "schedule", "api", "trigger", "pipeline", "chat", "webide"},
		// A child pipeline does not tell whether its parent was one of a merge request.
		requests:    []string{"merge_request_event", "external_pull_request_event", "parent_pipeline"},
		environment: "environment", refProtected: "ref_protected", workflow: "ci_config_ref_uri",
		runner: "runner_environment", hosted: "gitlab-hosted", visibility: "project_visibility",
	},
	KindForgejo: {
		kind: KindForgejo,
		id:   claimKey{"repository-id", "repository_id"}, owner: claimKey{"repository-owner-id", "repository_owner_id"},
		repository: claim("repository"), ownerName: claim("repository_owner"), ref: claim("ref"),
		event: "event_name", defaults: DefaultEvents, requests: []string{"pull_request"},
		trusted:      []string{"push", "workflow_dispatch", "schedule", "release", "create", "delete"},
		refProtected: "ref_protected", workflow: "workflow_ref",
	},
	KindBuildkite: {
		kind: KindBuildkite,
		id:   claimKey{"pipeline-id", "pipeline_id"}, owner: claimKey{"organization-id", "organization_id"},
		repository: buildkiteName, ownerName: claim("organization_slug"), ref: buildkiteRef,
		// Whoever may start a build by hand or by the API says himself which branch it is of.
		event: "build_source", defaults: []string{"webhook", "schedule"},
		trusted: []string{"webhook", "schedule", "ui", "api", "trigger_job"},
		runner:  "runner_environment", hosted: "buildkite-hosted",
	},
}

// buildkiteName joins the two slugs, which hold no slash.
var buildkiteName = value{"organization_slug/pipeline_slug", func(claims map[string]any) (any, bool) {
	org, ok1 := claims["organization_slug"].(string)
	pipeline, ok2 := claims["pipeline_slug"].(string)
	return org + "/" + pipeline, ok1 && ok2 && org != "" && pipeline != ""
}}

// buildkiteRef makes a full ref of tag or branch. The build of a tag has a branch too,
// so the tag comes first; a claim of another type is no ref at all.
var buildkiteRef = value{"build_tag or build_branch", func(claims map[string]any) (any, bool) {
	tag := claims["build_tag"]
	if s, ok := tag.(string); ok && s != "" {
		return "refs/tags/" + s, true
	} else if tag != nil && !ok {
		return nil, false
	}
	branch, ok := claims["build_branch"].(string)
	return "refs/heads/" + branch, ok && branch != ""
}}

// runners lists the kinds of machines that the issuer's tokens tell apart.
func (pr *profile) runners() []string { return []string{pr.hosted, "self-hosted"} }

// without is the error for a key whose claim this kind of token does not have.
func (pr *profile) without(key string) error {
	return fmt.Errorf("%s: tokens of a %s issuer don't tell; leave it out", key, pr.kind)
}

// ids gives the values of the two keys that bind a policy, and refuses those that
// belong to other kinds of issuers.
func (pr *profile) ids(p Policy) (id, owner string, err error) {
	given := map[string]string{}
	for _, k := range []struct {
		key string
		n   int64
	}{{"repository-id", p.RepositoryID}, {"repository-owner-id", p.RepositoryOwnerID}, {"project-id", p.ProjectID}, {"namespace-id", p.NamespaceID}} {
		if k.n < 0 {
			return "", "", keyError(k.key, k.n, "must be positive")
		}
		if k.n > 0 {
			given[k.key] = fmt.Sprint(k.n)
		}
	}
	for _, k := range []claimKey{{"pipeline-id", p.PipelineID}, {"organization-id", p.OrganizationID}} {
		if k.claim != "" && !validUUID(k.claim) {
			return "", "", keyError(k.key, k.claim, "must be a UUID in lower case, such as 018f2a31-…")
		}
		if k.claim != "" {
			given[k.key] = k.claim
		}
	}
	id, owner = given[pr.id.key], given[pr.owner.key]
	delete(given, pr.id.key)
	delete(given, pr.owner.key)
	for key := range given {
		return "", "", fmt.Errorf("%s: is not for a %s issuer, whose keys are %s and %s", key, pr.kind, pr.id.key, pr.owner.key)
	}
	if id == "" && owner == "" {
		return "", "", fmt.Errorf("%s or %s is required: a name alone can be given up and taken by somebody else", pr.id.key, pr.owner.key)
	}
	return id, owner, nil
}

func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (r == '-') || !dash && !strings.ContainsRune("0123456789abcdef", r) {
			return false
		}
	}
	return true
}

// text makes a claim's value a string for people.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case json.Number:
		return v.String() + " (a number)"
	case nil:
		return "null"
	}
	return "a " + typeName(v)
}

func has(list []string, s string) bool { return slices.Contains(list, s) }
