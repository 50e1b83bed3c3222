package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/config"
)

// adminSocket is where a running server takes commands: beside the database, as
// its lock is, since the two belong together.
func adminSocket(cfg *config.Server) string {
	if cfg.Database.File == ":memory:" {
		return filepath.Join(cfg.Data, "admin.sock")
	}
	return cfg.Database.File + ".sock"
}

// newAdmin makes the handler of all commands that need the database. Each
// command's file registers its verbs.
func newAdmin(st *stack, cfg *config.Server) *admin.Mux {
	m := &admin.Mux{Audit: auditAdmin(st.audit)}
	tokenVerbs(m, st.issued)
	rotateVerb(m, st.server)
	cacheVerbs(m, st.server, st.db, cfg)
	pinVerbs(m, st.server.Roots)
	lookVerbs(m, st.server.Roots, st.depot, func(cache string) string { return cfg.GC.Of(cache).String() })
	trustVerbs(m, st.policies, cfg)
	importVerbs(m, st.db, st.depot, signers(cfg))
	exportVerbs(m, st.server, st.server.Roots, st.depot)
	return m
}

// serveAdmin takes commands until ctx ends. A server whose socket cannot be made
// (a path longer than the system's hundred bytes) serves all the same.
func serveAdmin(ctx context.Context, cfg *config.Server, st *stack, log *slog.Logger) (wait func()) {
	socket := adminSocket(cfg)
	ln, err := admin.Listen(socket)
	if err != nil {
		log.Warn("no commands can be taken while this server runs", "error", err)
		return func() {}
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		if err := admin.Serve(ctx, ln, st.admin, log); err != nil {
			log.Error("stop taking commands", "error", err)
		}
	}()
	return func() { cancel(); <-done }
}

// lockTime is how long a command waits for a server that is starting, or for
// another command, and thus has the lock and no socket.
const lockTime = 10 * time.Second

// connect gives a client for commands: of the server that runs, else of the
// database itself, opened here. close it in any case.
func (p *program) connect(ctx context.Context) (_ *admin.Client, close func() error, err error) {
	cfg, err := p.load()
	if err != nil {
		return nil, nil, err
	}
	return p.connectTo(ctx, cfg)
}

func (p *program) connectTo(ctx context.Context, cfg *config.Server) (_ *admin.Client, close func() error, err error) {
	log, err := p.logger()
	if err != nil {
		return nil, nil, err
	}
	caller := os.Getuid() // before this process becomes the data's owner
	for deadline := time.Now().Add(lockTime); ; {
		c, err := admin.Dial(ctx, adminSocket(cfg))
		if err == nil {
			return c, func() error { return nil }, nil
		}
		if !errors.Is(err, admin.ErrNobody) {
			return nil, nil, err
		}
		st, err := p.openHere(ctx, cfg, log)
		if err == nil {
			st.later = st.atOnce
			stop := st.startLater(ctx)
			return admin.Local(st.admin, caller), func() error { stop(); return st.close() }, nil
		}
		if !errors.Is(err, errLocked) || time.Now().After(deadline) {
			return nil, nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *program) openHere(ctx context.Context, cfg *config.Server, log *slog.Logger) (*stack, error) {
	if cfg.Database.File == ":memory:" {
		return nil, fmt.Errorf("the database is in memory and no server listens on %s", adminSocket(cfg))
	}
	if err := becomeOwner(cfg); err != nil {
		return nil, err
	}
	if err := ensureSecret(cfg); err != nil {
		return nil, err
	}
	return openStack(ctx, cfg, log)
}
