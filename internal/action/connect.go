package action

import (
	"context"
	"errors"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/report"
)

// connect finds out whether there is a cache, and whether this job may push to it. Where it may not, for a reason that
// is no mistake, it says what would change that, and goes on.
func (r *run) connect(ctx context.Context) error {
	token := r.Login.Token
	_, err := token(ctx)
	var refused *RefusedError
	switch {
	case errors.Is(err, github.ErrNoIDToken):
		r.note("nothing is pushed", r.withoutToken())
		token = nil
	case errors.As(err, &refused) && r.event() == "pull_request":
		r.note("nothing is pushed", "Nothing was pushed: "+refused.Error()+". Policies accept pull requests only where they say so.")
		token = nil
	case err != nil:
		return err
	case !r.Login.May("push"):
		if r.event() != "pull_request" && !r.in.DryRun {
			return r.Login.lacks("push")
		}
		r.note("nothing is pushed", "Nothing was pushed: the policy that accepts this workflow lets it pull from "+r.in.Cache+" only.")
	default:
		r.pushes = true
	}
	cache, err := r.Connect(r.in, token)
	if err != nil {
		return err
	}
	var config *client.Config
	// Before anything is built: a cache that does not exist is known in a second, not in an hour.
	err = r.Login.patience().do(ctx, func(ctx context.Context) (err error) {
		config, err = cache.Config(ctx)
		return worthAsking(err)
	})
	switch status := client.Status(err); {
	case token != nil || err == nil || ctx.Err() != nil:
	case status == 401 || status == 403 || status == 404:
		r.note("not pulling from the cache", "Nothing was pulled from the cache: it is private, or there is none called "+r.in.Cache+".")
		return nil
	default: // there is nothing to push, and building is possible without
		r.note("not pulling from the cache", "Nothing was pulled from the cache: "+firstLine(err.Error()))
		return nil
	}
	if err != nil {
		return err
	}
	r.cache, r.config, r.asks = cache, config, token != nil
	return nil
}

// note says something in the log and in the summary.
func (r *run) note(title, text string) {
	r.Runner.Warning(title, text)
	r.report.Notes = append(r.report.Notes, text)
}

// withoutToken says why there is no ID token and what would change that.
func (a *Action) withoutToken() string {
	if !a.Runner.InActions() {
		return "Nothing was pushed: there is no token for this server. attic login, $ATTIC_TOKEN or --token-file gives one."
	}
	if a.fromFork() {
		return "Nothing was pushed: this run belongs to a pull request from a fork, and GitHub gives those no ID token, whether or not the " +
			"workflow says id-token: write."
	}
	return "Nothing was pushed: GitHub gave this job no ID token. These lines in the workflow change that:\n" +
		"    permissions:\n      id-token: write\n      contents: read\n"
}

func (a *Action) event() string { return a.Runner.Getenv("GITHUB_EVENT_NAME") }

func (a *Action) fromFork() bool {
	c, err := a.Runner.Context()
	if err != nil || c.EventName != "pull_request" {
		return false
	}
	pull, _ := c.Event["pull_request"].(map[string]any)
	head, _ := pull["head"].(map[string]any)
	repo, _ := head["repo"].(map[string]any)
	fork, _ := repo["fork"].(bool)
	return fork
}

// refused shows, where a server refused this workflow, which workflow it was: the server tells only its operator why.
func (a *Action) refused(err error) error {
	var r *RefusedError
	if !errors.As(err, &r) {
		return err
	}
	text := r.Block()
	a.Runner.Print(text)
	summary := "### attic-action: the cache server refused this workflow\n\n" + report.Fence(text)
	return errors.Join(err, a.Runner.AddSummary(summary))
}
