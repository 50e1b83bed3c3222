package api

import (
	"encoding/json"
	"math"
)

// CacheConfig answers GET cache-config. Keys stand in Attic's order; a client
// may meet a server that leaves any of them out.
type CacheConfig struct {
	SubstituterEndpoint   string     `json:"substituter_endpoint"`
	APIEndpoint           string     `json:"api_endpoint"`
	PublicKey             string     `json:"public_key"`
	IsPublic              bool       `json:"is_public"`
	StoreDir              string     `json:"store_dir"`
	Priority              int32      `json:"priority"`
	UpstreamCacheKeyNames []string   `json:"upstream_cache_key_names"`
	RetentionPeriod       Retention  `json:"retention_period"`
	AtticAction           *Extension `json:"attic_action,omitempty"`
}

// Keypair says where a cache's signing key comes from: Generate, or the text
// form of an Ed25519 keypair ("name:base64"). Text is a secret.
type Keypair struct {
	Generate bool
	Text     string
}

// String hides the secret.
func (Keypair) String() string { return "[redacted]" }

// GoString hides the secret.
func (Keypair) GoString() string { return "[redacted]" }

// MarshalJSON writes "Generate" or {"Keypair":"…"}.
func (k Keypair) MarshalJSON() ([]byte, error) {
	if k.Generate {
		return []byte(`"Generate"`), nil
	}
	return json.Marshal(map[string]string{"Keypair": k.Text})
}

// Retention is a cache's retention period: nil Seconds is the global default,
// 0 keeps for ever.
type Retention struct{ Seconds *uint32 }

// MaxRetention is the longest period a cache can have, in seconds.
const MaxRetention = math.MaxInt32

// MarshalJSON writes "Global" or {"Period":n}.
func (r Retention) MarshalJSON() ([]byte, error) {
	if r.Seconds == nil {
		return []byte(`"Global"`), nil
	}
	return json.Marshal(map[string]uint32{"Period": *r.Seconds})
}

// CreateCache is the body of POST cache-config.
type CreateCache struct {
	Keypair               Keypair  `json:"keypair"`
	IsPublic              bool     `json:"is_public"`
	StoreDir              string   `json:"store_dir"`
	Priority              int32    `json:"priority"`
	UpstreamCacheKeyNames []string `json:"upstream_cache_key_names"`
}

// PatchCache is the body of PATCH cache-config; nil is "not given".
type PatchCache struct {
	Keypair               *Keypair   `json:"keypair,omitempty"`
	IsPublic              *bool      `json:"is_public,omitempty"`
	StoreDir              *string    `json:"store_dir,omitempty"`
	Priority              *int32     `json:"priority,omitempty"`
	UpstreamCacheKeyNames *[]string  `json:"upstream_cache_key_names,omitempty"`
	RetentionPeriod       *Retention `json:"retention_period,omitempty"`
}

// Empty reports whether p changes nothing. Attic answers that with 400
// RequestError, but only after it has looked at the caller's permissions.
func (p *PatchCache) Empty() bool {
	return p.Keypair == nil && p.IsPublic == nil && p.StoreDir == nil && p.Priority == nil &&
		p.UpstreamCacheKeyNames == nil && p.RetentionPeriod == nil
}

// CheckRetention refuses, with 400, a period that is too long to be stored. Like
// Empty it comes after the permissions.
func (p *PatchCache) CheckRetention() error {
	if r := p.RetentionPeriod; r != nil && r.Seconds != nil && *r.Seconds > MaxRetention {
		return badRequest("retention_period: %d seconds is more than %d", *r.Seconds, MaxRetention)
	}
	return nil
}
