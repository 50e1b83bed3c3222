package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/push"
)

// pushOptions are the flags of push.
type pushOptions struct {
	server, tokenFile         string
	jobs                      int
	stdin, noClosure          bool
	ignoreUpstream, dry, json bool
}

func newPush() *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:   "push [flags] CACHE PATH…",
		Short: "Push store paths and all they need into a cache",
		Long: `Push store paths and all they need into a cache.

CACHE is a cache's name, or SERVER:CACHE with a server of attic's own
configuration. A PATH may be a symlink (result, /run/current-system).

The server is --server, else $ATTIC_SERVER, else the default server of attic's
configuration ($XDG_CONFIG_HOME/attic/config.toml). The token is that of
--token-file, else $ATTIC_TOKEN, else the one that attic's configuration has for
the same server.

An interrupted push is repeated with the same command: what was stored is not
sent again.

Exit codes: 0 everything is in the cache; 1 some paths failed, or an error;
2 the command line is wrong; 130 interrupted.`,
		Example: `  attic-action push system ./result
  attic-action push --server https://cache.example.org --token-file token system /run/current-system`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("push needs a CACHE and at least one PATH")
			case len(args) == 1 && !o.stdin:
				return usagef("push needs at least one PATH, or --stdin")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args[0], args[1:], cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "`URL` of the server")
	f.StringVar(&o.tokenFile, "token-file", "", "`FILE` that holds the token; - is standard input")
	f.IntVarP(&o.jobs, "jobs", "j", 8, "uploads side by side")
	f.BoolVar(&o.stdin, "stdin", false, "read further paths from standard input, one a line")
	f.BoolVar(&o.noClosure, "no-closure", false, "push the paths alone, without what they need")
	f.BoolVar(&o.ignoreUpstream, "ignore-upstream-cache-filter", false, "push what the cache's upstreams have signed, too")
	f.BoolVar(&o.dry, "dry-run", false, "say what would be pushed, and push nothing")
	f.BoolVar(&o.json, "json", false, "print the result as one JSON object")
	return cmd
}

func (o pushOptions) run(ctx context.Context, ref string, paths []string, in io.Reader, out, errOut io.Writer) error {
	switch {
	case o.jobs < 1 || o.jobs > 256:
		return usagef("-j %d: want 1 to 256", o.jobs)
	case o.stdin && o.tokenFile == "-":
		return usagef("--stdin and --token-file - both want standard input")
	}
	login, err := sources{server: o.server, tokenFile: o.tokenFile, getenv: os.Getenv, stdin: in}.resolve(ref)
	if err != nil {
		return err
	}
	display := newDisplay(errOut)
	log := slog.New(slog.NewTextHandler(display, &slog.HandlerOptions{Level: logLevel(os.Getenv)}))
	c, err := client.New(client.Options{
		Endpoint: login.Endpoint, Token: client.StaticToken(string(login.Token)),
		UserAgent: "attic-action/" + version(), Log: log,
	})
	if err != nil {
		return err
	}
	p := &push.Pusher{
		Client: c, Nix: &nixcli.Nix{Log: log}, Log: log, Progress: &display.Progress, Jobs: o.jobs, TempDir: os.Getenv("RUNNER_TEMP"),
	}
	stop := display.start()
	total, err := o.batches(ctx, p, login.Cache, paths, in)
	stop()
	return o.finish(ctx, login.Cache, total, err, out, errOut)
}

// logLevel is Debug where a runner was asked for it, else Warn.
func logLevel(getenv func(string) string) slog.Level {
	if getenv("RUNNER_DEBUG") == "1" {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// batches pushes the paths of the command line and, with --stdin, what comes
// line by line.
func (o pushOptions) batches(ctx context.Context, p *push.Pusher, cache string, paths []string, in io.Reader) (*push.Result, error) {
	total := &push.Result{Failed: []push.Failure{}, DryRun: o.dry}
	one := func(paths []string) error {
		res, err := p.Push(ctx, push.Request{
			Cache: cache, Paths: paths, NoClosure: o.noClosure, IgnoreUpstream: o.ignoreUpstream, DryRun: o.dry,
		})
		total.Add(res)
		return err
	}
	if !o.stdin {
		return total, one(paths)
	}
	if len(paths) > 0 {
		if err := one(paths); err != nil {
			return total, err
		}
	}
	lines, failure := readLines(ctx, in)
	for batch := range gather(ctx, lines) {
		if err := one(batch); err != nil {
			return total, err
		}
	}
	if err := ctx.Err(); err != nil {
		return total, err
	}
	return total, *failure
}

const (
	quietLines = 2 * time.Second  // without a line end a batch
	batchLines = 10 * time.Second // after its first line a batch ends anyhow
	maxLines   = 10_000
)

// gather makes batches of lines as the stock client does: a batch ends after
// two seconds without a line, and after ten in all.
func gather(ctx context.Context, lines <-chan string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for {
			var batch []string
			select {
			case line, ok := <-lines:
				if !ok {
					return
				}
				batch = append(batch, line)
			case <-ctx.Done():
				return
			}
			end := time.After(batchLines)
			for open := true; open && len(batch) < maxLines; {
				select {
				case line, ok := <-lines:
					if open = ok; ok {
						batch = append(batch, line)
					}
				case <-time.After(quietLines):
					open = false
				case <-end:
					open = false
				case <-ctx.Done():
					return
				}
			}
			if !yield(batch) {
				return
			}
		}
	}
}

// readLines reads lines until the input or ctx ends. The error may be read when
// the channel is closed.
func readLines(ctx context.Context, in io.Reader) (<-chan string, *error) {
	lines, failure := make(chan string), new(error)
	go func() { // a read of a terminal cannot be broken off; the end of the program ends it
		defer close(lines)
		scanner := bufio.NewScanner(in)
		for scanner.Scan() {
			line := strings.TrimSpace(scanner.Text())
			if line == "" {
				continue
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
		if err := scanner.Err(); err != nil {
			*failure = fmt.Errorf("read paths from standard input: %w", err)
		}
	}()
	return lines, failure
}

// finish tells how the push ended and returns what makes the exit code.
func (o pushOptions) finish(ctx context.Context, cache string, res *push.Result, err error, out, errOut io.Writer) error {
	interrupted := err != nil && ctx.Err() != nil
	if o.json {
		b, jsonErr := json.Marshal(res)
		if jsonErr != nil {
			return fmt.Errorf("print result: %w", jsonErr)
		}
		if _, werr := fmt.Fprintf(out, "%s\n", b); werr != nil {
			return fmt.Errorf("print result: %w", werr)
		}
	} else if o.dry && err == nil {
		for _, path := range res.WouldPush {
			if _, werr := fmt.Fprintln(out, path); werr != nil {
				return fmt.Errorf("print result: %w", werr)
			}
		}
	}
	if err == nil || interrupted {
		tellFailures(errOut, res, interrupted)
	}
	switch {
	case interrupted:
		fmt.Fprintf(errOut, "attic-action: interrupted; in the cache: %s\n"+
			"hint: run the same command again to go on\n", kept(res))
		return &shownError{exitInterrupted}
	case err != nil:
		if res.Pushed+res.Packs > 0 {
			fmt.Fprintf(errOut, "attic-action: in the cache: %s\n", kept(res))
		}
		return err
	}
	fmt.Fprintln(errOut, summary(cache, res))
	if ferr := res.Err(); ferr != nil {
		return &shownError{exitFailed}
	}
	return nil
}

// kept says what a push that did not come to its end leaves behind.
func kept(res *push.Result) string {
	plural := map[bool]string{true: "", false: "s"}
	return fmt.Sprintf("%d path%s, and %d pack%s that stay for 24 h", res.Pushed, plural[res.Pushed == 1], res.Packs, plural[res.Packs == 1])
}

// mostFailures is how many failed paths are listed on a terminal; --json has all.
const mostFailures = 20

func tellFailures(w io.Writer, res *push.Result, interrupted bool) {
	if interrupted {
		return // each unfinished path would be one line that says so
	}
	for i, f := range res.Failed {
		if i == mostFailures {
			fmt.Fprintf(w, "attic-action: and %d more paths\n", len(res.Failed)-i)
			return
		}
		fmt.Fprintf(w, "attic-action: %s: %s\n", f.Path, f.Reason)
	}
}

func summary(cache string, res *push.Result) string {
	switch {
	case res.DryRun:
		return fmt.Sprintf("%d of %d paths (%s) would be pushed to %s", res.Missing, res.Paths, size(res.NARBytes), cache)
	case res.Missing == 0:
		return fmt.Sprintf("nothing to push: all %d paths are in %s or upstream (%.1f s)", res.Paths, cache, res.Seconds)
	}
	return fmt.Sprintf("pushed %d of %d missing paths (%s) to %s: %d new chunks, %s sent in %d requests, %.1f s",
		res.Pushed, res.Missing, size(res.NARBytes), cache, res.NewChunks, size(res.BytesSent), res.Requests, res.Seconds)
}

func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
