package soak

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/attic-action/internal/checkpoint"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/gc"
	"github.com/org/attic-action/internal/gc/rewrite"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/roots"
	"github.com/org/attic-action/internal/seal"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/spool"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/verify"
	"github.com/org/attic-action/internal/waiting"
)

// world is a bucket, a server process on it, clients, and the model of what they
// were promised.
type world struct {
	dir    string // of all processes
	now    time.Time
	bucket *bucket
	forge  *forge
	m      *model
	p      *process
	epoch  uint64
	serial int

	retention time.Duration // of caches that have none of their own; 0: for ever
	soft      bool          // destroyed caches are hidden
	cut       chunk.Params
	root      seal.RootKey
	auth      *token.Authority
	encoder   *pack.Encoder
	decoder   *pack.Decoder

	kinds     []kind
	before    *model          // while a step is under way: before it
	pending   []use           // pulls that the server has not written down
	committed map[string]bool // by the push that is under way
	pushing   map[string]bool // what that push is to bring
	deep      bool            // something runs amid something else
	unsure    bool            // the step left something in doubt
	stored    bool            // the step stored a record, whatever became of it
	ghost     *model          // what the last record said that was stored and not committed; nil: the last one was
	faults    int             // requests to the bucket that failed, in this step
	others    int             // things that happened amid others

	mu      sync.Mutex  // of what follows: objects are deleted side by side
	disturb disturbance // to come
	amid    func()      // what happens now amid something else
	inView  bool        // the last statement was a reader's

	at     int    // number of the step
	broken string // the first thing that was wrong
	rule   string // what it broke
	log    []string
	count  map[string]int
}

// violation ends an operation; what was wrong is in world.broken.
type violation struct{}

func (w *world) wrong(format string, args ...any) {
	if w.broken == "" {
		w.broken, w.rule = fmt.Sprintf(format, args...), format
	}
	panic(violation{})
}

func (w *world) must(err error) {
	if err != nil {
		w.wrong("%v", err)
	}
}

func (w *world) say(format string, args ...any) {
	w.log = append(w.log, w.now.Format("01-02 15:04:05 ")+fmt.Sprintf(format, args...))
}

// process is a server as it is while it runs.
type process struct {
	dir    string
	dead   atomic.Bool
	quiet  bool // its requests are not counted
	db     *meta.DB
	store  *door
	depot  *depot.Depot
	server *server.Server
	http   http.Handler
	roots  *roots.Keeper
	keeper *checkpoint.Keeper
	gc     *gc.Collector

	verifier *verify.Verifier

	rewriter   *rewrite.Rewriter
	collecting bool // a collection is under way that has decided what goes
	log        *tail
	left       string // where a kill left the database
}

func newWorld(dir string, seed uint64) *world {
	r := mrand.New(mrand.NewPCG(seed, 0))
	w := &world{dir: dir, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), forge: newForge(r), m: &model{caches: map[string]*shelf{}},
		epoch: 1, kinds: kinds(), count: map[string]int{},
		retention: []time.Duration{0, 3 * 24 * time.Hour, 20 * 24 * time.Hour}[r.IntN(3)], soft: r.IntN(4) == 0,
		cut: chunk.Params{Min: 256, Avg: 1 << 10, Max: 4 << 10}, encoder: pack.NewEncoderFor(1), decoder: pack.NewDecoderFor(1)}
	w.bucket = newBucket(func() time.Time { return w.now })
	_, _ = rand.Read(w.root[:])
	key, err := token.HS256([]byte("a secret for tests alone"))
	w.must(err)
	w.auth = &token.Authority{Keys: []token.Key{key}, Now: func() time.Time { return w.now }}
	w.start(w.newDir())
	return w
}

func (w *world) newDir() string {
	w.serial++
	dir := filepath.Join(w.dir, fmt.Sprint("process-", w.serial))
	w.must(os.MkdirAll(dir, 0o700))
	return dir
}

// start begins a process on what lies in dir.
func (w *world) start(dir string) {
	p := &process{dir: dir, log: &tail{}}
	p.store = &door{bucket: w.bucket, at: func(what string) error { return w.passes(p, what) }}
	layouts := &depot.Layouts{}
	clock := func() time.Time { return w.now }
	log := slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	db, err := meta.Open(context.Background(), filepath.Join(dir, "server.db"), meta.Options{
		Journal: &ledger.Log{Blobs: p.store, Epoch: w.epoch}, Layouts: layouts, Rebuilt: true, Now: clock,
		PageCache: 4 << 20, Trace: func(query string) { _ = w.passes(p, query) }})
	w.must(err)
	p.db = db
	sp := &spool.Dir{Path: dir}
	p.depot = &depot.Depot{DB: db, Blobs: p.store, Spool: sp, Cut: w.cut, Log: log, Jobs: 2}
	p.roots = &roots.Keeper{DB: db, Retention: w.retention}
	p.server = &server.Server{DB: db, Depot: p.depot, Roots: p.roots, Auth: w.auth, Root: w.root, Cut: w.cut, SoftDelete: w.soft, Now: clock, Log: log,
		Waiting: &waiting.Room{Spool: sp}, Limits: server.Limits{Early: time.Millisecond}}
	p.http = p.server.Handler()
	p.keeper = &checkpoint.Keeper{DB: db, Blobs: p.store, Spool: sp, Now: clock, Objects: 40, ShardRecords: 50}
	p.rewriter = w.rewriter(p, layouts, sp, log)
	p.gc = w.collector(p, layouts, log)
	p.verifier = w.verifier(p, log)
	w.p = p
}

// end lets a process go that may be dead.
func (w *world) end() {
	w.p.quiet = true
	err := w.p.db.Close()
	if !w.p.dead.Load() {
		w.must(err)
	}
}

// close ends the world.
func (w *world) close() {
	w.p.quiet = true
	_ = w.p.db.Close() // its directory goes
	_ = os.RemoveAll(w.dir)
}

// restart is a clean end and a start.
func (w *world) restart() {
	w.end()
	w.start(w.p.dir)
}

// revive starts a process where the last one was killed.
func (w *world) revive() {
	dead := w.p
	w.end()
	w.start(dead.left)
	_ = os.RemoveAll(dead.dir) // only room is lost
	w.pending = nil
}

// kill leaves the database as it is at this moment: what a process had not written
// is lost, and what it had half written is there.
func (w *world) kill(p *process) {
	p.left = w.newDir()
	for _, name := range []string{"server.db", "server.db-wal"} {
		data, err := os.ReadFile(filepath.Join(p.dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(p.left, name), data, 0o600)
		}
		if err != nil && w.broken == "" {
			w.broken = err.Error()
		}
	}
	p.dead.Store(true)
}

// disturbance is what happens to an operation amid its work.
type disturbance struct {
	kind disturbKind
	left int    // requests and statements until it happens
	ends bool   // count transactions by their ends, not by their statements: what a kill amid one undoes is all of it
	amid func() // of other
}

type disturbKind uint8

const (
	undisturbed disturbKind = iota
	killed                  // the process dies
	faulty                  // a request to the bucket fails
	other                   // something else happens meanwhile
)

// passes is asked at every statement of the database and at every request to the
// bucket, before and after.
func (w *world) passes(p *process, what string) error {
	if p.dead.Load() {
		return errKilled
	}
	d, err := w.disturbed(p, what)
	if d == other {
		w.others++
		w.amid()
		if p.dead.Load() {
			return errKilled
		}
	}
	return err
}

// disturbed says what happens at this point. Several may ask at a time: objects are
// deleted side by side.
func (w *world) disturbed(p *process, what string) (disturbKind, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch what {
	case "BEGIN":
		w.inView = true
	case "BEGIN IMMEDIATE", "ROLLBACK", "COMMIT":
		w.inView = false
	}
	w.stored = w.stored || strings.HasPrefix(what, "stored "+ledger.LogPrefix)
	if p.quiet || p != w.p || w.disturb.kind == undisturbed {
		return undisturbed, nil
	}
	request := isRequest(what)
	if w.disturb.kind == faulty && !request || w.disturb.kind == other && !w.mayNest(what, request) ||
		w.disturb.ends && !request && what != "COMMIT" {
		return undisturbed, nil
	}
	if w.disturb.left--; w.disturb.left > 0 {
		return undisturbed, nil
	}
	d := w.disturb
	w.disturb = disturbance{}
	switch d.kind {
	case killed:
		w.say("  killed at %.60s", what)
		w.kill(p)
		return killed, errKilled
	case faulty:
		w.faults++
		w.say("  failed at %.60s", what)
		return faulty, errFault
	case other:
		w.say("  amid %.60s:", what)
		w.amid = d.amid
	}
	return d.kind, nil
}

// mayNest says whether something else can happen at this point of a maintenance: where
// a reader reads, and at requests that nobody's transaction waits for.
func (w *world) mayNest(what string, request bool) bool {
	if request {
		return !strings.HasPrefix(what, "delete") && !strings.Contains(what, " "+ledger.LogPrefix)
	}
	return w.inView && strings.HasPrefix(what, "SELECT")
}

// errors are the last lines that a process logged.
func (p *process) errors() string { return p.log.String() }

// tail keeps the last lines that were written to it.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, string(b))
	t.lines = t.lines[max(0, len(t.lines)-4):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "")
}

// finish sees that all is there in the end.
func (w *world) finish() {
	w.disturb, w.faults, w.unsure, w.before = disturbance{}, 0, false, w.m.clone()
	for _, name := range w.m.names() {
		w.look(w.m.caches[name])
	}
	w.audit()
	w.doSettle(mrand.New(mrand.NewPCG(0, 0)))
	for _, name := range w.m.names() {
		w.look(w.m.caches[name])
	}
}
