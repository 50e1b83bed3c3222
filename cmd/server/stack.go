package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/blob/near"
	"github.com/org/attic-action/internal/budget"
	"github.com/org/attic-action/internal/checkpoint"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/gc"
	"github.com/org/attic-action/internal/issued"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/roots"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/trustbook"
	"github.com/org/attic-action/internal/verify"
	"github.com/org/attic-action/internal/waiting"
)

// stack is everything below HTTP, open.
type stack struct {
	db     *meta.DB
	audit  *audit.Log
	lock   *os.File
	server *server.Server
	depot  *depot.Depot
	admin  *admin.Mux
	issued *issued.Register
	memory memory
	later  func(context.Context) // what a start need not wait for; nil: nothing
	atOnce func(context.Context) // the same, for a command: it does not wait for better days
	watch  func(context.Context) // looks whether another server has taken the bucket; nil: a folder
	near   *near.Cache           // of a bucket
	end    func(error)           // ends the server
	keeper *checkpoint.Keeper

	collector    *gc.Collector
	collectEvery time.Duration // 0: only when it is asked

	verifier    *verify.Verifier
	verifyClock config.Verify

	recovered time.Time // when the database was rebuilt; zero: never

	policies *trustbook.Book
}

// openStack opens what the configuration names, from the bottom up.
func openStack(ctx context.Context, cfg *config.Server, log *slog.Logger) (_ *stack, err error) {
	st := &stack{memory: planMemory(), end: func(err error) { log.Error("the storage cannot be used", "error", err) }}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	file := cfg.Database.File
	if err := refuseAttics(ctx, cfg); err != nil {
		return nil, err
	}
	if st.lock, err = lockData(file); err != nil {
		return nil, err
	}
	store, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	secrets := cfg.Secrets()
	if len(secrets) == 0 {
		return nil, configError{hintError{errors.New("only a public key is configured, so nothing protects the caches' signing keys"),
			secretLine(cfg, "ATTIC_SERVER_ROOT_KEY", 32)}}
	}
	if st.audit, err = openAudit(cfg, log); err != nil {
		return nil, err
	}
	journal := &ledger.Log{}
	if st.db, err = meta.Open(ctx, file, meta.Options{Journal: journal, Log: log, Layouts: &depot.Layouts{}, PageCache: st.memory.Database}); err != nil {
		return nil, err
	}
	writes, err := st.belong(ctx, cfg, store, journal, log)
	if err != nil {
		return nil, err
	}
	if cfg.Storage.Type == config.S3 {
		writes = st.fence(writes, journal.Epoch)
	}
	journal.Blobs = writes
	root, err := st.rootKey(ctx, cfg, store, log)
	if err != nil {
		return nil, err
	}
	inFlight := budget.New(st.memory.InFlight)
	dp := &depot.Depot{DB: st.db, Blobs: writes, Cut: cfg.Chunking, Log: log, Memory: inFlight, Jobs: st.memory.Jobs(runtime.GOMAXPROCS(0))}
	if dp.Spool, err = openSpool(cfg); err != nil {
		return nil, err
	}
	presigner, err := st.shortenReads(cfg, store, dp)
	if err != nil {
		return nil, err
	}
	st.depot = dp
	st.issued = &issued.Register{DB: st.db}
	revoke := func(ctx context.Context, id string) error {
		_, err := st.issued.Revoke(ctx, issued.Selection{IDs: []string{id}})
		return err
	}
	st.server = &server.Server{
		DB: st.db, Depot: dp, Auth: authority(cfg), Revoked: st.issued, Revoke: revoke, Root: root,
		AllowedHosts: cfg.AllowedHosts, APIEndpoint: cfg.APIEndpoint, SubstituterEndpoint: cfg.SubstituterEndpoint,
		SignedBy: signers(cfg), SoftDelete: cfg.SoftDeleteCaches, WaivePossession: !cfg.RequireProof, MaxNarInfoSize: max(cfg.MaxNarInfoSize, 1),
		Cut: cfg.Chunking, TellShareFrom: cfg.NARSizeThreshold, Now: time.Now, Log: log,
		Waiting: &waiting.Room{Spool: dp.Spool}, Memory: inFlight, Presigner: presigner, ReadAhead: st.near != nil && cfg.Storage.Redirect != config.RedirectAlways,
		Limits: st.memory.limits(),
		Rates:  rates(cfg.Limits), Peers: cfg.Peers, Audit: st.audit.Write,
	}
	st.server.Roots = &roots.Keeper{DB: st.db, Retention: cfg.GC.Retention, Keep: cfg.Pins.Keep}
	st.policies = &trustbook.Book{DB: st.db, File: cfg.Trust, Kinds: cfg.OIDC.Kinds(), Listed: cfg.OIDC.Lists, Log: log}
	st.admin = newAdmin(st, cfg)
	secretVerbs(st.admin, store, secrets)
	recoverVerb(st.admin, st.db, store)
	st.keeper = &checkpoint.Keeper{DB: st.db, Blobs: writes, Spool: dp.Spool, Log: log}
	st.openVerifier(writes, root, secrets, log)
	st.collectEvery, st.verifyClock = cfg.GC.Interval, cfg.Verify
	if err := st.openCollector(ctx, cfg, writes, log); err != nil {
		return nil, err
	}
	return st, mountExchange(st, cfg)
}

func (st *stack) close() error {
	var err error
	if st.near != nil {
		err = st.near.Close()
	}
	if st.db != nil {
		err = errors.Join(err, st.db.Close())
	}
	if st.audit != nil {
		err = errors.Join(err, st.audit.Close())
	}
	if st.lock != nil {
		err = errors.Join(err, st.lock.Close()) // which unlocks it
	}
	return err
}
