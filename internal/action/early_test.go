package action_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/attic-action/internal/action"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server/servertest"
)

// chain is a flake whose host is built one derivation after the other: first, second, gate, top. The gate says that it is
// being built, and waits until it is opened.
type chain struct {
	t      *testing.T
	flake  string
	begun  string // named pipes
	opened string
	ends   string // of the gate's script
}

// first also says what a hostile builder might, to have the path of another project on this machine pushed.
const chainFlake = `{
  outputs = { self }: let
    make = name: script: deps: derivation { inherit name deps; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ]; };
    first = make "first-%[1]d" "echo first > $out; echo \"building '%[5]s'...\" >&2" [];
    second = make "second-%[1]d" "echo $deps > $out" [ first ];
    gate = make "gate-%[1]d" "echo begun > %[2]s; read line < %[3]s; %[4]s" [ second ];
  in { nixosConfigurations.web.config.system.build.toplevel = make "top-%[1]d" "echo $deps > $out" [ gate ]; };
}`

func newChain(t *testing.T, ends, foreign string) *chain {
	dir := t.TempDir()
	c := &chain{t: t, flake: "path:" + dir, begun: filepath.Join(t.TempDir(), "begun"), opened: filepath.Join(t.TempDir(), "opened"), ends: ends}
	for _, pipe := range []string{c.begun, c.opened} {
		if err := syscall.Mkfifo(pipe, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(chainFlake, time.Now().UnixNano(), c.begun, c.opened, ends, foreign)
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// wait waits until the gate is being built.
func (c *chain) wait() {
	if _, err := os.ReadFile(c.begun); err != nil {
		c.t.Error(err)
	}
}

func (c *chain) open() {
	if err := os.WriteFile(c.opened, []byte("go\n"), 0); err != nil {
		c.t.Error(err)
	}
}

// outputs are the paths that the host's derivations make, by the name in front of the number.
func (c *chain) outputs(bin string) map[string]string {
	c.t.Helper()
	script := `drv=$("$1" eval --raw "$2#nixosConfigurations.web.config.system.build.toplevel.drvPath" --extra-experimental-features "nix-command flakes") &&
		nix-store --query --outputs $(nix-store --query --requisites $drv | grep 'drv$')`
	out, err := exec.Command("sh", "-c", script, "sh", bin, c.flake).Output()
	if err != nil {
		c.t.Fatal(err)
	}
	paths := map[string]string{}
	for _, path := range strings.Fields(string(out)) {
		name, _, _ := strings.Cut(path[len("/nix/store/")+33:], "-")
		paths[name] = path
	}
	if len(paths) != 4 {
		c.t.Fatalf("outputs %v", paths)
	}
	return paths
}

// observed tells the test of each push that is over.
type observed struct {
	action.Cache
	pushed chan []string // names
	fail   func(names []string) error
}

func (o *observed) Push(ctx context.Context, paths ...nix.StorePath) (action.Sent, error) {
	var names []string
	for _, p := range paths {
		name, _, _ := strings.Cut(p.Name(), "-")
		names = append(names, name)
	}
	if o.fail != nil {
		if err := o.fail(names); err != nil {
			return action.Sent{}, err
		}
	}
	sent, err := o.Cache.Push(ctx, paths...)
	if err == nil {
		o.pushed <- names
	}
	return sent, err
}

func (o *observed) wrap(c action.Cache) action.Cache { o.Cache = c; return o }

// on reports whether the server has a path.
func on(t *testing.T, srv *servertest.Server, path string) bool {
	t.Helper()
	resp, text := srv.Do(t, http.MethodGet, "/system/"+filepath.Base(path)[:32]+".narinfo", srv.Root, "")
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s: %s %s", path, resp.Status, text)
	}
	return resp.StatusCode == http.StatusOK
}

// each runs a test with every nix, and a server with an empty cache.
func each(t *testing.T, test func(t *testing.T, bin string, srv *servertest.Server)) {
	for _, bin := range programs(t) {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(bin))), func(t *testing.T) {
			srv := servertest.Start(t)
			srv.CreateCache(t, "system", true)
			test(t, bin, srv)
		})
	}
}

// built adds a path to the store that belongs to nobody's flake, and returns its derivation.
func built(t *testing.T) (drv, path string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "foreign.nix")
	text := fmt.Sprintf(`derivation { name = "foreign"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo %d > $out" ]; }`, time.Now().UnixNano())
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", `drv=$(nix-instantiate "$1") && echo $drv && nix-store --realise $drv --option sandbox false --option substituters '' --option build-users-group ''`, "sh", file).Output()
	drv, path, ok := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || !ok {
		t.Fatalf("%v: %s", err, out)
	}
	return drv, path
}

func TestWhatIsBuiltIsOnTheServerWhileTheBuildGoesOn(t *testing.T) {
	each(t, func(t *testing.T, bin string, srv *servertest.Server) {
		drv, foreign := built(t)
		c := newChain(t, "echo $deps > $out", drv)
		paths := c.outputs(bin)
		m := newMachine(t, bin, "", srv.URL, srv.Root)
		seen := &observed{pushed: make(chan []string, 10)}
		m.wrap = seen.wrap
		var test sync.WaitGroup
		defer test.Wait()
		test.Go(func() {
			c.wait()
			early := <-seen.pushed // while the gate is closed
			for name, want := range map[string]bool{"first": true, "second": true, "gate": false, "top": false} {
				if on(t, srv, paths[name]) != want {
					t.Errorf("pushed %q: %s is on the server: %v", early, name, !want)
				}
			}
			c.open()
		})
		out, err := m.run("flake", c.flake, "pin", "false")
		if err != nil || out["hosts"] != `["web"]` || out["pushed-bytes"] == "0" {
			t.Fatalf("outputs %q, %v\n%s", out, err, &m.log)
		}
		for name, path := range paths {
			if !on(t, srv, path) {
				t.Errorf("%s is not on the server", name)
			}
		}
		if on(t, srv, foreign) {
			t.Error("a builder had the path of another project pushed")
		}
		if !strings.Contains(m.log.String(), "; 2 while it was built") {
			t.Errorf("the log:\n%s", &m.log)
		}
		roots, _ := exec.Command("nix-store", "--query", "--roots", paths["top"]).Output()
		if !strings.Contains(string(roots), m.env["RUNNER_TEMP"]) {
			t.Errorf("the job's later steps can't rely on %s: roots %q", paths["top"], roots)
		}
	})
}

// A job's time is over: what was built by then is kept, and the next job goes on from there.
func TestCancelledBuildHasSavedWhatItBuilt(t *testing.T) {
	each(t, func(t *testing.T, bin string, srv *servertest.Server) {
		c := newChain(t, "echo $deps > $out", "")
		paths := c.outputs(bin)
		m := newMachine(t, bin, "", srv.URL, srv.Root)
		ctx, cancel := context.WithCancelCause(t.Context())
		m.ctx = ctx
		stopped := errors.New("the runner says stop")
		go func() {
			c.wait()
			cancel(stopped) // at once: nothing has gathered for five seconds
		}()
		out, err := m.run("flake", c.flake)
		if !errors.Is(err, stopped) || out["failed-hosts"] != `["web"]` {
			t.Fatalf("outputs %q, %v\n%s", out, err, &m.log)
		}
		for name, want := range map[string]bool{"first": true, "second": true, "gate": false, "top": false} {
			if on(t, srv, paths[name]) != want {
				t.Errorf("%s is on the server: %v\n%s", name, !want, &m.log)
			}
		}

		next := newMachine(t, bin, t.TempDir(), srv.URL, srv.Root)
		plan, err := next.run("flake", c.flake, "dry-run", "true")
		if err != nil || !strings.Contains(next.log.String(), "web: 2 derivations would be built, and 2 paths fetched") {
			t.Errorf("another machine: %q, %v\n%s", plan, err, &next.log)
		}
	})
}

func TestFailedHostsDependenciesAreKept(t *testing.T) {
	each(t, func(t *testing.T, bin string, srv *servertest.Server) {
		c := newChain(t, "echo no such file >&2; exit 3", "")
		paths := c.outputs(bin)
		m := newMachine(t, bin, "", srv.URL, srv.Root)
		go func() { c.wait(); c.open() }()
		out, err := m.run("flake", c.flake)
		var failed *action.HostsError
		if !errors.As(err, &failed) || out["failed-hosts"] != `["web"]` {
			t.Fatalf("outputs %q, %v\n%s", out, err, &m.log)
		}
		for name, want := range map[string]bool{"first": true, "second": true, "gate": false, "top": false} {
			if on(t, srv, paths[name]) != want {
				t.Errorf("%s is on the server: %v\n%s", name, !want, &m.log)
			}
		}
		if !strings.Contains(m.log.String(), "web: 2 paths that were built for it are on the cache") {
			t.Errorf("the log:\n%s", &m.log)
		}
	})
}

// A push that fails while a host is built fails neither the host nor, in the end, the push.
func TestPushThatFailsWhileBuildingIsTriedAgainAtTheEnd(t *testing.T) {
	each(t, func(t *testing.T, bin string, srv *servertest.Server) {
		c := newChain(t, "echo > $out", "") // so that nothing refers to the paths before it
		paths := c.outputs(bin)
		m := newMachine(t, bin, "", srv.URL, srv.Root)
		seen := &observed{pushed: make(chan []string, 10)}
		seen.fail = func(names []string) error {
			if names[0] != "top" && seen.fail != nil {
				seen.fail = nil // once
				c.open()
				return errors.New("the server is being deployed")
			}
			return nil
		}
		m.wrap = seen.wrap
		go c.wait()
		out, err := m.run("flake", c.flake)
		if err != nil || out["hosts"] != `["web"]` || out["failed-hosts"] != "[]" {
			t.Fatalf("outputs %q, %v\n%s", out, err, &m.log)
		}
		for name, path := range paths {
			if !on(t, srv, path) {
				t.Errorf("%s is not on the server\n%s", name, &m.log)
			}
		}
		if n := strings.Count(m.log.String(), "pushing while it is built: the server is being deployed"); n != 1 {
			t.Errorf("said %d times:\n%s", n, &m.log)
		}
	})
}

// stuck is a connection on which nothing arrives.
type stuck struct{ action.Cache }

func (stuck) Push(ctx context.Context, _ ...nix.StorePath) (action.Sent, error) {
	<-ctx.Done()
	return action.Sent{}, context.Cause(ctx)
}

// What takes longer than a runner waits for a cancelled step is pushed by its post step, for which it waits minutes.
func TestPostStepPushesWhatACancelledJobHadNoTimeFor(t *testing.T) {
	bin := programs(t)[0]
	srv := servertest.Start(t)
	srv.CreateCache(t, "system", true)
	c := newChain(t, "echo $deps > $out", "")
	paths := c.outputs(bin)
	m := newMachine(t, bin, "", srv.URL, srv.Root)
	m.wrap = func(cache action.Cache) action.Cache { return stuck{cache} }
	ctx, cancel := context.WithCancel(t.Context())
	m.ctx = ctx
	go func() { c.wait(); cancel() }()
	if _, err := m.run("flake", c.flake); !errors.Is(err, context.Canceled) || on(t, srv, paths["first"]) {
		t.Fatalf("%v\n%s", err, &m.log)
	}
	m.env["STATE_roots"] = m.file("GITHUB_STATE")["roots"]
	m.wrap = nil
	a, in := m.step()
	a.PushLeft(t.Context(), in)
	for name, want := range map[string]bool{"first": true, "second": true, "gate": false, "top": false} {
		if on(t, srv, paths[name]) != want {
			t.Errorf("%s is on the server: %v\n%s", name, !want, &m.log)
		}
	}
	if _, err := os.Stat(m.env["STATE_roots"]); !os.IsNotExist(err) {
		t.Errorf("roots are left: %v", err)
	}
}

// A runner that keeps its temporary files must not keep what was built, too.
func TestPostStepLetsGoOfWhatWasBuilt(t *testing.T) {
	srv := servertest.Start(t)
	srv.CreateCache(t, "system", true)
	m := newMachine(t, programs(t)[0], "", srv.URL, srv.Root)
	out, err := m.run("flake", realFlake(t))
	if err != nil || out["hosts"] == "[]" {
		t.Fatalf("%q, %v\n%s", out, err, &m.log)
	}
	dir := m.file("GITHUB_STATE")["roots"]
	if links, _ := os.ReadDir(dir); len(links) == 0 {
		t.Errorf("no roots in %q", dir)
	}
	m.env["STATE_roots"] = dir
	m.wrap = func(action.Cache) action.Cache { t.Error("the cache is asked"); return nil }
	a, in := m.step()
	a.PushLeft(t.Context(), in)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", dir, err)
	}
}

// Another step may have written the state; what it names is neither read nor removed.
func TestPostStepReadsOnlyTheMainStepsList(t *testing.T) {
	m := newMachine(t, programs(t)[0], "", "http://127.0.0.1:1", "token")
	m.wrap = func(action.Cache) action.Cache { t.Error("the cache is asked"); return nil }
	dir := t.TempDir()
	for _, file := range []string{dir + "/not-pushed", m.env["RUNNER_TEMP"] + "/not-pushed", m.env["RUNNER_TEMP"] + "/other/not-pushed"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("/nix/store/"+strings.Repeat("0", 32)+"-x\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		m.env["STATE_roots"] = filepath.Dir(file)
		a, in := m.step()
		a.PushLeft(t.Context(), in)
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}
