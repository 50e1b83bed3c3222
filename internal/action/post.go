package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nixconf"
)

// Post takes back what the main step gave to the steps after it: the token, the folder with nix.conf and netrc, and the
// variables that name it. It does as much as it can; without a main step there is nothing to do.
func Post(ctx context.Context, r *github.Runner, login *Login, home string) error {
	dir := r.State(stateDir)
	if dir == "" {
		return nil
	}
	if temp := r.Getenv("RUNNER_TEMP"); filepath.Dir(dir) != filepath.Clean(temp) || !strings.HasPrefix(filepath.Base(dir), dirPrefix) {
		return fmt.Errorf("post step: %q is no folder of the main step", dir)
	}
	lines, _ := os.ReadFile(filepath.Join(dir, "nix.conf")) // not there: it was not written
	if login.Static.Reveal() == "" {
		if token := firstPassword(filepath.Join(dir, "netrc")); token != "" {
			r.Mask(token)
			logoutCtx, cancel := context.WithTimeout(ctx, logoutPatience)
			login.revoke(logoutCtx, token)
			cancel()
		}
	}
	if err := errors.Join(os.RemoveAll(dir), unexport(r, home, filepath.Join(dir, "nix.conf"), string(lines))); err != nil {
		return err
	}
	r.Printf("removed %s; the cache is no substituter any more\n", dir)
	return nil
}

// unexport gives the post steps that follow the configuration that was there before.
func unexport(r *github.Runner, home, file, lines string) error {
	var errs []error
	files := strings.Split(r.Getenv("NIX_USER_CONF_FILES"), ":")
	if i := slices.Index(files, file); i >= 0 {
		files = slices.Delete(files, i, i+1)
		if len(files) == 0 {
			files = nixconf.UserFiles(r.Getenv, home)
		}
		errs = append(errs, r.SetEnv("NIX_USER_CONF_FILES", strings.Join(files, ":")))
	}
	if before, ours := strings.CutSuffix(strings.TrimRight(r.Getenv("NIX_CONFIG"), "\n"), "\n"+strings.TrimRight(lines, "\n")); ours && lines != "" {
		errs = append(errs, r.SetEnv("NIX_CONFIG", before))
	}
	return errors.Join(errs...)
}

// firstPassword is the token in a netrc that writeNetrc wrote.
func firstPassword(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "" // there is none for a public cache
	}
	for line := range strings.Lines(string(b)) {
		if token, ok := strings.CutPrefix(line, "password "); ok {
			return strings.TrimSpace(token)
		}
	}
	return ""
}
