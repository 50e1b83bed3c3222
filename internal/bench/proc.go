package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what one finished run of a program took.
type usage struct {
	wall, cpu time.Duration
	peak      int64 // bytes of resident memory
	out       []byte
}

// timed runs a program to its end.
func timed(ctx context.Context, env []string, name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(start), out: stdout.Bytes()}
	if err != nil {
		return u, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, tail(stderr.Bytes()))
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	u.peak = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	return u, nil
}

// peaked is timed, with the program's own peak of memory. What the system says at its end will not do: a process
// inherits its parent's peak, and this one may just have filled a database.
func peaked(ctx context.Context, env []string, name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var u usage
	for {
		select {
		case err := <-done:
			u.wall, u.out = time.Since(start), stdout.Bytes()
			u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			if err != nil {
				return u, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, tail(stderr.Bytes()))
			}
			return u, nil
		case <-time.After(20 * time.Millisecond):
			if now, _, err := (&server{cmd: cmd}).memory(); err == nil { // else it has just ended
				u.peak = max(u.peak, now)
			}
		}
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

// median is the run with the median wall time.
func median(runs []usage) usage {
	slices.SortFunc(runs, func(a, b usage) int { return int(a.wall - b.wall) })
	return runs[len(runs)/2]
}

// server is a running attic-server.
type server struct {
	cmd   *exec.Cmd
	data  string
	log   string
	url   string
	token string
	bin   string
}

// startServer starts a server on an empty data folder, as its README says, and creates a cache.
func (b *bench) startServer(ctx context.Context, name string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{data: filepath.Join(b.dir, name), bin: filepath.Join(b.bin, "attic-server")}
	listen := "127.0.0.1:" + strconv.Itoa(port)
	s.url = "http://" + listen
	s.cmd = b.group.command(ctx, s.bin, "--data", s.data, "--listen", listen)
	s.cmd.Env = append(os.Environ(), b.env...)
	s.log = filepath.Join(b.dir, name+".log")
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the server has its own
	s.cmd.Stderr, s.cmd.Stdout = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := awaitPort(ctx, listen); err != nil {
		return nil, err
	}
	u, err := timed(ctx, b.env, s.bin, "make-token", "--data", s.data, "--sub", "bench", "--validity", "1h",
		"--pull", "*", "--push", "*", "--create-cache", "*", "--configure-cache", "*", "--configure-cache-retention", "*")
	if err != nil {
		return nil, err
	}
	s.token = strings.TrimSpace(string(u.out))
	return s, s.createCache(ctx, "bench", "/nix/store")
}

func (s *server) createCache(ctx context.Context, name, storeDir string) error {
	body := fmt.Sprintf(`{"keypair":"Generate","is_public":true,"store_dir":%q,"priority":41,"upstream_cache_key_names":[]}`, storeDir)
	_, err := s.request(ctx, "POST", "/_api/v1/cache-config/"+name, strings.NewReader(body), map[string]string{"Content-Type": "application/json"})
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func awaitPort(ctx context.Context, address string) error {
	for range 200 {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
	return fmt.Errorf("no server listens on %s after five seconds", address)
}

// memory reads the server's peak and its CPU time so far.
func (s *server) memory() (peak int64, cpu time.Duration, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return 0, 0, err
			}
			peak = kib << 10
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64) // a number, says proc(5)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return peak, time.Duration(user+system) * 10 * time.Millisecond, nil // USER_HZ is 100 on Linux
}

// stop ends the server as a deployment would, and waits.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}

// stored is the number of bytes of packs on disk.
func (s *server) stored() (n int64, err error) {
	err = filepath.Walk(filepath.Join(s.data, "storage", "packs"), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return err
	})
	return n, err
}

func discard(r io.ReadCloser) {
	io.Copy(io.Discard, r) // the answer is not needed, the connection is
	r.Close()
}
