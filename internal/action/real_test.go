package action_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/action"
	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/push"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// programs are the nix binaries under test.
func programs(t *testing.T) []string {
	t.Helper()
	first, err := exec.LookPath("nix")
	if err != nil {
		t.Fatalf("these tests run a real nix: %v", err)
	}
	return append([]string{first}, filepath.SplitList(os.Getenv("ATTIC_TEST_NIX"))...)
}

// machine is a runner with a real Nix and an empty store of its own, at the usual place within root.
type machine struct {
	t    *testing.T
	bin  string
	root string // empty: the machine's own store
	env  map[string]string
	log  bytes.Buffer
	ctx  context.Context                       // nil is the test's
	wrap func(cache action.Cache) action.Cache // nil changes nothing
}

const offline = "experimental-features = nix-command flakes\nsandbox = false\nsubstituters =\nbuild-users-group =\nconnect-timeout = 5"

func newMachine(t *testing.T, bin, root, server, token string) *machine {
	dir := t.TempDir()
	m := &machine{t: t, bin: bin, root: root, env: map[string]string{
		"GITHUB_ACTIONS": "true", "RUNNER_TEMP": dir, "NIX_CONFIG": offline,
		"GITHUB_REPOSITORY": "acme/infra", "GITHUB_REF": "refs/heads/main", "GITHUB_EVENT_NAME": "push",
		"XDG_CACHE_HOME": filepath.Join(dir, "cache"), // Nix remembers for an hour what a cache does not have
		"INPUT_SERVER":   server, "INPUT_CACHE": "system", "INPUT_TOKEN": token,
	}}
	for _, file := range []string{"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STATE", "GITHUB_STEP_SUMMARY"} {
		m.env[file] = filepath.Join(dir, strings.ToLower(file))
	}
	return m
}

// environ is what a process of this machine has.
func (m *machine) environ() []string {
	env := os.Environ()
	for k, v := range m.env {
		if !strings.HasPrefix(k, "INPUT_") {
			env = append(env, k+"="+v)
		}
	}
	if m.root != "" {
		env = append(env, "NIX_REMOTE=local?root="+m.root)
	}
	return env
}

func (m *machine) run(inputs ...string) (map[string]string, error) {
	m.t.Helper()
	a, in := m.step(inputs...)
	ctx := m.ctx
	if ctx == nil {
		ctx = m.t.Context()
	}
	err := a.Run(ctx, in)
	return m.file("GITHUB_OUTPUT"), err
}

// step is what a step of the job runs.
func (m *machine) step(inputs ...string) (*action.Action, action.Inputs) {
	m.t.Helper()
	for i := 0; i < len(inputs); i += 2 {
		m.env[github.InputVariable(inputs[i])] = inputs[i+1]
	}
	runner := &github.Runner{Getenv: func(k string) string { return m.env[k] }, Stdout: &m.log}
	in, err := action.ReadInputs(runner)
	if err != nil {
		m.t.Fatal(err)
	}
	nix := &nixcli.Nix{Bin: m.bin, Env: m.environ()}
	login := &action.Login{Server: in.Server, Static: in.Token, Cache: in.Cache, Runner: runner, HTTP: http.DefaultClient, Now: time.Now}
	a := &action.Action{
		Runner: runner, Nix: nix, Login: login, Now: time.Now, Home: m.t.TempDir(),
		Setenv: func(k, v string) { nix.Env = append(nix.Env, k+"="+v) },
		Connect: func(in action.Inputs, token action.TokenSource) (action.Cache, error) {
			c, err := client.New(client.Options{Endpoint: in.Server, Token: client.TokenSource(token)})
			var cache action.Cache = &action.Remote{
				Client: c, Pusher: &push.Pusher{Client: c, Nix: nix, Progress: &push.Progress{}, TempDir: m.env["RUNNER_TEMP"]},
				Name: in.Cache, Runner: runner, Every: time.Second, Filter: in.PushFilter,
			}
			if m.wrap != nil {
				cache = m.wrap(cache)
			}
			return cache, err
		},
	}
	return a, in
}

// file is what a step wrote for its runner, the last value of each name.
func (m *machine) file(variable string) map[string]string {
	b, _ := os.ReadFile(m.env[variable])
	got := map[string]string{}
	for lines := strings.Split(string(b), "\n"); len(lines) > 1; {
		name, delimiter, _ := strings.Cut(lines[0], "<<")
		end := slices.Index(lines, delimiter)
		got[name] = strings.Join(lines[1:end], "\n")
		lines = lines[end+1:]
	}
	return got
}

// realise is a later step of the job that wants a path.
func (m *machine) realise(path string) error {
	cmd := exec.Command(filepath.Join(filepath.Dir(m.bin), "nix-store"), "--realise", path)
	cmd.Env = m.environ()
	for k, v := range m.file("GITHUB_ENV") {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (m *machine) has(path string) bool {
	_, err := os.Lstat(m.root + path)
	return err == nil
}

// realFlake has two hosts that no other test builds, and one that nothing builds.
func realFlake(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf(`{
  outputs = { self }: let
    host = name: system: { config.system.build.toplevel = derivation {
      inherit name system; builder = "/bin/sh";
      dep = derivation { name = "dep-of-${name}"; inherit system; builder = "/bin/sh"; args = [ "-c" "echo %d > $out" ]; };
      args = [ "-c" "echo $dep > $out" ];
    }; };
  in { nixosConfigurations = { web = host "web" builtins.currentSystem or "x86_64-linux"; "db.prod" = host "db" "x86_64-linux"; far = host "far" "riscv128-plan9"; }; };
}`, time.Now().UnixNano())
	text = strings.ReplaceAll(text, `builtins.currentSystem or "x86_64-linux"`, `"x86_64-linux"`)
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return "path:" + dir
}

// The whole of a job, with a real Nix and a real server: what one machine built, another one does not build again, and a
// later step of its job pulls, from a private cache too.
func TestAnotherMachineFindsWhatOneHasBuilt(t *testing.T) {
	for _, bin := range programs(t) {
		for _, public := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s public %v", filepath.Base(filepath.Dir(filepath.Dir(bin))), public), func(t *testing.T) {
				srv := servertest.Start(t)
				srv.CreateCache(t, "system", public)
				flake := realFlake(t)
				mayPin := srv.PinToken(t, []string{"acme/infra/*"}, servertest.Grant{Caches: "system", Perm: token.Pull | token.Push})
				builder := newMachine(t, bin, "", srv.URL, mayPin)
				out, err := builder.run("flake", flake, "keep", "3")
				if err != nil || out["hosts"] != `["db.prod","web"]` || out["failed-hosts"] != "[]" || out["pushed-bytes"] == "0" || !strings.HasPrefix(out["cache-public-key"], "system:") {
					t.Fatalf("outputs %q, %v\n%s", out, err, &builder.log)
				}
				var paths map[string]string
				if err := json.Unmarshal([]byte(out["paths"]), &paths); err != nil {
					t.Fatal(err)
				}
				for host, path := range paths {
					resp, text := srv.Do(t, http.MethodGet, api.Expand(api.PinRoute, "cache", "system", "name", "acme/infra/main/"+host), srv.Root, "")
					var pin api.Pin
					if err := json.Unmarshal([]byte(text), &pin); err != nil || pin.Keep != 3 || len(pin.Revisions) != 1 || pin.Revisions[0].StorePath != path {
						t.Errorf("pin of %s: %s %s\n%s", host, resp.Status, text, &builder.log)
					}
				}

				filtered := newMachine(t, bin, "", srv.URL, srv.Root)
				got, err := filtered.run("flake", realFlake(t), "push-filter", "^dep-")
				if err != nil || got["hosts"] != out["hosts"] {
					t.Fatalf("with a filter: outputs %q, %v\n%s", got, err, &filtered.log)
				}
				var top map[string]string
				_ = json.Unmarshal([]byte(got["paths"]), &top)
				dep, err := exec.Command(filepath.Join(filepath.Dir(bin), "nix-store"), "--query", "--references", top["web"]).Output()
				if err != nil || !strings.Contains(string(dep), "-dep-of-web") {
					t.Fatalf("references %s, %v", dep, err)
				}
				for path, want := range map[string]int{top["web"]: http.StatusOK, string(dep): http.StatusNotFound} {
					if resp, _ := srv.Do(t, http.MethodGet, "/system/"+filepath.Base(path)[:32]+".narinfo", srv.Root, ""); resp.StatusCode != want {
						t.Errorf("with a filter: %s is %s", path, resp.Status)
					}
				}

				fresh := newMachine(t, bin, t.TempDir(), srv.URL, srv.Root)
				again, err := fresh.run("flake", flake)
				if err != nil || again["hosts"] != out["hosts"] || again["paths"] != out["paths"] || again["pushed-bytes"] != "0" {
					t.Fatalf("outputs %q, %v\n%s", again, err, &fresh.log)
				}
				for _, path := range paths {
					if fresh.has(path) {
						t.Errorf("%s was downloaded, and nobody asked for it", path)
					}
				}
				if err := fresh.realise(paths["web"]); err != nil || !fresh.has(paths["web"]) {
					t.Errorf("a later step can't pull: %v", err)
				}

				other := newMachine(t, bin, t.TempDir(), srv.URL, srv.Root)
				if got, err := other.run("flake", flake, "skip-cached", "false"); err != nil || got["paths"] != out["paths"] || strings.Contains(other.log.String(), "building '") {
					t.Errorf("outputs %q, %v\n%s", got, err, &other.log)
				}
			})
		}
	}
}
