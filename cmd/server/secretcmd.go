package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/seal"
)

// secretRow is a secret as commands show it: by its id, which tells nothing of it.
type secretRow struct {
	ID         string    `json:"id"`
	Configured bool      `json:"configured"`
	Since      time.Time `json:"since,omitzero"`
}

type (
	secretListOutput struct {
		Secrets []secretRow `json:"secrets"`
	}
	secretForgetInput struct {
		IDs     []string
		Removed bool // all that are not configured
	}
	secretForgetOutput struct {
		Forgotten []string `json:"forgotten"`
	}
)

// secretVerbs registers what the secret commands ask for. The secrets are those that
// the server runs with.
func secretVerbs(m *admin.Mux, store blob.Store, secrets [][]byte) {
	admin.Handle(m, "secret/list", func(ctx context.Context, _ struct{}) (secretListOutput, error) {
		wraps, err := seal.Wraps(ctx, store, secrets)
		out := secretListOutput{Secrets: make([]secretRow, len(wraps))} // in JSON a list, even without any
		for i, w := range wraps {
			out.Secrets[i] = secretRow{ID: w.ID, Configured: w.Known, Since: w.At}
		}
		return out, err
	})
	admin.Handle(m, "secret/forget", func(ctx context.Context, in secretForgetInput) (secretForgetOutput, error) {
		ids := in.IDs
		if in.Removed {
			wraps, err := seal.Wraps(ctx, store, secrets)
			if err != nil {
				return secretForgetOutput{}, err
			}
			for _, w := range wraps {
				if !w.Known {
					ids = append(ids, w.ID)
				}
			}
		}
		err := seal.Forget(ctx, store, secrets, ids)
		switch {
		case errors.Is(err, seal.ErrNoWrap):
			err = admin.As(admin.ErrNotFound, err)
		case errors.Is(err, seal.ErrKnown):
			err = admin.As(admin.ErrConflict, err)
		}
		return secretForgetOutput{Forgotten: ids}, err
	})
}

func (p *program) secret() *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "List and forget token secrets",
		Long: `List and forget token secrets.

Each secret that the server was ever started with opens the root key, which
encrypts the caches' signing keys: a copy of it lies in the storage, encrypted with
that secret. Who has an old secret and can read the storage has the signing keys,
until the copy is deleted. That is what forget does, for secrets that are not
configured any more.`,
		RunE: func(*cobra.Command, []string) error { return usageError{errors.New("secret needs list or forget")} }}
	cmd.AddCommand(p.secretList(), p.secretForget())
	return cmd
}

func (p *program) secretList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list [--json]", Short: "List the secrets that open the root key", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return command(p, cmd.Context(), "secret/list", struct{}{}, func(out secretListOutput) error {
				if asJSON {
					return printJSON(p.stdout, out.Secrets)
				}
				tw := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "ID\tCONFIGURED\tSINCE")
				for _, s := range out.Secrets {
					configured := "no"
					if s.Configured {
						configured = "yes"
					}
					fmt.Fprintf(tw, "%s\t%s\t%s\n", s.ID, configured, moment(s.Since))
				}
				return tw.Flush()
			})
		}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) secretForget() *cobra.Command {
	var in secretForgetInput
	cmd := &cobra.Command{Use: "forget {ID... | --removed}", Short: "Keep old secrets from opening the root key",
		Long: `Keep old secrets from opening the root key. Only secrets that the server was not
started with can be forgotten; other servers on the same storage must not need them
either, for with a forgotten secret alone none starts.

Whoever had the secret and read the storage before has the signing keys all the same:
then rotate these too (cache rotate-key --keep-old 0s).`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			in.IDs = args
			if len(args) == 0 && !in.Removed || len(args) > 0 && in.Removed {
				return usageError{errors.New("secret forget needs either the ids that secret list shows, or --removed")}
			}
			return command(p, cmd.Context(), "secret/forget", in, func(out secretForgetOutput) error {
				for _, id := range out.Forgotten {
					fmt.Fprintf(p.stdout, "forgot %s\n", id)
				}
				if len(out.Forgotten) == 0 {
					fmt.Fprintln(p.stdout, "every secret that opens the root key is configured")
				}
				return nil
			})
		}}
	cmd.Flags().BoolVar(&in.Removed, "removed", false, "forget all that are not configured")
	return cmd
}
