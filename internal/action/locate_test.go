package action

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nixcli"
)

// An annotation is for a file of the repository, whatever the flake says that it is.
func TestAnnotationsAreOnFilesOfTheRepositoryOnly(t *testing.T) {
	workspace := t.TempDir()
	write := func(file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(workspace+"/hosts/web.nix", "{ }")
	write(workspace+"/infra/flake.nix", "{ a = 1; }")
	write(workspace+"/../outside.nix", "{ }")
	if err := os.Symlink("/etc/passwd", workspace+"/link.nix"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, said, flake string
		want              github.Line
	}{
		{"where it lies", "at " + workspace + "/hosts/web.nix:4:7:", ".", github.Line{File: "hosts/web.nix", Line: 4, Col: 7}},
		{"reference", "at «git+file://" + workspace + "?rev=1»/hosts/web.nix:4:7:", ".", github.Line{File: "hosts/web.nix", Line: 4, Col: 7}},
		{"this repository", "at «github:acme/infra/4f2c»/hosts/web.nix:4:7:", "github:acme/infra", github.Line{File: "hosts/web.nix", Line: 4, Col: 7}},
		{"another one", "at «github:acme/infra2/4f2c»/hosts/web.nix:4:7:", ".", github.Line{}},
		{"in a subfolder", "at «path:" + workspace + "»/flake.nix:1:2:", "./infra", github.Line{File: "infra/flake.nix", Line: 1, Col: 2}},
		{"the last that is ours", "at " + workspace + "/hosts/web.nix:4:7:\nat «github:NixOS/nixpkgs/1»/hosts/web.nix:9:9:", ".", github.Line{File: "hosts/web.nix", Line: 4, Col: 7}},
		{"outside", "at " + workspace + "/../outside.nix:1:1:", ".", github.Line{}},
		{"outside of a source", "at «path:" + workspace + "»/../outside.nix:1:1:", ".", github.Line{}},
		{"a link", "at " + workspace + "/link.nix:1:1:", ".", github.Line{}},
		{"not there", "at " + workspace + "/none.nix:1:1:", ".", github.Line{}},
		{"no place", "error: boom", ".", github.Line{}},
		{"flake elsewhere", "at «path:" + workspace + "»/hosts/web.nix:1:1:", "../x", github.Line{}},
	} {
		env := map[string]string{"GITHUB_WORKSPACE": workspace, "GITHUB_REPOSITORY": "acme/infra"}
		r := &run{Action: &Action{Runner: &github.Runner{Getenv: func(k string) string { return env[k] }}}, in: Inputs{Flake: c.flake}}
		if got := r.locate(&nixcli.CommandError{Stderr: strings.Split(c.said, "\n")}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		delete(env, "GITHUB_WORKSPACE")
		if got := r.locate(&nixcli.CommandError{Stderr: strings.Split(c.said, "\n")}); got != (github.Line{}) {
			t.Errorf("%s: outside of Actions %+v", c.name, got)
		}
	}
}

// A file of the same name, in an input of the flake or in Nixpkgs, is another one: it has other contents.
func TestAnnotationsAreOnTheFileThatNixRead(t *testing.T) {
	bins := append([]string{"nix"}, filepath.SplitList(os.Getenv("ATTIC_TEST_NIX"))...)
	for _, bin := range bins {
		workspace := t.TempDir()
		file := filepath.Join(workspace, "infra", "flake.nix")
		const text = "{ outputs = { self }: {\n  nixosConfigurations.web.config.system.build.toplevel = 1 + undefinedVar;\n}; }\n"
		if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		n := &nixcli.Nix{Bin: bin, Env: append(os.Environ(), "HOME="+t.TempDir())}
		_, failed := n.Eval(t.Context(), "path:"+filepath.Dir(file), nixcli.HostAttr("web"))
		env := map[string]string{"GITHUB_WORKSPACE": workspace}
		for _, flake := range []string{"./infra", "path:./infra", "infra?x=1", filepath.Dir(file)} {
			r := &run{Action: &Action{Runner: &github.Runner{Getenv: func(k string) string { return env[k] }}}, in: Inputs{Flake: flake}}
			if got, want := r.locate(failed), (github.Line{File: "infra/flake.nix", Line: 2, Col: 62}); got != want {
				t.Errorf("%s, %s: %+v, want %+v of %v", bin, flake, got, want, failed)
			}
		}
		if err := os.WriteFile(file, []byte(text+"# changed since\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		r := &run{Action: &Action{Runner: &github.Runner{Getenv: func(k string) string { return env[k] }}}, in: Inputs{Flake: "./infra"}}
		if got := r.locate(failed); got != (github.Line{}) {
			t.Errorf("%s: another file is %+v", bin, got)
		}
	}
}

// A flake that can't be read at all has no host to blame.
func TestAFlakeThatDoesNotParseIsAnnotated(t *testing.T) {
	workspace := t.TempDir()
	if err := os.WriteFile(filepath.Join(workspace, "flake.nix"), []byte("{ outputs = }"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.env["GITHUB_WORKSPACE"] = workspace
	s.nix.fails = fmt.Errorf("list hosts: %w", &nixcli.CommandError{Stderr: []string{"error: syntax error", "at " + workspace + "/flake.nix:1:13:"}})
	var located *LocatedError
	if err := s.run(t); !errors.As(err, &located) || located.At != (github.Line{File: "flake.nix", Line: 1, Col: 13}) {
		t.Errorf("%v, %+v", err, located)
	}
}
