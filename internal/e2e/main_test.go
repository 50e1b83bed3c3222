// Package e2e tells stories of users: the programs as they are built, real store paths, a real Nix that
// demands signatures, and things that go wrong on the way.
//
//	/nix/store ── attic-action push ──► attic-server ──► nix, into a store of its own ── verify
//	           └─ HTTP as attic speaks it ─┘   kill -9, full disk, cut connections, hostile requests
//
// Each test has a server of its own, on a port that was free and on a directory that goes with the test.
// The nix on PATH must be there; those that $ATTIC_TEST_NIX names, separated by colons, pull as well.
package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// rig is what all tests share: the programs under test, and names that no other run has.
var rig struct {
	dir    string // for what lives as long as the run
	action string // the binaries
	server string
	salt   string // makes the run's store paths its own
	nixes  []string

	mu    sync.Mutex
	roots int
	paths []string // in the store, to be deleted in the end
}

func TestMain(m *testing.M) {
	code := 1
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	} else {
		code = m.Run()
	}
	tearDown()
	os.Exit(code)
}

func setUp() (err error) {
	if rig.dir, err = os.MkdirTemp("", "attic-e2e-"); err != nil {
		return err
	}
	rig.action, rig.server = filepath.Join(rig.dir, "attic-action"), filepath.Join(rig.dir, "attic-server")
	for bin, pkg := range map[string]string{rig.action: "./cmd/action", rig.server: "./cmd/server"} {
		cmd := exec.Command("go", "build", "-o", bin, pkg)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	var salt [8]byte
	rand.Read(salt[:]) // never fails: crypto/rand ends the program instead
	rig.salt = hex.EncodeToString(salt[:])
	return findNixes()
}

// findNixes lists the programs that pull: the one on PATH first.
func findNixes() error {
	first, err := exec.LookPath("nix")
	if err != nil {
		return fmt.Errorf("these tests run a real nix: %w", err)
	}
	rig.nixes = []string{first}
	for _, bin := range filepath.SplitList(os.Getenv("ATTIC_TEST_NIX")) {
		if _, err := os.Stat(bin); err != nil {
			return fmt.Errorf("ATTIC_TEST_NIX: %w", err)
		}
		rig.nixes = append(rig.nixes, bin)
	}
	return nil
}

// tearDown deletes what the run put into the store, unless something else holds on to it.
func tearDown() {
	if rig.dir == "" {
		return
	}
	_ = exec.Command("chmod", "-R", "u+w", rig.dir).Run() // for RemoveAll
	if err := os.RemoveAll(rig.dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	if len(rig.paths) > 0 {
		cmd := exec.Command("nix-store", append([]string{"--delete"}, rig.paths...)...)
		cmd.Env = environment(os.TempDir())
		_ = cmd.Run() // what stays is garbage that the next collection takes
	}
}

// A result that go test has kept is of no use once a source of the programs has changed. It knows which
// files of the module a test has opened, and nothing of the go build in TestMain; so this opens them.
func TestResultsAreOfTheseSources(t *testing.T) {
	seen := 0
	for _, dir := range []string{"../../cmd", "../../internal"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			seen++
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, file := range []string{"../../go.mod", "../../go.sum"} {
		must(os.ReadFile(file))(t)
	}
	if seen < 100 {
		t.Errorf("there are only %d sources", seen)
	}
}

// environment is what our processes see: nothing of the user's, but a nix that works without a
// network, without builders' accounts and without a sandbox.
func environment(home string, more ...string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "LC_ALL=C.UTF-8",
		"XDG_CONFIG_HOME=" + home + "/config", "XDG_CACHE_HOME=" + home + "/cache", "XDG_DATA_HOME=" + home + "/data",
		nixConfig(""),
	}
	for _, key := range []string{"NIX_REMOTE", "NIX_STORE_DIR", "NIX_STATE_DIR"} {
		if v, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+v)
		}
	}
	return append(env, more...)
}

// nixConfig is the environment variable that stands in for nix.conf.
func nixConfig(more string) string {
	return "NIX_CONFIG=experimental-features = nix-command flakes\nsandbox = false\nsubstituters =\nbuild-users-group =\n" + more
}
