package config

import (
	"fmt"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/token"
)

// CacheRule is one [[cache-rules]]: what a cache asks of a push beyond the right to push.
type CacheRule struct {
	Cache           string          // its name; the cache need not exist yet
	RequireSignedBy []nix.PublicKey // one of them must have signed each path
}

type fileRule struct {
	Cache           *string  `toml:"cache"`
	RequireSignedBy []string `toml:"require-signed-by"`
}

// rules reads [[cache-rules]]. A rule that asks for nothing is a mistake that would leave a cache open.
func (b *builder) rules(s *Server) error {
	seen := map[string]bool{}
	for i, f := range b.file.Rules {
		at := fmt.Sprintf("cache-rules[%d]", i)
		switch {
		case f.Cache == nil:
			return b.wrong(at, "no cache: want its name")
		case !token.ValidCacheName(*f.Cache):
			return b.wrong(at+".cache", "%q is not a cache name; patterns are not taken here", *f.Cache)
		case seen[*f.Cache]:
			return b.wrong(at+".cache", "%s has a rule already", *f.Cache)
		case len(f.RequireSignedBy) == 0:
			return b.wrong(at, "no require-signed-by: want public keys, name:base64")
		}
		seen[*f.Cache] = true
		rule := CacheRule{Cache: *f.Cache}
		for j, text := range f.RequireSignedBy {
			key, err := nix.ParsePublicKey(text)
			if err != nil {
				return b.wrong(fmt.Sprintf("%s.require-signed-by[%d]", at, j), "%v", err)
			}
			rule.RequireSignedBy = append(rule.RequireSignedBy, key)
		}
		s.CacheRules = append(s.CacheRules, rule)
	}
	return nil
}
