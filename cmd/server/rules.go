package main

import (
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/nix"
)

// signers lists by cache the keys of which one must have signed what is pushed there.
func signers(cfg *config.Server) map[string][]nix.PublicKey {
	keys := map[string][]nix.PublicKey{}
	for _, rule := range cfg.CacheRules {
		keys[rule.Cache] = rule.RequireSignedBy
	}
	return keys
}
