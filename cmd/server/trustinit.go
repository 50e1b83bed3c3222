package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/github/repo"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

type trustInit struct {
	repo, cache, name, ref, environment, github string
	grant                                       []string
	add, replace                                bool
}

func (p *program) trustInit() *cobra.Command {
	var in trustInit
	cmd := &cobra.Command{
		Use:   "init --repo OWNER/NAME [--cache CACHE]",
		Short: "Look up a GitHub repository and write a policy for its main branch",
		Long: `Look up the numeric ids of a GitHub repository and write a policy that lets jobs of its
default branch pull from and push to one cache. GITHUB_TOKEN is used if it is set; a
private repository needs it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.initTrust(cmd.Context(), in) },
	}
	f := cmd.Flags()
	f.StringVar(&in.repo, "repo", "", "the repository, owner/name")
	f.StringVar(&in.cache, "cache", "", "the cache (default the repository's name)")
	f.StringVar(&in.name, "name", "", "the policy's name (default owner-name)")
	f.StringVar(&in.ref, "ref", "", "the ref that may push (default the default branch)")
	f.StringVar(&in.environment, "environment", "", "a deployment environment that the job must have")
	f.StringSliceVar(&in.grant, "grant", []string{"pull", "push"}, "what may be done")
	f.StringVar(&in.github, "github-url", "", "GitHub Enterprise Server, https://HOST (default https://github.com)")
	f.BoolVar(&in.add, "add", false, "add the policy as well")
	f.BoolVar(&in.replace, "replace", false, "with --add: replace the policy of this name")
	return cmd
}

func (p *program) initTrust(ctx context.Context, in trustInit) error {
	if in.repo == "" {
		return usageError{errors.New("trust init needs --repo OWNER/NAME")}
	}
	pol, found, err := in.policy(ctx, p.getenv("GITHUB_TOKEN"))
	if err != nil {
		return err
	}
	if !strings.EqualFold(found.FullName, in.repo) {
		fmt.Fprintf(p.stderr, "warning: %s is called %s now\n", in.repo, found.FullName)
	}
	if _, err := fmt.Fprintf(p.stdout, "# %s is %s; jobs of %s get %s on %s for 15 minutes.\n%s",
		found.FullName, found.Visibility, pol.Ref, strings.Join(pol.Grant, " and "), pol.Caches[0], pol.TOML()); err != nil {
		return err
	}
	if in.add {
		return p.addPolicy(ctx, pol, in.replace)
	}
	return nil
}

// policy makes the policy and checks it, so that nothing is printed that a server would
// refuse.
func (in trustInit) policy(ctx context.Context, ghToken string) (trust.Policy, repo.Repo, error) {
	gh := repo.Server{URL: in.github, Token: ghToken}
	issuer, err := gh.Issuer()
	if err != nil {
		return trust.Policy{}, repo.Repo{}, usageError{fmt.Errorf("--github-url: %w", err)}
	}
	found, err := gh.Lookup(ctx, in.repo)
	if err != nil {
		return trust.Policy{}, repo.Repo{}, err
	}
	_, short, _ := strings.Cut(found.FullName, "/")
	pol := trust.Policy{
		Name: in.name, Issuer: issuer, RepositoryID: found.ID, RepositoryOwnerID: found.OwnerID,
		Repository: found.FullName, RepositoryOwner: found.Owner, Ref: in.ref, Environment: in.environment,
		Events: trust.DefaultEvents, Caches: []string{in.cache}, Grant: in.grant, Pins: []string{found.FullName + "/*"}, TTL: "15m",
	}
	if pol.Name == "" {
		pol.Name = strings.ReplaceAll(found.FullName, "/", "-")
	}
	if pol.Ref == "" {
		pol.Ref = "refs/heads/" + found.DefaultBranch
	}
	if in.cache == "" {
		pol.Caches = []string{strings.ToLower(short)}
		if !token.ValidCacheName(pol.Caches[0]) {
			return pol, found, usageError{fmt.Errorf("%q cannot be the name of a cache: say --cache CACHE", pol.Caches[0])}
		}
	}
	if found.Visibility == "public" {
		// A self-hosted runner of a public repository may have run a fork's job before.
		pol.RunnerEnvironment = "github-hosted"
	}
	_, err = trust.Issuers{issuer: trust.KindGitHub}.Compile([]trust.Policy{pol})
	return pol, found, err
}
