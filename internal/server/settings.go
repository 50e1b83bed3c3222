package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/token"
)

// This file changes caches, for whoever was found to have the right: the API's
// handlers by a token, the administrator by the machine.

// SettingsError says which of a cache's settings is impossible. Its text may be
// shown to the client.
type SettingsError struct{ Msg string }

func (e *SettingsError) Error() string { return e.Msg }

func badSetting(format string, args ...any) error {
	return &SettingsError{fmt.Sprintf(format, args...)}
}

// CreateCache makes a cache with the key that in has, or a new one; meta.ErrExists
// if the name is taken. The private key goes sealed into the database, and nowhere
// else.
func (s *Server) CreateCache(ctx context.Context, name string, in *api.CreateCache) (*meta.Cache, error) {
	s.init()
	if !token.ValidCacheName(name) {
		return nil, badSetting("%s is not a cache name", quoteShort(name))
	}
	cache := &meta.Cache{Name: name, Public: in.IsPublic, StoreDir: in.StoreDir,
		Priority: in.Priority, UpstreamKeys: in.UpstreamCacheKeyNames}
	if err := checkSettings(cache); err != nil {
		return nil, err
	}
	if err := s.keys.setKey(cache, in.Keypair.Text); err != nil {
		return nil, keypairError(err)
	}
	err := s.DB.Update(ctx, func(tx *meta.Tx) error {
		cache.CreatedAt = tx.Now()
		return tx.CreateCache(cache)
	})
	s.caches.forget()
	if err != nil {
		return nil, err
	}
	return cache, nil
}

// ConfigureCache changes what in says; nothing if a part of it is wrong. A missing
// cache is meta.ErrNotFound.
func (s *Server) ConfigureCache(ctx context.Context, name string, in *api.PatchCache) (*meta.Cache, error) {
	s.init()
	if err := in.CheckRetention(); err != nil {
		return nil, err
	}
	if in.Empty() {
		return nil, badSetting("No modifiable fields were given.")
	}
	var cache *meta.Cache
	err := s.DB.Update(ctx, func(tx *meta.Tx) (err error) {
		if cache, err = tx.Cache(name); err != nil {
			return err
		}
		if err := s.patch(cache, in); err != nil {
			return err
		}
		return tx.UpdateCache(cache)
	})
	s.caches.forget()
	if err != nil {
		return nil, err
	}
	return cache, nil
}

// DestroyCache deletes a cache with all its paths and pins, or hides it where
// deletion is soft. A missing cache is meta.ErrNotFound.
func (s *Server) DestroyCache(ctx context.Context, name string) error {
	s.init()
	err := s.DB.Update(ctx, func(tx *meta.Tx) error { return tx.DeleteCache(name, s.SoftDelete) })
	s.caches.forget()
	return err
}

// patch changes c as asked.
func (s *Server) patch(c *meta.Cache, in *api.PatchCache) error {
	if in.IsPublic != nil {
		c.Public = *in.IsPublic
	}
	if in.StoreDir != nil {
		c.StoreDir = *in.StoreDir
	}
	if in.Priority != nil {
		c.Priority = *in.Priority
	}
	if in.UpstreamCacheKeyNames != nil {
		c.UpstreamKeys = *in.UpstreamCacheKeyNames
	}
	if in.RetentionPeriod != nil {
		c.Retention = in.RetentionPeriod.Seconds
	}
	if in.Keypair != nil {
		if err := s.keys.setKey(c, in.Keypair.Text); err != nil {
			return keypairError(err)
		}
	}
	return checkSettings(c)
}

// keypairError tells the client nothing of what it sent: the text may be a secret.
func keypairError(err error) error {
	return &statusError{status: http.StatusBadRequest, name: api.RequestError, msg: "The keypair is not valid.", cause: err}
}

// Bounds of a cache's settings: what is stored must not be able to forge lines
// of nix-cache-info, nor grow without end.
const (
	maxUpstreamKeys   = 1000
	maxUpstreamKeyLen = 1024
)

func checkSettings(c *meta.Cache) error {
	if err := nix.ValidStoreDir(c.StoreDir); err != nil {
		return badSetting("%v", err)
	}
	if len(c.UpstreamKeys) > maxUpstreamKeys {
		return badSetting("upstream_cache_key_names: more than %d", maxUpstreamKeys)
	}
	for _, k := range c.UpstreamKeys {
		if k == "" || len(k) > maxUpstreamKeyLen || strings.ContainsFunc(k, unicode.IsControl) {
			return badSetting("upstream_cache_key_names: %s is no name of 1 to %d printable bytes", quoteShort(k), maxUpstreamKeyLen)
		}
	}
	return nil
}
