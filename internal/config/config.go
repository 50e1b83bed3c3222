// Package config reads server.toml, as Attic's servers have it and with tables of
// our own, and the environment.
//
//	listen, allowed-hosts, api-endpoint, substituter-endpoint, soft-delete-caches,
//	require-proof-of-possession, max-nar-info-size
//	[database] [storage] [chunking] [compression] [garbage-collection]
//	[jwt] [jwt.signing]                                  Attic's, all of them
//	[oidc] [[oidc.issuer]] [[trust]]                     ours
//	trusted-proxies [limits] [audit]                     ours
//
// A file written for Attic works as it is (testdata/attic). What has another meaning
// here, or none, is told by a warning and never refused; what cannot be meant is an error
// that names the file, the line, the key and what to write in its place. Nothing
// but the file itself is read or made: check-config runs in sandboxes where the
// database and the secrets are not.
package config

import (
	"slices"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/peer"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

// Server is a checked configuration.
type Server struct {
	File                string // what it came from; empty: nothing was configured at all
	Data                string // directory of what has no place of its own
	Fly                 bool   // a machine of fly.io
	Listen              string // numeric IP:port
	AllowedHosts        []string
	APIEndpoint         string // with its last slash; empty: made from the request
	SubstituterEndpoint string // the same
	SoftDeleteCaches    bool
	RequireProof        bool  // of possession, by stock uploads of what is there already
	MaxNarInfoSize      int64 // bytes
	Database            Database
	Storage             Storage
	Chunking            chunk.Params
	NARSizeThreshold    int64 // bytes from which Attic would cut a NAR; never 0
	Compression         Compression
	GC                  GC
	Verify              Verify
	JWT                 JWT
	RootKey             Secret // ATTIC_SERVER_ROOT_KEY, for servers that have a public key only
	OIDC                OIDC
	Trust               []trust.Policy // each has been compiled once, so they are right
	Peers               peer.Finder    // whose word counts for a request's address
	Limits              Limits
	Audit               Audit
	CacheRules          []CacheRule
	Pins                PinRules
	Warnings            []string // one line each
}

// Database is where metadata is.
type Database struct {
	URL       string
	File      string // SQLite's; ":memory:"
	Create    bool   // make the file if it is not there (mode=rwc)
	Heartbeat bool
}

// Types of Storage.
const (
	Local = "local"
	S3    = "s3"
)

// Storage is where packs and the log are.
type Storage struct {
	Type   string // Local or S3
	Path   string // of Local
	Region string // this and what follows: of S3
	Bucket string
	// Endpoint is empty for AWS itself.
	Endpoint string
	// PathStyle says whether URLs have the bucket in the path or before the host; nil
	// lets the store choose.
	PathStyle *bool
	// AccessKeyID is empty when credentials are to be found as AWS's tools find them.
	AccessKeyID     string
	SecretAccessKey Secret
	SessionToken    Secret // of temporary credentials; most have none

	Redirect   string // of a bucket: RedirectAuto or RedirectNever
	CacheBytes int64  // of the volume, for small reads from a bucket; 0: no cache; or CacheAuto
}

// Compression is what Attic would store chunks with. Packs are always zstd.
type Compression struct {
	Type  string // none, brotli, zstd, xz
	Level *int64
}

// JWT says how tokens are verified and signed.
type JWT struct {
	Issuer    string
	Audiences []string // nil: not bound
	// Keys is empty when neither file nor environment has any: then a server on one
	// disk makes a secret and keeps it beside the data; any other must refuse to start.
	Keys []token.Key
	// Previous keys verify and do not sign: tokens of theirs stay good while machines
	// get new ones.
	Previous []token.Key
}

// OIDC says whose ID tokens may be exchanged.
type OIDC struct {
	Audience string
	MaxTTL   time.Duration // the longest life of a token, whatever a policy says
	Issuers  []Issuer      // GitHub's is always among them
}

// Issuer is one [[oidc.issuer]].
type Issuer struct {
	URL           string
	Kind          trust.Kind // whose claims its tokens have
	JWKSFile      string     // keys from a file in place of the network
	AllowInsecure bool       // http or a private address
}

// Kinds says of what kind the issuers are.
func (o OIDC) Kinds() trust.Issuers {
	kinds := trust.Issuers{}
	for _, i := range o.Issuers {
		kinds[i.URL] = i.Kind
	}
	return kinds
}

// Lists tells whether an issuer is listed; empty means GitHub.
func (o OIDC) Lists(issuer string) bool {
	if issuer == "" {
		issuer = trust.GitHub
	}
	return slices.ContainsFunc(o.Issuers, func(i Issuer) bool { return i.URL == issuer })
}

// Secrets lists what root keys are wrapped with.
func (s *Server) Secrets() [][]byte {
	var secrets [][]byte
	for _, k := range slices.Concat(s.JWT.Keys, s.JWT.Previous) {
		if secret := k.Secret(); secret != nil {
			secrets = append(secrets, secret)
		}
	}
	if len(s.RootKey) > 0 {
		secrets = append(secrets, s.RootKey)
	}
	return secrets
}

// Secret is text that does not print.
type Secret []byte

// String hides the secret.
func (Secret) String() string { return "[redacted]" }

// GoString hides the secret.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }
