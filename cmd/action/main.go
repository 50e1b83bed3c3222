// Command attic-action brings store paths into a binary cache: as a GitHub
// Action, which builds every host of a flake, and from a laptop, with push.
//
// Exit codes: 0 everything is done; 1 it is not, and a line says why; 2 the
// command line is wrong; 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// sameSignal is how long a signal may come once more: one goes to all processes of a terminal, and a shim hands on what it gets.
const sameSignal = time.Second

func main() {
	limitMemory(os.Getenv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		time.Sleep(sameSignal)
		stop() // the second Ctrl-C ends the program at once
	}()
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// limitMemory keeps the peak low on small runners: what a push holds is
// bounded, so the rest of the heap is garbage. GOGC and GOMEMLIMIT win.
func limitMemory(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(150 << 20)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var shown *shownError
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &shown):
		return shown.code
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "attic-action: %v\nhint: attic-action --help\n", err)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(errOut, "attic-action: interrupted")
		return exitInterrupted
	}
	fmt.Fprintf(errOut, "attic-action: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(errOut, "hint: %s\n", h)
	}
	return exitFailed
}

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// shownError is an end that has been told already.
type shownError struct{ code int }

func (e *shownError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "attic-action",
		Short: "Builds the hosts of a flake and pushes store paths into a binary cache",
		Long: "Builds the hosts of a flake and pushes store paths into a binary cache.\n\n" +
			"Exit codes: 0 everything is done; 1 some paths failed, or an error; 2 the command line is wrong; 130 interrupted.",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newPush(), newPin(), newUse(), newBuild(), newDiscover(), newMain(), newPost())
	return root
}

// buildVersion is set by the linker; a plain go build or go install tells it otherwise.
var buildVersion string

func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}
