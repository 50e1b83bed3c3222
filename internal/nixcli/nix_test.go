package nixcli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
)

// programs are the nix binaries under test: the one on PATH, which must be there, and those that $ATTIC_TEST_NIX names,
// separated by colons.
func programs(t testing.TB) []string {
	t.Helper()
	first, err := exec.LookPath("nix")
	if err != nil {
		t.Fatalf("these tests run a real nix: %v", err)
	}
	all := []string{first}
	for _, bin := range filepath.SplitList(os.Getenv("ATTIC_TEST_NIX")) {
		if _, err := os.Stat(bin); err != nil {
			t.Fatalf("ATTIC_TEST_NIX: %v", err)
		}
		all = append(all, bin)
	}
	return all
}

// eachNix runs a test with every nix.
func eachNix(t *testing.T, test func(t *testing.T, n *Nix)) {
	for _, bin := range programs(t) {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(bin))), func(t *testing.T) {
			test(t, offline(bin))
		})
	}
}

// offline is a nix that needs no network and no sandbox.
func offline(bin string) *Nix {
	return &Nix{Bin: bin, ExtraArgs: []string{"--option", "sandbox", "false", "--option", "substituters", "", "--option", "build-users-group", ""}}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, args, err)
	}
	return strings.TrimSpace(string(out))
}

func parse(t testing.TB, s string) nix.StorePath {
	t.Helper()
	p, err := nix.ParseStorePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// addTree puts a directory into the store and returns its path there.
func addTree(t testing.TB) nix.StorePath {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	writeFile(t, filepath.Join(dir, "bin", "tool"), "#! a tool")
	if err := os.Symlink("tool", filepath.Join(dir, "bin", "link")); err != nil {
		t.Fatal(err)
	}
	return parse(t, run(t, "nix-store", "--add", dir))
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// chain builds three paths, each referring to the one before, the last to itself too.
const chain = `
let
  make = name: text: derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${text} > $out" ];
  };
  a = make "chain-a" "1";
  b = make "chain-b" "${a}";
in make "chain-c" "$out ${b} ${a}"
`

func instantiate(t *testing.T, expr string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "expr.nix")
	writeFile(t, file, expr)
	drv, _, _ := strings.Cut(run(t, "nix-instantiate", file), "!") // an output may follow
	return drv
}

func TestVersion(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		v, err := n.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v.Major < 2 || !strings.Contains(v.String(), fmt.Sprintf("%d.%d", v.Major, v.Minor)) {
			t.Errorf("version %+v", v)
		}
	})
}

func TestMissingProgramIsNamed(t *testing.T) {
	_, err := (&Nix{Bin: "no-such-nix"}).Version(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no-such-nix") || !strings.Contains(err.Error(), "installed") {
		t.Errorf("error is %v", err)
	}
}

func TestClosureIsCompleteAndDependenciesComeFirst(t *testing.T) {
	drv := instantiate(t, chain)
	eachNix(t, func(t *testing.T, n *Nix) {
		top, err := n.Build(t.Context(), drv, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		infos, err := n.Closure(t.Context(), []nix.StorePath{top, top})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, info := range infos {
			names = append(names, info.Path.Name())
		}
		if want := []string{"chain-a", "chain-b", "chain-c"}; !slices.Equal(names, want) {
			t.Fatalf("closure %v, want %v", names, want)
		}
		c := infos[2]
		for _, ref := range []nix.StorePath{infos[0].Path, infos[1].Path, top} {
			if !slices.Contains(c.References, ref) {
				t.Errorf("references of chain-c are %v, without %s", c.References, ref)
			}
		}
		if c.Deriver != drv {
			t.Errorf("deriver is %q, want %s", c.Deriver, drv)
		}
		for _, info := range infos {
			checkNAR(t, info)
		}
	})
}

// checkNAR holds what nix says of a path against its contents.
func checkNAR(t *testing.T, info PathInfo) {
	t.Helper()
	var b bytes.Buffer
	if err := nar.Dump(&b, info.Path.String()); err != nil {
		t.Fatal(err)
	}
	want := "sha256:" + run(t, "nix-store", "--query", "--hash", info.Path.String())[len("sha256:"):]
	if uint64(b.Len()) != info.NarSize || "sha256:"+info.NarHash.Base32() != want {
		t.Errorf("%s: size %d and hash %s, want %d and %s", info.Path, info.NarSize, info.NarHash.Base32(), b.Len(), want)
	}
}

func TestInfosOfContentAddressedPathAndOfDerivation(t *testing.T) {
	tree, drv := addTree(t), parse(t, instantiate(t, chain))
	eachNix(t, func(t *testing.T, n *Nix) {
		infos, err := n.Infos(t.Context(), []nix.StorePath{drv, tree})
		if err != nil {
			t.Fatal(err)
		}
		got := map[nix.StorePath]PathInfo{}
		for _, info := range infos {
			got[info.Path] = info
		}
		if len(got) != 2 || !strings.HasPrefix(got[tree].CA, "fixed:r:sha256:") || !strings.HasPrefix(got[drv].CA, "text:sha256:") {
			t.Errorf("infos are %+v", infos)
		}
	})
}

func TestSignaturesAreRead(t *testing.T) {
	tree := addTree(t)
	key := filepath.Join(t.TempDir(), "key")
	bin := programs(t)[0]
	features := []string{"--extra-experimental-features", "nix-command"}
	run(t, "nix-store", "--generate-binary-cache-key", "unit-test", key, key+".pub")
	run(t, bin, append([]string{"store", "sign", "-k", key, tree.String()}, features...)...)
	text, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	public, err := nix.ParsePublicKey(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	eachNix(t, func(t *testing.T, n *Nix) {
		infos, err := n.Infos(t.Context(), []nix.StorePath{tree})
		if err != nil {
			t.Fatal(err)
		}
		info := nix.NarInfo{StorePath: tree, NarHash: infos[0].NarHash, NarSize: infos[0].NarSize}
		if !slices.ContainsFunc(infos[0].Sigs, func(sig string) bool { return public.Verify(info.Fingerprint(), sig) }) {
			t.Errorf("none of %q is the signature that nix made", infos[0].Sigs)
		}
	})
}

func TestUnknownPathIsNamedAtOnce(t *testing.T) {
	none := parse(t, "/nix/store/00000000000000000000000000000000-none")
	eachNix(t, func(t *testing.T, n *Nix) {
		// With its substituters as configured: that none of them is asked shows in that the test ends.
		n.ExtraArgs = nil
		for what, ask := range map[string]func(context.Context, []nix.StorePath) ([]PathInfo, error){"closure": n.Closure, "infos": n.Infos} {
			_, err := ask(t.Context(), []nix.StorePath{none})
			if err == nil || !strings.Contains(err.Error(), none.String()) {
				t.Errorf("%s: error is %v, want one that names %s", what, err, none)
			}
		}
	})
}

func TestResolve(t *testing.T) {
	tree := addTree(t)
	dir := t.TempDir()
	t.Chdir(dir)
	link := func(target, name string) {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	link(tree.String(), "result")
	link("result", "to-result")
	link(tree.String()+"/bin/tool", "to-tool")
	link("loop", "loop")
	writeFile(t, "sub/file", "")
	link("sub", "to-sub")
	n := &Nix{Env: []string{}}
	for _, path := range []string{
		tree.String(), tree.String() + "/", tree.String() + "/bin/tool", "/nix/../nix//store/./" + tree.Base(),
		"result", "./result", "to-result", "result/bin/tool", "result/bin/link", "to-tool", "sub/../result", "result/bin/../../" + tree.Base(), "to-sub/../result/bin",
		filepath.Join(dir, "result"),
	} {
		got, err := n.Resolve(t.Context(), []string{path})
		if err != nil || got[0] != tree {
			t.Errorf("%s: %v, %v; want %s", path, got, err, tree)
		}
	}
	for path, want := range map[string]string{
		"":                   "empty",
		"sub/file":           "not in the store",
		"none":               "no such file",
		"/":                  "not in the store",
		"/nix/store":         "not in the store",
		"/nix/store/.links":  "hash",
		"result/../sub/file": "no <32", // ".." of an object is the store, not the symlink's directory
		"loop":               "too many symlinks",
		"/nix/store/00000000000000000000000000000000-none": "no such file",
	} {
		_, err := n.Resolve(t.Context(), []string{"result", path})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", path)) {
			t.Errorf("%q: error is %v, want one with the path and %q", path, err, want)
		}
	}
}

func TestResolveKeepsNameOfStoreOnOtherDisk(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	base := "00000000000000000000000000000000-x"
	writeFile(t, filepath.Join(dir, "disk", base), "")
	if err := os.Symlink("disk", filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	n := &Nix{Env: []string{"NIX_STORE_DIR=" + dir + "/store"}}
	got, err := n.Resolve(t.Context(), []string{dir + "/store/" + base})
	if err != nil || got[0].String() != dir+"/store/"+base {
		t.Fatalf("%v, %v", got, err)
	}
}

const odd = "q\"uo\\te ${builtins.throw \"injected\"} 50% $x äöü\nline\rend"

var oddNix = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`).Replace(odd)

// testFlake has a host of each kind, and one whose name attacks whoever puts it into an expression or a shell.
var testFlake = `{
  outputs = { self }:
    let
      make = name: system: script: derivation {
        inherit name system; builder = "/bin/sh"; args = [ "-c" script ];
      };
      host = top: { config.system.build.toplevel = top; };
      leaf = make "failing-leaf" "@system@" "echo first line; printf '\\033[31mlast line\\033[0m\\n' >&2; exit 3";
    in {
      nixosConfigurations = {
        web = host (make "web" "@system@" "echo web > $out");
        "db.prod" = host (make "db" "@system@" "echo db > $out");
        broken = host (make "broken" "@system@" "echo ${leaf} > $out");
        throws = throw "this host throws";
        other = host (make "other" "riscv128-plan9" "echo other > $out");
        liar = host { drvPath = "/etc/passwd"; outPath = "/etc/shadow"; system = "x\ny"; };
        "` + oddNix + `" = host (make "odd" "@system@" "echo odd > $out");
      };
    };
}`

func flakeDir(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	system := strings.NewReplacer("amd64", "x86_64", "arm64", "aarch64").Replace(runtime.GOARCH) + "-" + runtime.GOOS
	writeFile(t, filepath.Join(dir, "flake.nix"), strings.ReplaceAll(text, "@system@", system))
	return "path:" + dir
}

func TestHostsListsAlsoThoseThatThrow(t *testing.T) {
	flake := flakeDir(t, testFlake)
	eachNix(t, func(t *testing.T, n *Nix) {
		got, err := n.Hosts(t.Context(), flake)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"broken", "db.prod", "liar", "other", odd, "throws", "web"}; !slices.Equal(got, want) {
			t.Errorf("hosts %q, want %q", got, want)
		}
	})
}

func TestEval(t *testing.T) {
	flake := flakeDir(t, testFlake)
	eachNix(t, func(t *testing.T, n *Nix) {
		// The odd name must reach nix as itself: were it not quoted, "injected" would be thrown.
		for name, want := range map[string]string{"web": "web", "db.prod": "db", "other": "other", odd: "odd"} {
			host, err := n.Eval(t.Context(), flake, HostAttr(name))
			if err != nil {
				t.Errorf("%q: %v", name, err)
				continue
			}
			if host.Name != name || !strings.HasSuffix(host.DrvPath, "-"+want+".drv") || !strings.HasSuffix(host.OutPath, "-"+want) {
				t.Errorf("%q is %+v", name, host)
			}
			if other := name == "other"; other != (host.System == "riscv128-plan9") {
				t.Errorf("%q has the system %q", name, host.System)
			}
		}
		for name, want := range map[string]string{"throws": "error: this host throws", "liar": "drvPath", "none": "none"} {
			host, err := n.Eval(t.Context(), flake, HostAttr(name))
			if err == nil || host.Err != err || host.Name != name || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: host %+v, error %v, want one with %q", name, host, err, want)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 2*maxErrorLen) {
				t.Errorf("%q: the error is more than one line: %v", name, err)
			}
		}
	})
}

func TestHostsSaysWhatIsNotThere(t *testing.T) {
	nothing := "path:" + t.TempDir()
	eachNix(t, func(t *testing.T, n *Nix) {
		for flake, want := range map[string]error{
			flakeDir(t, `{ outputs = { self }: { }; }`):                            ErrNoHosts,
			flakeDir(t, `{ outputs = { self }: { nixosConfigurations = { }; }; }`): ErrNoHosts,
			nothing:                              ErrNoFlake,
			strings.TrimPrefix(nothing, "path:"): ErrNoFlake,
		} {
			_, err := n.Hosts(t.Context(), flake)
			if !errors.Is(err, want) || !strings.Contains(err.Error(), flake) {
				t.Errorf("%s: error is %v, want %v", flake, err, want)
			}
		}
	})
}

// A reference from an action's input must not become an option of nix: --option and its like run commands.
func TestFlakeReferenceIsNoOption(t *testing.T) {
	n := offline("nix")
	for _, flake := range []string{"", "-", "--impure", "--option", ".#x", "a\nb"} {
		if _, err := n.Hosts(t.Context(), flake); err == nil || !strings.Contains(err.Error(), "the reference") {
			t.Errorf("%q: error is %v", flake, err)
		}
	}
}

func TestBuildStreamsItsLogAndReturnsOutput(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drv := instantiate(t, fmt.Sprintf(`derivation { name = "talks"; system = builtins.currentSystem; builder = "/bin/sh";
			args = [ "-c" "echo I am building; echo %d > $out; echo > $dev" ]; outputs = [ "dev" "out" ]; }`, time.Now().UnixNano()))
		var log bytes.Buffer
		out, err := n.Build(t.Context(), drv, "", "", &log)
		if err != nil {
			t.Fatal(err)
		}
		if out.Name() != "talks" || !strings.Contains(log.String(), "I am building") {
			t.Errorf("built %s, log %q", out, &log)
		}
	})
}

// What waits for its push must not be collected. A root that a test leaves behind would hold somebody's disk.
func TestRootsHoldWhatWasBuiltUntilTheyAreRemoved(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		top := parse(t, instantiate(t, fmt.Sprintf(`derivation { name = "rooted"; system = builtins.currentSystem; builder = "/bin/sh";
			dep = derivation { name = "dep-of-rooted"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
			args = [ "-c" "echo %d > $out; echo > $dev" ]; outputs = [ "out" "dev" ]; }`, time.Now().UnixNano())))
		dir := t.TempDir()
		var log bytes.Buffer
		out, err := n.Build(t.Context(), top.String(), "dev", filepath.Join(dir, "top"), &log)
		if err != nil || out.Name() != "rooted-dev" || strings.Contains(log.String(), "add-root") {
			t.Fatalf("built %s, %v\n%s", out, err, &log)
		}
		drvs, err := n.Requisites(t.Context(), top)
		if err != nil || len(drvs) != 2 || drvs[1] != top {
			t.Fatalf("requisites %v, %v", drvs, err)
		}
		outputs, err := n.Outputs(t.Context(), drvs)
		if err != nil || len(outputs) != 3 || !slices.Contains(outputs, out) {
			t.Fatalf("outputs %v, %v", outputs, err)
		}
		absent := parse(t, nix.StoreDir+"/"+strings.Repeat("0", 32)+"-absent")
		valid, err := n.Valid(t.Context(), append([]nix.StorePath{absent}, outputs...))
		if err != nil || !slices.Equal(valid, outputs) {
			t.Fatalf("valid %v, %v", valid, err)
		}
		if err := n.Root(t.Context(), filepath.Join(dir, "more"), outputs); err != nil {
			t.Fatal(err)
		}
		for i, path := range outputs {
			if roots := run(t, "nix-store", "--query", "--roots", path.String()); !strings.Contains(roots, dir+"/more") {
				t.Errorf("roots of output %d: %q", i, roots)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if roots := run(t, "nix-store", "--query", "--roots", out.String()); strings.Contains(roots, dir) {
			t.Errorf("roots after the folder is gone: %q", roots)
		}
	})
}

func TestBuildErrorNamesDerivationThatFailed(t *testing.T) {
	flake := flakeDir(t, testFlake)
	eachNix(t, func(t *testing.T, n *Nix) {
		for name, want := range map[string]struct {
			drv, reason string
			log         []string
		}{
			"broken": {"-failing-leaf.drv", "builder failed with exit code 3", []string{"first line", "last line"}},
			"other":  {"-other.drv", "riscv128-plan9", nil},
		} {
			host, err := n.Eval(t.Context(), flake, HostAttr(name))
			if err != nil {
				t.Fatal(err)
			}
			_, err = n.Build(t.Context(), host.DrvPath, host.Output, "", nil)
			failure, ok := errors.AsType[*BuildError](err)
			if !ok {
				t.Fatalf("%s: error is %v, want a *BuildError", name, err)
			}
			if !strings.HasSuffix(failure.Drv, want.drv) || failure.Command != "nix log "+failure.Drv || !strings.Contains(err.Error(), want.reason) {
				t.Errorf("%s: %+v", name, failure)
			}
			if want.log != nil && !slices.Equal(failure.Log, want.log) {
				t.Errorf("%s: log %q, want %q", name, failure.Log, want.log)
			}
		}
	})
}

func TestBuildRefusesWhatIsNoDerivation(t *testing.T) {
	for _, drv := range []string{"", "--help", "/etc/passwd", "/nix/store/00000000000000000000000000000000-x"} {
		if _, err := offline("nix").Build(t.Context(), drv, "", "", nil); err == nil {
			t.Errorf("%q was built", drv)
		}
	}
}

// builderLog takes a build's log and tells the process id that the builder prints.
type builderLog struct {
	text  bytes.Buffer
	found func(pid int)
}

func (l *builderLog) Write(b []byte) (int, error) {
	l.text.Write(b)
	if _, after, ok := strings.Cut(l.text.String(), "builder is "); ok && strings.Contains(after, "\n") {
		var pid int
		_, _ = fmt.Sscan(after, &pid)
		l.found(pid)
	}
	return len(b), nil
}

// isGone also takes a zombie for gone: its new parent, process 1, may never ask for it.
func isGone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	state, _ := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return bytes.HasPrefix(state, []byte("Z"))
}

func TestCancelledBuildLeavesNoProcess(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drv := instantiate(t, fmt.Sprintf(`derivation { name = "stops-%d"; system = builtins.currentSystem;
			builder = "/bin/sh"; args = [ "-c" "echo builder is $$; kill -STOP $$" ]; }`, time.Now().UnixNano()))
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stopped by the test")
		var builder int
		log := builderLog{found: func(pid int) { builder = pid; cancel(stop) }}
		if _, err := n.Build(ctx, drv, "", "", &log); !errors.Is(err, stop) {
			t.Fatalf("error is %v, want the cause of the cancellation", err)
		}
		for range 5000 {
			if isGone(builder) {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("the builder %d still runs", builder)
	})
}

func TestSettingsNameAllSystemsThatCanBeBuiltFor(t *testing.T) {
	machines := filepath.Join(t.TempDir(), "machines")
	writeFile(t, machines, "# none\nssh://mac x86_64-darwin,aarch64-darwin - 4\nssh://own -\n@"+machines+"\n")
	eachNix(t, func(t *testing.T, n *Nix) {
		n.ExtraArgs = append(n.ExtraArgs, "--option", "extra-platforms", "riscv64-linux armv7l-linux",
			"--option", "builders", "ssh://pi aarch64-linux ; @"+machines, "--option", "netrc-file", "/x/netrc",
			"--option", "substituters", "https://a.example https://b.example", "--option", "trusted-public-keys", "k:x")
		s, err := n.Settings(t.Context())
		if err != nil || s.Systems[0] != s.System || !strings.HasSuffix(s.System, "-"+runtime.GOOS) || s.Netrc != "/x/netrc" || len(s.Substituters) != 2 || !slices.Equal(s.Keys, []string{"k:x"}) {
			t.Fatalf("settings %+v, %v", s, err)
		}
		for _, want := range []string{"riscv64-linux", "armv7l-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin"} {
			if !slices.Contains(s.Systems, want) {
				t.Errorf("systems %q lack %s", s.Systems, want)
			}
		}
	})
}

func TestPlanBuildsNothing(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drv := instantiate(t, fmt.Sprintf(`let d = n: i: derivation { name = n; inherit i; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo %d > $out" ]; };
			in d "above" (d "below" "")`, time.Now().UnixNano()))
		plan, err := n.Plan(t.Context(), drv, "out")
		if err != nil || len(plan.Build) != 2 || len(plan.Fetch) != 0 {
			t.Fatalf("plan %+v, %v", plan, err)
		}
		if again, err := n.Plan(t.Context(), drv, ""); err != nil || len(again.Build) != 2 {
			t.Errorf("it was built: %+v, %v", again, err)
		}
		if _, err := n.Build(t.Context(), drv, "", "", nil); err != nil {
			t.Fatal(err)
		}
		if plan, err = n.Plan(t.Context(), drv, "out"); err != nil || len(plan.Build) != 0 {
			t.Errorf("after the build: %+v, %v", plan, err)
		}
	})
}

func TestParsePlan(t *testing.T) {
	const p = "/nix/store/00000000000000000000000000000000-"
	got := parsePlan("warning: x\nthis derivation will be built:\n  " + p + "a.drv\nthese 2 paths will be fetched (0.1 MiB download, 1 MiB unpacked):\n  " + p + "b\n  " + p + "c\nother:\n  " + p + "d\n")
	if len(got.Build) != 1 || len(got.Fetch) != 2 {
		t.Errorf("%+v", got)
	}
}

// A daemon that does not trust its user says so, in both versions' words and whichever version asks.
func TestIgnoredSettingsAreNamed(t *testing.T) {
	for _, daemon := range programs(t) {
		socket := filepath.Join(t.TempDir(), "s")
		cmd := exec.Command(filepath.Join(filepath.Dir(daemon), "nix-daemon"), "--option", "trusted-users", "nobody")
		cmd.Env = append(os.Environ(), "NIX_DAEMON_SOCKET_PATH="+socket)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		for range 500 {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		eachNix(t, func(t *testing.T, n *Nix) {
			n.ExtraArgs = []string{"--option", "extra-substituters", "https://c.example/system"}
			if got, err := n.Ignored(t.Context()); err != nil || len(got) != 0 {
				t.Errorf("without a daemon: %q, %v", got, err)
			}
			n.Env = append(os.Environ(), "NIX_REMOTE=unix://"+socket)
			if got, err := n.Ignored(t.Context()); err != nil || !slices.Contains(got, "https://c.example/system") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// BenchmarkClosure reads the closure of the store path that $ATTIC_BENCH_PATH names, or else of a small one.
func BenchmarkClosure(b *testing.B) {
	top := addTree(b)
	if path := os.Getenv("ATTIC_BENCH_PATH"); path != "" {
		top = parse(b, path)
	}
	for _, bin := range programs(b) {
		b.Run(bin, func(b *testing.B) {
			for b.Loop() {
				infos, err := offline(bin).Closure(b.Context(), []nix.StorePath{top})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(infos)), "paths")
			}
		})
	}
}
