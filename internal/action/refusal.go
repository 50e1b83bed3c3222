package action

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/github"
)

// RefusedError is a server that did not accept the ID token, or gave no right to push for it.
type RefusedError struct {
	Answer api.TokenError
	Claims []github.Claim // what the server was shown
	Cache  string
}

func (e *RefusedError) Error() string {
	text := "the cache server refused this workflow: " + clean(e.Answer.Code)
	if e.Answer.Description != "" {
		text += ": " + clean(e.Answer.Description)
	}
	if e.Answer.RequestID != "" {
		text += " (request " + clean(e.Answer.RequestID) + ")"
	}
	return text
}

// Block shows the claims, and a policy that would accept them, for the server's operator.
func (e *RefusedError) Block() string {
	var b strings.Builder
	b.WriteString("The cache server refused this workflow. It was shown these claims; a [[trust]] policy of the server must match them:\n")
	for _, c := range e.Claims {
		fmt.Fprintf(&b, "  %-20s %s\n", c.Name, clean(c.Value))
	}
	if e.Answer.RequestID != "" {
		fmt.Fprintf(&b, "The server's log says why at request %s.\n", clean(e.Answer.RequestID))
	}
	if p, ok := e.policy(); ok {
		accepts := "it"
		if p.event != "" {
			accepts = "a push to this ref, though no " + clean(p.event) + ", which a policy has to name (docs/trust.md says why)"
		}
		fmt.Fprintf(&b, "\nThis policy in server.toml would accept %s:\n\n%s\nor, on the server, at once:\n\n  %s\n", accepts, p.toml(), p.command())
	}
	return b.String()
}

// policy is a [[trust]] table. The order of fields is that of the table.
type policy struct {
	Name         string   `toml:"name"`
	Issuer       string   `toml:"issuer,omitempty"`
	RepositoryID int64    `toml:"repository-id"`
	Repository   string   `toml:"repository,omitempty"`
	Ref          string   `toml:"ref,omitempty"`
	Environment  string   `toml:"environment,omitempty"`
	Caches       []string `toml:"caches"`
	Grant        []string `toml:"grant"`
	Pins         []string `toml:"pins,omitempty"`

	event string // that policies do not accept by themselves
}

// githubIssuer is the issuer that a policy need not name.
const githubIssuer = "https://token.actions.githubusercontent.com"

// policy is the narrowest one that accepts these claims. There is none without a repository's id and a branch.
func (e *RefusedError) policy() (policy, bool) {
	claims := map[string]string{}
	for _, c := range e.Claims {
		claims[c.Name] = c.Value
	}
	id, err := strconv.ParseInt(claims["repository_id"], 10, 64)
	ref := claims["ref"]
	// A pull request's ref would be a policy for one pull request, and unreviewed code.
	if err != nil || id <= 0 || !strings.HasPrefix(ref, "refs/heads/") && !strings.HasPrefix(ref, "refs/tags/") || e.Cache == "" {
		return policy{}, false
	}
	repo := claims["repository"]
	p := policy{
		Name: policyName(repo), RepositoryID: id, Repository: repo, Ref: ref, Environment: claims["environment"],
		Caches: []string{e.Cache}, Grant: []string{"pull", "push"},
	}
	if repo != "" {
		p.Pins = []string{repo + "/*"}
	}
	if iss := claims["iss"]; iss != githubIssuer {
		p.Issuer = iss
	}
	switch event := claims["event_name"]; event {
	case "push", "workflow_dispatch", "schedule":
	default:
		p.event = event
	}
	return p, true
}

// policyName is a repository's name as policies may be called.
func policyName(repo string) string {
	name := strings.Map(func(c rune) rune {
		if c < 0x80 && isLetterOrDigit(byte(c)) || c == '.' || c == '_' || c == '-' {
			return c
		}
		return '-'
	}, repo)
	name = strings.Trim(name, "-")
	return name[:min(len(name), 64)]
}

func isLetterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func (p policy) toml() string {
	b, err := toml.Marshal(map[string][]policy{"trust": {p}})
	if err != nil {
		return "" // strings and numbers have a form
	}
	return indent(string(b))
}

// command is the same policy for attic-server's command line.
func (p policy) command() string {
	args := []string{"attic-server", "trust", "add"}
	for _, f := range []struct{ flag, value string }{
		{"name", p.Name}, {"issuer", p.Issuer}, {"repository-id", strconv.FormatInt(p.RepositoryID, 10)}, {"repository", p.Repository},
		{"ref", p.Ref}, {"environment", p.Environment}, {"caches", strings.Join(p.Caches, ",")}, {"grant", strings.Join(p.Grant, ",")},
		{"pins", strings.Join(p.Pins, ",")},
	} {
		if f.value != "" {
			args = append(args, "--"+f.flag, shellWord(f.value))
		}
	}
	return strings.Join(args, " ")
}

// shellWord quotes what a shell would not leave alone: a branch may be called $(id).
func shellWord(s string) string {
	if !strings.ContainsFunc(s, func(c rune) bool {
		return c >= 0x80 || !isLetterOrDigit(byte(c)) && !strings.ContainsRune("/._-:,@+=", c)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(clean(s), "'", `'\''`) + "'"
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}
