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
// Everything is deny by default: a rule whose claim is absent, has another type or
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
	// Name shows in logs and errors; 1 to 64 of [A-Za-z0-9._-], once in a file.
	Name string `toml:"name"`
	// Issuer must equal the token's iss; empty means GitHub.
	Issuer string `toml:"issuer"`
	// RepositoryID and RepositoryOwnerID must equal the claims of those names; zero
	// means not given. One of them is required: names can be recycled, ids can't.
	RepositoryID      int64 `toml:"repository-id"`
	RepositoryOwnerID int64 `toml:"repository-owner-id"`
	// Repository ("owner/name"), when given, must equal the claim as well.
	Repository string `toml:"repository"`
	// Ref is a full ref ("refs/heads/main"), compared exactly; RefGlob a pattern in
	// which * stops at '/' and ** does not. At most one of the two.
	Ref     string `toml:"ref"`
	RefGlob string `toml:"ref-glob"`
	// Events are the event names admitted; nil means DefaultEvents.
	Events []string `toml:"events"`
	// Environment is the deployment environment of the job, compared exactly.
	Environment string `toml:"environment"`
	// JobWorkflowRef ("acme/infra/.github/workflows/ci.yml@refs/heads/main") names the
	// workflow file that defines the job; JobWorkflowRefGlob is a pattern for it, with
	// ** only behind the '@'. At most one of the two.
	JobWorkflowRef     string `toml:"job-workflow-ref"`
	JobWorkflowRefGlob string `toml:"job-workflow-ref-glob"`
	// RefProtected, when true, requires a ref with branch protection.
	RefProtected bool `toml:"ref-protected"`
	// RunnerEnvironment is "github-hosted" or "self-hosted"; empty means either.
	RunnerEnvironment string `toml:"runner-environment"`
	// Caches are cache names, or patterns in the grammar of Attic's tokens.
	Caches []string `toml:"caches"`
	// Grant lists permissions by atticadm's names: pull, push, delete, create-cache,
	// configure-cache, configure-cache-retention, destroy-cache.
	Grant []string `toml:"grant"`
	// Pins are patterns of pin names that the token may set; * stops at '/'.
	Pins []string `toml:"pins"`
	// TTL is the life of the token granted ("15m"); empty means DefaultTTL.
	TTL string `toml:"ttl"`
}
