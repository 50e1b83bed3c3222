package trust

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/org/attic-action/internal/token"
)

// Bounds on what a policy file may hold: far above any real one, low enough that a
// token is judged in microseconds.
const (
	maxPolicies = 1000
	maxList     = 64
	maxText     = 512
)

// Compile checks policies and returns them as a Set; issuers are of the kinds that
// their URLs tell. Its error names the policy, the key and the value.
func Compile(policies []Policy) (*Set, error) { return Issuers(nil).Compile(policies) }

// Compile is Compile with issuers of these kinds.
func (is Issuers) Compile(policies []Policy) (*Set, error) {
	if len(policies) > maxPolicies {
		return nil, fmt.Errorf("%d trust policies, at most %d are possible", len(policies), maxPolicies)
	}
	s := &Set{policies: make([]compiled, 0, len(policies))}
	names := make(map[string]bool, len(policies))
	for i, p := range policies {
		c, err := is.compile(p)
		if err != nil {
			if !validName(p.Name) {
				return nil, fmt.Errorf("trust policy %d: %w", i+1, err)
			}
			return nil, fmt.Errorf("trust policy %q: %w", p.Name, err)
		}
		if names[p.Name] {
			return nil, fmt.Errorf("trust policy %q: name is taken by an earlier policy", p.Name)
		}
		names[p.Name] = true
		s.policies = append(s.policies, c)
	}
	return s, nil
}

func (is Issuers) compile(p Policy) (compiled, error) {
	if err := checkTexts(p); err != nil {
		return compiled{}, err
	}
	if p.Sub != "" {
		return compiled{}, keyError("sub", p.Sub, "is not a key: the text of sub changes with a repository's settings and its parts can be confused; say repository-id, ref, environment and events in place of it")
	}
	grant, err := compileGrant(p)
	if err != nil {
		return compiled{}, err
	}
	c := compiled{issuer: p.Issuer, grant: grant, source: p}
	if c.issuer == "" {
		c.issuer = GitHub
	}
	if err := checkIssuer(c.issuer); err != nil {
		return compiled{}, keyError("issuer", p.Issuer, err.Error())
	}
	c.profile = is.profile(c.issuer)
	for _, part := range []func(Policy, *profile) ([]rule, error){identityRules, eventRules, refRules, workflowRules, runnerRules} {
		rules, err := part(p, c.profile)
		if err != nil {
			return compiled{}, err
		}
		c.rules = append(c.rules, rules...)
	}
	if grant.Perm&^token.Pull != 0 && p.Ref == "" && p.RefGlob == "" && !p.wantsEnvironment() && !p.RefProtected {
		// Otherwise whoever may push any branch of the repository may write the cache.
		return compiled{}, fmt.Errorf("grant = [%s]: more than pull needs one of ref, ref-glob, environment, environment-glob or ref-protected = true", strings.Join(p.Grant, ", "))
	}
	if err := checkWidth(p, c.profile, grant.Perm); err != nil {
		return compiled{}, err
	}
	c.rules = append(c.rules, runnerGuard(p, c.profile, grant.Perm)...)
	return c, nil
}

func identityRules(p Policy, pr *profile) ([]rule, error) {
	id, owner, err := pr.ids(p)
	if err != nil {
		return nil, err
	}
	var rules []rule
	if id != "" {
		rules = append(rules, equal(pr.id.key, claim(pr.id.claim), id))
	}
	if owner != "" {
		rules = append(rules, equal(pr.owner.key, claim(pr.owner.claim), owner))
	}
	if p.Repository != "" {
		owner, name, ok := strings.Cut(p.Repository, "/")
		// GitLab's groups are nested.
		if !ok || owner == "" || name == "" || strings.Contains(p.Repository, "*") || pr.kind != KindGitLab && strings.Contains(name, "/") {
			return nil, keyError("repository", p.Repository, "must be owner/name, without patterns")
		}
		rules = append(rules, equal("repository", pr.repository, p.Repository))
	}
	if p.RepositoryOwner != "" {
		if strings.Contains(p.RepositoryOwner, "*") || pr.kind != KindGitLab && strings.Contains(p.RepositoryOwner, "/") {
			return nil, keyError("repository-owner", p.RepositoryOwner, "must be a name, without patterns")
		}
		rules = append(rules, equal("repository-owner", pr.ownerName, p.RepositoryOwner))
	}
	return rules, nil
}

func eventRules(p Policy, pr *profile) ([]rule, error) {
	if p.Events == nil {
		return []rule{oneOf("events", claim(pr.event), pr.defaults)}, nil
	}
	if len(p.Events) == 0 {
		return nil, fmt.Errorf("events = []: admits nothing, leave it out for %s", strings.Join(pr.defaults, ", "))
	}
	for _, e := range p.Events {
		if e == "" || strings.Trim(e, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return nil, keyError("events", e, "must be event names such as push, without patterns")
		}
	}
	return []rule{oneOf("events", claim(pr.event), p.Events)}, nil
}

func refRules(p Policy, pr *profile) ([]rule, error) {
	var rules []rule
	switch {
	case p.Ref != "" && p.RefGlob != "":
		return nil, fmt.Errorf("ref and ref-glob exclude each other")
	case p.Ref != "":
		if err := checkRef(p.Ref); err != "" {
			return nil, keyError("ref", p.Ref, err)
		}
		rules = append(rules, equal("ref", pr.ref, p.Ref))
	case p.RefGlob != "":
		if err := checkGlob(p.RefGlob); err != nil {
			return nil, keyError("ref-glob", p.RefGlob, err.Error())
		}
		// "refs/**" would be every branch, tag and pull request at once.
		if prefix := fixedPrefix(p.RefGlob); !strings.HasPrefix(prefix, "refs/") || strings.Count(prefix, "/") < 2 {
			return nil, keyError("ref-glob", p.RefGlob, "must begin with a kind of ref, such as refs/heads/")
		}
		rules = append(rules, matches("ref-glob", pr.ref, p.RefGlob))
	}
	if p.RefProtected {
		if pr.refProtected == "" {
			return nil, pr.without("ref-protected")
		}
		rules = append(rules, equal("ref-protected", claim(pr.refProtected), "true"))
	}
	return rules, nil
}

func checkRef(ref string) string {
	switch {
	case strings.Contains(ref, "*"):
		return "is compared exactly; patterns go into ref-glob"
	case !strings.HasPrefix(ref, "refs/"):
		return fmt.Sprintf("must be a full ref, such as %q", "refs/heads/"+ref)
	}
	return ""
}

func workflowRules(p Policy, pr *profile) ([]rule, error) {
	switch {
	case pr.workflow == "" && (p.JobWorkflowRef != "" || p.JobWorkflowRefGlob != ""):
		return nil, pr.without("job-workflow-ref")
	case p.JobWorkflowRef != "" && p.JobWorkflowRefGlob != "":
		return nil, fmt.Errorf("job-workflow-ref and job-workflow-ref-glob exclude each other")
	case p.JobWorkflowRef != "":
		if strings.Contains(p.JobWorkflowRef, "*") || !strings.Contains(p.JobWorkflowRef, "@") {
			return nil, keyError("job-workflow-ref", p.JobWorkflowRef, "must be owner/name/.github/workflows/file@ref, without patterns")
		}
		return []rule{equal("job-workflow-ref", claim(pr.workflow), p.JobWorkflowRef)}, nil
	case p.JobWorkflowRefGlob != "":
		if err := checkWorkflowGlob(p.JobWorkflowRefGlob); err != nil {
			return nil, keyError("job-workflow-ref-glob", p.JobWorkflowRefGlob, err.Error())
		}
		return []rule{matches("job-workflow-ref-glob", claim(pr.workflow), p.JobWorkflowRefGlob)}, nil
	}
	return nil, nil
}

func checkWorkflowGlob(glob string) error {
	if err := checkGlob(glob); err != nil {
		return err
	}
	file, _, ok := strings.Cut(glob, "@")
	switch {
	case !ok:
		return fmt.Errorf("must contain the '@' between file and ref")
	case strings.Count(fixedPrefix(file), "/") < 2:
		return fmt.Errorf("must begin with owner/name/")
	case strings.Contains(file, "**"):
		// A branch may be called "x@refs/heads/main": ** before the '@' would run on
		// into such a ref, and "…/**@refs/heads/main" would match it.
		return fmt.Errorf("may have ** only behind the '@'")
	}
	return nil
}

func runnerRules(p Policy, pr *profile) ([]rule, error) {
	var rules []rule
	environment, err := environmentRules(p, pr)
	if err != nil {
		return nil, err
	}
	rules = append(rules, environment...)
	if p.RunnerEnvironment != "" {
		if pr.runner == "" {
			return nil, pr.without("runner-environment")
		}
		if !has(pr.runners(), p.RunnerEnvironment) {
			return nil, keyError("runner-environment", p.RunnerEnvironment, "must be "+strings.Join(pr.runners(), " or "))
		}
		rules = append(rules, equal("runner-environment", claim(pr.runner), p.RunnerEnvironment))
	}
	return rules, nil
}

func environmentRules(p Policy, pr *profile) ([]rule, error) {
	switch {
	case !p.wantsEnvironment():
		return nil, nil
	case pr.environment == "" && p.Environment != "":
		return nil, pr.without("environment")
	case pr.environment == "":
		return nil, pr.without("environment-glob")
	case p.Environment != "" && p.EnvironmentGlob != "":
		return nil, fmt.Errorf("environment and environment-glob exclude each other")
	case p.Environment != "":
		return []rule{equal("environment", claim(pr.environment), p.Environment)}, nil
	}
	if err := checkGlob(p.EnvironmentGlob); err != nil {
		return nil, keyError("environment-glob", p.EnvironmentGlob, err.Error())
	}
	// A job names its environment itself: one that fits "*" is always at hand.
	if fixedPrefix(p.EnvironmentGlob) == "" {
		return nil, keyError("environment-glob", p.EnvironmentGlob, "must begin with text, such as prod-*")
	}
	return []rule{matches("environment-glob", claim(pr.environment), p.EnvironmentGlob)}, nil
}

// wantsEnvironment reports whether the job must have a certain environment.
func (p Policy) wantsEnvironment() bool { return p.Environment != "" || p.EnvironmentGlob != "" }

func compileGrant(p Policy) (Grant, error) {
	g := Grant{Policy: p.Name, TTL: DefaultTTL}
	if len(p.Caches) == 0 {
		return g, fmt.Errorf("caches is required: name the caches that it grants")
	}
	for _, c := range p.Caches {
		if err := token.ParsePattern(c); err != nil {
			return g, keyError("caches", c, err.Error())
		}
	}
	if len(p.Grant) == 0 {
		return g, fmt.Errorf("grant is required: name permissions, such as pull and push")
	}
	for _, name := range p.Grant {
		perm, err := token.ParsePerm(name)
		if err != nil {
			return g, keyError("grant", name, "must be one of "+strings.ReplaceAll(token.All.String(), ",", ", "))
		}
		g.Perm |= perm
	}
	for _, pin := range p.Pins {
		if err := checkPin(pin); err != "" {
			return g, keyError("pins", pin, err)
		}
	}
	if p.TTL != "" {
		ttl, err := token.ParseDuration(p.TTL)
		if err != nil {
			return g, keyError("ttl", p.TTL, err.Error())
		}
		if ttl < time.Second || ttl > MaxTTL {
			return g, keyError("ttl", p.TTL, fmt.Sprintf("must be between 1s and %s", strings.TrimSuffix(MaxTTL.String(), "0m0s")))
		}
		g.TTL = ttl
	}
	g.Caches, g.Pins = slices.Clone(p.Caches), slices.Clone(p.Pins)
	return g, nil
}

// checkPin wants a literal beginning: a pin keeps things from collection for good, so
// no policy may hold all names.
func checkPin(pin string) string {
	switch {
	case pin == "" || strings.HasPrefix(pin, "/") || strings.HasSuffix(pin, "/"):
		return "must be a name or pattern such as acme/infra/*"
	case strings.HasPrefix(pin, "*"):
		return "must begin with a name, such as acme/infra/*"
	case strings.ContainsFunc(pin, func(r rune) bool { return r <= ' ' || r > '~' }): // no token could hold it
		return "must be printable ASCII without spaces"
	}
	return ""
}

func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("must be an https URL without query")
	}
	return nil
}

// checkTexts bounds every text and refuses what a terminal or a log would not show.
func checkTexts(p Policy) error {
	if !validName(p.Name) {
		return keyError("name", p.Name, "must be 1 to 64 of letters, digits, '.', '_' and '-'")
	}
	for _, t := range []struct {
		key    string
		values []string
	}{
		{"issuer", []string{p.Issuer}}, {"repository", []string{p.Repository}}, {"repository-owner", []string{p.RepositoryOwner}},
		{"pipeline-id", []string{p.PipelineID}}, {"organization-id", []string{p.OrganizationID}},
		{"ref", []string{p.Ref}}, {"ref-glob", []string{p.RefGlob}},
		{"events", p.Events}, {"environment", []string{p.Environment}}, {"environment-glob", []string{p.EnvironmentGlob}},
		{"job-workflow-ref", []string{p.JobWorkflowRef}}, {"job-workflow-ref-glob", []string{p.JobWorkflowRefGlob}},
		{"runner-environment", []string{p.RunnerEnvironment}},
		{"caches", p.Caches}, {"grant", p.Grant}, {"pins", p.Pins}, {"ttl", []string{p.TTL}},
		{"allow", p.Allow}, {"sub", []string{p.Sub}},
	} {
		if len(t.values) > maxList {
			return fmt.Errorf("%s has %d members, at most %d are possible", t.key, len(t.values), maxList)
		}
		for _, v := range t.values {
			if err := checkText(v); err != "" {
				return keyError(t.key, v, err)
			}
		}
	}
	return nil
}

func checkText(s string) string {
	switch {
	case len(s) > maxText:
		return fmt.Sprintf("has %d bytes, at most %d are possible", len(s), maxText)
	case !utf8.ValidString(s), strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }):
		return "holds a character that cannot be printed"
	}
	return ""
}

func validName(name string) bool {
	return name != "" && len(name) <= 64 &&
		strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

func keyError(key string, value any, problem string) error {
	if s, ok := value.(string); ok {
		return fmt.Errorf("%s = %s: %s", key, quote(s), problem)
	}
	return fmt.Errorf("%s = %v: %s", key, value, problem)
}
