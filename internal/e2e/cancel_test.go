package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// gated is a flake whose host web is built of first, second and a gate that says when it is begun, and then waits for ever.
const gated = `{
  outputs = { self }: let
    make = name: script: deps: derivation { name = "${name}-%[1]s"; inherit deps; system = "%[2]s"; builder = "/bin/sh"; args = [ "-c" script ]; };
    first = make "first" "echo first > $out" [];
    second = make "second" "echo $deps > $out" [ first ];
    gate = make "gate" "echo > %[3]s; read line < %[4]s; echo $deps > $out" [ second ];
  in { nixosConfigurations.web.config.system.build.toplevel = make "top" "echo $deps > $out" [ gate ]; };
}`

// A runner that cancels a job sends SIGINT, and SIGTERM seven seconds and a half later; the shim may get it as well and
// hand it on. What was built by then is on the server, and outputs are set. The job that comes after it has to build the rest only.
func TestCancelledJobHasSavedWhatItBuilt(t *testing.T) {
	t.Parallel()
	system := run(t, nil, "nix", "eval", "--raw", "--impure", "--expr", "builtins.currentSystem", "--extra-experimental-features", "nix-command")
	for name, sig := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			tok, _ := s.cache("system", true)
			dir, temp := t.TempDir(), t.TempDir()
			begun, opened := filepath.Join(temp, "begun"), filepath.Join(temp, "opened")
			for _, pipe := range []string{begun, opened} {
				if err := syscall.Mkfifo(pipe, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			flake := fmt.Sprintf(gated, rig.salt+"-"+strings.ToLower(name), system, begun, opened)
			if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(flake), 0o644); err != nil {
				t.Fatal(err)
			}
			output := filepath.Join(temp, "output")
			job := func() *process {
				return start(t, environment(t.TempDir(), "GITHUB_ACTIONS=true", "RUNNER_TEMP="+temp, "GITHUB_OUTPUT="+output,
					"GITHUB_ENV="+filepath.Join(temp, "env"), "GITHUB_STATE="+filepath.Join(temp, "state"), "GITHUB_STEP_SUMMARY="+filepath.Join(temp, "summary"),
					"NIX_CONFIG=experimental-features = nix-command flakes\nsandbox = false\nsubstituters =\nbuild-users-group =",
					"INPUT_SERVER="+s.url, "INPUT_CACHE=system", "INPUT_TOKEN="+tok, "INPUT_FLAKE=path:"+dir, "INPUT_SKIP-CACHED=false"), rig.action, "main")
			}
			p := job()
			must(os.ReadFile(begun))(t) // the gate is being built
			p.signal(t, sig)
			p.signal(t, sig)
			began := time.Now()
			end := p.wait()
			if took := time.Since(began); end.code != 130 || took > 7*time.Second { // then comes what can't be caught
				t.Errorf("exit %d after %v\n%s%s", end.code, took, tail(end.stdout), tail(end.stderr))
			}
			if b := must(os.ReadFile(output))(t); !strings.Contains(string(b), `["web"]`) {
				t.Errorf("outputs %s", b)
			}
			store := run(t, nil, "sh", "-c", `nix-store --query --outputs $(nix-store --query --requisites "$(nix eval --raw "$1#nixosConfigurations.web.config.system.build.toplevel.drvPath" --extra-experimental-features "nix-command flakes")" | grep 'drv$')`, "sh", "path:"+dir)
			for _, path := range strings.Fields(store) {
				want := http.StatusNotFound
				if strings.Contains(path, "-first-") || strings.Contains(path, "-second-") {
					want = http.StatusOK
				}
				if status, _ := s.send(s.request(http.MethodGet, "/system/"+filepath.Base(path)[:32]+".narinfo", tok, nil)); status != want {
					t.Errorf("%s: status %d\n%s", path, status, tail(end.stdout))
				}
			}

			again := job()
			must(os.ReadFile(begun))(t)
			if err := os.WriteFile(opened, []byte("go\n"), 0); err != nil {
				t.Fatal(err)
			}
			if end := again.wait(); end.code != 0 || strings.Count(end.stdout, "building '") != 2 {
				t.Errorf("the job after it: exit %d\n%s%s", end.code, tail(end.stdout), tail(end.stderr))
			}
		})
	}
}
