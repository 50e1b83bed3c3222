package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/token"
)

type (
	createInput struct {
		Cache    string
		Public   bool
		Priority int32
	}
	createOutput struct {
		PublicKey   string `json:"public_key"`
		Substituter string `json:"substituter"` // empty: the server was not told its URL
	}
)

// createVerb registers the making of caches. It needs no token: whoever may use the
// socket can make himself any.
func createVerb(m *admin.Mux, s *server.Server, cfg *config.Server) {
	admin.Handle(m, "cache/create", func(ctx context.Context, in createInput) (out createOutput, err error) {
		out.PublicKey, err = s.CreateCache(ctx, meta.Cache{Name: in.Cache, Public: in.Public, Priority: in.Priority})
		if errors.Is(err, meta.ErrExists) {
			return out, fmt.Errorf("%w: a cache is called %q already", admin.ErrConflict, in.Cache)
		}
		if url := cmp.Or(cfg.SubstituterEndpoint, cfg.APIEndpoint); url != "" {
			out.Substituter = url + in.Cache
		}
		return out, err
	})
}

func (p *program) createCache() *cobra.Command {
	var in createInput
	var asJSON bool
	cmd := &cobra.Command{Use: "create CACHE [--public]", Short: "Make a cache with a signing key of its own",
		Long: `Make a cache with a signing key of its own, and print what machines need that pull
from it. It is what "attic cache create" does, without a token. Upstream is
cache.nixos.org: what it has signed is not pushed again.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !token.ValidCacheName(args[0]) {
				return usageError{errors.New("cache create needs one name, of letters, digits, - and _")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Cache = args[0]
			return command(p, cmd.Context(), "cache/create", in, func(out createOutput) error {
				if asJSON {
					return printJSON(p.stdout, out)
				}
				return p.printCreated(in, out)
			})
		}}
	cmd.Flags().BoolVar(&in.Public, "public", false, "everybody may pull; without it, whoever has a token for it")
	cmd.Flags().Int32Var(&in.Priority, "priority", 41, "Nix asks the substituter with the lowest one first; cache.nixos.org has 40")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) printCreated(in createInput, out createOutput) error {
	who := "private: who pulls needs a token"
	if in.Public {
		who = "public: everybody may pull"
	}
	_, err := fmt.Fprintf(p.stdout, "cache %s is there, %s. For nix.conf:\n  extra-substituters = %s\n  extra-trusted-public-keys = %s\n",
		in.Cache, who, cmp.Or(out.Substituter, "<URL of this server>/"+in.Cache), out.PublicKey)
	return err
}
