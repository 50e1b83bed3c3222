package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/token"
)

// readable finds the cache of a request for something else than a path. Who may do nothing with the cache is
// told the same whether it is there or not.
func (s *Server) readable(r *http.Request) (*meta.Cache, error) {
	name, err := cacheParam(r)
	if err != nil {
		return nil, err
	}
	cache, err := s.cache(r.Context(), name)
	if errors.Is(err, meta.ErrNotFound) {
		return nil, denied(callerOf(r), noSuchObject())
	}
	if err != nil {
		return nil, err
	}
	switch have := callerOf(r).permsOn(cache); {
	case have&(token.Pull|token.Push) == 0:
		return nil, denied(callerOf(r), noSuchObject())
	case have&token.Pull == 0:
		return nil, forbidden("pull from this cache")
	}
	return cache, nil
}

// getListing says what a path holds, as Nix writes a .ls file.
func (s *Server) getListing(w http.ResponseWriter, r *http.Request) error {
	cacheName, hash, err := nameParam(r, "ls")
	if err != nil {
		return err
	}
	o, err := s.pullable(r, cacheName, hash)
	if err != nil {
		return err
	}
	showVisibility(w, o.cache)
	var listing []byte
	err = s.DB.View(r.Context(), func(tx *meta.Tx) (err error) {
		listing, err = tx.Listing(o.nar.ID)
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return notFound(api.NoSuchObject, "There is no listing of this path.")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return depot.WriteListing(w, listing)
}

// ignored takes what Nix sends and the server makes itself: listings, and links to debug information, which
// both follow from the NAR.
func (s *Server) ignored(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.pushing(r, ""); err != nil {
		return err
	}
	recordOf(r).event.Action = "" // nothing has changed
	send(w, http.StatusOK, "", nil)
	return nil
}

// putCacheInfo is sent by a Nix that may not read what is there.
func (s *Server) putCacheInfo(_ http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	cache, err := s.permit(r, name, token.Push|token.Pull, "pull from this cache, which nix copy needs beside the right to push")
	if err != nil {
		return err
	}
	return requestError("nix-cache-info: the settings of cache %s are not changed by uploads", cache.Name)
}

// getDebugInfo leads to the debug information for a build ID, in the form of a link that Nix writes.
func (s *Server) getDebugInfo(w http.ResponseWriter, r *http.Request) error {
	cache, err := s.readable(r)
	if err != nil {
		return err
	}
	name, err := param(r, "name")
	if err != nil {
		return err
	}
	id := strings.TrimSuffix(name, ".debug")
	if !nar.ValidBuildID(id) {
		return noSuchObject()
	}
	var hash string
	err = s.DB.View(r.Context(), func(tx *meta.Tx) (err error) {
		hash, err = tx.DebugPath(cache.ID, id)
		return err
	})
	if err != nil {
		return err
	}
	o, err := s.pullable(r, cache.Name, hash)
	if err != nil {
		return err
	}
	showVisibility(w, cache)
	body, err := json.Marshal(map[string]string{
		"archive": "../nar/" + hash + ".nar?f=" + shortForm(o.nar.Form),
		"member":  nar.DebugFile(id),
	})
	if err != nil {
		return err
	}
	send(w, http.StatusOK, "application/json", body)
	return nil
}

// logName is the derivation whose log a request is about: a base name, so it leads nowhere else.
func logName(r *http.Request, cache *meta.Cache) (name string, ok bool, err error) {
	if name, err = param(r, "name"); err != nil {
		return "", false, err
	}
	_, err = nix.ParseBaseName(cache.StoreDir, name)
	return name, err == nil && strings.HasSuffix(name, ".drv"), nil
}

func (s *Server) getLog(w http.ResponseWriter, r *http.Request) error {
	cache, err := s.readable(r)
	if err != nil {
		return err
	}
	showVisibility(w, cache)
	name, ok, err := logName(r, cache)
	if err != nil {
		return err
	}
	if !ok {
		return notFound(api.NoSuchObject, "The cache has no such build log.")
	}
	var l *meta.BuildLog
	err = s.DB.View(r.Context(), func(tx *meta.Tx) (err error) {
		l, err = tx.BuildLog(cache.ID, name)
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return notFound(api.NoSuchObject, "The cache has no such build log.")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.FormatInt(l.Size, 10))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	return depot.WriteBuildLog(w, l)
}

func (s *Server) putLog(w http.ResponseWriter, r *http.Request) error {
	cache, err := s.pushing(r, "")
	if err != nil {
		return err
	}
	name, ok, err := logName(r, cache)
	if err != nil {
		return err
	}
	if !ok {
		return requestError("log: %s is not the base name of a derivation", quoteShort(name))
	}
	recordOf(r).event.Object = name
	leave, err := s.heavy.enter(r, s.heavy.uploads, 1)
	if err != nil {
		return err
	}
	defer leave()
	scope, err := s.scope(r.Context(), callerOf(r), cache)
	if err != nil {
		return err
	}
	body, memory, err := encodedBody(r)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := s.Depot.PutBuildLog(r.Context(), scope, name, memory, body); err != nil {
		return err
	}
	send(w, http.StatusOK, "", nil)
	return nil
}

// realisationID is the last segment without .doi.
func realisationID(r *http.Request) (id string, ok bool, err error) {
	name, err := param(r, "name")
	if err != nil {
		return "", false, err
	}
	id, ok = strings.CutSuffix(name, ".doi")
	return id, ok && api.ValidRealisationID(id), nil
}

func (s *Server) getRealisation(w http.ResponseWriter, r *http.Request) error {
	cache, err := s.readable(r)
	if err != nil {
		return err
	}
	showVisibility(w, cache)
	id, ok, err := realisationID(r)
	if err != nil {
		return err
	}
	if !ok {
		return noSuchObject()
	}
	var rz *meta.Realisation
	err = s.DB.View(r.Context(), func(tx *meta.Tx) (err error) {
		rz, err = tx.Realisation(cache.ID, id)
		return err
	})
	if err != nil {
		return err
	}
	signed, err := api.DecodeRealisation([]byte(rz.Text), id, cache.StoreDir)
	if err != nil {
		return fmt.Errorf("read realisation %s: %v", id, err)
	}
	pairs, err := s.signers(r.Context(), cache)
	if err != nil {
		return err
	}
	// As of a path, the cache's word is that somebody who may push to it said so.
	fingerprint := signed.Fingerprint()
	for _, pair := range pairs {
		signed.Sign(s.signed.sign(pair, fingerprint))
	}
	send(w, http.StatusOK, "application/json", signed.Encode())
	return nil
}

func (s *Server) putRealisation(w http.ResponseWriter, r *http.Request) error {
	id, ok, err := realisationID(r)
	if err != nil {
		return err
	}
	if !ok {
		return requestError("realisations: %s is not sha256:, 64 digits, !, an output, and .doi", quoteShort(id))
	}
	cache, err := s.pushing(r, id)
	if err != nil {
		return err
	}
	text, err := decodedBody(r, api.MaxRealisation)
	if err != nil {
		return err
	}
	rz, err := api.DecodeRealisation(text, id, cache.StoreDir)
	if err != nil {
		return err
	}
	scope, err := s.scope(r.Context(), callerOf(r), cache)
	if err != nil {
		return err
	}
	if err := s.Depot.PutRealisation(r.Context(), scope, rz); err != nil {
		return err
	}
	send(w, http.StatusOK, "", nil)
	return nil
}
