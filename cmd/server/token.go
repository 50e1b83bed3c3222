package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/issued"
	"github.com/org/attic-action/internal/meta"
)

// tokenRow is a token as commands and their JSON show it: all but the token.
type tokenRow struct {
	ID       string    `json:"id"`
	Subject  string    `json:"subject,omitempty"`
	Policies []string  `json:"policies,omitempty"`
	Caches   []string  `json:"caches,omitempty"`
	Issued   time.Time `json:"issued,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Revoked  time.Time `json:"revoked,omitzero"`
}

type (
	tokenListInput  struct{ All bool }
	tokenListOutput struct {
		Tokens []tokenRow `json:"tokens"`
	}
	tokenRevokeInput struct {
		IDs     []string
		Policy  string
		Subject string
	}
	tokenRevokeOutput struct {
		Revoked []tokenRow `json:"revoked"`
	}
)

// tokenVerbs registers what the token commands ask for.
func tokenVerbs(m *admin.Mux, g *issued.Register) {
	admin.Handle(m, "token/issue", func(ctx context.Context, in tokenRow) (struct{}, error) {
		err := g.Add(ctx, meta.IssuedToken(in))
		if errors.Is(err, meta.ErrExists) {
			err = fmt.Errorf("%w: %w", admin.ErrConflict, err)
		}
		return struct{}{}, err
	})
	admin.Handle(m, "token/list", func(ctx context.Context, in tokenListInput) (out tokenListOutput, err error) {
		list, err := g.List(ctx, in.All)
		out.Tokens = tokenRows(list)
		return out, err
	})
	admin.Handle(m, "token/revoke", func(ctx context.Context, in tokenRevokeInput) (out tokenRevokeOutput, err error) {
		list, err := g.Revoke(ctx, issued.Selection(in))
		if errors.Is(err, issued.ErrNothing) {
			err = fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
		}
		out.Revoked = tokenRows(list)
		return out, err
	})
}

func tokenRows(list []meta.IssuedToken) []tokenRow {
	rows := make([]tokenRow, len(list)) // in JSON a list, even without any
	for i, t := range list {
		rows[i] = tokenRow(t)
	}
	return rows
}

func (p *program) token() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "List and revoke access tokens",
		Long: `List and revoke access tokens.

Listed is every token that the exchange gave out, and every one that make-token
made where the database was within reach. Tokens themselves are kept nowhere.`,
		RunE: func(*cobra.Command, []string) error { return usageError{errors.New("token needs list or revoke")} }}
	cmd.AddCommand(p.tokenList(), p.tokenRevoke())
	return cmd
}

func (p *program) tokenList() *cobra.Command {
	var in tokenListInput
	var asJSON bool
	cmd := &cobra.Command{Use: "list [--all] [--json]", Short: "List the tokens that are good", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return command(p, cmd.Context(), "token/list", in, func(out tokenListOutput) error {
				if asJSON {
					return printJSON(p.stdout, out.Tokens)
				}
				return printTokens(p.stdout, out.Tokens, in.All, time.Now())
			})
		}}
	cmd.Flags().BoolVar(&in.All, "all", false, "those too that were revoked, or expired within a day")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) tokenRevoke() *cobra.Command {
	var in tokenRevokeInput
	var asJSON bool
	cmd := &cobra.Command{Use: "revoke [ID]... [--all-from POLICY] [--sub SUBJECT]", Short: "Make tokens worthless, at once",
		Long: `Make tokens worthless, at once. Nothing of a request that is under way with one
of them is committed any more.

An ID is what token list shows, a token's jti; the token itself will do as well. It
may be one that is not listed. A token without a jti, such as Attic's own, cannot be
revoked: it ends with the secret that signed it (docs/tokens.md).

After --all-from, the policy goes on granting; remove it first (trust remove).`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"all-from", "sub"} {
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return usageError{fmt.Errorf("--%s is empty", name)}
				}
			}
			if len(args) == 0 && in.Policy == "" && in.Subject == "" {
				return usageError{errors.New("token revoke needs an ID, --all-from or --sub")}
			}
			for _, arg := range args {
				id, err := tokenID(arg)
				if err != nil {
					return err
				}
				in.IDs = append(in.IDs, id)
			}
			return command(p, cmd.Context(), "token/revoke", in, func(out tokenRevokeOutput) error {
				if asJSON {
					return printJSON(p.stdout, out.Revoked)
				}
				return printRevoked(p.stdout, in, out.Revoked)
			})
		}}
	cmd.Flags().StringVar(&in.Policy, "all-from", "", "revoke all listed tokens that this trust policy granted")
	cmd.Flags().StringVar(&in.Subject, "sub", "", "revoke all listed tokens of this subject")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// tokenID takes the jti out of what may be a whole token: that is what is at hand
// when one was found where it should not be.
func tokenID(arg string) (string, error) {
	parts := strings.Split(arg, ".")
	if len(parts) != 3 {
		if !meta.ValidTokenID(arg) {
			return "", usageError{fmt.Errorf("%.40q is not the ID of a token", arg)}
		}
		return arg, nil
	}
	var claims struct {
		ID string `json:"jti"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		return "", usageError{errors.New("an argument is neither the ID of a token nor a token")} // and not quoted
	}
	if !meta.ValidTokenID(claims.ID) {
		return "", hintError{errors.New("the token has no ID (jti), so it cannot be revoked"), "rotate the secret that signed it: see docs/tokens.md"}
	}
	return claims.ID, nil
}

// command calls a verb, of the running server or here, and shows its answer.
func command[Out any](p *program, ctx context.Context, verb string, in any, show func(Out) error) error {
	client, done, err := p.connect(ctx)
	if err != nil {
		return err
	}
	out, err := admin.Call[Out](ctx, client, verb, in)
	if err := errors.Join(err, done()); err != nil {
		return err
	}
	return show(out)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printTokens(w io.Writer, rows []tokenRow, all bool, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "ID\tSUBJECT\tFROM\tCACHES\tISSUED\tEXPIRES")
	if all {
		fmt.Fprint(tw, "\tSTATE")
	}
	fmt.Fprintln(tw)
	for _, t := range rows {
		from := strings.Join(t.Policies, ",")
		if from == "" && !t.Issued.IsZero() {
			from = "make-token"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s", t.ID, plain(t.Subject), from, strings.Join(t.Caches, " "), moment(t.Issued), moment(t.Expires))
		if all {
			fmt.Fprintf(tw, "\t%s", t.state(now))
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

func (t *tokenRow) state(now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return "revoked " + moment(t.Revoked)
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return "expired"
	}
	return "good"
}

func printRevoked(w io.Writer, in tokenRevokeInput, rows []tokenRow) error {
	now := map[string]bool{}
	for _, t := range rows {
		now[t.ID] = true
		about := ", which was not listed"
		if !t.Issued.IsZero() {
			about = " of " + plain(t.Subject)
		}
		if _, err := fmt.Fprintf(w, "revoked %s%s\n", t.ID, about); err != nil {
			return err
		}
	}
	for _, id := range in.IDs {
		if !now[id] {
			fmt.Fprintf(w, "%s was revoked before\n", id)
		}
	}
	if len(rows) == 0 && len(in.IDs) == 0 {
		fmt.Fprintln(w, "no listed token was good any more")
	}
	return nil
}

// plain shows what came out of a token without letting it steer the terminal.
func plain(s string) string {
	if s == "" {
		return "-"
	}
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` || strings.Contains(s, " ") {
		return quoted
	}
	return s
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
