// Package token signs and verifies Attic's access tokens: JWTs that say what
// their bearer may do with caches whose names match a pattern.
//
//	{
//	  "exp": 4102444800, "nbf": 1700000000, "sub": "alice", "jti": "9f…",
//	  "https://jwt.attic.rs/v1": {
//	    "caches": { "main": {"r": 1, "w": 1}, "team-*": {"r": 1} }
//	  },
//	  "https://github.com/org/attic-action/v1": { "pins": ["acme/infra/*"] }
//	}
//
// The second namespace is ours and optional. A token is read as Attic reads it,
// member by member in document order: of several patterns that match a name the
// first decides, and any member of the wrong shape makes the whole token
// unusable. Whoever holds an unusable token is nobody, not an error: the callers
// of Verify go on without claims and log why.
package token

import (
	"fmt"
	"strings"
)

// Perm is a set of permissions on one cache.
type Perm uint8

// The permissions. Delete is granted and carried, but no endpoint asks for it.
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

// perms lists each permission's name and its key in a token, in the order in
// which tokens and command lines have them.
var perms = [...]struct {
	perm      Perm
	name, key string
}{
	{Pull, "pull", "r"},
	{Push, "push", "w"},
	{Delete, "delete", "d"},
	{CreateCache, "create-cache", "cc"},
	{ConfigureCache, "configure-cache", "cr"},
	{ConfigureCacheRetention, "configure-cache-retention", "cq"},
	{DestroyCache, "destroy-cache", "cd"},
}

// Has reports whether p holds all of q.
func (p Perm) Has(q Perm) bool { return p&q == q }

// String lists the names of p's permissions, "pull,push", or says "none".
func (p Perm) String() string {
	var names []string
	for _, x := range perms {
		if p.Has(x.perm) {
			names = append(names, x.name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

// ParsePerm returns the permission called name: pull, push, delete,
// create-cache, configure-cache, configure-cache-retention or destroy-cache.
func ParsePerm(name string) (Perm, error) {
	for _, x := range perms {
		if x.name == name {
			return x.perm, nil
		}
	}
	return 0, fmt.Errorf("no permission is called %q", name)
}
