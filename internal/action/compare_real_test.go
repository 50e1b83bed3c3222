package action_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// updated is a flake with one host, which consists of packages: "name-version size".
func updated(t *testing.T, packages ...string) string {
	t.Helper()
	var deps []string
	for _, p := range packages {
		name, size, _ := strings.Cut(p, " ")
		deps = append(deps, fmt.Sprintf(`(derivation { name = "%s"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "i=0; while [ $i -lt %s ]; do echo 0123456789abcde; i=$((i+1)); done > $out" ]; salt = "%d"; })`, name, size, salt))
	}
	text := `{ outputs = { self }: { nixosConfigurations.web.config.system.build.toplevel = derivation {
  name = "nixos-system-web-25.05"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo $deps > $out" ];
  deps = [ ` + strings.Join(deps, "\n") + ` ]; }; }; }`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return "path:" + dir
}

var salt = time.Now().UnixNano()

// What a summary says of two builds is what Nix says of the two closures, whether this machine has them or not.
func TestChangesAreThoseThatNixFinds(t *testing.T) {
	srv := servertest.Start(t)
	srv.CreateCache(t, "system", false)
	mayPin := srv.PinToken(t, []string{"acme/infra/*"}, servertest.Grant{Caches: "system", Perm: token.Pull | token.Push})
	mayPull := srv.Token(t, servertest.Grant{Caches: "system", Perm: token.Pull})
	run := func(m *machine, flake string) (path, summary string) {
		t.Helper()
		out, err := m.run("flake", flake)
		if err != nil {
			t.Fatalf("%v\n%s", err, &m.log)
		}
		var paths map[string]string
		if err := json.Unmarshal([]byte(out["paths"]), &paths); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(m.env["GITHUB_STEP_SUMMARY"])
		if err != nil {
			t.Fatal(err)
		}
		return paths["web"], string(text)
	}
	bin, err := exec.LookPath("nix")
	if err != nil {
		t.Fatal(err)
	}
	old, first := run(newMachine(t, bin, "", srv.URL, mayPin), updated(t, "openssl-3.0.13 2000", "zlib-1.3 10", "gone-1 10", "same-1 20"))
	if strings.Contains(first, "since acme") {
		t.Errorf("the first build has nothing to be compared with:\n%s", first)
	}
	flake := updated(t, "openssl-3.0.14 4000", "zlib-1.3 10", "zlib-1.4 10", "new-2 30", "same-1 21")
	asPull := func(m *machine) *machine {
		m.env["GITHUB_EVENT_NAME"], m.env["GITHUB_REF"], m.env["GITHUB_BASE_REF"] = "pull_request", "refs/pull/7/merge", "main"
		return m
	}
	now, second := run(asPull(newMachine(t, bin, "", srv.URL, mayPin)), flake)
	_, third := run(asPull(newMachine(t, bin, t.TempDir(), srv.URL, mayPull)), flake)
	for _, nix := range append([]string{bin}, filepath.SplitList(os.Getenv("ATTIC_TEST_NIX"))...) {
		out, err := exec.Command(nix, "--extra-experimental-features", "nix-command", "store", "diff-closures", old, now).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		lines := 0
		for line := range strings.Lines(string(out)) {
			lines++
			m := regexp.MustCompile(`^([^:]+): (\S+) → ([^,\s]+)`).FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("%q", line)
			}
			row := fmt.Sprintf("| %s | %s | %s |", m[1], m[2], m[3])
			if m[2] == "∅" && m[1] == "zlib" { // there is another version of it in both
				row = "| zlib |  | 1.4 |"
			}
			for who, summary := range map[string]string{"who built it": second, "who may only pull": third} {
				if !strings.Contains(summary, row) {
					t.Errorf("to %s the summary does not say %q:\n%s", who, row, summary)
				}
			}
		}
		if lines != 4 || strings.Count(second, "\n| ")-5 != lines || strings.Count(third, "\n| ")-5 != lines {
			t.Errorf("%s finds %d changes:\n%s\n%s\n%s", nix, lines, out, second, third)
		}
	}
	if !strings.Contains(third, "| cached |") || !strings.Contains(second, "| pushed |") {
		t.Errorf("%s\n%s", second, third)
	}
	if _, again := run(newMachine(t, bin, "", srv.URL, mayPin), flake); !strings.Contains(again, "since acme/infra/main/web") {
		t.Errorf("the branch that got it:\n%s", again)
	}
	if _, again := run(newMachine(t, bin, "", srv.URL, mayPin), flake); !strings.Contains(again, "| none |") {
		t.Errorf("once more:\n%s", again)
	}
}
