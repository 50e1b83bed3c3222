// Package token signs and verifies Attic's access tokens.
package token

import (
	"errors"
	"time"
)

// Perm is a set of permissions on a cache.
type Perm uint8

// The seven permissions.
const (
	Pull Perm = 1 << iota
	Push
	Delete
	CreateCache
	ConfigureCache
	ConfigureCacheRetention
	DestroyCache
)

// All is every permission.
const All = Pull | Push | Delete | CreateCache | ConfigureCache | ConfigureCacheRetention | DestroyCache

// Grants are permissions by cache name pattern, in order.
type Grants struct{ entries []grant }

type grant struct {
	pattern string
	perm    Perm
}

// For returns the permissions on a cache.
func (g Grants) For(cache string) Perm { return 0 }

// Add grants p on what pattern matches.
func (g *Grants) Add(pattern string, p Perm) error { return errors.New("not yet") }

// Claims are what a token says.
type Claims struct {
	Subject, ID, Issuer          string
	Audience                     []string
	Expires, NotBefore, IssuedAt *time.Time
	Caches                       Grants
	Pins                         []string
}

// Key is one key that signs or verifies.
type Key struct{ k *key }

type key struct{}

// HS256 returns a key of a shared secret.
func HS256(secret []byte) (Key, error) { return Key{}, errors.New("not yet") }

// RS256Secret returns a key of an RSA private key in PEM.
func RS256Secret(pem []byte) (Key, error) { return Key{}, errors.New("not yet") }

// RS256Public returns a key of an RSA public key in PEM, which only verifies.
func RS256Public(pem []byte) (Key, error) { return Key{}, errors.New("not yet") }

// CanSign reports whether k signs.
func (k Key) CanSign() bool { return false }

// Secret returns the secret bytes of k, nil for a public key.
func (k Key) Secret() []byte { return nil }

// Authority signs and verifies tokens.
type Authority struct {
	Keys      []Key
	Issuer    string
	Audiences []string
	Now       func() time.Time
}

// Sign returns a token with these claims.
func (a *Authority) Sign(c Claims) (string, error) { return "", errors.New("not yet") }

// Verify returns the claims of a token.
func (a *Authority) Verify(jwt string) (*Claims, error) { return nil, errors.New("not yet") }

// Dump returns the claims as one line of JSON.
func (c Claims) Dump() ([]byte, error) { return nil, errors.New("not yet") }

// ParsePattern checks the grammar of a cache name pattern.
func ParsePattern(s string) error { return errors.New("not yet") }

// ValidCacheName reports whether s is the name of a cache.
func ValidCacheName(s string) bool { return false }

// ParseDuration reads a duration like "2h 30min".
func ParseDuration(s string) (time.Duration, error) { return 0, errors.New("not yet") }
