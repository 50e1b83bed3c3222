package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/report"
)

const (
	// leftState is the state in which the post step finds the list of what a cancelled job has not pushed.
	leftState = "left"
	leftFile  = "not-pushed" // beside the roots that keep it
	leftMax   = 16 << 20     // bytes of the list
	// leftPatience is how long the post step pushes. A runner gives all steps that come after a cancellation five minutes.
	leftPatience = 4 * time.Minute
)

// leave writes down what a cancelled job has built and had no time to push.
func (r *run) leave(paths []nix.StorePath) {
	if len(paths) == 0 || r.roots == "" || !r.Runner.InActions() {
		return
	}
	var list strings.Builder
	for _, p := range paths {
		fmt.Fprintln(&list, p)
	}
	file := filepath.Join(r.roots, leftFile)
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		r.Runner.Printf("%v\n", err)
		return
	}
	if err := r.Runner.SaveState(leftState, file); err != nil {
		r.Runner.Printf("%v\n", err)
		return
	}
	r.Runner.Printf("%d paths that were built are not on the cache yet; the end of the job pushes them\n", len(paths))
}

// PushLeft pushes, in the post step, what a cancelled main step had no time for. It fails nothing: the job has failed.
func (a *Action) PushLeft(ctx context.Context, in Inputs) {
	file := a.Runner.State(leftState)
	if file == "" {
		return
	}
	dir := filepath.Dir(file)
	if filepath.Dir(dir) != filepath.Clean(a.Runner.Getenv("RUNNER_TEMP")) || !strings.HasPrefix(filepath.Base(dir), dirPrefix) || filepath.Base(file) != leftFile {
		a.Runner.Warning("not wholly pushed", fmt.Sprintf("post step: %q is no list of the main step", file))
		return
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeoutCause(ctx, leftPatience, errors.New("the job's time is over"))
	defer cancel()
	sent, err := a.pushLeft(ctx, in, file)
	if err != nil {
		a.Runner.Warning("not wholly pushed", "some of what was built is not on the cache, and will be built again: "+firstLine(err.Error()))
	}
	a.Runner.Printf("pushed %d paths that were built before the job was stopped, %s\n", sent.Pushed, report.Bytes(sent.Bytes))
}

func (a *Action) pushLeft(ctx context.Context, in Inputs, file string) (Sent, error) {
	paths, err := readPaths(file)
	if err != nil || len(paths) == 0 {
		return Sent{}, err
	}
	cache, err := a.Connect(in, a.Login.Token)
	if err != nil {
		return Sent{}, err
	}
	defer a.Login.Logout(ctx)
	return cache.Push(ctx, paths...)
}

// readPaths reads store paths, one a line.
func readPaths(file string) ([]nix.StorePath, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, leftMax))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var paths []nix.StorePath
	for line := range strings.Lines(string(text)) {
		p, err := nix.ParseStorePath(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		paths = append(paths, p)
	}
	return paths, nil
}
