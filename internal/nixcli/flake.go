package nixcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/org/attic-action/internal/nix"
)

var (
	// ErrNoHosts is a flake that has no nixosConfigurations, or an empty set of them.
	ErrNoHosts = errors.New("the flake has no nixosConfigurations")
	// ErrNoOutput is a flake that has no output of that name.
	ErrNoOutput = errors.New("the flake has no such output")
	// ErrNoFlake is a reference to something without a flake.nix.
	ErrNoFlake = errors.New("there is no flake.nix")
)

// Host is an output of a flake that can be built, mostly a nixosConfigurations.*. Either Err is set or all the others are.
type Host struct {
	Name    string // Attr.Name
	Attr    Attr
	System  string // the derivation's: where it can be built, x86_64-linux
	DrvPath string
	Output  string // of the derivation: "out", mostly
	OutPath string
	Err     error // why it does not evaluate
}

// Hosts names the nixosConfigurations of a flake, sorted. It evaluates none of them, so those that throw are
// among them. Errors wrap ErrNoHosts and ErrNoFlake.
func (n *Nix) Hosts(ctx context.Context, flake string) ([]string, error) {
	names, err := n.Names(ctx, flake, Attr{hostsAttr})
	switch {
	case errors.Is(err, ErrNoOutput):
		return nil, fmt.Errorf("list hosts of flake %.200q: %w", flake, ErrNoHosts)
	case err != nil:
		return nil, fmt.Errorf("list hosts of flake %.200q: %w", flake, err)
	case len(names) == 0:
		return nil, fmt.Errorf("list hosts of flake %.200q: %w", flake, ErrNoHosts)
	}
	return names, nil
}

// Names are the names in the attribute set at a path, sorted. None of their values is evaluated. Errors wrap ErrNoOutput
// and ErrNoFlake.
func (n *Nix) Names(ctx context.Context, flake string, at Attr) ([]string, error) {
	var names []string
	if err := n.eval(ctx, flake, at, "value: builtins.attrNames ("+at.selector("value")+")", &names); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// Eval evaluates what is at a path, a host's config.system.build.toplevel, and leaves its derivation in the store. When it
// does not evaluate, the error is also the Host's Err, and its Name is set: others may still do.
func (n *Nix) Eval(ctx context.Context, flake string, at Attr) (Host, error) {
	host := Host{Name: at.Name(), Attr: at}
	// No attribute named outPath here: nix would print the whole set as that one string.
	var top struct{ Drv, Out, Output, System string }
	err := n.eval(ctx, flake, at, "value: let top = "+at.derivation(at.selector("value"))+"; "+
		"in { drv = top.drvPath; out = top.outPath; output = top.outputName or \"out\"; inherit (top) system; }", &top)
	if err == nil {
		host.System, host.DrvPath, host.Output, host.OutPath = top.System, top.Drv, top.Output, top.Out
		err = host.check()
	}
	if err != nil {
		err = fmt.Errorf("evaluate %.200q of flake %.200q: %w", at.Name(), flake, err)
		return Host{Name: at.Name(), Attr: at, Err: err}, err
	}
	return host, nil
}

// check refuses what only a flake that lies would say: toplevel can be any attribute set.
func (h Host) check() error {
	drv, err := nix.ParseStorePath(h.DrvPath)
	if err != nil {
		return fmt.Errorf("drvPath: %w", err)
	}
	if !strings.HasSuffix(drv.Base(), ".drv") {
		return fmt.Errorf("drvPath: %s is no derivation", drv)
	}
	if _, err := nix.ParseStorePath(h.OutPath); err != nil {
		return fmt.Errorf("outPath: %w", err)
	}
	if !validOutput.MatchString(h.Output) {
		return fmt.Errorf("outputName: %.100q is no output's name", h.Output)
	}
	if h.System == "" {
		return errors.New("system: empty")
	}
	return nix.ValidSystem(h.System)
}

// validOutput are names that an output can have.
var validOutput = regexp.MustCompile(`^[A-Za-z0-9+._?=-]+$`)

// eval applies a function to the flake's output that is named first in a path.
func (n *Nix) eval(ctx context.Context, flake string, at Attr, function string, value any) error {
	if err := checkFlake(flake); err != nil {
		return err
	}
	if len(at) == 0 || !outputName.MatchString(at[0]) {
		return fmt.Errorf("%.200q begins with no name of an output", at.String())
	}
	// The user's lock file is not ours to write.
	args := append([]string{"eval", "--json", "--no-write-lock-file", "--apply", function}, n.EvalArgs...)
	out, err := n.run(ctx, command{args: args, last: []string{flake + "#" + at[0]}})
	if err != nil {
		return explain(err)
	}
	if err := json.Unmarshal(out, value); err != nil {
		return fmt.Errorf("understand nix eval: %w", err)
	}
	return nil
}

func checkFlake(flake string) error {
	switch {
	case flake == "":
		return errors.New("the reference is empty")
	case strings.HasPrefix(flake, "-"):
		return errors.New("the reference begins with a dash (write ./ before a directory's name)")
	case strings.Contains(flake, "#"):
		return errors.New("the reference has a # (name the flake alone, and hosts with the hosts option)")
	case strings.ContainsFunc(flake, unicode.IsControl):
		return errors.New("the reference has a control character")
	}
	return nil
}

var (
	noAttribute = regexp.MustCompile(`does not provide attribute `)
	noFlake     = regexp.MustCompile(`could not find a flake\.nix|` +
		`flake\.nix['"]?: No such file|flake\.nix['"]? does not exist|` +
		`is not a flake|is not part of a flake`)
)

// explain gives nix's words for the two mistakes that callers tell apart the errors that they know.
func explain(err error) error {
	failed, ok := errors.AsType[*CommandError](err)
	if !ok {
		return err
	}
	said := strings.Join(lastError(failed.Stderr), " ")
	switch {
	case noAttribute.MatchString(said):
		return fmt.Errorf("%w: %w", ErrNoOutput, err)
	case noFlake.MatchString(said):
		return fmt.Errorf("%w: %w", ErrNoFlake, err)
	}
	return err
}

// quote is s as a string of the Nix language. Nix ends a line at a bare carriage return within a string as well.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
}
