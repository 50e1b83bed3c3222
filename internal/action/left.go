package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/report"
)

const (
	// rootsState is the state in which the post step finds the folder of roots, and in it the list of what a cancelled job
	// has not pushed.
	rootsState = "roots"
	leftFile   = "not-pushed"
	leftMax    = 16 << 20 // bytes of the list
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
	if err := os.WriteFile(filepath.Join(r.roots, leftFile), []byte(list.String()), 0o600); err != nil {
		r.Runner.Printf("%v\n", err)
		return
	}
	r.Runner.Printf("%d paths that were built are not on the cache yet; the end of the job pushes them\n", len(paths))
}

// PushLeft pushes, in the post step, what a cancelled main step had no time for, and lets go of what was built: a runner that
// keeps its temporary files must not keep that. It fails nothing: a job that was cancelled has failed.
func (a *Action) PushLeft(ctx context.Context, in Inputs) {
	dir := a.Runner.State(rootsState)
	if dir == "" {
		return
	}
	if filepath.Dir(dir) != filepath.Clean(a.Runner.Getenv("RUNNER_TEMP")) || !strings.HasPrefix(filepath.Base(dir), rootsPrefix) {
		a.Runner.Warning("not wholly pushed", fmt.Sprintf("post step: %q is no folder of the main step", dir))
		return
	}
	defer os.RemoveAll(dir)
	paths, err := readPaths(filepath.Join(dir, leftFile))
	if errors.Is(err, fs.ErrNotExist) { // there was time for all
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, leftPatience, errors.New("the job's time is over"))
	defer cancel()
	var sent Sent
	if err == nil {
		sent, err = a.pushLeft(ctx, in, paths)
	}
	if err != nil {
		a.Runner.Warning("not wholly pushed", "some of what was built is not on the cache, and will be built again: "+firstLine(err.Error()))
	}
	a.Runner.Printf("pushed %d paths that were built before the job was stopped, %s\n", sent.Pushed, report.Bytes(sent.Bytes))
}

func (a *Action) pushLeft(ctx context.Context, in Inputs, paths []nix.StorePath) (Sent, error) {
	cache, err := a.Connect(in, a.Login.Token)
	if err != nil || len(paths) == 0 {
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
