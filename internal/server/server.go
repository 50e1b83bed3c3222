// Package server answers HTTP: Attic's v1 API as the stock client and Nix
// speak it, and the pack road that our own client takes. It decides who may do
// what and turns results into answers; contents are depot's business, rows are
// meta's.
//
//	request ── request id, log line, panic guard
//	        ── Host allowed?                          400
//	        ── route by the escaped path              404, 405
//	        ── path parameters                        400
//	        ── body or header, parsed                 400, 413, 415, 422
//	        ── may the token do this?                 401, 403, 404
//	        ── work                                   2xx
//
// The order is Attic's and clients can see it: a malformed body is 400 even
// for those who have no right to send one.
//
// # What anonymous callers learn
//
// For narinfo and NAR requests on a private cache, a caller who may do nothing
// with the cache gets the same 404 whether the path is there or not. (Attic
// answers 401 for a path that is there, which tells, and which makes newer Nix
// fail where it should go on to the next cache.)
//
// # What a client can hold on to
//
// Nothing for ever: each request's reads and writes have a deadline that only
// bytes move (Limits.Stall), heavy requests take one of a few places
// (Limits.Uploads) that nobody can have all of (gate), and every body has a length that it may not exceed.
package server

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/budget"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/peer"
	"github.com/org/attic-action/internal/roots"
	"github.com/org/attic-action/internal/seal"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/waiting"
)

// contents is the part of a depot that a server uses.
type contents interface {
	PutPack(ctx context.Context, s depot.Scope, name [32]byte, after *[32]byte, size int64, body io.Reader) (api.PackResult, error)
	MissingChunks(ctx context.Context, s depot.Scope, ids []chunk.ID) ([]bool, error)
	CommitPaths(ctx context.Context, s depot.Scope, items iter.Seq2[api.PathItem, error]) ([]api.PathResult, error)
	Ingest(ctx context.Context, s depot.Scope, info depot.Upload, body io.Reader, requireProof bool) (depot.IngestResult, error)
	Open(ctx context.Context, cacheID int64, hash string) (*depot.NAR, error)
	MissingReferences(ctx context.Context, s depot.Scope, up depot.Upload) ([]string, error)
	PutBuildLog(ctx context.Context, s depot.Scope, name string, overhead int64, body io.Reader) error
	PutRealisation(ctx context.Context, s depot.Scope, r *api.Realisation) error
}

// Revocations knows by their jti which tokens were taken back. *issued.Register is
// one.
type Revocations interface {
	// Revoked must be cheap, for every request asks. After an error the token is
	// not believed.
	Revoked(ctx context.Context, id string) (bool, error)
}

// Server is the HTTP side of a cache server. Fill in the fields, then use
// Handler or Serve; the fields must not change afterwards.
type Server struct {
	DB    *meta.DB
	Depot contents
	Roots *roots.Keeper // nil means one of DB whose caches keep for ever
	Auth  *token.Authority
	Root  seal.RootKey // opens and seals the caches' private keys

	// Revoked knows which tokens were taken back. Nil means that none ever is.
	Revoked Revocations
	// Revoke takes back the token of a jti, for its bearer. Nil means that there is
	// no such route.
	Revoke func(ctx context.Context, id string) error

	// TrustConfig and TokenExchange answer /_api/v1/oidc/config and
	// /_api/v1/oidc/token. Nil means that there are no such routes.
	TrustConfig, TokenExchange http.Handler

	AllowedHosts        []string                   // exact values of Host; empty means all
	APIEndpoint         string                     // ends in "/"; empty means by Host
	SubstituterEndpoint string                     // ends in "/"; empty means the API endpoint
	SignedBy            map[string][]nix.PublicKey // by cache: keys of which one must have signed each path; none asks for nothing
	SoftDelete          bool                       // destroyed caches keep their names and paths
	WaivePossession     bool                       // upload-path believes a hash that it has, without reading the body
	MaxNarInfoSize      int64                      // bytes of an upload preamble; 0 means 1 MiB
	Cut                 chunk.Params
	TellShareFrom       int64 // bytes from which a stock upload is told how much of it was here; 0 means 64 KiB
	Limits              Limits
	Rates               Rates
	Waiting             *waiting.Room     // for NARs that nix copy sends before their narinfos; nil means that it may send none
	Memory              *budget.Bytes     // of bytes in flight; nil means no limit
	Presigner           blob.Presigner    // sends who can reach the bucket there, for NARs that are one object; nil means nobody
	ReadAhead           bool              // for clients that take few NARs at a time: they get them through here, the next ones before they ask
	Peers               peer.Finder       // whose address a request has
	Audit               func(audit.Event) // takes a record of what changes something; nil means nobody does
	Version             string            // shown on the front page
	Now                 func() time.Time  // nil means time.Now
	Log                 *slog.Logger      // nil means slog.Default()

	once    sync.Once
	routes  routes
	caches  cacheList
	keys    keyring
	touched touches
	signed  signatures

	redirected redirects
	pullers    pullers
	ahead      lookahead
	heavy      gates
	rates      rates
	busy       busy
}

// Limits bound what one client, and all of them together, can hold. A zero
// field means its default.
type Limits struct {
	Body        int64         // bytes of a JSON body; half of BodyBudget, which is the most
	Anonymous   int64         // bytes of a JSON body without a usable token; 2 MiB, which is Attic's limit
	BodyBudget  int64         // bytes of JSON bodies in memory together; 64 MiB
	PathsBytes  int64         // decoded bytes of one commit, told to our clients; 16 MiB
	Uploads     int           // upload-path requests at a time; 16
	Packs       int           // packs at a time; 16
	Waiting     int64         // bytes of NARs that wait for their narinfos; half of the spool's budget, or 1 GiB
	Early       time.Duration // how long a narinfo waits for its NAR and its references, which Nix sends before; 10 s
	Signatures  int64         // bytes of signatures that are kept; 8 MiB
	Commits     int           // paths requests at a time; 4
	Queue       time.Duration // how long a request waits for its turn before 503; 10 minutes, for the stock client does not come back
	Return      time.Duration // the same for packs and commits, whose client comes back; 45 s
	Patience    time.Duration // how long one with a place may wait for 256 KiB of its body while others wait for a place; 10 s
	Stall       time.Duration // how long a request may make no progress; 60 s
	Drain       int64         // bytes of an unread body that are read away after an early answer; 64 MiB
	DrainTime   time.Duration // how long that may take; 5 s
	Idle        time.Duration // how long a connection may be idle; 2 minutes
	Header      time.Duration // how long a request header may take; 15 s
	Shutdown    time.Duration // how long a stop waits for requests in flight; 25 s
	Connections int           // connections at a time; 2048
}

func (l Limits) withDefaults() Limits {
	def(&l.Body, 32<<20)
	def(&l.Anonymous, 2<<20)
	def(&l.BodyBudget, 64<<20)
	def(&l.PathsBytes, 16<<20)
	def(&l.Uploads, 16)
	def(&l.Packs, 16)
	def(&l.Commits, 4)
	def(&l.Signatures, 8<<20)
	def(&l.Waiting, 1<<30)
	def(&l.Early, 10*time.Second)
	def(&l.Queue, 10*time.Minute)
	def(&l.Return, min(45*time.Second, l.Queue))
	def(&l.Patience, 10*time.Second)
	def(&l.Stall, time.Minute)
	def(&l.Drain, 64<<20)
	def(&l.DrainTime, 5*time.Second)
	def(&l.Idle, 2*time.Minute)
	def(&l.Header, 15*time.Second)
	def(&l.Shutdown, 25*time.Second)
	def(&l.Connections, 2048)
	// One body leaves room for others, however slowly it comes.
	l.Body = min(l.Body, max(l.BodyBudget/2, 1))
	return l
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (s *Server) init() {
	s.once.Do(func() {
		if s.Waiting != nil {
			def(&s.Limits.Waiting, s.Waiting.Spool.Budget/2)
		}
		s.Limits = s.Limits.withDefaults()
		def(&s.MaxNarInfoSize, 1<<20)
		def(&s.TellShareFrom, 64<<10)
		def(&s.Cut, chunk.DefaultParams)
		if s.Now == nil {
			s.Now = time.Now
		}
		if s.Log == nil {
			s.Log = slog.Default()
		}
		if s.Roots == nil {
			s.Roots = &roots.Keeper{DB: s.DB}
		}
		s.routes = s.buildRoutes()
		s.heavy = newGates(s.Limits)
		s.rates.set(s.Rates)
		s.caches.load = s.loadCaches
		s.keys.root = s.Root
		s.signed.limit = s.Limits.Signatures
	})
}

// Handler answers every request.
func (s *Server) Handler() http.Handler {
	s.init()
	return http.HandlerFunc(s.serve)
}
