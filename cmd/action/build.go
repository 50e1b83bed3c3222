package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/action"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/report"
)

// buildOptions are the flags of build. Most are inputs of the action, and are read as those are.
type buildOptions struct {
	server, tokenFile                         string
	attrs, evalArgs                           []string
	maxJobs, evalJobs, pushFilter             string
	skipCached, dryRun, failFast, jsonInstead bool
}

// newBuild is what the action does, on a machine without a runner.
func newBuild() *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [flags] CACHE [FLAKE [HOST…]]",
		Short: "Build the hosts of a flake and push each, as the GitHub Action does",
		Long: `Build the hosts of a flake and push each, as the GitHub Action does: what is built is pushed while the build goes on, a
host that the cache holds whole is not built, and one host's failure stops no other. FLAKE is . if it is not given; HOSTs
are globs, of which ! in front excludes and the last that matches decides.

CACHE is a cache's name, or SERVER:CACHE with a server of attic's own configuration; server and token are found as push
finds them. Nix's configuration stays as it is: attic-action use adds the cache to it.

Exit codes: 0 every host that this machine can build is in the cache; 1 a host failed, or an error; 2 the command line is
wrong; 130 interrupted, with what was built until then in the cache.`,
		Example: `  attic-action build system
  attic-action build --json system github:acme/infra 'web-*' '!web-old'
  attic-action build --attr 'packages.*' --dry-run system . '!*'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("build needs a CACHE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "`URL` of the server")
	f.StringVar(&o.tokenFile, "token-file", "", "`FILE` that holds the token; - is standard input")
	f.StringArrayVar(&o.attrs, "attr", nil, "further `OUTPUT`s, such as packages.*; with the HOST '!*' they alone are built")
	f.StringArrayVar(&o.evalArgs, "eval-arg", nil, "`ARGUMENT` of nix eval, such as --impure")
	f.StringVar(&o.maxJobs, "max-jobs", "", "derivations that Nix builds side by side, or auto")
	f.StringVar(&o.evalJobs, "eval-jobs", "", "hosts evaluated side by side; as many as fit if not given")
	f.StringVar(&o.pushFilter, "push-filter", "", "regular `EXPRESSION` of store path names that are not pushed")
	f.BoolVar(&o.skipCached, "skip-cached", true, "leave hosts unbuilt whose whole closure is on the cache")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be built, and build and push nothing")
	f.BoolVar(&o.failFast, "fail-fast", false, "build no more hosts once one has failed")
	f.BoolVar(&o.jsonInstead, "json", false, "print the result as one JSON object, and the log to standard error")
	return cmd
}

// errNoToken is a push without a right to it, and without a way to get one.
var errNoToken = errors.New("no token is given for")

func (o buildOptions) run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	l, err := sources{server: o.server, tokenFile: o.tokenFile, getenv: os.Getenv, stdin: in}.resolve(args[0])
	if err != nil {
		return err
	}
	runner := &github.Runner{Getenv: o.getenv(l, args[1:]), Stdout: out}
	if o.jsonInstead {
		runner.Stdout = errOut
	}
	if l.Token == "" && !runner.CanRequestIDToken() && !o.dryRun {
		return fmt.Errorf("%w %s", errNoToken, l.Endpoint)
	}
	inputs, err := action.ReadInputs(runner)
	if err != nil {
		return &usageError{err}
	}
	a := newAction(runner, inputs)
	var done *report.Report
	a.Told = func(r report.Report) { done = &r }
	err = a.Run(ctx, inputs)
	if o.jsonInstead && done != nil {
		err = errors.Join(err, writeBuildJSON(out, *done))
	}
	return err
}

// getenv is the environment with the inputs that flags and arguments are. A runner's own inputs are not for this command.
func (o buildOptions) getenv(l login, args []string) func(string) string {
	flake := "."
	if len(args) > 0 {
		flake, args = args[0], args[1:]
	}
	inputs := map[string]string{
		"server": l.Endpoint, "cache": l.Cache, "token": string(l.Token), "flake": flake, "hosts": strings.Join(args, "\n"),
		"attrs": strings.Join(o.attrs, "\n"), "eval-args": strings.Join(o.evalArgs, "\n"),
		"max-jobs": o.maxJobs, "eval-jobs": o.evalJobs, "push-filter": o.pushFilter, "skip-cached": strconv.FormatBool(o.skipCached),
		"dry-run": strconv.FormatBool(o.dryRun), "fail-fast": strconv.FormatBool(o.failFast),
		"substitute": "false", // no post step would take it back
	}
	env := map[string]string{"ATTIC_TOKEN": ""} // it may be another server's
	for name, value := range inputs {
		env[github.InputVariable(name)] = value
	}
	return func(name string) string {
		value, ok := env[name]
		if ok || strings.HasPrefix(name, "INPUT_") {
			return value
		}
		return os.Getenv(name)
	}
}

func writeBuildJSON(w io.Writer, r report.Report) error {
	type row struct {
		Name      string `json:"name"`
		System    string `json:"system,omitempty"`
		Result    string `json:"result"`
		Reason    string `json:"reason,omitempty"`
		StorePath string `json:"store_path,omitempty"`
		Pushed    int    `json:"pushed_paths"`
		Bytes     int64  `json:"sent_bytes"`
		Seconds   int64  `json:"seconds"`
	}
	result := struct {
		Hosts  []row    `json:"hosts"`
		Failed []string `json:"failed_hosts"`
		Notes  []string `json:"notes"`
	}{[]row{}, r.Failed(), append([]string{}, r.Notes...)}
	for _, h := range r.Hosts {
		result.Hosts = append(result.Hosts, row{h.Name, h.System, string(h.Result), h.Reason, h.StorePath, h.Pushed, h.Bytes, int64(h.Time.Seconds())})
	}
	b, err := json.Marshal(result)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", b)
	}
	if err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
