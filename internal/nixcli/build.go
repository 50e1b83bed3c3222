package nixcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// BuildError is a build that did not succeed.
type BuildError struct {
	Drv     string   // full path of the derivation that failed: the one asked for, or one it needs
	Reason  string   // in nix's words, "builder failed with exit code 1"
	Log     []string // its last lines, plain text
	Command string   // shows the whole log
	Err     error    // of nix
}

// Error names the derivation and the reason; the log is for whoever has room.
func (e *BuildError) Error() string { return fmt.Sprintf("build %s: %s", e.Drv, e.Reason) }

func (e *BuildError) Unwrap() error { return e.Err }

// Build builds one output of a derivation ("out" if output is empty), or has it substituted. What nix and the builders print goes to log
// as it comes; log may be nil. When the build fails, the error is a *BuildError.
//
// Root is a symlink that Build makes: as long as it is there, a garbage collection leaves the output and its closure alone, also one that
// a self-hosted runner's min-free starts between a build and its push. Whoever names it removes it; where it can't outlive the job, it
// can't hold the disk for ever. An empty root makes none, and a collection shows as a path that is not valid.
//
// It runs nix-store --realise, which takes a derivation in the same way in every version and prints the builders' lines by itself.
func (n *Nix) Build(ctx context.Context, drvPath, output, root string, log io.Writer) (nix.StorePath, error) {
	drv, err := parseDrv(drvPath, &output)
	if err != nil {
		return nix.StorePath{}, fmt.Errorf("build %.300q: %w", drvPath, err)
	}
	var said tail
	var both io.Writer = &said
	if log != nil {
		both = io.MultiWriter(&said, deaf{log})
	}
	args := []string{"--realise", drv.String() + "!" + output}
	if root != "" {
		args = append(args, "--add-root", root)
	}
	out, err := n.run(ctx, command{store: true, args: args, stderr: both})
	if failed, ok := errors.AsType[*CommandError](err); ok {
		return nix.StorePath{}, n.buildError(ctx, drv, failed, said.text())
	}
	if err != nil {
		return nix.StorePath{}, fmt.Errorf("build %s: %w", drv, err)
	}
	text := strings.TrimSpace(string(out))
	if root != "" { // then it prints the root, with the output's name behind it unless that is out
		if text, err = os.Readlink(text); err != nil {
			return nix.StorePath{}, fmt.Errorf("build %s: read its root: %w", drv, err)
		}
	}
	built, err := nix.ParseStorePath(text)
	if err != nil {
		return nix.StorePath{}, fmt.Errorf("build %s: understand nix-store --realise: %w", drv, err)
	}
	return built, nil
}

// parseDrv checks what is to be built.
func parseDrv(drvPath string, output *string) (nix.StorePath, error) {
	if *output == "" {
		*output = "out"
	}
	drv, err := nix.ParseStorePath(drvPath)
	switch {
	case err != nil:
		return nix.StorePath{}, err
	case !strings.HasSuffix(drv.Base(), ".drv"):
		return nix.StorePath{}, errors.New("not a derivation")
	case !validOutput.MatchString(*output):
		return nix.StorePath{}, fmt.Errorf("%.100q is no output's name", *output)
	}
	return drv, nil
}

// failedDrv finds the first derivation that nix says it could not build: those that only needed it come later. Until
// 2.29 or so the line is
//
//	error: builder for '/nix/store/….drv' failed with exit code 1
//	error: a 'aarch64-linux' with features {} is required to build '/nix/store/….drv', but I am a 'x86_64-linux' …
//
// and since then it is
//
//	error: Cannot build '/nix/store/….drv'.
//	       Reason: builder failed with exit code 1.
var failedDrv = regexp.MustCompile(`(?m)^\s*error: (?:.*)(?:builder for|Cannot build|required to build|build of) ` +
	`'(/[^'\n]+\.drv)'(?:\.\s+Reason: ([^\n]+(?:\n\s+(?:Required|Current) [^\n]+)*)| (failed with [^\n;]+))?`)

func (n *Nix) buildError(ctx context.Context, drv nix.StorePath, err *CommandError, said string) *BuildError {
	failure := &BuildError{Drv: drv.String(), Reason: err.Error(), Err: err}
	if m := failedDrv.FindStringSubmatch(said); m != nil {
		// The line may be a builder's own invention, so it is not believed to be a path.
		if named, parseErr := nix.ParseStorePath(m[1]); parseErr == nil {
			failure.Drv = named.String()
		}
		switch {
		case m[2] != "":
			failure.Reason = clip(strings.TrimSuffix(strings.Join(strings.Fields(m[2]), " "), "."), maxLineLen)
		case m[3] != "":
			failure.Reason = clip("builder "+m[3], maxLineLen)
		}
	}
	failure.Command = "nix log " + failure.Drv
	failure.Log = n.lastLog(ctx, failure.Drv)
	if failure.Log == nil {
		failure.Log = err.Stderr
	}
	return failure
}

// lastLog is the end of the log that nix keeps of a build; nil if it has none.
func (n *Nix) lastLog(ctx context.Context, drv string) []string {
	out, err := n.run(ctx, command{store: true, args: []string{"--read-log", drv}})
	if err != nil {
		return nil // what nix printed takes its place
	}
	var end tail
	_, _ = end.Write(out) // never fails
	return end.lines()
}
