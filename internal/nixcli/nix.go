// Package nixcli runs nix and understands its answers: what is in the store, which hosts a flake has, and how a
// build went. It works with every Nix since 2.4, so it uses only commands and options that all have, and reads
// each of the forms their JSON took:
//
//	Resolve                  no process: symlinks to store paths
//	Closure, Infos           nix path-info --json
//	Hosts, Names, Eval       nix eval --json FLAKE#OUTPUT --apply …
//	Build, Plan, Root        nix-store --realise
//	Requisites, Outputs      nix-store --query
//	Valid                    nix-store --check-validity
//	Settings                 nix config show --json
//	Ignored                  nix store info
//
// A flake is hostile input. Nothing goes through a shell, names from a flake are quoted as Nix strings, and a
// reference can't be taken for an option.
package nixcli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// Nix runs one nix program.
type Nix struct {
	Bin       string       // path or name; empty means "nix"
	Env       []string     // environment of every command; nil means this process's
	ExtraArgs []string     // given to every command, such as "--option", "sandbox", "false"
	EvalArgs  []string     // given to every nix eval, such as "--impure"
	Log       *slog.Logger // commands at debug level; nil means none
}

// Version is a version of Nix.
type Version struct {
	Major, Minor, Patch int
	Text                string // the line that nix --version printed
}

// String is Text.
func (v Version) String() string { return v.Text }

var versionNumber = regexp.MustCompile(`([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?\S*$`)

// Version asks nix for its version.
func (n *Nix) Version(ctx context.Context) (Version, error) {
	out, err := n.run(ctx, command{args: []string{"--version"}, bare: true})
	if err != nil {
		return Version{}, fmt.Errorf("find version of nix: %w", err)
	}
	text := strings.TrimSpace(string(out))
	m := versionNumber.FindStringSubmatch(text)
	if m == nil {
		return Version{}, fmt.Errorf("find version of nix: no number at the end of %.100q", text)
	}
	v := Version{Text: text}
	for i, field := range []*int{&v.Major, &v.Minor, &v.Patch} {
		*field, _ = strconv.Atoi(m[i+1]) // digits only; a patch level that is absent is 0
	}
	return v, nil
}

func (n *Nix) bin() string {
	if n.Bin == "" {
		return "nix"
	}
	return n.Bin
}

// nixStore is the program and its name for nix-store: the one beside nix, or nix itself under that name, which is all
// that nix-store is.
func (n *Nix) nixStore() (path, name string) {
	const store = "nix-store"
	bin, err := exec.LookPath(n.bin())
	if err != nil {
		return n.bin(), store // running it tells what is wrong
	}
	if beside := filepath.Join(filepath.Dir(bin), store); isFile(beside) {
		return beside, beside
	}
	return bin, store
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func (n *Nix) log() *slog.Logger {
	if n.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return n.Log
}

func (n *Nix) env() []string {
	if n.Env == nil {
		return os.Environ()
	}
	return n.Env
}

// storeDir is the store's directory as the environment tells nix.
func (n *Nix) storeDir() (string, error) {
	dir := nix.StoreDir
	for _, kv := range n.env() {
		if value, ok := strings.CutPrefix(kv, "NIX_STORE_DIR="); ok && value != "" {
			dir = value
		}
	}
	if err := nix.ValidStoreDir(dir); err != nil {
		return "", fmt.Errorf("NIX_STORE_DIR: %w", err)
	}
	return dir, nil
}
