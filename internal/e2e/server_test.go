package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// server is an attic-server as its operator has it: a process on a directory.
type server struct {
	t    testing.TB
	home string
	data string
	url  string // without a slash at the end
	args []string
	env  []string
	proc *process
	logs []*process // of earlier lives too
	idle int        // sockets of a server that nobody talks to
}

// startServer runs a server with an empty directory and waits until it listens.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	home := t.TempDir()
	return startServerOn(t, filepath.Join(home, "server"), args...)
}

// startServerOn runs a server whose data are in a directory of the caller's.
func startServerOn(t testing.TB, data string, args ...string) *server {
	t.Helper()
	s := &server{t: t, home: t.TempDir(), data: data, args: args}
	s.env = environment(s.home)
	s.startOn("127.0.0.1:0")
	t.Cleanup(func() {
		for i, p := range s.logs {
			if log := remarkable(p.err.String()); t.Failed() && log != "" {
				t.Logf("server %s, life %d of %d:\n%s", s.url, i+1, len(s.logs), tail(log))
			}
		}
	})
	return s
}

// remarkable is what a log says beside requests that went well.
func remarkable(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "{") && !strings.Contains(line, `"level":"INFO"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (s *server) startOn(addr string) {
	s.t.Helper()
	s.proc = s.life(addr)
	until(s.t, "the server listens", func() bool {
		_, rest, found := strings.Cut(s.proc.err.String(), "listens on ")
		url, _, whole := strings.Cut(rest, "/\n")
		if found && whole {
			s.url, s.idle = url, s.openFiles("socket:")
			return true
		}
		if !s.proc.running() {
			s.t.Fatalf("the server ended: exit %d\n%s", s.proc.wait().code, tail(s.proc.err.String()))
		}
		return false
	})
}

// life starts a process of the server, without waiting for anything.
func (s *server) life(addr string) *process {
	s.t.Helper()
	args := append([]string{"--data", s.data, "--listen", addr, "--log-format", "json"}, s.args...)
	p := start(s.t, s.env, rig.server, args...)
	s.logs = append(s.logs, p)
	return p
}

// restart runs the server again on the same data and the same port.
func (s *server) restart() {
	s.t.Helper()
	s.startOn(s.addr())
}

func (s *server) addr() string { return strings.TrimPrefix(s.url, "http://") }

// stopped asks the server to end, which it must do well.
func (s *server) stopped() {
	s.t.Helper()
	s.proc.signal(s.t, syscall.SIGTERM)
	if end := s.proc.wait(); end.code != 0 {
		s.t.Errorf("the server's exit code is %d\n%s", end.code, tail(end.stderr))
	}
}

// token makes an access token with flags of make-token.
func (s *server) token(flags ...string) string {
	s.t.Helper()
	args := append([]string{"make-token", "--data", s.data, "--sub", "e2e", "--validity", "1h"}, flags...)
	return run(s.t, s.env, rig.server, args...)
}

// cache makes a cache and returns a token that may push to it and pull from it, and no other, and the
// cache's public key.
func (s *server) cache(name string, public bool) (tok, key string) {
	s.t.Helper()
	admin := s.token("--create-cache", name, "--pull", name)
	body := fmt.Sprintf(`{"keypair":"Generate","is_public":%v,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`, public)
	req := s.request(http.MethodPost, "/_api/v1/cache-config/"+name, admin, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	s.want(http.StatusOK, req)
	var config struct {
		PublicKey string `json:"public_key"`
	}
	text := s.want(http.StatusOK, s.request(http.MethodGet, "/_api/v1/cache-config/"+name, admin, nil))
	if err := json.Unmarshal([]byte(text), &config); err != nil || config.PublicKey == "" {
		s.t.Fatalf("cache config %s: %v", text, err)
	}
	return s.token("--pull", name, "--push", name), config.PublicKey
}

func (s *server) request(method, path, tok string, body io.Reader) *http.Request {
	s.t.Helper()
	req := must(http.NewRequest(method, s.url+path, body))(s.t)
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	return req
}

// want sends a request whose answer must have the status, and returns the answer's body.
func (s *server) want(status int, req *http.Request) string {
	s.t.Helper()
	got, text := s.send(req)
	if got != status {
		s.t.Fatalf("%s %s: got %d, want %d: %s", req.Method, req.URL.Path, got, status, tail(text))
	}
	return text
}

func (s *server) send(req *http.Request) (status int, body string) {
	s.t.Helper()
	resp := must(http.DefaultTransport.RoundTrip(req))(s.t)
	defer resp.Body.Close()
	return resp.StatusCode, string(must(io.ReadAll(resp.Body))(s.t))
}

// access is a line of the access log.
type access struct {
	Msg, Method, Route, Path, Error string
	Status                          int
	BytesIn                         int64 `json:"bytes_in"`
	BytesOut                        int64 `json:"bytes_out"`
}

// requests are the requests that the server has answered in its present life.
func (s *server) requests() []access {
	var all []access
	for lines := bufio.NewScanner(strings.NewReader(s.proc.err.String())); lines.Scan(); {
		var a access
		if json.Unmarshal(lines.Bytes(), &a) == nil && a.Msg == "request" {
			all = append(all, a)
		}
	}
	return all
}

// stored is how many bytes of packs are on the disk.
func (s *server) stored() int64 {
	s.t.Helper()
	var sum int64
	err := filepath.WalkDir(s.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "/packs/") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return sum
}

// openFiles counts the server's descriptors of a kind: what they lead to has kind in its name.
func (s *server) openFiles(kind string) (n int) {
	s.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", s.proc.cmd.Process.Pid)
	for _, fd := range must(os.ReadDir(dir))(s.t) {
		if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.Contains(target, kind) {
			n++
		}
	}
	return n
}

// litter lists files that should have gone with the upload they were for.
func (s *server) litter() []string {
	s.t.Helper()
	var left []string
	err := filepath.WalkDir(s.data, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, s.data)
		known := strings.Count(name, "/") == 1 // the database and its like
		for _, dir := range []string{"/storage/packs/", "/storage/log/", "/storage/keys/", "/storage/store/", "/storage/shards/", "/storage/checkpoints/"} {
			known = known || strings.HasPrefix(name, dir)
		}
		if err == nil && !d.IsDir() && (!known || strings.Contains(name, "tmp") || strings.Contains(name, "/.")) {
			left = append(left, name)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return left
}
