//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asProgram turns the test's own binary into the server, for what must not be done in
// the process of the tests: giving up root.
const asProgram = "ATTIC_TEST_AS_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// The slip: an administrator calls a command with sudo, or in a container's console,
// while no server runs. What root made in the data directory would keep the server
// from ever starting again as its own user.
//
// And the attack: a server that was started as root, to be taken over by what it parses.
func TestRootActsAsTheOwnerOfTheData(t *testing.T) {
	if os.Geteuid() != 0 {
		// Nobody else can become anybody: then a command stays who it is.
		home := t.TempDir()
		if code, _, stderr := call(t, home, "attic-server", "make-token", "--sub", "x", "--validity", "1d"); code != 0 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		return
	}
	const owner = 4711
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "attic-owner-") // below /tmp, which others may enter, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	volume := filepath.Join(home, "volume")
	if err := os.Mkdir(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(volume, owner, owner); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"make-token", "--sub", "x", "--validity", "1d"}, // makes the secret
		{"--mode", "db-migrations", "--listen", "127.0.0.1:0"},
		{"make-token", "--sub", "x", "--validity", "1d"}, // opens the database
		{"token", "list"},
	} {
		cmd := exec.Command(exe, append(args, "--data", filepath.Join(volume, "new", "data"))...)
		cmd.Env = []string{asProgram + "=1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	files := 0
	err = filepath.WalkDir(volume, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != owner || st.Gid != owner {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
		files++
		return nil
	})
	if err != nil || files < 6 {
		t.Errorf("%d files (%v)", files, err)
	}
}

// systemd keeps the data of a DynamicUser behind a directory of root's. Root reads the
// secret there and makes tokens; what would need the database says how.
func TestDataBehindAClosedDirectoryIsLeftToTheServer(t *testing.T) {
	if os.Geteuid() != 0 {
		if at, err := closedTo("/", 4711, 4711); at != "" || err != nil {
			t.Errorf("%q, %v", at, err)
		}
		return
	}
	private := t.TempDir()
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(private, "data")
	write(t, filepath.Join(data, "token-secret"), strings.Repeat("QUJD", 20))
	if err := os.Chown(data, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, data)
	if code, out, stderr := call(t, private, "atticadm", "make-token", "--sub", "x", "--validity", "1d", "--data", data); code != 0 || strings.Count(out, ".") != 2 {
		t.Errorf("exit %d, %q", code, stderr)
	}
	code, _, stderr := call(t, private, "attic-server", "token", "list", "--data", data)
	if code != 1 || !strings.Contains(stderr, private+" is closed to it\nhint: ") || strings.Count(stderr, "\n") != 2 {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if after := snapshot(t, data); after != before {
		t.Errorf("before\n%safter\n%s", before, after)
	}
}

func TestDataThatCannotBeWrittenNamesTheUser(t *testing.T) {
	dir, err := os.MkdirTemp("", "attic-owner-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	write(t, filepath.Join(dir, "token-secret"), strings.Repeat("QUJD", 20))
	user := os.Geteuid()
	if user == 0 { // whom no mode keeps out
		user = 4711
		if err := os.Chown(dir, user, user); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "--data", dir, "--listen", "127.0.0.1:0")
	cmd.Env = []string{asProgram + "=1"}
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("hint: this runs as user %d, who must own what lies in %s: chown -R %[1]d %[2]s\n", user, dir)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 78 || !strings.HasPrefix(string(out), "attic-server: ") || !strings.HasSuffix(string(out), want) {
		t.Errorf("%v: %s\nwant %s", err, out, want)
	}
}
