package nixcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/nix"
)

// CurrentSystem is the system that nix builds for, x86_64-linux.
func (n *Nix) CurrentSystem(ctx context.Context) (string, error) {
	s, err := n.settings(ctx)
	if err != nil {
		return "", fmt.Errorf("find current system: %w", err)
	}
	if s.System.Value == "" {
		return "", errors.New("find current system: nix has no setting of that name")
	}
	return s.System.Value, nil
}

// ExtraPlatforms are the other systems that this machine can build for, by emulation perhaps.
func (n *Nix) ExtraPlatforms(ctx context.Context) ([]string, error) {
	s, err := n.settings(ctx)
	if err != nil {
		return nil, fmt.Errorf("find extra platforms: %w", err)
	}
	return s.ExtraPlatforms.Value, nil
}

type settings struct {
	System         struct{ Value string }
	ExtraPlatforms struct{ Value []string } `json:"extra-platforms"`
}

// settings asks by the command's present name and then, since 2.19 renamed it, by its old one.
func (n *Nix) settings(ctx context.Context) (settings, error) {
	out, err := n.run(ctx, command{args: []string{"config", "show", "--json"}})
	if _, failed := errors.AsType[*CommandError](err); failed {
		out, err = n.run(ctx, command{args: []string{"show-config", "--json"}})
	}
	var s settings
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("understand nix's settings: %w", err)
	}
	for _, system := range append(s.ExtraPlatforms.Value, s.System.Value) {
		if err := nix.ValidSystem(system); err != nil {
			return s, fmt.Errorf("understand nix's settings: %w", err)
		}
	}
	return s, nil
}
