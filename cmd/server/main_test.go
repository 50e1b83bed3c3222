package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// call runs the program as a shell would, in an environment with a home of its
// own and nothing else.
func call(t *testing.T, home string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &program{args: args, stdout: &out, stderr: &errs, getenv: func(k string) string {
		if k == "HOME" {
			return home
		}
		return ""
	}}
	code = p.run(t.Context())
	return code, out.String(), errs.String()
}

// start serves until the test ends, and returns the server's URL.
func start(t *testing.T, home string, args ...string) (url string, stderr *bytes.Buffer, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	addr, code := make(chan string, 1), make(chan int, 1)
	stderr = new(bytes.Buffer)
	p := &program{args: args, stdout: io.Discard, stderr: stderr, listening: func(a string) { addr <- a },
		getenv: func(k string) string { return map[string]string{"HOME": home}[k] }}
	go func() { code <- p.run(ctx) }()
	stop = func() int { cancel(); return <-code }
	select {
	case a := <-addr:
		return "http://" + a, stderr, stop
	case c := <-code:
		t.Fatalf("exit %d: %s", c, stderr)
	}
	return
}

func TestOutOfTheBox(t *testing.T) {
	home := t.TempDir()
	url, stderr, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	code, tok, warn := call(t, home, "attic-server", "make-token", "--sub", "me", "--validity", "1y", "--create-cache", "*", "--pull", "*")
	if code != 0 || strings.Count(tok, "\n") != 1 || strings.Count(tok, ".") != 2 || warn != "" {
		t.Fatalf("make-token: exit %d, stdout %q, stderr %q", code, tok, warn)
	}
	req, err := http.NewRequest("POST", url+"/_api/v1/cache-config/c", strings.NewReader(
		`{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "bearer "+strings.TrimSpace(tok))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("create a cache with the token: %s", resp.Status)
	}
	if code := stop(); code != 0 {
		t.Errorf("stop: exit %d: %s", code, stderr)
	}
	data := filepath.Join(home, ".local/share/attic-server")
	for name, mode := range map[string]os.FileMode{"": 0o700, secretFile: 0o600} {
		fi, err := os.Stat(filepath.Join(data, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != mode {
			t.Errorf("mode of %s: got %o, want %o", fi.Name(), fi.Mode().Perm(), mode)
		}
	}
	if log := stderr.String(); !strings.Contains(log, "listens on "+url) || !strings.Contains(log, "make-token --data "+data) || strings.Contains(log, strings.TrimSpace(tok)) {
		t.Errorf("what it said:\n%s", log)
	}
}

// A bad token is as good as none, by the protocol. The limit on them must leave room
// for whoever tries that out.
func TestBadTokensBelowTheLimitAreAnonymous(t *testing.T) {
	url, _, stop := start(t, t.TempDir(), "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	for i := range 250 {
		req, err := http.NewRequest("GET", url+"/_api/v1/cache-config/c", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "bearer bad")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("token %d: %s", i+1, resp.Status)
		}
	}
}

func TestDumpedClaimsAreAtticadms(t *testing.T) {
	code, out, _ := call(t, t.TempDir(), "atticadm", "make-token", "--sub", "alice", "--validity", "2 years",
		"--push", "b", "--pull", "a", "--pull", "b", "--destroy-cache", "z-*", "--dump-claims")
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	if i := strings.Index(out, `"caches":`); i < 0 || out[i:] != `"caches":{"a":{"r":1},"b":{"r":1,"w":1},"z-*":{"cd":1}}}}`+"\n" {
		t.Errorf("got %s", out)
	}
	var c map[string]any
	if err := json.Unmarshal([]byte(out), &c); err != nil || c["sub"] != "alice" || c["exp"].(float64)-c["nbf"].(float64) != 2*31_557_600 {
		t.Errorf("got %s (%v)", out, err)
	}
}

func TestConfigFlagStandsAnywhere(t *testing.T) {
	home := t.TempDir()
	file := writeConfig(t, home, "")
	for _, args := range [][]string{
		{"atticadm", "-f", file, "make-token", "--sub", "x", "--validity", "1d"},
		{"atticadm", "make-token", "--sub", "x", "--validity", "1d", "-f", file},
		{"attic-server", "make-token", "--config", file, "--sub=x", "--validity=1d"},
	} {
		if code, out, stderr := call(t, home, args...); code != 0 || strings.Count(out, ".") != 2 {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
}

// writeConfig writes a server.toml as Attic's own would be.
func writeConfig(t *testing.T, dir, more string) string {
	t.Helper()
	file := filepath.Join(dir, "server.toml")
	text := "listen = \"127.0.0.1:0\"\n[database]\nurl = \"sqlite://" + dir + "/server.db?mode=rwc\"\n[storage]\ntype = \"local\"\npath = \"" + dir + "/storage\"\n" +
		"[chunking]\nnar-size-threshold = 65536\nmin-size = 16384\navg-size = 65536\nmax-size = 262144\n" +
		"[jwt.signing]\ntoken-hs256-secret-base64 = \"" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef")) + "\"\n" + more
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCheckConfigTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	file := writeConfig(t, dir, "")
	for _, args := range [][]string{{"atticd", "--mode", "check-config", "-f", file}, {"attic-server", "check-config", "-f", file}} {
		if code, out, stderr := call(t, dir, args...); code != 0 || out != "" {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v)", entries, err)
	}
}

func TestVersion(t *testing.T) {
	for _, flag := range []string{"--version", "-V"} {
		if code, out, _ := call(t, t.TempDir(), "atticd", flag); code != 0 || out != "attic-server "+version+"\n" {
			t.Errorf("%s: exit %d, %q", flag, code, out)
		}
	}
}

func TestWrongCallsExit2WithOneLine(t *testing.T) {
	for _, args := range [][]string{
		{"attic-server", "--no-such-flag"},
		{"attic-server", "no-such-command"},
		{"attic-server", "--mode", "fast"},
		{"attic-server", "--listen", "localhost:8080"},
		{"attic-server", "--log-format", "xml"},
		{"attic-server", "make-token"},
		{"attic-server", "make-token", "--sub", "x"},
		{"attic-server", "make-token", "--sub", "x", "--validity", "1 fortnight"},
		{"attic-server", "make-token", "--sub", "x", "--validity", "1d", "--pull", "_bad"},
		{"attic-server", "make-token", "--sub", "x", "--validity", "1d", "stray"},
		{"atticadm"},
		{"atticadm", "serve"},
	} {
		code, out, stderr := call(t, t.TempDir(), args...)
		if code != 2 || out != "" || !strings.HasPrefix(stderr, "attic-server: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, out, stderr)
		}
	}
}

func TestTroubleHasItsExitCodeOneLineAndAHint(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken.toml")
	if err := os.WriteFile(broken, []byte("listen = \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		// 78: a supervisor need not try again.
		{"port in use", []string{"--data", filepath.Join(dir, "a"), "--listen", ln.Addr().String()}, 1, "the address is in use"},
		{"no such configuration", []string{"-f", filepath.Join(dir, "none.toml")}, 78, "none.toml"},
		{"broken configuration", []string{"-f", broken}, 78, "broken.toml"},
		{"data is a file", []string{"--data", file, "--listen", "127.0.0.1:0"}, 1, "not a directory"},
	} {
		code, _, stderr := call(t, dir, append([]string{"attic-server"}, c.args...)...)
		first, rest, _ := strings.Cut(stderr, "\n")
		if code != c.code || !strings.HasPrefix(first, "attic-server: ") || !strings.Contains(first, c.want) ||
			rest != "" && (!strings.HasPrefix(rest, "hint: ") || strings.Count(rest, "\n") != 1) {
			t.Errorf("%s: exit %d, %q", c.name, code, stderr)
		}
	}
}

func TestSecondServerOnOneDatabaseIsRefused(t *testing.T) {
	home := t.TempDir()
	_, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	code, _, stderr := call(t, home, "attic-server", "--listen", "127.0.0.1:0")
	if code != 1 || !strings.Contains(stderr, "another attic-server uses the database") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestWarnsOfPatternsThatNeverDecide(t *testing.T) {
	_, _, stderr := call(t, t.TempDir(), "attic-server", "make-token", "--sub", "x", "--validity", "1d", "--pull", "*", "--push", "dev-*", "--push", "main")
	if !strings.Contains(stderr, "--push dev-* has no effect") || strings.Contains(stderr, "main") {
		t.Errorf("got %q", stderr)
	}
}

// Attic's second process is started by a unit or a process group of its own. Ending,
// with whatever status, it would be started again and again.
func TestGarbageCollectorWaitsToBeStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	defer r.Close()
	p := &program{args: []string{"atticd", "-f", writeConfig(t, t.TempDir(), ""), "--mode", "garbage-collector"},
		stdout: io.Discard, stderr: w, getenv: func(string) string { return "" }}
	code := make(chan int, 1)
	go func() { code <- p.run(ctx) }()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "collecting every 12h0m0s") {
		if !strings.Contains(lines.Text(), " warning: ") {
			t.Errorf("it says %q", lines.Text())
		}
	}
	select {
	case c := <-code:
		t.Fatalf("exit %d before it was stopped", c)
	default:
	}
	cancel()
	if c := <-code; c != 0 {
		t.Errorf("exit %d", c)
	}
}
