package nixcli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// maxOutput bounds what a command may print: path information takes some 700 bytes a path, so
	// this is a closure of a third of a million paths.
	maxOutput = 256 << 20
	// stopTime is what nix gets to stop its builders and drop its locks when it is interrupted.
	stopTime = 500 * time.Millisecond
)

// CommandError is a nix command that did not succeed.
type CommandError struct {
	Command string   // "nix eval"
	Err     error    // of running it, such as an exit status
	Stderr  []string // the last lines that it printed, without colours
}

// Error is one line: the command, and nix's own words where there are any.
func (e *CommandError) Error() string {
	if said := strings.Join(lastError(e.Stderr), " "); said != "" {
		return e.Command + ": " + clip(said, maxErrorLen)
	}
	return e.Command + ": " + e.Err.Error()
}

func (e *CommandError) Unwrap() error { return e.Err }

// command is one run of nix.
type command struct {
	store  bool      // nix-store in place of nix
	bare   bool      // without the options that every command takes
	args   []string  // the subcommand first
	last   []string  // arguments that can't be options; they follow a "--"
	stderr io.Writer // gets what nix prints while it runs; nil means nobody
}

// run returns what the command printed. When ctx ends, the command and all its children are stopped.
func (n *Nix) run(ctx context.Context, c command) ([]byte, error) {
	cmd := n.build(ctx, c)
	out := bounded{limit: maxOutput}
	var said tail
	cmd.Stdout, cmd.Stderr = &out, io.Writer(&said)
	if c.stderr != nil {
		cmd.Stderr = io.MultiWriter(&said, deaf{c.stderr})
	}
	n.log().DebugContext(ctx, "run command", "command", cmd.Args)
	err := cmd.Run()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // children that outlived it; mostly there are none
		}
		return nil, fmt.Errorf("%s: %w", c.name(), context.Cause(ctx))
	}
	switch {
	case out.over:
		err = fmt.Errorf("printed more than %d bytes", maxOutput)
		return nil, &CommandError{Command: c.name(), Err: err}
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%s: %w (is Nix installed, and on PATH?)", c.name(), err)
	case err != nil:
		return nil, &CommandError{Command: c.name(), Err: err, Stderr: said.lines()}
	}
	return out.Bytes(), nil
}

func (n *Nix) build(ctx context.Context, c command) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.bin())
	args := slices.Clone(c.args)
	if c.store {
		path, name := n.nixStore()
		cmd = exec.CommandContext(ctx, path)
		cmd.Args[0] = name
	} else if !c.bare {
		args = append(args, "--extra-experimental-features", "nix-command flakes")
	}
	if !c.bare {
		args = append(args, n.ExtraArgs...)
	}
	if len(c.last) > 0 {
		args = append(append(args, "--"), c.last...)
	}
	cmd.Args = append(cmd.Args, args...)
	cmd.Env = n.env()
	// A group of its own: a signal reaches the builders too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	return cmd
}

func (c command) name() string {
	if c.store {
		return "nix-store " + c.args[0]
	}
	return "nix " + c.args[0]
}

// bounded takes up to limit bytes and then makes the command fail.
type bounded struct {
	bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		b.over = true
		return 0, io.ErrShortWrite
	}
	return b.Buffer.Write(p)
}

// ReadFrom would go round Write and its bound, as os/exec copies with io.Copy.
func (b *bounded) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{b}, r)
}

// deaf hides the errors of a writer: that nobody can read the log must not end the build.
type deaf struct{ w io.Writer }

func (d deaf) Write(p []byte) (int, error) {
	_, _ = d.w.Write(p)
	return len(p), nil
}
