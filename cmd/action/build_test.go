package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// flakeOf writes a flake with a host that builds, one that does not, and one for another machine. Its derivations are new.
func flakeOf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "flake.nix"), fmt.Sprintf(`{ outputs = { self }: let
	  host = system: script: { config.system.build.toplevel = derivation { name = "host"; inherit system; builder = "/bin/sh"; args = [ "-c" script ]; salt = "%d"; }; };
	in { nixosConfigurations = { good = host "x86_64-linux" "echo > $out"; bad = host "x86_64-linux" "exit 3"; "far.away" = host "riscv32-linux" ""; }; }; }`,
		time.Now().UnixNano()))
	return dir
}

func buildDesk(t *testing.T) (*servertest.Server, string) {
	srv := servertest.Start(t)
	srv.CreateCache(t, "system", true)
	t.Setenv("NIX_CONFIG", "experimental-features = nix-command flakes\nsandbox = false\nsubstituters =\nbuild-users-group =")
	for _, name := range []string{"GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_URL", "ATTIC_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("ATTIC_SERVER", srv.URL)
	return srv, flakeOf(t)
}

func TestBuildPushesHostsAndPrintsOneJSONObject(t *testing.T) {
	srv, flake := buildDesk(t)
	t.Setenv("ATTIC_TOKEN", srv.Token(t, servertest.Grant{Caches: "system", Perm: token.Pull | token.Push}))
	code, out, errOut := command(t, t.Context(), "", "build", "--json", "system", flake)
	var got struct {
		Hosts []struct {
			Name, Result string
			StorePath    string `json:"store_path"`
		}
		Failed []string `json:"failed_hosts"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("output %q: %v\n%s", out, err, errOut)
	}
	results := map[string]string{}
	for _, h := range got.Hosts {
		results[h.Name] = h.Result
	}
	if want := map[string]string{"good": "pushed", "bad": "failed", "far.away": "skipped"}; fmt.Sprint(results) != fmt.Sprint(want) || fmt.Sprint(got.Failed) != "[bad]" {
		t.Errorf("%v, failed %v", results, got.Failed)
	}
	if code != 1 || !strings.Contains(errOut, "attic-action: 1 host failed: bad") {
		t.Errorf("exit %d\n%s", code, errOut)
	}
	code, out, errOut = command(t, t.Context(), "", "build", "system", flake, "*", "!bad")
	if code != 0 || !strings.Contains(out, "the cache has all of") || strings.Contains(out, "::") {
		t.Errorf("exit %d, %s\n%s", code, out, errOut)
	}
}

func TestBuildWithoutATokenSaysSoBeforeItBuilds(t *testing.T) {
	_, flake := buildDesk(t)
	code, _, errOut := command(t, t.Context(), "", "build", "system", flake)
	if code != 1 || !strings.Contains(errOut, "no token is given for") || !strings.Contains(errOut, "hint: use --token-file") {
		t.Errorf("exit %d\n%s", code, errOut)
	}
	code, out, errOut := command(t, t.Context(), "", "build", "--dry-run", "system", flake, "good")
	if code != 0 || !strings.Contains(out, "would be built") || strings.Contains(out+errOut, "GitHub") {
		t.Errorf("exit %d, %s\n%s", code, out, errOut)
	}
}

func TestBuildSaysWhichFlagIsWrong(t *testing.T) {
	_, flake := buildDesk(t)
	for arg, says := range map[string]string{"--push-filter=(": "input push-filter", "--max-jobs=many": "input max-jobs", "--eval-jobs=0": "input eval-jobs"} {
		code, _, errOut := command(t, t.Context(), "", "build", "--dry-run", arg, "system", flake)
		if code != 2 || !strings.Contains(errOut, says) {
			t.Errorf("%s: exit %d\n%s", arg, code, errOut)
		}
	}
}
