// Package github speaks to the GitHub Actions runner that started this process.
//
// A runner and a step talk in four ways, and each is a trap when what is said comes from a flake, that is, from
// whoever wrote the pull request:
//
//	environment    INPUT_<NAME>, GITHUB_*, RUNNER_*             read:  Runner.Input, Runner.Context
//	files          GITHUB_OUTPUT, _ENV, _STATE, _PATH, _SUMMARY  write: Runner.SetOutput …   (files.go)
//	stdout         ::command key=value::message                  write: Runner.Mask, Error … (commands.go)
//	HTTP           ACTIONS_ID_TOKEN_REQUEST_URL                  ask:   Runner.IDToken       (idtoken.go)
//
// The module go-githubactions is used for what is pure in it: Context, and the escaping of commands
// (Command.String). It is not used for files: its heredoc delimiter is a constant, so a host name that holds that
// line sets outputs and environment variables of its own choice, and it panics when a file can't be written. Nor for
// ID tokens: it neither masks nor retries.
package github

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/sethvargo/go-githubactions"
)

// Runner is the machine around a step. Outside Actions it is usable too: files and commands that have no meaning
// there are left out, above all the masks, which would print a secret to a terminal. It is safe for concurrent use.
type Runner struct {
	Getenv func(string) string
	Stdout io.Writer    // what the runner reads line by line; never written to by others while in use
	Rand   io.Reader    // of delimiters and tokens; nil means crypto/rand
	HTTP   *http.Client // for ID tokens; nil means one with a timeout of 10 s

	mu sync.Mutex // one command, line or block at a time
}

// InActions reports whether a runner listens.
func (r *Runner) InActions() bool { return r.Getenv("GITHUB_ACTIONS") == "true" }

// Input returns the input of action.yml called name, without surrounding white space; empty if it is not set.
func (r *Runner) Input(name string) string { return strings.TrimSpace(r.Getenv(InputVariable(name))) }

// InputVariable is the environment variable in which the runner hands over an input: upper case, blanks as
// underscores. Dashes stay, which no shell could export but every runner does.
func InputVariable(name string) string {
	return "INPUT_" + strings.ToUpper(strings.ReplaceAll(name, " ", "_"))
}

// State returns what an earlier phase of the same step saved under name.
func (r *Runner) State(name string) string { return r.Getenv("STATE_" + name) }

// Context returns what the runner says of the workflow, the job and the event. Its values are as trustworthy as the
// event: branch names and titles are written by strangers.
func (r *Runner) Context() (*githubactions.GitHubContext, error) {
	c, err := githubactions.New(githubactions.WithGetenv(r.Getenv), githubactions.WithWriter(io.Discard)).Context()
	if err != nil {
		return nil, fmt.Errorf("read the workflow's context: %w", err)
	}
	return c, nil
}
