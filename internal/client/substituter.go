package client

import "strings"

// Substituter is the URL from which Nix pulls a cache of the server at endpoint: what the server says, unless that would carry the
// token in clear text where it was encrypted so far.
func (c *Config) Substituter(endpoint, cache string) string {
	said := strings.TrimRight(c.SubstituterEndpoint, "/")
	if said != "" && (strings.HasPrefix(said, "https:") || !strings.HasPrefix(endpoint, "https:")) {
		return said
	}
	return strings.TrimRight(endpoint, "/") + "/" + cache
}

// PublicKeys are the keys that sign what the cache serves: the present one first, and former ones.
func (c *Config) PublicKeys() []string {
	keys := []string{c.PublicKey}
	if c.AtticAction != nil {
		for _, old := range c.AtticAction.OldKeys {
			keys = append(keys, old.PublicKey)
		}
	}
	return keys
}
