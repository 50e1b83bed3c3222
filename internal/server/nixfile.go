package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/unpack"
)

// getUploaded answers for the NARs that Nix has uploaded, by the names that it gave them. Nix remembers its own
// narinfos for a month, and asks by them rather than by ours. handled is false when the name is no such one.
func (s *Server) getUploaded(w http.ResponseWriter, r *http.Request, cacheName string) (handled bool, err error) {
	name, err := param(r, "name")
	if err != nil {
		return false, err
	}
	f, ok, err := parseNARFile(name)
	if !ok || err != nil {
		return false, nil // whoever asks is told that there is none
	}
	if r.Method == http.MethodHead {
		return s.headWaiting(w, r, cacheName, f)
	}
	cache, err := s.readable(r)
	if err != nil {
		return true, err
	}
	var hash string
	err = s.DB.View(r.Context(), func(tx *meta.Tx) (err error) {
		hash, err = tx.UploadedFile(cache.ID, f.hash)
		return err
	})
	if err != nil {
		return true, err
	}
	o, err := s.pullable(r, cacheName, hash)
	if err != nil {
		return true, err
	}
	showVisibility(w, cache)
	return true, s.sendAs(w, r, o, f.compression)
}

// headWaiting answers whether an uploaded NAR waits for its narinfo: what is stored already is no help to a narinfo
// of another path.
func (s *Server) headWaiting(w http.ResponseWriter, r *http.Request, cacheName string, f narFile) (handled bool, err error) {
	cache, err := s.cache(r.Context(), cacheName)
	if err != nil || s.Waiting == nil || callerOf(r).perms(cacheName)&token.Push == 0 {
		return false, nil
	}
	size, ok := s.Waiting.Promise(s.waitingKey(r, cache, f))
	if !ok {
		return false, nil
	}
	w.Header().Set("Content-Type", "application/x-nix-nar")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(http.StatusOK)
	return true, nil
}

// sendAs sends a NAR in the compression that the client remembers. Other than zstd, nothing is compressed for it.
func (s *Server) sendAs(w http.ResponseWriter, r *http.Request, o *object, compression string) error {
	if compression == "bzip2" { // which cannot be had without the work
		return noSuchObject()
	}
	nar, err := s.Depot.Open(r.Context(), o.cache.ID, o.path.Hash)
	if errors.Is(err, meta.ErrNotFound) {
		return noSuchObject()
	}
	if err != nil {
		return fmt.Errorf("open NAR of %s: %w", o.path.StorePath, err)
	}
	s.touched.add(o.cache.ID, o.path.Hash)
	body := nar.Reader(r.Context(), nar.Size)
	defer body.Close()
	if !o.cache.Public {
		body = s.untilRevoked(r, body)
	}
	w.Header().Set("Content-Type", "application/x-nix-nar")
	if compression == "zstd" {
		w.Header().Set("Content-Length", strconv.FormatInt(nar.Size, 10))
		_, err = io.Copy(w, body)
		return err
	}
	const frame = 1 << 20 // the largest
	release, err := s.acquire(r.Context(), 2*frame)
	if err != nil {
		return err
	}
	defer release()
	raw, err := unpack.NewReaderWithin("zstd", body, frame)
	if err != nil {
		return err
	}
	defer raw.Close()
	if compression == "xz" {
		return unpack.StoreXZ(w, raw)
	}
	w.Header().Set("Content-Length", strconv.FormatUint(o.nar.Size, 10))
	_, err = io.Copy(w, raw)
	return err
}
