package api

import "time"

// Extension is the key attic_action of CacheConfig: what this server can do
// beyond Attic's protocol. A server without it is a stock server.
type Extension struct {
	Cut    Cut               `json:"cut"`
	Packs  []int             `json:"packs"` // versions of the pack format it takes
	Limits Limits            `json:"limits"`
	Routes map[string]string `json:"routes"` // name → path with {cache}, {sha256}
	// OldKeys are public keys that the cache had before its present one and that
	// sign along for a while.
	OldKeys []OldKey `json:"old_public_keys,omitempty"`
}

// OldKey is a public key and when it stops signing.
type OldKey struct {
	PublicKey string    `json:"public_key"`
	Until     time.Time `json:"until"`
}

// Cut is how both sides cut NARs, sizes in bytes.
type Cut struct {
	Version int `json:"version"`
	Min     int `json:"min"`
	Avg     int `json:"avg"`
	Max     int `json:"max"`
	Literal int `json:"literal"`
}

// Limits are the largest requests a server takes.
type Limits struct {
	PackBytes     int64 `json:"pack_bytes"`
	PathsBytes    int64 `json:"paths_bytes"`    // decoded body of one POST paths
	MissingChunks int64 `json:"missing_chunks"` // hashes in one POST chunks/missing
}

// PackResult answers PUT packs/{sha256}.
type PackResult struct {
	Size   int64 `json:"size"`   // bytes of the pack
	Chunks int   `json:"chunks"` // chunk entries in it
}

// PathHeader describes one path of POST paths; a piece list follows it.
type PathHeader struct {
	StorePath  string   `json:"store_path"`
	NARHash    string   `json:"nar_hash"` // "sha256:<hex>"
	NARSize    uint64   `json:"nar_size"`
	References []string `json:"references"`         // base names
	Upstream   []string `json:"upstream,omitempty"` // base names of references that the cache's upstreams sign
	Deriver    string   `json:"deriver,omitempty"`
	System     string   `json:"system,omitempty"`
	CA         string   `json:"ca,omitempty"`
	Sigs       []string `json:"sigs,omitempty"`
	Listing    []byte   `json:"listing,omitempty"` // what the NAR holds: package nar's skeleton as zstd frames
	Offset     int64    `json:"offset,omitempty"`  // bytes of this piece list sent in earlier requests
	More       bool     `json:"more,omitempty"`    // the list goes on in a later request
}

// Results of a committed path.
const (
	Stored = "stored" // new
	Merged = "merged" // was there with the same NAR
	Kept   = "kept"   // was there with another NAR, which stays
	Staged = "staged" // waits for the rest of its piece list
)

// PathResult says what became of one path.
type PathResult struct {
	StorePathHash string `json:"store_path_hash"`
	Result        string `json:"result"`
}

// PathsResult answers POST paths, in the order of the request.
type PathsResult struct {
	Results []PathResult `json:"results"`
}

// ClosureRequest is the body of POST closure.
type ClosureRequest struct {
	StorePathHashes []string `json:"store_path_hashes"`
	List            bool     `json:"list,omitempty"` // what the closure consists of, too; for one hash only
}

// ClosureResult answers POST closure, by store path hash.
type ClosureResult struct {
	Complete []string `json:"complete"`
	Missing  []string `json:"missing"`
	Absent   []string `json:"absent"` // references that lack

	// On request: what of the closure is in the cache.
	Paths    map[string]uint64 `json:"paths,omitempty"`    // base names; bytes of their NARs
	Upstream []string          `json:"upstream,omitempty"` // base names of what these refer to and is elsewhere
}

// PathList answers GET paths: by hash, those behind the parameter after.
type PathList struct {
	Paths []ListedPath `json:"paths"`
	Next  string       `json:"next,omitempty"` // after, of the next page; empty: there is none
}

// ListedPath is one path of a PathList.
type ListedPath struct {
	Hash     string   `json:"hash"`
	Upstream []string `json:"upstream,omitempty"` // hashes of references that are left to upstream caches
}

// TrustConfig answers GET /_api/v1/oidc/config.
type TrustConfig struct {
	Issuers            []string `json:"issuers"`
	Audience           string   `json:"audience"`
	TokenEndpoint      string   `json:"token_endpoint"`
	RevocationEndpoint string   `json:"revocation_endpoint,omitempty"` // RFC 7009
}

// TokenResponse answers POST /_api/v1/oidc/token (RFC 8693).
type TokenResponse struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"` // seconds
	Scope           string `json:"scope"`
}

// TokenError is a refusal of POST /_api/v1/oidc/token (RFC 6749 §5.2).
type TokenError struct {
	Code        string `json:"error"`
	Description string `json:"error_description,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
}
