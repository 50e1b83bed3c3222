package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/action"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/push"
)

// newMain is what action/main.js calls in a runner.
func newMain() *cobra.Command {
	return &cobra.Command{
		Use:   "main",
		Short: "Do what the GitHub Action does, with the inputs in the environment as a runner sets them",
		Long: `Build the hosts of a flake and push each, as the step of a workflow. Inputs are INPUT_SERVER, INPUT_CACHE,
INPUT_FLAKE, INPUT_HOSTS; see action.yml. Exit status 1: a host failed, the flake has none, or the server can't be
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
	runner.Error("attic-action", text)
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
	nix := &nixcli.Nix{Env: withoutSecrets(os.Environ())}
	a := &action.Action{
		Runner: runner,
		Nix:    nix,
		Login: &action.Login{
			Server: in.Server, Static: in.Token, Audience: in.Audience, Runner: runner, Now: time.Now,
			HTTP: &http.Client{Timeout: 30 * time.Second},
		},
		Connect: func(ctx context.Context, in action.Inputs, token action.TokenSource) (action.Pusher, error) {
			return connect(ctx, runner, nix, in, token)
		},
		Now: time.Now,
	}
	return a.Run(ctx, in)
}

// connect asks for the cache before anything is built: one that does not exist is known in a second, not in an hour.
func connect(ctx context.Context, runner *github.Runner, nix *nixcli.Nix, in action.Inputs, token action.TokenSource) (action.Pusher, error) {
	log := slog.New(slog.NewTextHandler(runner.Lines(""), &slog.HandlerOptions{Level: slog.LevelWarn}))
	c, err := client.New(client.Options{
		Endpoint: in.Server, Token: client.TokenSource(token), UserAgent: "attic-action/" + version(), Log: log,
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.CacheConfig(ctx, in.Cache); err != nil {
		return nil, err
	}
	return &action.CachePusher{
		Pusher: &push.Pusher{Client: c, Nix: nix, Log: log, Progress: &push.Progress{}, TempDir: runner.Getenv("RUNNER_TEMP"), Now: time.Now},
		Cache:  in.Cache,
		Runner: runner,
		Every:  10 * time.Second,
	}, nil
}

// withoutSecrets is the environment for Nix and all that it starts, without what would let a flake's code act as this
// job.
func withoutSecrets(env []string) []string {
	var kept []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if name != "ATTIC_TOKEN" && name != "INPUT_TOKEN" && !strings.HasPrefix(name, "ACTIONS_") {
			kept = append(kept, kv)
		}
	}
	return kept
}
