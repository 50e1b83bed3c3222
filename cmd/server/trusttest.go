package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/trust"
	"github.com/org/attic-action/internal/trustbook"
)

// errNoMatch is exit status 1 of trust test.
var errNoMatch = errors.New("no trust policy matches")

func (p *program) trustTest() *cobra.Command {
	var token, file, only string
	var claims []string
	cmd := &cobra.Command{
		Use:   "test (--token FILE | --claim NAME=VALUE...)",
		Short: "Explain, rule by rule, which policies an ID token matches",
		Long: `Explain, rule by rule, which policies an ID token matches. The exit status is 0 if one
does and 1 if none does. The token stays here: only the policies are asked of the
server. Its signature is not checked, and whether it has expired is only told.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given, err := testClaims(token, claims)
			if err != nil {
				return err
			}
			return p.testTrust(cmd.Context(), given, token != "", file, only)
		},
	}
	f := cmd.Flags()
	f.StringVar(&token, "token", "", "file with an ID token; - reads standard input")
	f.StringArrayVar(&claims, "claim", nil, "a claim, such as ref=refs/heads/main; iss is GitHub's unless given")
	f.StringVar(&file, "file", "", "file with [[trust]] tables to test in place of the server's")
	f.StringVar(&only, "name", "", "this policy only")
	return cmd
}

func testClaims(file string, given []string) (map[string]any, error) {
	if (file == "") == (len(given) == 0) {
		return nil, usageError{errors.New("trust test needs either --token FILE or --claim NAME=VALUE")}
	}
	if file != "" {
		raw, err := readBounded(file, 64<<10)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		claims, err := oidc.ReadClaims(strings.TrimSpace(string(raw)))
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		return claims, nil
	}
	claims := map[string]any{"iss": trust.GitHub}
	named := map[string]bool{}
	for _, g := range given {
		name, value, ok := strings.Cut(g, "=")
		if !ok || name == "" || named[name] {
			return nil, usageError{fmt.Errorf("--claim %q: want NAME=VALUE, each name once", g)}
		}
		named[name] = true
		claims[name] = value
	}
	return claims, nil
}

func (p *program) testTrust(ctx context.Context, claims map[string]any, whole bool, file, only string) error {
	list, cfg, err := p.tested(ctx, file)
	if err != nil {
		return err
	}
	set, err := list.Issuers.Compile(list.hold())
	if err != nil {
		return err
	}
	iss, _ := claims["iss"].(string)
	matched := 0
	var reports []trust.Report
	for _, r := range set.Explain(iss, claims) {
		if only != "" && r.Policy != only {
			continue
		}
		reports = append(reports, r)
		if r.Matched {
			matched++
		}
	}
	if only != "" && len(reports) == 0 {
		return fmt.Errorf("trust policy %q: %w that grants anything", only, trustbook.ErrNotFound)
	}
	if err := p.printReports(reports); err != nil {
		return err
	}
	for _, e := range list.Policies {
		if e.Problem != "" && (only == "" || only == e.Policy.Name) {
			fmt.Fprintf(p.stdout, "✗ policy %s grants nothing: %s\n", e.Policy.Name, oneLine(e.Problem))
		}
	}
	if whole {
		p.printTokenProblem(cfg, claims)
	}
	switch {
	case matched == 0:
		return errNoMatch
	case matched > 1:
		fmt.Fprintf(p.stdout, "%d policies match: their grants are not united, so the request must name a scope\n", matched)
	}
	return nil
}

// tested gives the policies to test: those of a file, for which no database is needed,
// or the server's.
func (p *program) tested(ctx context.Context, file string) (trustList, *config.Server, error) {
	cfg, err := p.load()
	if err != nil {
		return trustList{}, nil, err
	}
	if file != "" {
		policies, err := readPolicies(file)
		return trustList{Policies: trustbook.FileEntries(policies), Issuers: cfg.OIDC.Kinds(), Audience: cfg.OIDC.Audience}, cfg, err
	}
	list, err := p.policiesOf(ctx, cfg)
	return list, cfg, err
}

func (p *program) printReports(reports []trust.Report) error {
	for _, r := range reports {
		verdict := "matches"
		if !r.Matched {
			verdict = "does not match"
		}
		fmt.Fprintf(p.stdout, "%s policy %s %s\n", mark(r.Matched), r.Policy, verdict)
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		for _, rule := range r.Rules {
			fmt.Fprintf(w, "  %s\t%s\t%s is %s\t%s\n", mark(rule.OK), rule.Key, rule.Claim, rule.Got, rule.Want)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, n := range r.Notes {
			fmt.Fprintf(p.stdout, "  ! %s\n", n)
		}
		if r.Matched {
			fmt.Fprintf(p.stdout, "  grants %s on %s for %s", strings.ReplaceAll(r.Grant.Perm.String(), ",", ", "), strings.Join(r.Grant.Caches, ", "), r.Grant.TTL)
			if len(r.Grant.Pins) > 0 {
				fmt.Fprintf(p.stdout, ", pins %s", strings.Join(r.Grant.Pins, ", "))
			}
			fmt.Fprintln(p.stdout)
		}
	}
	return nil
}

func mark(ok bool) string {
	if ok {
		return "✓"
	}
	return "✗"
}

// printTokenProblem tells what would stop the token before any policy is asked.
func (p *program) printTokenProblem(cfg *config.Server, claims map[string]any) {
	v, err := newVerifier(cfg, nil)
	if err == nil {
		err = v.Look(claims)
	}
	if err != nil {
		fmt.Fprintf(p.stdout, "! the server would refuse this token all the same: %s\n", oneLine(err.Error()))
	}
}
