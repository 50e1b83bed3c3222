package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/action"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/github/comment"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/push"
)

// newMain is what action/main.js calls in a runner.
func newMain() *cobra.Command {
	return &cobra.Command{
		Use:   "main",
		Short: "Do what the GitHub Action does, with the inputs in the environment as a runner sets them",
		Long: `Build the hosts of a flake and push each, as the step of a workflow. Inputs are INPUT_SERVER, INPUT_CACHE,
INPUT_FLAKE, INPUT_HOSTS and so on; see action.yml. Exit status 1: a host failed, the flake has none, or the server can't be
used; 2: an input is wrong; 130: interrupted.`,
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			runner := &github.Runner{Getenv: os.Getenv, Stdout: cmd.OutOrStdout()}
			return annotated(cmd.Context(), runner, runAction(cmd.Context(), runner))
		},
	}
}

// annotated tells an error where a runner shows it: on stderr it would be one line of a long log.
func annotated(ctx context.Context, runner *github.Runner, err error) error {
	if err == nil || !runner.InActions() {
		return err
	}
	text := err.Error()
	if h := hint(err); h != "" {
		text += "\nhint: " + h
	}
	var at action.LocatedError
	if located, ok := errors.AsType[*action.LocatedError](err); ok {
		at = *located
	}
	runner.ErrorAt(at.At, "attic-action", text)
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return &shownError{exitUsage}
	case ctx.Err() != nil:
		return &shownError{exitInterrupted}
	}
	return &shownError{exitFailed}
}

func runAction(ctx context.Context, runner *github.Runner) error {
	in, err := action.ReadInputs(runner)
	if err != nil {
		return &usageError{err}
	}
	return newAction(runner, in).Run(ctx, in)
}

func newAction(runner *github.Runner, in action.Inputs) *action.Action {
	nix := newNix(in)
	a := &action.Action{
		Runner: runner,
		Nix:    nix,
		Login:  newLogin(runner, in),
		Setenv: func(name, value string) { nix.Env = append(nix.Env, name+"="+value) }, // the last of a name holds
		Comment: func(ctx context.Context, api string, token github.Secret, c comment.Comment) error {
			return comment.Server{URL: api, Token: token.Reveal()}.Put(ctx, c)
		},
		Home: home(),
		Now:  time.Now,
	}
	a.Connect = func(in action.Inputs, token action.TokenSource) (action.Cache, error) {
		return connect(runner, nix, in, token, a.Login.Rejected)
	}
	return a
}

// newNix is the machine's Nix, as the inputs want it.
func newNix(in action.Inputs) *nixcli.Nix {
	nix := &nixcli.Nix{Env: withoutSecrets(os.Environ()), EvalArgs: in.EvalArgs}
	if in.MaxJobs != "" {
		nix.ExtraArgs = []string{"--option", "max-jobs", in.MaxJobs}
	}
	return nix
}

func newLogin(runner *github.Runner, in action.Inputs) *action.Login {
	return &action.Login{
		Server: in.Server, Static: in.Token, Audience: in.Audience, Cache: in.Cache, Rights: []string{"pull", "push"},
		Runner: runner, HTTP: &http.Client{Timeout: 30 * time.Second}, Now: time.Now,
	}
}

// retries is how often a request is repeated: with the client's random waits, for more than a minute and a half, which is
// how long a server may take to be deployed.
const retries = 14

// connect makes the cache of the inputs. It asks nothing yet.
func connect(runner *github.Runner, nix *nixcli.Nix, in action.Inputs, token action.TokenSource, rejected func(string) bool) (action.Cache, error) {
	log := slog.New(slog.NewTextHandler(runner.Lines(""), &slog.HandlerOptions{Level: slog.LevelWarn}))
	c, err := client.New(client.Options{
		Endpoint: in.Server, Token: client.TokenSource(token), Rejected: rejected, UserAgent: "attic-action/" + version(), Log: log,
		Retries: retries,
	})
	if err != nil {
		return nil, err
	}
	return &action.Remote{
		Client: c,
		Pusher: &push.Pusher{
			Client: c, Nix: nix, Log: log, Progress: &push.Progress{}, TempDir: runner.Getenv("RUNNER_TEMP"), Now: time.Now,
		},
		Name:   in.Cache,
		Filter: in.PushFilter,
		Runner: runner,
		Every:  10 * time.Second,
	}, nil
}

// home is the user's folder as Nix sees it: $HOME, unless that is somebody else's, as in a job's container.
func home() string {
	dir := os.Getenv("HOME")
	info, err := os.Stat(dir)
	if err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) == os.Geteuid() {
			return dir
		}
	}
	if me, err := user.Current(); err == nil {
		return me.HomeDir
	}
	return dir
}

// withoutSecrets is the environment for Nix and all that it starts, without what would let a flake's code act as this
// job: the token, the right to ask for ID tokens, and what other inputs may hold.
func withoutSecrets(env []string) []string {
	var kept []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if name != "ATTIC_TOKEN" && !strings.HasPrefix(name, "INPUT_") && !strings.HasPrefix(name, "ACTIONS_") && !strings.HasPrefix(name, "STATE_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// newPost is what action/post.js calls at the end of the job.
func newPost() *cobra.Command {
	return &cobra.Command{
		Use:    "post",
		Short:  "Push what a cancelled main had no time for, and take back what it left for later steps: token, nix.conf, netrc",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			runner := &github.Runner{Getenv: os.Getenv, Stdout: cmd.OutOrStdout()}
			in, err := action.ReadInputs(runner)
			if err != nil {
				return nil // main has said so, and left nothing
			}
			newAction(runner, in).PushLeft(cmd.Context(), in)
			return annotated(cmd.Context(), runner, action.Post(cmd.Context(), runner, newLogin(runner, in), home()))
		},
	}
}
