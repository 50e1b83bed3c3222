package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/exchange"
	"github.com/org/attic-action/internal/limit"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/token"
)

// openAudit opens the record of who did what. Whoever calls it holds the data's lock, so
// there is one writer. A server that cannot keep its record does not start.
func openAudit(cfg *config.Server, log *slog.Logger) (*audit.Log, error) {
	if cfg.Audit.File == "" {
		log.Warn("nothing is audited: there is no data directory, and no audit.file is configured")
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Audit.File), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the audit log: %w", err)
	}
	l := &audit.Log{Path: cfg.Audit.File, MaxSize: cfg.Audit.MaxSize, Keep: cfg.Audit.Keep, Log: log}
	if err := l.Open(); err != nil {
		return nil, err
	}
	return l, nil
}

// savedSeconds is for how long a token that rested may push without a limit: twenty
// thousand requests at the default rate, the closure of a large system by the stock client.
const savedSeconds = 100

// rates are the limits that the server itself counts.
func rates(l config.Limits) server.Rates {
	return server.Rates{
		BadTokens: limit.PerMinute(l.BadTokens), Uploads: limit.PerSecond(l.Uploads), UploadsOfAddress: limit.PerSecond(l.UploadsOfAddress),
		Saved: savedSeconds,
	}
}

// exchangeLimits are those of the exchange.
func exchangeLimits(l config.Limits) exchange.Limits {
	perMinute := func(n int) *limit.Buckets { return &limit.Buckets{Rate: limit.PerMinute(n)} }
	return exchange.Limits{Refused: perMinute(l.RefusedExchanges), Asked: perMinute(l.Exchanges), Granted: perMinute(l.ExchangesOfPolicy)}
}

// auditQuery is the command line of audit.
type auditQuery struct {
	since, until string
	filter       audit.Filter
	follow, json bool
}

func (p *program) audit() *cobra.Command {
	var q auditQuery
	cmd := &cobra.Command{Use: "audit", Short: "Show who did what", Args: noArgs,
		Long: `Show who did what: exchanges of ID tokens, uploads, changes of caches, commands of
the administrator, tokens that were refused. See docs/limits.md.

A filter takes "*" for any text. --result is ok, refused, limited, failed or gone.`,
		Example: `  attic-server audit --since 1d --action exchange --result refused
  attic-server audit --cache system --sub 'repo:acme/*'
  attic-server audit --request 4f5e6d7c8b9a0f1e      the id that a client was shown
  attic-server audit --follow --json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.printAudit(cmd.Context(), &q) }}
	f := cmd.Flags()
	f.StringVar(&q.since, "since", "", `not before: how long ago ("2h", "3 days") or when ("2006-01-02", "2006-01-02T15:04:05Z")`)
	f.StringVar(&q.until, "until", "", "before: like --since")
	f.StringVar(&q.filter.Subject, "sub", "", "whose token")
	f.StringVar(&q.filter.Token, "jti", "", "the token's ID")
	f.StringVar(&q.filter.Cache, "cache", "", "of which cache")
	f.StringVar(&q.filter.Policy, "policy", "", "by which trust policy")
	f.StringVar(&q.filter.Action, "action", "", "exchange, auth, upload, pack, commit, cache.create, cache.configure, cache.destroy, token.revoke, admin.*")
	f.StringVar(&q.filter.Result, "result", "", "ok, refused, limited, failed, gone")
	f.StringVar(&q.filter.Address, "address", "", "from where")
	f.StringVar(&q.filter.Request, "request", "", "the request's ID")
	f.StringVar(&q.filter.Holds, "grep", "", "lines that hold this text")
	f.BoolVar(&q.follow, "follow", false, "go on and show what comes")
	f.BoolVar(&q.json, "json", false, "the lines as they are kept, JSON")
	return cmd
}

func (p *program) printAudit(ctx context.Context, q *auditQuery) (err error) {
	now := time.Now()
	if q.filter.Since, err = when(q.since, now); err != nil {
		return usageError{fmt.Errorf("--since: %w", err)}
	}
	if q.filter.Until, err = when(q.until, now); err != nil {
		return usageError{fmt.Errorf("--until: %w", err)}
	}
	cfg, err := p.load()
	if err != nil {
		return err
	}
	if cfg.Audit.File == "" {
		return errors.New("nothing is audited: there is no data directory, and no audit.file is configured")
	}
	out := bufio.NewWriter(p.stdout)
	r := &audit.Reader{Path: cfg.Audit.File, Filter: q.filter, Follow: q.follow}
	err = r.Read(ctx, func(e audit.Event, line []byte) error {
		var err error
		if q.json {
			_, err = out.Write(append(line, '\n'))
		} else {
			_, err = io.WriteString(out, auditLine(e))
		}
		if err == nil && q.follow {
			err = out.Flush()
		}
		return err
	})
	if r.Skipped > 0 {
		fmt.Fprintf(p.stderr, "attic-server: warning: %d lines of %s are not records\n", r.Skipped, cfg.Audit.File)
	}
	return errors.Join(err, out.Flush())
}

// when reads a time, or how long ago one was. Empty is the zero time.
func when(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, nil
		}
	}
	d, err := token.ParseDuration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time like 2006-01-02T15:04:05Z, and no duration like 2h", s)
	}
	return now.Add(-d), nil
}

// auditLine shows an event on one line: when, what, how it ended, and the rest by name.
func auditLine(e audit.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-8s %-15s", e.Time.Format(time.RFC3339), e.Result, e.Action)
	add := func(name, value string) {
		if value == "" {
			return
		}
		if strings.ContainsAny(value, " \"=\\") {
			value = strconv.Quote(value)
		}
		b.WriteString(" " + name + "=" + value)
	}
	number := func(name string, n int64) {
		if n != 0 {
			add(name, strconv.FormatInt(n, 10))
		}
	}
	add("cache", e.Cache)
	add("policy", e.Policy)
	add("sub", e.Subject)
	add("jti", e.Token)
	add("object", e.Object)
	number("objects", e.Objects)
	number("bytes", e.Bytes)
	if e.Status != http.StatusOK {
		number("status", int64(e.Status))
	}
	add("address", e.Address)
	add("user", e.User)
	add("request", e.Request)
	shown := []string{"repository", "repository_id", "ref", "event_name", "environment", "job_workflow_ref", "run_id", "actor"}
	if e.Action != audit.Exchange { // what a command asked for
		shown = slices.DeleteFunc(slices.Sorted(maps.Keys(e.Claims)), func(key string) bool {
			return slices.Contains([]string{"cache", "policy", "id", "ids", "jti"}, key) // which have been shown
		})
	}
	for _, key := range shown {
		add(key, e.Claims[key])
	}
	add("reason", e.Reason)
	b.WriteByte('\n')
	return b.String()
}
