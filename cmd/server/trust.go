package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/trust"
	"github.com/org/attic-action/internal/trustbook"
)

// What goes over the socket.
type (
	trustAdd struct {
		Policy  trust.Policy `json:"policy"`
		By      string       `json:"by"`
		Replace bool         `json:"replace"`
	}
	trustRemove struct {
		Name string `json:"name"`
	}
	trustList struct {
		Policies []trustbook.Entry `json:"policies"`
		Issuers  trust.Issuers     `json:"issuers"`  // kinds, by URL
		Audience string            `json:"audience"` // empty: no ID token is accepted
	}
	none struct{}
)

// trustVerbs registers what the trust commands ask of the process that has the
// database.
func trustVerbs(m *admin.Mux, book *trustbook.Book, cfg *config.Server) {
	admin.Handle(m, "trust/add", func(ctx context.Context, in trustAdd) (none, error) {
		if cfg.OIDC.Audience == "" {
			return none{}, errors.New("this server accepts no ID tokens: give it [oidc] audience or api-endpoint in server.toml, for tokens to name")
		}
		err := book.Add(ctx, in.Policy, in.By, in.Replace)
		if errors.Is(err, trustbook.ErrExists) {
			err = admin.As(admin.ErrConflict, err)
		}
		return none{}, err
	})
	admin.Handle(m, "trust/remove", func(ctx context.Context, in trustRemove) (none, error) {
		err := book.Remove(ctx, in.Name)
		if errors.Is(err, trustbook.ErrNotFound) {
			err = admin.As(admin.ErrNotFound, err)
		}
		return none{}, err
	})
	admin.Handle(m, "trust/list", func(ctx context.Context, _ none) (trustList, error) {
		list, err := book.List(ctx)
		return trustList{Policies: list, Issuers: book.Kinds, Audience: cfg.OIDC.Audience}, err
	})
}

func (p *program) trust() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Say whose ID tokens may be exchanged, and for what",
		Long: `Trust policies say which CI jobs get a token, and what it may do (docs/trust.md).
Those of server.toml stand as long as the server runs; those added here hold at once
and until they are removed. A running server is asked on the socket beside its
database; where none runs, the database is opened.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("no command; there are add, list, remove, test and init")}
		},
	}
	cmd.AddCommand(p.trustAdd(), p.trustList(), p.trustRemove(), p.trustTest(), p.trustInit())
	return cmd
}

// policyFlags has a flag for each key of a [[trust]] table.
func policyFlags(cmd *cobra.Command, pol *trust.Policy) {
	f := cmd.Flags()
	f.StringVar(&pol.Name, "name", "", "the policy's name, for logs")
	f.StringVar(&pol.Issuer, "issuer", "", "who issues the tokens (default "+trust.GitHub+")")
	f.Int64Var(&pol.RepositoryID, "repository-id", 0, "GitHub, Forgejo: the repository's numeric id")
	f.Int64Var(&pol.RepositoryOwnerID, "repository-owner-id", 0, "GitHub, Forgejo: its owner's numeric id")
	f.Int64Var(&pol.ProjectID, "project-id", 0, "GitLab: the project's id")
	f.Int64Var(&pol.NamespaceID, "namespace-id", 0, "GitLab: its group's id")
	f.StringVar(&pol.PipelineID, "pipeline-id", "", "Buildkite: the pipeline's UUID")
	f.StringVar(&pol.OrganizationID, "organization-id", "", "Buildkite: its organization's UUID")
	f.StringVar(&pol.Repository, "repository", "", "owner/name, checked beside the id")
	f.StringVar(&pol.RepositoryOwner, "repository-owner", "", "the owner's name, checked beside the id")
	f.StringVar(&pol.Ref, "ref", "", "a full ref, such as refs/heads/main")
	f.StringVar(&pol.RefGlob, "ref-glob", "", "a pattern of refs; * stops at '/', ** does not")
	f.StringSliceVar(&pol.Events, "events", nil, "events admitted (default for GitHub "+strings.Join(trust.DefaultEvents, ",")+")")
	f.StringVar(&pol.Environment, "environment", "", "deployment environment of the job")
	f.StringVar(&pol.EnvironmentGlob, "environment-glob", "", "pattern of deployment environments, such as prod-*")
	f.StringVar(&pol.JobWorkflowRef, "job-workflow-ref", "", "workflow file with its ref, as GitHub writes it")
	f.StringVar(&pol.JobWorkflowRefGlob, "job-workflow-ref-glob", "", "a pattern of them")
	f.BoolVar(&pol.RefProtected, "ref-protected", false, "want a protected branch or tag")
	f.StringVar(&pol.RunnerEnvironment, "runner-environment", "", "github-hosted (gitlab-hosted, buildkite-hosted) or self-hosted")
	f.StringSliceVar(&pol.Caches, "caches", nil, "caches granted, by name or pattern")
	f.StringSliceVar(&pol.Grant, "grant", nil, "what may be done there: pull, push, …")
	f.StringSliceVar(&pol.Pins, "pins", nil, "patterns of the pins that may be set")
	f.StringVar(&pol.TTL, "ttl", "", "life of the token granted (default 15m)")
	f.StringSliceVar(&pol.Allow, "allow", nil, "name what is wider than it looks and meant")
	f.StringVar(&pol.Sub, "sub", "", "")
	_ = f.MarkHidden("sub") // exists to be refused with the reason
}

// allowHelp lists the names for --allow.
func allowHelp() string {
	var b strings.Builder
	b.WriteString("\nNames for --allow, each of which lets through what is refused without it:\n")
	for _, a := range trust.Allowances {
		fmt.Fprintf(&b, "  %-26s %s\n", a.Name, a.Lets)
	}
	return b.String()
}

func (p *program) trustAdd() *cobra.Command {
	var pol trust.Policy
	var file string
	var replace bool
	cmd := &cobra.Command{
		Use:   "add (--file FILE | --name NAME --repository-id ID --ref REF --caches CACHE --grant pull,push …)",
		Short: "Add a trust policy; it holds at once",
		Long:  "Add a trust policy; it holds at once. Each key of a [[trust]] table has a flag, or the\ntable comes from a file.\n" + allowHelp(),
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" {
				if pol.Name != "" || pol.Caches != nil {
					return usageError{errors.New("--file FILE and flags of a policy exclude each other")}
				}
				one, err := p.onePolicy(file)
				if err != nil {
					return err
				}
				pol = one
			}
			return p.addPolicy(cmd.Context(), pol, replace)
		},
	}
	policyFlags(cmd, &pol)
	cmd.Flags().StringVar(&file, "file", "", "file with one [[trust]] table; - reads standard input")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace the policy of this name")
	return cmd
}

func (p *program) addPolicy(ctx context.Context, pol trust.Policy, replace bool) error {
	c, done, err := p.connect(ctx)
	if err != nil {
		return err
	}
	_, err = admin.Call[none](ctx, c, "trust/add", trustAdd{Policy: pol, By: p.caller(), Replace: replace})
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	for _, w := range trust.Warnings(pol) {
		fmt.Fprintf(p.stderr, "warning: %s\n", w)
	}
	_, err = fmt.Fprintf(p.stdout, "trust policy %s holds\n", pol.Name)
	return err
}

// caller is who calls, as far as the environment tells; for people, not for proof.
func (p *program) caller() string { return cmp.Or(p.getenv("SUDO_USER"), p.getenv("USER")) }

func (p *program) onePolicy(file string) (trust.Policy, error) {
	list, err := readPolicies(file)
	if err != nil {
		return trust.Policy{}, err
	}
	if len(list) != 1 {
		return trust.Policy{}, fmt.Errorf("%s: %d [[trust]] tables, want one", file, len(list))
	}
	return list[0], nil
}

func readPolicies(file string) ([]trust.Policy, error) {
	text, err := readBounded(file, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return config.ReadPolicies(file, text)
}

// readBounded reads a file, or standard input for "-".
func readBounded(file string, most int64) ([]byte, error) {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(bufio.NewReader(in), most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", file, most)
	}
	return text, err
}

func (p *program) trustRemove() *cobra.Command {
	var revoke bool
	cmd := &cobra.Command{
		Use: "remove NAME...", Short: "Take trust policies back; no new token is given for them",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("trust remove needs the name of a policy")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			c, done, err := p.connect(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range names {
				if err = p.removePolicy(cmd.Context(), c, name, revoke); err != nil {
					break
				}
			}
			return errors.Join(err, done())
		},
	}
	cmd.Flags().BoolVar(&revoke, "revoke", false, "revoke the tokens that were given for them as well")
	return cmd
}

// removePolicy takes the policy first, so that no token is given after the revocation.
func (p *program) removePolicy(ctx context.Context, c *admin.Client, name string, revoke bool) error {
	if _, err := admin.Call[none](ctx, c, "trust/remove", trustRemove{Name: name}); err != nil {
		return err
	}
	if !revoke {
		_, err := fmt.Fprintf(p.stdout, "trust policy %s is gone; tokens given for it live on until they expire, unless: attic-server token revoke --all-from %s\n", name, name)
		return err
	}
	out, err := admin.Call[tokenRevokeOutput](ctx, c, "token/revoke", tokenRevokeInput{Policy: name})
	if err != nil {
		return fmt.Errorf("trust policy %s is gone, but its tokens are not: %w", name, err)
	}
	_, err = fmt.Fprintf(p.stdout, "trust policy %s is gone, and %d tokens given for it\n", name, len(out.Revoked))
	return err
}

func (p *program) trustList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the trust policies of server.toml and of the database", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := p.policies(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(p.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(list)
			}
			return p.printPolicies(list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) policies(ctx context.Context) (trustList, error) {
	cfg, err := p.load()
	if err != nil {
		return trustList{}, err
	}
	return p.policiesOf(ctx, cfg)
}

// policiesOf asks for the policies. Where there is no database yet none is made for the
// question: then there are those of the file.
func (p *program) policiesOf(ctx context.Context, cfg *config.Server) (trustList, error) {
	if _, err := os.Stat(cfg.Database.File); errors.Is(err, fs.ErrNotExist) && cfg.Database.File != ":memory:" {
		return trustList{Policies: trustbook.FileEntries(cfg.Trust), Issuers: cfg.OIDC.Kinds(), Audience: cfg.OIDC.Audience}, nil
	}
	c, done, err := p.connectTo(ctx, cfg)
	if err != nil {
		return trustList{}, err
	}
	list, err := admin.Call[trustList](ctx, c, "trust/list", none{})
	return list, errors.Join(err, done())
}

func (p *program) printPolicies(list trustList) error {
	var b strings.Builder
	if len(list.Policies) == 0 {
		fmt.Fprintln(p.stderr, "there are no trust policies: no ID token is accepted")
	}
	if list.Audience == "" && len(list.Policies) > 0 {
		fmt.Fprintln(p.stderr, "warning: the server has no audience, so no ID token is accepted")
	}
	for i, e := range list.Policies {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "# from %s", e.From)
		if e.At != nil {
			fmt.Fprintf(&b, ", %s", e.At.UTC().Format("2006-01-02 15:04:05Z"))
		}
		if e.By != "" {
			fmt.Fprintf(&b, ", by %s", oneLine(e.By))
		}
		b.WriteByte('\n')
		if e.Problem != "" {
			fmt.Fprintf(&b, "# GRANTS NOTHING: %s\n", oneLine(e.Problem))
		}
		b.WriteString(e.Policy.TOML())
	}
	_, err := io.WriteString(p.stdout, b.String())
	return err
}

// hold returns the policies that grant something.
func (l trustList) hold() []trust.Policy {
	var policies []trust.Policy
	for _, e := range l.Policies {
		if e.Problem == "" {
			policies = append(policies, e.Policy)
		}
	}
	return slices.Clip(policies)
}
