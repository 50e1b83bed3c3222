package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a single step may take before the test gives it up.
const patience = 2 * time.Minute

// ended is a process that came to its end.
type ended struct {
	code           int // -1 when a signal ended it
	stdout, stderr string
}

// process is a program under way.
type process struct {
	cmd      *exec.Cmd
	out, err buffer
	done     chan struct{}
}

// buffer may be read while a process writes to it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a program until it ends or its test does.
func start(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	p := &process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, &p.out, &p.err
	p.cmd.SysProcAttr = diesWithUs()
	p.cmd.WaitDelay = 5 * time.Second
	if env != nil {
		p.cmd.Dir = homeOf(env)
	}
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is in ProcessState
		cancel()
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

func homeOf(env []string) string {
	for _, v := range env {
		if home, ok := strings.CutPrefix(v, "HOME="); ok {
			return home
		}
	}
	return ""
}

func (p *process) wait() ended {
	<-p.done
	return ended{p.cmd.ProcessState.ExitCode(), p.out.String(), p.err.String()}
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

func (p *process) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal %s: %v", p.cmd.Path, err)
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// run runs a helper program that must succeed, and returns what it printed.
func run(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	end := start(t, env, name, args...).wait()
	if end.code != 0 {
		t.Fatalf("%s %s: exit %d\n%s", name, strings.Join(args, " "), end.code, tail(end.stderr))
	}
	return strings.TrimSpace(end.stdout)
}

// until asks again and again, until ok or the patience is at its end.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// tail is the end of a long text.
func tail(s string) string {
	const most = 4 << 10
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// progress is what a push that takes its time says every few seconds.
var progress = regexp.MustCompile(`(?m)^\d+ of \d+ paths, .* sent\n`)

// oneLine checks how a program told of its failure: the exit code, one line that begins and goes on as
// it should, at most a hint after it, and nothing that only its authors understand.
func oneLine(t testing.TB, end ended, code int, begins string, holds ...string) {
	t.Helper()
	text := strings.TrimSuffix(progress.ReplaceAllString(end.stderr, ""), "\n")
	if kept, rest, more := strings.Cut(text, "\n"); more && strings.HasSuffix(kept, "stay for 24 h") && !strings.HasPrefix(rest, "hint: ") {
		text = rest // what was kept is said first
	}
	first, rest, _ := strings.Cut(text, "\n")
	if end.code != code || !strings.HasPrefix(first, begins) {
		t.Errorf("exit %d, want %d; stderr:\n%s", end.code, code, tail(end.stderr))
	}
	for _, text := range holds {
		if !strings.Contains(end.stderr, text) {
			t.Errorf("stderr does not say %q:\n%s", text, tail(end.stderr))
		}
	}
	if rest != "" && (!strings.HasPrefix(rest, "hint: ") || strings.Contains(rest, "\n")) {
		t.Errorf("stderr has more than a line and a hint:\n%s", tail(end.stderr))
	}
	for _, text := range []string{"goroutine ", "panic", ".go:", "%!", "context canceled"} {
		if strings.Contains(end.stderr, text) {
			t.Errorf("stderr holds %q:\n%s", text, tail(end.stderr))
		}
	}
}
