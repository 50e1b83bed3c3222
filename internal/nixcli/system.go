package nixcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// Settings are what nix is configured to.
type Settings struct {
	System  string   // that nix builds for, x86_64-linux
	Systems []string // all that can be built for: System first, then others by emulation or on remote builders
	Netrc   string   // the netrc file that nix reads, which need not exist

	Substituters []string // URLs
	Keys         []string // public ones, that nix trusts
}

// Settings asks nix for its configuration.
func (n *Nix) Settings(ctx context.Context) (Settings, error) {
	raw, err := n.showConfig(ctx)
	if err != nil {
		return Settings{}, fmt.Errorf("read nix's settings: %w", err)
	}
	if raw.System.Value == "" {
		return Settings{}, errors.New("read nix's settings: there is no system among them")
	}
	s := Settings{System: raw.System.Value, Systems: []string{raw.System.Value}, Netrc: raw.Netrc.Value,
		Substituters: raw.Substituters.Value, Keys: raw.Keys.Value}
	for _, system := range append(raw.ExtraPlatforms.Value, builderSystems(raw.Builders.Value, os.ReadFile)...) {
		if !slices.Contains(s.Systems, system) {
			s.Systems = append(s.Systems, system)
		}
	}
	for _, system := range s.Systems {
		if err := nix.ValidSystem(system); err != nil {
			return Settings{}, fmt.Errorf("read nix's settings: %w", err)
		}
	}
	return s, nil
}

type rawSettings struct {
	System         struct{ Value string }
	Builders       struct{ Value string }
	Netrc          struct{ Value string }   `json:"netrc-file"`
	ExtraPlatforms struct{ Value []string } `json:"extra-platforms"`
	Substituters   struct{ Value []string }
	Keys           struct{ Value []string } `json:"trusted-public-keys"`
}

// showConfig asks by the command's present name and then, since 2.19 renamed it, by its old one.
func (n *Nix) showConfig(ctx context.Context) (rawSettings, error) {
	out, err := n.run(ctx, command{args: []string{"config", "show", "--json"}})
	if _, failed := errors.AsType[*CommandError](err); failed {
		out, err = n.run(ctx, command{args: []string{"show-config", "--json"}})
	}
	var s rawSettings
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("understand them: %w", err)
	}
	return s, nil
}

// builderSystems reads the setting builders: machines, each on a line or behind a semicolon, the systems in the second
// column; @FILE stands for a file of the like. A file that can't be read has no machines.
func builderSystems(builders string, read func(string) ([]byte, error)) []string {
	var systems []string
	for line := range strings.FieldsFuncSeq(builders, func(c rune) bool { return c == '\n' || c == ';' }) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if file, ok := strings.CutPrefix(fields[0], "@"); ok {
			if text, err := read(file); err == nil {
				systems = append(systems, builderSystems(strings.ReplaceAll(string(text), "@", "#"), read)...)
			}
			continue
		}
		if len(fields) > 1 && fields[1] != "-" {
			systems = append(systems, strings.Split(fields[1], ",")...)
		}
	}
	return slices.DeleteFunc(systems, func(s string) bool { return s == "" || nix.ValidSystem(s) != nil })
}

// ignored are the words of a daemon that does not trust its user.
var ignored = regexp.MustCompile(`ignoring (?:untrusted substituter|the (?:client|user)-specified setting) '([^'\n]*)'`)

// Ignored asks the store what of this user's settings it does not heed, because it does not trust him: names of settings,
// and URLs of substituters. A store without a daemon heeds all.
func (n *Nix) Ignored(ctx context.Context) ([]string, error) {
	var said tail
	_, err := n.run(ctx, command{args: []string{"store", "info"}, stderr: &said})
	if _, failed := errors.AsType[*CommandError](err); failed { // its name until 2.16
		said = tail{}
		_, err = n.run(ctx, command{args: []string{"store", "ping"}, stderr: &said})
	}
	if err != nil {
		return nil, fmt.Errorf("ask the Nix store whom it trusts: %w", err)
	}
	var what []string
	for _, m := range ignored.FindAllStringSubmatch(said.text(), -1) {
		what = append(what, m[1])
	}
	return what, nil
}
