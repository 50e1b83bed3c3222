package server

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/token"
)

func (s *Server) getCacheConfig(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	cache, err := s.permit(r, name, token.Pull, "pull from this cache")
	if err != nil {
		return err
	}
	endpoint, err := s.apiEndpoint(r)
	if err != nil {
		return err
	}
	substituter := s.SubstituterEndpoint
	if substituter == "" {
		substituter = endpoint
	}
	ext := s.extension()
	if ext.OldKeys, err = s.oldPublicKeys(r.Context(), cache); err != nil {
		return err
	}
	names := cache.UpstreamKeys
	if names == nil {
		names = []string{}
	}
	sendJSON(w, http.StatusOK, api.CacheConfig{
		SubstituterEndpoint:   substituter + cache.Name,
		APIEndpoint:           endpoint,
		PublicKey:             cache.PublicKey,
		IsPublic:              cache.Public,
		StoreDir:              cache.StoreDir,
		Priority:              cache.Priority,
		UpstreamCacheKeyNames: names,
		RetentionPeriod:       api.Retention{Seconds: cache.Retention},
		AtticAction:           ext,
	})
	return nil
}

// apiEndpoint is where clients reach the server: as configured, else as this
// client reached it.
func (s *Server) apiEndpoint(r *http.Request) (string, error) {
	if s.APIEndpoint != "" {
		return s.APIEndpoint, nil
	}
	if !validAuthority(r.Host) {
		return "", requestError("The Host header is no authority of a URL")
	}
	scheme := "http"
	if r.Header.Get("X-Forwarded-Proto") == "https" { // the first of several counts
		scheme = "https"
	}
	return scheme + "://" + r.Host + "/", nil
}

// validAuthority tells whether a URL can have this host: brackets come once, as
// a pair; outside of them is no percent sign and at most one colon. What follows
// the colon is free, as it is in Attic.
func validAuthority(host string) bool {
	if host == "" || strings.ContainsAny(host, "/?#\\@ ") {
		return false
	}
	if before, rest, ok := strings.Cut(host, "["); ok {
		_, after, closed := strings.Cut(rest, "]")
		if !closed || strings.ContainsAny(before+after, "[]") {
			return false
		}
		host = before + after
	}
	return !strings.ContainsAny(host, "]%") && strings.Count(host, ":") <= 1
}

// maxMissingChunks is how many chunks one question may be about. Our clients are told.
const maxMissingChunks = 64 << 10

func (s *Server) extension() *api.Extension {
	return &api.Extension{
		Cut: api.Cut{Version: chunk.Version, Min: s.Cut.Min, Avg: s.Cut.Avg, Max: s.Cut.Max, Literal: chunk.LiteralMax},
		// The index's version, APK1.
		Packs:  []int{1},
		Limits: api.Limits{PackBytes: pack.MaxPackSize, PathsBytes: s.Limits.PathsBytes, MissingChunks: maxMissingChunks},
		Routes: api.Routes(),
	}
}

func (s *Server) createCache(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	event := audited(r, audit.CacheCreate, name)
	var in *api.CreateCache
	err = s.withBody(r, func(body []byte) (err error) {
		in, err = api.DecodeCreateCache(r.Header.Get("Content-Type"), body)
		return asText(err)
	})
	if err != nil {
		return err
	}
	// By the token alone: whether the cache exists is nobody's business yet.
	switch have := callerOf(r).perms(name); {
	case have == 0:
		return denied(callerOf(r), unauthorized())
	case have&token.CreateCache == 0:
		return forbidden("create this cache")
	}
	event.Object = "public=" + strconv.FormatBool(in.IsPublic)
	_, err = s.CreateCache(r.Context(), name, in)
	if errors.Is(err, meta.ErrExists) {
		return &statusError{status: http.StatusBadRequest, name: api.CacheAlreadyExists, msg: "The cache already exists.", cause: err}
	}
	if err != nil {
		return err
	}
	send(w, http.StatusOK, "", nil)
	return nil
}

func (s *Server) configureCache(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	event := audited(r, audit.CacheConfigure, name)
	var in *api.PatchCache
	err = s.withBody(r, func(body []byte) (err error) {
		in, err = api.DecodePatchCache(r.Header.Get("Content-Type"), body)
		return asText(err)
	})
	if err != nil {
		return err
	}
	if _, err := s.permit(r, name, token.ConfigureCache, "configure this cache"); err != nil {
		return err
	}
	if in.RetentionPeriod != nil {
		if _, err := s.permit(r, name, token.ConfigureCacheRetention, "configure this cache's retention"); err != nil {
			return err
		}
	}
	event.Object = changes(in)
	_, err = s.ConfigureCache(r.Context(), name, in)
	if errors.Is(err, meta.ErrNotFound) { // destroyed since
		return noSuchCache()
	}
	if err != nil {
		return err
	}
	send(w, http.StatusOK, "", nil)
	return nil
}

// changes names what a request changes, for the audit: values where they decide who
// may read or what is trusted, and never a key.
func changes(in *api.PatchCache) string {
	var out []string
	if in.Keypair != nil {
		out = append(out, "keypair")
	}
	if in.IsPublic != nil {
		out = append(out, "public="+strconv.FormatBool(*in.IsPublic))
	}
	if in.StoreDir != nil {
		out = append(out, "store_dir="+*in.StoreDir)
	}
	if in.Priority != nil {
		out = append(out, "priority="+strconv.Itoa(int(*in.Priority)))
	}
	if in.UpstreamCacheKeyNames != nil {
		out = append(out, "upstream_cache_key_names="+strings.Join(*in.UpstreamCacheKeyNames, ","))
	}
	if in.RetentionPeriod != nil {
		out = append(out, "retention_period")
	}
	return strings.Join(out, " ")
}

func (s *Server) destroyCache(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	audited(r, audit.CacheDestroy, name)
	if _, err := s.permit(r, name, token.DestroyCache, "destroy this cache"); err != nil {
		return err
	}
	err = s.DestroyCache(r.Context(), name)
	if errors.Is(err, meta.ErrNotFound) { // lost a race
		return noSuchCache()
	}
	if err != nil {
		return err
	}
	send(w, http.StatusOK, "", nil)
	return nil
}
