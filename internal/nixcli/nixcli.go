// Package nixcli runs nix: what is in the store, what a flake holds, and building it.
package nixcli

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/org/attic-action/internal/nix"
)

// ErrNoHosts is a flake without nixosConfigurations; ErrNoFlake a reference at which there is no flake.nix.
var (
	ErrNoHosts = errors.New("the flake has no nixosConfigurations")
	ErrNoFlake = errors.New("there is no flake.nix")
)

// Nix runs one nix program.
type Nix struct {
	Bin       string   // path or name; empty means "nix"
	Env       []string // environment; nil means this process's
	ExtraArgs []string // passed to every command, such as --option NAME VALUE
	Log       *slog.Logger
}

// PathInfo is what the store knows of a valid path.
type PathInfo struct {
	Path        nix.StorePath
	NarHash     nix.Hash
	NarSize     uint64
	References  []nix.StorePath // sorted, may hold Path itself
	Deriver, CA string
	Sigs        []string
}

// Host is one nixosConfigurations.* of a flake.
type Host struct {
	Name, System, DrvPath, OutPath string
	Err                            error
}

// BuildError is a build that did not succeed.
type BuildError struct {
	Drv     string   // the derivation that failed
	Log     []string // its last lines
	Command string   // shows the whole log
}

func (e *BuildError) Error() string { return "build " + e.Drv }

// Version is a version of Nix.
type Version struct {
	Major, Minor, Patch int
	Text                string // all of what nix --version printed
}

var errTodo = errors.New("not written yet")

func (n *Nix) Version(ctx context.Context) (Version, error) { return Version{}, errTodo }
func (n *Nix) Resolve(ctx context.Context, paths []string) ([]nix.StorePath, error) {
	return nil, errTodo
}
func (n *Nix) Closure(ctx context.Context, paths []nix.StorePath) ([]PathInfo, error) {
	return nil, errTodo
}
func (n *Nix) Infos(ctx context.Context, paths []nix.StorePath) ([]PathInfo, error) {
	return nil, errTodo
}
func (n *Nix) Hosts(ctx context.Context, flake string) ([]string, error) { return nil, errTodo }
func (n *Nix) EvalHost(ctx context.Context, flake, name string) (Host, error) {
	return Host{}, errTodo
}
func (n *Nix) Build(ctx context.Context, drvPath string, log io.Writer) (nix.StorePath, error) {
	return nix.StorePath{}, errTodo
}
func (n *Nix) CurrentSystem(ctx context.Context) (string, error)    { return "", errTodo }
func (n *Nix) ExtraPlatforms(ctx context.Context) ([]string, error) { return nil, errTodo }
