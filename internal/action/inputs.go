package action

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/token"
)

// Inputs are the inputs of action.yml, checked.
type Inputs struct {
	Server   string // URL of the cache server, without its last slash
	Cache    string
	Flake    string   // flake reference
	Hosts    Patterns // which of its hosts
	Token    github.Secret
	Audience string // of ID tokens; empty: what the server says, if that is its own name
}

// InputNames are the inputs that ReadInputs reads, as action.yml declares them.
var InputNames = []string{"server", "cache", "flake", "hosts", "token", "audience"}

// ReadInputs reads the inputs. An error names the input and what it should be. A token is masked at once.
func ReadInputs(r *github.Runner) (Inputs, error) {
	secret := r.Input("token")
	if secret == "" {
		secret = strings.TrimSpace(r.Getenv("ATTIC_TOKEN"))
	}
	r.Mask(secret)
	in := Inputs{
		Server:   strings.TrimRight(r.Input("server"), "/"),
		Cache:    r.Input("cache"),
		Flake:    r.Input("flake"),
		Token:    github.NewSecret(secret),
		Audience: r.Input("audience"),
	}
	if in.Flake == "" {
		in.Flake = "."
	}
	u, err := url.Parse(in.Server)
	switch {
	case in.Server == "":
		return in, fmt.Errorf("input server is missing: the URL of the cache server, such as https://cache.example.fly.dev")
	case err != nil || u.User != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "":
		return in, fmt.Errorf("input server is not the URL of a server, such as https://cache.example.fly.dev") // not the value: it may hold a password
	case in.Cache == "":
		return in, fmt.Errorf("input cache is missing: the name of a cache on %s", in.Server)
	case !token.ValidCacheName(in.Cache):
		return in, fmt.Errorf("input cache: %q is not the name of a cache: letters, digits, - and _", in.Cache)
	case strings.HasPrefix(in.Flake, "-") || strings.ContainsAny(in.Flake, "\x00\n\r"):
		return in, fmt.Errorf("input flake: %q is not a flake reference, such as . or github:owner/repo", in.Flake)
	case strings.Contains(in.Flake, "#"):
		return in, fmt.Errorf("input flake: %q names an output; leave out the # and choose with the input hosts", in.Flake)
	}
	in.Hosts, err = ParsePatterns(r.Input("hosts"))
	if err != nil {
		return in, fmt.Errorf("input hosts: %w", err)
	}
	return in, nil
}

// Patterns choose names. The zero value chooses all.
type Patterns struct{ lines []string }

// ParsePatterns reads globs (* ? [a-z]), one a line. A line behind ! excludes. The last line that matches decides; a
// name that none matches is in if there is no line, or if the first one excludes.
func ParsePatterns(text string) (Patterns, error) {
	var p Patterns
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		glob := strings.TrimSpace(strings.TrimPrefix(line, "!"))
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return Patterns{}, fmt.Errorf("%q is not a pattern: * and ? stand for characters, [a-z] for one of them, ! in front excludes", line)
		}
		p.lines = append(p.lines, line)
	}
	return p, nil
}

// Match reports whether name is chosen.
func (p Patterns) Match(name string) bool {
	in := len(p.lines) == 0 || strings.HasPrefix(p.lines[0], "!")
	for _, line := range p.lines {
		glob, out := strings.CutPrefix(line, "!")
		if ok, _ := path.Match(strings.TrimSpace(glob), name); ok { // parsed before, so no error
			in = !out
		}
	}
	return in
}
