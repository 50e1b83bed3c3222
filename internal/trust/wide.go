package trust

import (
	"fmt"
	"strings"

	"github.com/org/attic-action/internal/token"
)

// Names for a policy's allow key. Each lets through one thing that is wider than it
// looks; without its name the policy is refused.
const (
	// AllowPullRequestPush: more than pull for pull or merge requests, whose code nobody
	// has reviewed yet.
	AllowPullRequestPush = "pull-request-push"
	// AllowOutsiderEventPush: more than pull for events that people without write access
	// can cause, such as pull_request_target, workflow_run and issue_comment.
	AllowOutsiderEventPush = "outsider-event-push"
	// AllowSelfHostedPublic: more than pull for jobs on a self-hosted runner of a public
	// repository, where an earlier job from a fork may have left something behind.
	AllowSelfHostedPublic = "self-hosted-public"
	// AllowReusableWithoutCaller: more than pull for every repository of an owner that
	// calls a workflow, whatever it gives it to build.
	AllowReusableWithoutCaller = "reusable-without-caller"
	// AllowOwnerWidePush: more than pull for every repository of an owner, those to come
	// included.
	AllowOwnerWidePush = "owner-wide-push"
	// AllowAnyBranchPush: more than pull for every branch, or every tag, or for every
	// environment that a pattern fits, which any branch may make up.
	AllowAnyBranchPush = "any-branch-push"
	// AllowAnyWorkflowRef: a workflow as any branch of its repository has it.
	AllowAnyWorkflowRef = "any-workflow-ref"
	// AllowForkBranchPush: more than pull for a Buildkite pipeline's branches, though its
	// tokens don't tell a fork's branch "main" from the repository's.
	AllowForkBranchPush = "fork-branch-push"
)

// Allowances lists what allow may name, with what each lets through.
var Allowances = []struct{ Name, Lets string }{
	{AllowPullRequestPush, "more than pull for pull or merge requests: code that nobody has reviewed yet"},
	{AllowOutsiderEventPush, "more than pull for events that people without write access can cause (pull_request_target, workflow_run, issue_comment, …)"},
	{AllowSelfHostedPublic, "more than pull for self-hosted runners of a public repository, which a job from a fork may have changed"},
	{AllowReusableWithoutCaller, "more than pull for every repository of the owner that calls the workflow"},
	{AllowOwnerWidePush, "more than pull for every repository of the owner, those to come included"},
	{AllowAnyBranchPush, "more than pull for every branch or every tag, or for environments that any branch may make up"},
	{AllowAnyWorkflowRef, "the workflow as any branch of its repository has it"},
	{AllowForkBranchPush, "more than pull for Buildkite branches, whose tokens don't tell a fork's branch from the repository's own"},
}

// checkWidth refuses what is wider than it looks unless the policy says its name, and
// names that it has no use for: they would let the next edit through.
func checkWidth(p Policy, pr *profile, perm token.Perm) error {
	needed := wide(p, pr, perm)
	for _, name := range p.Allow {
		if !knownAllowance(name) {
			return keyError("allow", name, "must be one of "+strings.Join(allowanceNames(), ", "))
		}
		if needed[name] == "" && name != AllowSelfHostedPublic {
			return keyError("allow", name, "the policy has no need of it; leave it out")
		}
	}
	for _, a := range Allowances { // in a fixed order, so that the message is
		if what := needed[a.Name]; what != "" && !has(p.Allow, a.Name) {
			return fmt.Errorf("%s; it is wider than it looks: if that is meant, say allow = [%q]", what, a.Name)
		}
	}
	if has(p.Allow, AllowSelfHostedPublic) && !guardsRunner(p, pr, perm) {
		return keyError("allow", AllowSelfHostedPublic, "the policy has no need of it; leave it out")
	}
	return nil
}

// wide says which allowances a policy needs, and in which words it is refused. The one
// about runners depends on the token and is a rule (runnerGuard).
func wide(p Policy, pr *profile, perm token.Perm) map[string]string {
	needed := map[string]string{}
	id, _, _ := pr.ids(p) // has been checked
	workflow := p.JobWorkflowRef != "" || p.JobWorkflowRefGlob != ""
	if glob := p.JobWorkflowRefGlob; glob != "" {
		_, ref, _ := strings.Cut(glob, "@")
		if strings.Contains(ref, "*") && (strings.Count(fixedPrefix(ref), "/") < 2 || onlyStars(ref)) {
			needed[AllowAnyWorkflowRef] = fmt.Sprintf("job-workflow-ref-glob = %q takes the workflow from any branch", glob)
		}
	}
	if perm&^token.Pull == 0 {
		return needed
	}
	for _, e := range p.Events {
		switch {
		case has(pr.requests, e):
			needed[AllowPullRequestPush] = fmt.Sprintf("events = [%q] with more than pull lets unreviewed code write", e)
		case !has(pr.trusted, e):
			needed[AllowOutsiderEventPush] = fmt.Sprintf("events = [%q] with more than pull: people without write access can cause it", e)
		}
	}
	switch {
	case id == "" && workflow:
		needed[AllowReusableWithoutCaller] = fmt.Sprintf("a workflow without %s lets every repository of the owner that calls it write", pr.id.key)
	case id == "":
		needed[AllowOwnerWidePush] = fmt.Sprintf("%s without %s lets every repository of the owner write", pr.owner.key, pr.id.key)
	}
	anyRef := p.Ref == "" && (p.RefGlob == "" || onlyStars(p.RefGlob)) && !p.RefProtected
	switch {
	case !anyRef || p.Environment != "": // of one environment the repository's settings say which branches may name it
	case p.EnvironmentGlob != "":
		needed[AllowAnyBranchPush] = fmt.Sprintf("environment-glob = %q without a ref lets every branch write: a job that names an environment which nobody has made makes it, without any protection", p.EnvironmentGlob)
	case p.RefGlob != "":
		needed[AllowAnyBranchPush] = fmt.Sprintf("ref-glob = %q lets every branch or tag write", p.RefGlob)
	}
	if pr.kind == KindBuildkite {
		needed[AllowForkBranchPush] = "a Buildkite token does not tell a fork's branch from the repository's own; see that the pipeline builds no forks, or prefixes their branches"
	}
	return needed
}

// onlyStars tells whether a glob is a kind of ref and nothing else.
func onlyStars(glob string) bool {
	for _, kind := range []string{"refs/heads/", "refs/tags/"} {
		if rest, ok := strings.CutPrefix(glob, kind); ok && strings.Trim(rest, "*/") == "" {
			return true
		}
	}
	return false
}

// guardsRunner tells whether the policy must look at the runner of each token.
func guardsRunner(p Policy, pr *profile, perm token.Perm) bool {
	return perm&^token.Pull != 0 && pr.visibility != "" && p.RunnerEnvironment != pr.hosted
}

// runnerGuard refuses self-hosted runners of public repositories. What a token does not
// tell counts as the worse.
func runnerGuard(p Policy, pr *profile, perm token.Perm) []rule {
	if !guardsRunner(p, pr, perm) || has(p.Allow, AllowSelfHostedPublic) {
		return nil
	}
	const bad = "self-hosted, of a public repository"
	from := value{pr.runner + " and " + pr.visibility, func(claims map[string]any) (any, bool) {
		runner, _ := claims[pr.runner].(string)
		visibility, _ := claims[pr.visibility].(string)
		switch {
		case runner == pr.hosted:
			return runner, true
		case visibility == "private" || visibility == "internal":
			return "self-hosted, of a repository that is " + visibility, true
		}
		return bad, true
	}}
	return []rule{{"allow", from, fmt.Sprintf("wants another, or allow = [%q]", AllowSelfHostedPublic), func(s string) bool { return s != bad }}}
}

func knownAllowance(name string) bool { return has(allowanceNames(), name) }

func allowanceNames() []string {
	names := make([]string, len(Allowances))
	for i, a := range Allowances {
		names[i] = a.Name
	}
	return names
}

// Warnings are what the owner of a policy should know though it is accepted.
func Warnings(p Policy) []string {
	var w []string
	g, err := compileGrant(p)
	if err != nil {
		return nil
	}
	if g.Perm&^token.Pull != 0 && p.wantsEnvironment() && p.Ref == "" && p.RefGlob == "" && !p.RefProtected {
		w = append(w, fmt.Sprintf("environment = %s is the only condition: make it in the repository's settings and give it deployment branches, or any branch may name it", quote(p.Environment+p.EnvironmentGlob)))
	}
	if g.Perm&^token.Pull != 0 && has(p.Caches, "*") {
		w = append(w, "caches = [\"*\"] grants every cache, those to come included")
	}
	return w
}
