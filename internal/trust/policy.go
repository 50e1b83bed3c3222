// Package trust decides what a verified ID token may do: claims in, grants out.
//
// A policy names one repository or owner by its numeric id, narrows by ref, event,
// environment and so on, and says what a token that fits may do:
//
//	claims of a verified token           [[trust]] name = "infra"
//	─────────────────────────            ────────────────────────
//	iss               ── equal ────────  issuer
//	repository_id     ── equal ────────  repository-id         (one of the two ids
//	repository_owner_id  equal ────────  repository-owner-id    is always required)
//	repository        ── equal ────────  repository            (optional)
//	event_name        ── one of ───────  events                (default: DefaultEvents)
//	ref               ── equal, glob ──  ref, ref-glob
//	environment, …    ── equal ────────  environment, …
//	                                     caches, grant, pins, ttl ──► Grant
//
// These are GitHub's claims; GitLab, Forgejo and Buildkite have others for the same
// things (type Kind). Everything is deny by default: a rule whose claim is absent, has another type or
// another value fails, and with it the policy. Grants of several policies are never
// united here; whoever asks has to choose (package exchange).
//
// A Policy is what a file says; a Set is what has been checked, and cannot be changed.
package trust

// GitHub is the issuer of ID tokens on github.com, and the one that a policy means
// when it names none.
const GitHub = "https://token.actions.githubusercontent.com"

// DefaultEvents are the events that a policy without an events list admits. All of
// them need write access to the repository and run the code of a ref in it.
// pull_request and the three events that run in the base repository's context on
// somebody else's behalf (pull_request_target, workflow_run, issue_comment) are
// admitted only by name.
var DefaultEvents = []string{"push", "workflow_dispatch", "schedule"}

// Policy is one [[trust]] table of server.toml, as written. Compile checks it.
type Policy struct {
	// Name shows in logs and errors; 1 to 64 of [A-Za-z0-9._-], once on a server.
	Name string `toml:"name" json:"name"`
	// Issuer must equal the token's iss; empty means GitHub.
	Issuer string `toml:"issuer" json:"issuer,omitempty"`
	// One or both ids of the issuer's kind are required and must equal the claims: names
	// can be recycled, ids can't. Zero and empty mean not given. For GitHub and Forgejo:
	RepositoryID      int64 `toml:"repository-id" json:"repository-id,omitempty"`
	RepositoryOwnerID int64 `toml:"repository-owner-id" json:"repository-owner-id,omitempty"`
	// For GitLab:
	ProjectID   int64 `toml:"project-id" json:"project-id,omitempty"`
	NamespaceID int64 `toml:"namespace-id" json:"namespace-id,omitempty"`
	// For Buildkite, UUIDs:
	PipelineID     string `toml:"pipeline-id" json:"pipeline-id,omitempty"`
	OrganizationID string `toml:"organization-id" json:"organization-id,omitempty"`
	// Repository ("owner/name") and RepositoryOwner, when given, must equal the claims as
	// well: the names as they were when the policy was written.
	Repository      string `toml:"repository" json:"repository,omitempty"`
	RepositoryOwner string `toml:"repository-owner" json:"repository-owner,omitempty"`
	// Ref is a full ref ("refs/heads/main"), compared exactly; RefGlob a pattern in
	// which * stops at '/' and ** does not. At most one of the two.
	Ref     string `toml:"ref" json:"ref,omitempty"`
	RefGlob string `toml:"ref-glob" json:"ref-glob,omitempty"`
	// Events are the event names admitted; nil means DefaultEvents, or those of the
	// issuer's kind.
	Events []string `toml:"events" json:"events,omitempty"`
	// Environment is the deployment environment of the job, compared exactly;
	// EnvironmentGlob a pattern, as for refs, that begins with text. At most one of
	// the two.
	Environment     string `toml:"environment" json:"environment,omitempty"`
	EnvironmentGlob string `toml:"environment-glob" json:"environment-glob,omitempty"`
	// JobWorkflowRef ("acme/infra/.github/workflows/ci.yml@refs/heads/main") names the
	// workflow file that defines the job; JobWorkflowRefGlob is a pattern for it, with
	// ** only behind the '@'. At most one of the two.
	JobWorkflowRef     string `toml:"job-workflow-ref" json:"job-workflow-ref,omitempty"`
	JobWorkflowRefGlob string `toml:"job-workflow-ref-glob" json:"job-workflow-ref-glob,omitempty"`
	// RefProtected, when true, requires a ref with branch protection.
	RefProtected bool `toml:"ref-protected" json:"ref-protected,omitempty"`
	// RunnerEnvironment is "github-hosted" (gitlab-hosted, buildkite-hosted) or
	// "self-hosted"; empty means either.
	RunnerEnvironment string `toml:"runner-environment" json:"runner-environment,omitempty"`
	// Caches are cache names, or patterns in the grammar of Attic's tokens.
	Caches []string `toml:"caches" json:"caches"`
	// Grant lists permissions by atticadm's names: pull, push, delete, create-cache,
	// configure-cache, configure-cache-retention, destroy-cache.
	Grant []string `toml:"grant" json:"grant"`
	// Pins are patterns of pin names that the token may set (MayPin).
	Pins []string `toml:"pins" json:"pins,omitempty"`
	// TTL is the life of the token granted ("15m"); empty means DefaultTTL.
	TTL string `toml:"ttl" json:"ttl,omitempty"`
	// Allow names what is wider than it looks and meant all the same; see Allowances.
	Allow []string `toml:"allow" json:"allow,omitempty"`
	// Sub is refused with the reason, since other services know it.
	Sub string `toml:"sub" json:"sub,omitempty"`
}
