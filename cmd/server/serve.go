package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/token"
)

// modes are atticd's.
var modes = []string{"monolithic", "api-server", "db-migrations", "check-config", "garbage-collector", "garbage-collector-once"}

// load reads the configuration.
func (p *program) load() (*config.Server, error) {
	cfg, err := config.Load(config.Options{
		File:    p.file,
		Base64:  p.getenv("ATTIC_SERVER_CONFIG_BASE64"),
		Getenv:  p.getenv,
		Environ: p.environ,
		Data:    p.data,
	})
	if err != nil {
		return nil, configError{err}
	}
	return cfg, nil
}

// warnOf tells of the configuration's warnings: where it is checked, and once for each
// start of a server, but not with every token that somebody makes.
func (p *program) warnOf(cfg *config.Server) {
	for _, w := range cfg.Warnings {
		fmt.Fprintf(p.stderr, "attic-server: warning: %s\n", oneLine(w))
	}
}

func authority(cfg *config.Server) *token.Authority {
	return &token.Authority{Keys: slices.Concat(cfg.JWT.Keys, cfg.JWT.Previous), Issuer: cfg.JWT.Issuer, Audiences: cfg.JWT.Audiences, Now: time.Now}
}

func (p *program) checkConfig(*cobra.Command, []string) error {
	cfg, err := p.load()
	if err != nil {
		return err
	}
	p.warnOf(cfg)
	return mayMakeSecret(cfg)
}

func (p *program) serve(cmd *cobra.Command, _ []string) error {
	if !slices.Contains(modes, p.mode) {
		return usageError{fmt.Errorf("--mode %q: not one of %s", p.mode, strings.Join(modes, ", "))}
	}
	if p.listen != "" {
		if err := config.CheckListen(p.listen); err != nil {
			return usageError{fmt.Errorf("--listen: %w", err)}
		}
	}
	log, err := p.logger()
	if err != nil {
		return err
	}
	if p.mode == "check-config" {
		return p.checkConfig(cmd, nil)
	}
	cfg, err := p.load()
	if err != nil {
		return err
	}
	p.warnOf(cfg)
	switch p.mode {
	case "garbage-collector":
		return p.collectBeside(cmd.Context(), cfg, log)
	case "garbage-collector-once":
		return p.collectOnce(cmd.Context(), cfg)
	}
	if p.listen != "" {
		cfg.Listen = p.listen
	}
	return p.listenAndServe(cmd.Context(), cfg, log)
}

func (p *program) logger() (*slog.Logger, error) {
	switch p.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(p.stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(p.stderr, nil)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format %q: not text or json", p.logFormat)}
}

func (p *program) listenAndServe(ctx context.Context, cfg *config.Server, log *slog.Logger) (err error) {
	// The port first: a second server on a machine must fail before it opens the first one's database.
	ln, err := p.bind(cfg)
	if err != nil {
		return err
	}
	st, err := p.openOrRecover(ctx, cfg, func() (*stack, error) { return openOwn(ctx, cfg, log) })
	if err != nil {
		_ = ln.Close() // nothing was accepted
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // stopped as asked, while it waited for its storage
		}
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, st.end = context.WithCancelCause(ctx)
	defer st.end(nil)
	if p.mode == "db-migrations" {
		return ln.Close()
	}
	st.memory.apply(p.getenv, log)
	defer serveAdmin(ctx, cfg, st, log)()
	defer st.startLater(ctx)()
	go st.watchVolume(ctx, cfg.Database.File, volumePause)
	if st.watch != nil {
		go st.watch(ctx)
	}
	defer st.startVerifier(ctx)()
	defer st.startChores(ctx, log)()
	p.welcome(cfg, ln.Addr())
	if p.listening != nil {
		p.listening(ln.Addr().String())
	}
	if err := st.server.Serve(ctx, ln); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause // the server itself found a reason
	}
	return nil
}

// openOwn opens the stack as the owner of the data.
func openOwn(ctx context.Context, cfg *config.Server, log *slog.Logger) (*stack, error) {
	if err := becomeOwner(cfg); err != nil {
		return nil, err
	}
	if err := ensureSecret(cfg); err != nil {
		return nil, err
	}
	return openSoon(ctx, cfg, log)
}

// openSoon opens the stack, and lets a command that has the database finish first.
func openSoon(ctx context.Context, cfg *config.Server, log *slog.Logger) (*stack, error) {
	for deadline := time.Now().Add(commandTime); ; {
		st, err := openStack(ctx, cfg, log)
		if !errors.Is(err, errLocked) || time.Now().After(deadline) {
			return st, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// commandTime is how long a command may have the database while a server starts.
const commandTime = 2 * time.Second

func (p *program) bind(cfg *config.Server) (net.Listener, error) {
	ln, err := net.Listen("tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, hintError{fmt.Errorf("listen on %s: the address is in use", cfg.Listen),
			"another server runs there; choose another address with --listen IP:port"}
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	return ln, nil
}

// welcome says where the server is and how to get a token.
func (p *program) welcome(cfg *config.Server, addr net.Addr) {
	fmt.Fprintf(p.stderr, "attic-server %s listens on http://%s/\n", version, addr)
	if !slices.ContainsFunc(cfg.JWT.Keys, token.Key.CanSign) {
		return
	}
	self := "attic-server"
	if exe, err := os.Executable(); err == nil {
		self = exe
	}
	where := " --data " + shellQuote(absolute(cfg.Data))
	if p.file != "" {
		where = " -f " + shellQuote(absolute(p.file))
	}
	fmt.Fprintf(p.stderr, "A token that may do everything, for a year:\n  %s make-token%s --sub me --validity 1y", shellQuote(self), where)
	for _, pf := range permFlags {
		fmt.Fprintf(p.stderr, " --%s '*'", pf.name)
	}
	fmt.Fprint(p.stderr, " --pin '*'")
	fmt.Fprintln(p.stderr)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// shellQuote quotes what a shell would not take as one plain word.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
