package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// cgroup is a memory cgroup without swap that a program is started in. Which kind there is depends on the
// machine: a folder of our own in version 2 or 1, else a scope of systemd's.
type cgroup struct {
	kind    string // said in the table
	dir     string // empty until a scope has a process in it
	v2      bool
	limit   int64 // bytes
	scope   bool
	anon    int64 // the most that was seen
	stop    context.CancelFunc
	sampled sync.WaitGroup
}

// newCgroup makes a cgroup, or says what was tried and why it can't be had.
func newCgroup(limit int64) (*cgroup, error) {
	var tried []error
	for _, make := range []func(int64) (*cgroup, error){cgroup2, cgroup1, systemdScope} {
		g, err := make(limit)
		if err == nil {
			return g, nil
		}
		tried = append(tried, err)
	}
	return nil, fmt.Errorf("no memory cgroup can be had here; run as root, or where systemd runs:\n%w", errors.Join(tried...))
}

func cgroup2(limit int64) (*cgroup, error) {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue
		}
		// Below the root a cgroup hands out a controller only while it has no processes itself.
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0)
		dir := filepath.Join(root, fmt.Sprintf("attic-bench-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("version 2: %w", err)
		}
		g := &cgroup{kind: "cgroup v2 " + dir, dir: dir, v2: true, limit: limit}
		err := errors.Join(g.write("memory.max", limit), g.writeIfThere("memory.swap.max", 0))
		if err != nil {
			_ = os.Remove(dir) // it is empty
			return nil, fmt.Errorf("version 2: no memory controller here: %w", err)
		}
		return g, nil
	}
	return nil, errors.New("version 2: not mounted")
}

func cgroup1(limit int64) (*cgroup, error) {
	dir := fmt.Sprintf("/sys/fs/cgroup/memory/attic-bench-%d", os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("version 1: %w", err)
	}
	g := &cgroup{kind: "cgroup v1 " + dir, dir: dir, limit: limit}
	err := errors.Join(g.write("memory.limit_in_bytes", limit), g.writeIfThere("memory.memsw.limit_in_bytes", limit))
	if err != nil {
		_ = os.Remove(dir) // it is empty
		return nil, fmt.Errorf("version 1: %w", err)
	}
	return g, nil
}

func systemdScope(limit int64) (*cgroup, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, errors.New("systemd-run: systemd does not run here")
	}
	if _, err := exec.LookPath("systemd-run"); err != nil {
		return nil, err
	}
	return &cgroup{kind: "systemd-run --scope", v2: true, scope: true, limit: limit}, nil
}

func (g *cgroup) write(name string, n int64) error {
	return os.WriteFile(filepath.Join(g.dir, name), []byte(strconv.FormatInt(n, 10)), 0)
}

// writeIfThere writes a limit of swap, which systems without swap do not have.
func (g *cgroup) writeIfThere(name string, n int64) error {
	if _, err := os.Stat(filepath.Join(g.dir, name)); err != nil {
		return nil
	}
	return g.write(name, n)
}

// command starts a program inside the cgroup; its process is the program itself.
func (g *cgroup) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if g == nil {
		return exec.CommandContext(ctx, name, args...)
	}
	if g.scope {
		user := []string{}
		if os.Getuid() != 0 {
			user = append(user, "--user")
		}
		args = append([]string{"--scope", "--quiet", "--collect", "-p", fmt.Sprintf("MemoryMax=%d", g.limit), "-p", "MemorySwapMax=0", "--", name}, args...)
		return exec.CommandContext(ctx, "systemd-run", append(user, args...)...)
	}
	script := `echo $$ >"$0/cgroup.procs" && exec "$@"`
	return exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, g.dir, name}, args...)...)
}

// watch finds a scope's folder and looks at the anonymous memory, which no kernel file keeps the peak of,
// until close.
func (g *cgroup) watch(ctx context.Context, pid int) error {
	if g.scope {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			return err
		}
		_, path, ok := strings.Cut(string(text), "0::")
		if !ok {
			return fmt.Errorf("the scope has no cgroup of version 2: %s", text)
		}
		path, _, _ = strings.Cut(path, "\n")
		g.dir = filepath.Join("/sys/fs/cgroup", path)
	}
	ctx, g.stop = context.WithCancel(ctx)
	g.sampled.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			g.anon = max(g.anon, g.stat("anon", "total_rss"))
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	})
	return nil
}

// stat reads a line of memory.stat by its name in version 2 or 1.
func (g *cgroup) stat(v2, v1 string) int64 {
	name := v1
	if g.v2 {
		name = v2
	}
	return g.line("memory.stat", name)
}

// line reads "name number" from a file; 0 when it is not there.
func (g *cgroup) line(file, name string) int64 {
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64) // a number, says the kernel
			return n
		}
	}
	return 0
}

// cgroupUse is what the cgroup's programs took at the most.
type cgroupUse struct {
	all    int64 // page cache included, so that it may well be the limit
	anon   int64
	killed int64
}

// use stops the watch and reads the peaks.
func (g *cgroup) use() cgroupUse {
	g.stop()
	g.sampled.Wait()
	u := cgroupUse{anon: g.anon}
	peak, oom := "memory.max_usage_in_bytes", "memory.oom_control"
	if g.v2 {
		peak, oom = "memory.peak", "memory.events"
	}
	if text, err := os.ReadFile(filepath.Join(g.dir, peak)); err == nil {
		u.all, _ = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	}
	u.killed = g.line(oom, "oom_kill")
	return u
}

// remove removes the folder once its processes are gone.
func (g *cgroup) remove() {
	if g == nil || g.scope {
		return
	}
	for range 50 {
		if err := os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond) // the kernel takes its time with the last process
	}
}
