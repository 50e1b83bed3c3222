package action

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/token"
)

// Inputs are the inputs of action.yml, checked.
type Inputs struct {
	Server     string // URL of the cache server, without its last slash
	Cache      string
	Flake      string   // flake reference
	Hosts      Patterns // which of its hosts
	Attrs      Attrs    // which other outputs
	SkipCached bool
	DryRun     bool
	FailFast   bool
	MaxJobs    string         // of Nix: a number, auto, or empty for what it is configured to
	EvalJobs   int            // evaluations side by side; 0 means as many as fit
	EvalArgs   []string       // of nix eval
	PushFilter *regexp.Regexp // names of store paths that are not pushed; nil filters nothing
	Substitute bool           // later steps pull from the cache, too
	Pin        bool
	Keep       int // revisions of a pin; 0 means what the server keeps
	Matrix     bool
	Runners    Runners
	Needs      []Need // results of earlier jobs; not nil means that they are what is reported
	Token      github.Secret
	Audience   string        // of ID tokens; empty: what the server says, if that is its own name
	Comment    bool          // on the pull request
	GitHub     github.Secret // token for that
}

// input is one of action.yml. read gets its value trimmed; an empty one is one that was not given.
type input struct {
	name string
	read func(in *Inputs, text string) error
}

// inputs are all of them, in action.yml's order. An error is what is wrong with the value; its input is named for it.
var inputs = []input{
	{"server", (*Inputs).readServer},
	{"cache", (*Inputs).readCache},
	{"flake", (*Inputs).readFlake},
	{"hosts", func(in *Inputs, s string) (err error) { in.Hosts, err = ParsePatterns(s); return err }},
	{"attrs", func(in *Inputs, s string) (err error) { in.Attrs, err = ParseAttrs(s); return err }},
	{"skip-cached", func(in *Inputs, s string) error { return readBool(&in.SkipCached, s, true) }},
	{"dry-run", func(in *Inputs, s string) error { return readBool(&in.DryRun, s, false) }},
	{"fail-fast", func(in *Inputs, s string) error { return readBool(&in.FailFast, s, false) }},
	{"max-jobs", (*Inputs).readMaxJobs},
	{"eval-jobs", func(in *Inputs, s string) error { return readCount(&in.EvalJobs, s, 256) }},
	{"eval-args", func(in *Inputs, s string) error { in.EvalArgs = nonBlank(s); return nil }},
	{"push-filter", (*Inputs).readPushFilter},
	{"substitute", func(in *Inputs, s string) error { return readBool(&in.Substitute, s, true) }},
	{"pin", func(in *Inputs, s string) error { return readBool(&in.Pin, s, true) }},
	{"keep", func(in *Inputs, s string) error { return readCount(&in.Keep, s, 1000) }},
	{"matrix", func(in *Inputs, s string) error { return readBool(&in.Matrix, s, false) }},
	{"runners", func(in *Inputs, s string) (err error) { in.Runners, err = ParseRunners(s); return err }},
	{"needs", func(in *Inputs, s string) (err error) { in.Needs, err = ParseNeeds(s); return err }},
	{"token", func(*Inputs, string) error { return nil }}, // read before all others
	{"audience", func(in *Inputs, s string) error { in.Audience = s; return nil }},
	{"comment", func(in *Inputs, s string) error { return readBool(&in.Comment, s, false) }},
	{"github-token", func(*Inputs, string) error { return nil }}, // likewise
}

// ReadInputs reads the inputs. An error names the input and what it should be. A token is masked at once.
func ReadInputs(r *github.Runner) (Inputs, error) {
	secret := r.Input("token")
	if secret == "" {
		secret = strings.TrimSpace(r.Getenv("ATTIC_TOKEN"))
	}
	r.Mask(secret)
	forGitHub := r.Input("github-token")
	r.Mask(forGitHub)
	in := Inputs{Token: github.NewSecret(secret), GitHub: github.NewSecret(forGitHub)}
	for _, i := range inputs {
		if err := i.read(&in, r.Input(i.name)); err != nil {
			return in, fmt.Errorf("input %s: %w", i.name, err)
		}
	}
	if in.Matrix && in.Needs != nil {
		return in, errors.New("input matrix: it is for the first job, and needs for the last; one step can't be both")
	}
	return in, nil
}

func (in *Inputs) readServer(s string) error {
	in.Server = strings.TrimRight(s, "/")
	u, err := url.Parse(in.Server)
	switch {
	case in.Server == "":
		return errors.New("it is missing: the URL of the cache server, such as https://cache.example.fly.dev")
	case err != nil || u.User != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("it is not the URL of a server, such as https://cache.example.fly.dev") // not the value: it may hold a password
	}
	return nil
}

func (in *Inputs) readCache(s string) error {
	in.Cache = s
	switch {
	case s == "":
		return fmt.Errorf("it is missing: the name of a cache on %s", in.Server)
	case !token.ValidCacheName(s):
		return fmt.Errorf("%q is not the name of a cache: letters, digits, - and _", s)
	}
	return nil
}

func (in *Inputs) readFlake(s string) error {
	in.Flake = s
	switch {
	case s == "":
		in.Flake = "."
	case strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\x00\n\r"):
		return fmt.Errorf("%q is not a flake reference, such as . or github:owner/repo", s)
	case strings.Contains(s, "#"):
		return fmt.Errorf("%q names an output; leave out the # and choose with the inputs hosts and attrs", s)
	}
	return nil
}

func (in *Inputs) readMaxJobs(s string) error {
	in.MaxJobs = s
	if n, err := strconv.ParseUint(s, 10, 16); s != "" && s != "auto" && (err != nil || n == 0) {
		return fmt.Errorf("%q is neither a number of 1 or more nor auto", s)
	}
	return nil
}

func (in *Inputs) readPushFilter(s string) (err error) {
	if s == "" {
		return nil
	}
	if in.PushFilter, err = regexp.Compile(s); err != nil {
		return fmt.Errorf("it is not a regular expression: %w", err)
	}
	return nil
}

// readBool takes what YAML calls a boolean.
func readBool(to *bool, s string, def bool) error {
	switch s {
	case "":
		*to = def
	case "true", "True", "TRUE":
		*to = true
	case "false", "False", "FALSE":
		*to = false
	default:
		return fmt.Errorf("%q is neither true nor false", s)
	}
	return nil
}

func readCount(to *int, s string, most uint64) error {
	if s == "" {
		*to = 0
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 || n > most {
		return fmt.Errorf("%q is not a number from 1 to %d", s, most)
	}
	*to = int(n)
	return nil
}

// nonBlank are the lines of a text that hold anything, trimmed.
func nonBlank(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
