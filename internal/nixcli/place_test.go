package nixcli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestPlacesAreReadInEveryForm(t *testing.T) {
	const store = "/nix/store/ask17kqiic88pifmhkyyfbz52345bv5j-source"
	for line, want := range map[string]Place{
		"at " + store + "/mod/x.nix:4:7:":                        {store, "mod/x.nix", 4, 7},
		"at /home/runner/work/infra/mod/x.nix:4:7:":              {"", "/home/runner/work/infra/mod/x.nix", 4, 7},
		"at «github:acme/infra/4f2c»/hosts/a b.nix:12:3:":        {"github:acme/infra/4f2c", "hosts/a b.nix", 12, 3},
		"- In `" + store + "/hosts/web.nix': true":               {store, "hosts/web.nix", 0, 0},
		"- In `" + store + "/hosts/web.nix', via option x: true": {},
		"at «string»:1:2:":                                       {},
		"at (string):1:2:":                                       {},
		"4| # at " + store + "/mod/x.nix:4:7:":                   {},
		"at relative/x.nix:1:2:":                                 {},
		"at " + store + "/x.nix:99999999999999999999:1:":         {},
	} {
		if strings.Contains(line, "via option") {
			want = Place{store, "hosts/web.nix", 0, 0}
		}
		if got, _ := parsePlace(line); got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
}

// Each Nix names the file that does not evaluate, as git tree and as path.
func TestPlacesOfARealNix(t *testing.T) {
	dir := t.TempDir()
	if dir, err := filepath.EvalSymlinks(dir); err != nil || dir == "" {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"flake.nix": `{ outputs = { self }: { nixosConfigurations = {
  a.config.system.build.toplevel = import ./mod/x.nix;
  b.config.system.build.toplevel = throw "no option\n- In ` + "`${self}/mod/x.nix'" + `: true";
}; }; }`,
		"mod/x.nix": "let\n  y = 1;\nin\n  y + undefinedVar\n",
	} {
		_ = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{"init -q", "add -A"} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v %s", args, err, out)
		}
	}
	for _, bin := range append([]string{"nix"}, filepath.SplitList(os.Getenv("ATTIC_TEST_NIX"))...) {
		for _, ref := range []string{dir, "path:" + dir} {
			for host, want := range map[string]string{"a": "mod/x.nix 4 7", "b": "mod/x.nix 0 0"} {
				n := &Nix{Bin: bin, Env: append(os.Environ(), "HOME="+t.TempDir())}
				_, err := n.Eval(t.Context(), ref, HostAttr(host))
				places := Places(err)
				if len(places) == 0 {
					t.Errorf("%s %s %s: no place in %v", bin, ref, host, err)
					continue
				}
				p := places[len(places)-1]
				if got := fmt.Sprint(strings.TrimPrefix(p.File, dir+"/"), " ", p.Line, " ", p.Column); got != want {
					t.Errorf("%s %s %s: %s, want %s of %+v", bin, ref, host, got, want, places)
				}
			}
		}
	}
}

func FuzzPlaces(f *testing.F) {
	f.Add("at /nix/store/ask17kqiic88pifmhkyyfbz52345bv5j-source/mod/x.nix:4:7:")
	f.Add("- In `/nix/store/ask17kqiic88pifmhkyyfbz52345bv5j-source/x'")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range Places(&CommandError{Stderr: strings.Split(text, "\n")}) {
			if p.File == "" || p.Line < 0 || p.Column < 0 || reflect.DeepEqual(p, Place{}) {
				t.Errorf("%q: %+v", text, p)
			}
		}
	})
}
