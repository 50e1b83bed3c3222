package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/token"
)

// keepOld is how long an old key signs along when nobody says: machines must get
// the new one first.
const keepOld = "30 days"

type (
	rotateInput struct {
		Cache   string
		Seconds int64 // that the old key signs along
		EndOld  bool
	}
	rotateOutput struct {
		PublicKey string       `json:"public_key"`
		Replaced  string       `json:"replaced"`
		Old       []api.OldKey `json:"old_public_keys"`
	}
)

// rotateVerb registers the rotation of keys.
func rotateVerb(m *admin.Mux, s *server.Server) {
	admin.Handle(m, "cache/rotate-key", func(ctx context.Context, in rotateInput) (out rotateOutput, err error) {
		if in.Seconds < 0 || in.Seconds > int64(server.MaxKeep/time.Second) {
			return out, fmt.Errorf("%w: a key can be kept for ten years at most", admin.ErrBadRequest)
		}
		done, err := s.RotateKey(ctx, server.Rotation{Cache: in.Cache, Keep: time.Duration(in.Seconds) * time.Second, EndOld: in.EndOld})
		switch {
		case errors.Is(err, meta.ErrNotFound):
			return out, fmt.Errorf("%w: no cache is called %q", admin.ErrNotFound, in.Cache)
		case errors.Is(err, server.ErrRotation):
			return out, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
		case err != nil:
			return out, err
		}
		return rotateOutput(*done), nil
	})
}

func (p *program) cache() *cobra.Command {
	cmd := &cobra.Command{Use: "cache", Short: "Make, list, change and destroy caches, and rotate their keys",
		Long: `Make, list, change and destroy caches, and rotate their keys. No token is needed: a
running server is asked on the socket beside its database; where none runs, the database
is opened.`,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("no command; there are list, create, configure, destroy and rotate-key")}
		}}
	cmd.AddCommand(p.cacheList(), p.cacheCreate(), p.cacheConfigure(), p.cacheDestroy(), p.rotateKey())
	return cmd
}

func (p *program) rotateKey() *cobra.Command {
	var in rotateInput
	var keep string
	var asJSON bool
	cmd := &cobra.Command{Use: "rotate-key CACHE [--keep-old DURATION]", Short: "Give a cache a new signing key",
		Long: `Give a cache a new signing key. Its private half never leaves the server.

From now on every narinfo is signed by the new key, and for as long as --keep-old
says by the old one too, so that machines which trust only the old one go on. Add
the new one to their trusted-public-keys meanwhile. Where the old private key may
be known to others, it must go from trusted-public-keys everywhere: what they sign
with it is believed until then, whatever this server does.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !token.ValidCacheName(args[0]) {
				return usageError{errors.New("cache rotate-key needs the name of one cache")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := token.ParseDuration(keep)
			if err != nil {
				return usageError{fmt.Errorf("--keep-old: %w", err)}
			}
			if d > server.MaxKeep {
				return usageError{errors.New("--keep-old: a key can be kept for ten years at most")}
			}
			in.Cache, in.Seconds = args[0], int64(d/time.Second)
			return command(p, cmd.Context(), "cache/rotate-key", in, func(out rotateOutput) error {
				if asJSON {
					return printJSON(p.stdout, out)
				}
				return p.printRotated(in, out)
			})
		}}
	cmd.Flags().StringVar(&keep, "keep-old", keepOld, `how long the old key signs along, such as "30 days"; "0s": not at all`)
	cmd.Flags().BoolVar(&in.EndOld, "end-old", false, "keys of earlier rotations sign no more")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) printRotated(in rotateInput, out rotateOutput) error {
	fmt.Fprintf(p.stdout, "cache %s signs with\n  %s\n", in.Cache, out.PublicKey)
	if len(out.Old) == 0 {
		_, err := fmt.Fprintf(p.stdout, "and no longer with\n  %s\n", out.Replaced)
		return err
	}
	for _, old := range out.Old {
		if _, err := fmt.Fprintf(p.stdout, "and until %s also with\n  %s\n", moment(old.Until), old.PublicKey); err != nil {
			return err
		}
	}
	return nil
}
