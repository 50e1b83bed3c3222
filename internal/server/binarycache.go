package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/token"
)

// getHome is a page that says what this is, and a liveness check.
func (s *Server) getHome(w http.ResponseWriter, r *http.Request) error {
	const page = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>attic-server</title></head>\n" +
		"<body><h1>attic-server</h1><p>A Nix binary cache that speaks Attic's protocol.</p></body></html>\n"
	send(w, http.StatusOK, "text/html; charset=utf-8", []byte(page))
	return nil
}

func (s *Server) getCacheInfo(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	cache, err := s.permit(r, name, token.Pull, "pull from this cache")
	if err != nil {
		return err
	}
	showVisibility(w, cache)
	body := fmt.Sprintf("WantMassQuery: 1\nStoreDir: %s\nPriority: %d\n", cache.StoreDir, cache.Priority)
	send(w, http.StatusOK, "text/x-nix-cache-info", []byte(body))
	return nil
}

// showVisibility lets a CDN know what it may keep. It is called once the pull
// check has passed; errors that come after it keep the header.
func showVisibility(w http.ResponseWriter, cache *meta.Cache) {
	if cache.Public {
		w.Header().Set(api.VisibilityHeader, "public")
	}
}

// An object is a path of a cache that the caller may pull.
type object struct {
	cache *meta.Cache
	path  *meta.Path
	nar   *meta.NAR
}

// pullable finds a path for a caller. Who may neither pull from the cache nor push
// to it is told the same whether the path, or the cache, is there or not.
func (s *Server) pullable(r *http.Request, cacheName, hash string) (*object, error) {
	if !nix.ValidPathHash(hash) {
		return nil, noSuchObject()
	}
	cache, err := s.cache(r.Context(), cacheName)
	if errors.Is(err, meta.ErrNotFound) {
		return nil, denied(callerOf(r), noSuchObject())
	}
	if err != nil {
		return nil, err
	}
	have := callerOf(r).permsOn(cache)
	if have&(token.Pull|token.Push) == 0 {
		return nil, denied(callerOf(r), noSuchObject()) // the right to configure is none to know what is there
	}
	o := &object{cache: cache}
	err = s.DB.View(r.Context(), func(tx *meta.Tx) (err error) {
		o.path, o.nar, err = tx.Path(cache.ID, hash)
		return err
	})
	switch {
	case errors.Is(err, meta.ErrNotFound), err == nil && o.nar.Damaged:
		return nil, noSuchObject() // what is damaged, Nix finds elsewhere or builds
	case err != nil:
		return nil, fmt.Errorf("find path %s in cache %s: %w", hash, cacheName, err)
	case have&token.Pull == 0:
		return nil, forbidden("pull from this cache")
	}
	return o, nil
}

// nameParam splits the last segment at its first dot, as Attic does.
func nameParam(r *http.Request, suffix string) (cache, hash string, err error) {
	if cache, err = cacheParam(r); err != nil {
		return "", "", err
	}
	name, err := param(r, "name")
	if err != nil {
		return "", "", err
	}
	hash, ext, _ := strings.Cut(name, ".")
	if ext != suffix {
		return "", "", notFound(api.NotFound, "The requested URL was not found.")
	}
	return cache, hash, nil
}

func (s *Server) getNarInfo(w http.ResponseWriter, r *http.Request) error {
	cacheName, hash, err := nameParam(r, "narinfo")
	if err != nil {
		return err
	}
	o, err := s.pullable(r, cacheName, hash)
	if err != nil {
		return err
	}
	showVisibility(w, o.cache)
	info, err := s.narInfo(r.Context(), o)
	if err != nil {
		return err
	}
	if s.ReadAhead {
		s.pullers.asked(r, o.cache, o.path, s.Now())
	}
	send(w, http.StatusOK, "text/x-nix-narinfo", info.Format())
	return nil
}

// narInfo describes o and signs it with the cache's present key, and with those
// before it for as long as they were to be kept, newest first.
func (s *Server) narInfo(ctx context.Context, o *object) (*nix.NarInfo, error) {
	path, err := nix.ParseStorePath(o.path.StorePath)
	if err != nil {
		return nil, fmt.Errorf("read path: %w", err)
	}
	info := &nix.NarInfo{
		StorePath:   path,
		URL:         "nar/" + path.Hash() + ".nar?f=" + shortForm(o.nar.Form),
		Compression: "zstd",
		FileSize:    o.nar.FileSize,
		NarHash:     o.nar.Hash,
		NarSize:     o.nar.Size,
		Deriver:     o.path.Deriver,
		System:      o.path.System,
		CA:          o.path.CA,
	}
	for _, base := range o.path.References {
		ref, err := nix.ParseBaseName(path.Dir(), base)
		if err != nil {
			return nil, fmt.Errorf("read reference of %s: %w", path, err)
		}
		info.References = append(info.References, ref)
	}
	pairs, err := s.signers(ctx, o.cache)
	if err != nil {
		return nil, err
	}
	fingerprint := info.Fingerprint()
	for _, pair := range pairs {
		info.Sigs = append(info.Sigs, s.signed.sign(pair, fingerprint))
	}
	// Those that the path came with: who trusts another cache's key need not trust ours. Nix checks each.
	for _, sig := range o.path.Sigs {
		if !slices.Contains(info.Sigs, sig) {
			info.Sigs = append(info.Sigs, sig)
		}
	}
	return info, nil
}

// NarInfo is what the server says of a path, for commands; meta.ErrNotFound if the cache has no such path.
func (s *Server) NarInfo(ctx context.Context, cacheName, hash string) (*nix.NarInfo, error) {
	s.init()
	cache, err := s.cache(ctx, cacheName)
	if err != nil {
		return nil, err
	}
	o := &object{cache: cache}
	err = s.DB.View(ctx, func(tx *meta.Tx) (err error) {
		o.path, o.nar, err = tx.Path(cache.ID, hash)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.narInfo(ctx, o)
}

// shortForm is the part of a form's hash that stands in a NAR's URL.
func shortForm(form [32]byte) string { return hex.EncodeToString(form[:8]) }

// getNAR serves the bytes of a form. Nix resumes with Range and without
// If-Range, so the form is in the URL: a resumed download of a form that is
// gone is refused, for other bytes after a cut would be taken for corruption.
func (s *Server) getNAR(w http.ResponseWriter, r *http.Request) error {
	cacheName, err := cacheParam(r)
	if err != nil {
		return err
	}
	if handled, err := s.getUploaded(w, r, cacheName); handled || err != nil {
		return err
	}
	_, hash, err := nameParam(r, "nar")
	if err != nil {
		return err
	}
	o, err := s.pullable(r, cacheName, hash)
	if err != nil {
		return err
	}
	showVisibility(w, o.cache)
	nar, err := s.Depot.Open(r.Context(), o.cache.ID, hash)
	if errors.Is(err, meta.ErrNotFound) {
		return noSuchObject()
	}
	if err != nil {
		return fmt.Errorf("open NAR of %s: %w", o.path.StorePath, err)
	}
	s.touched.add(o.cache.ID, hash)
	if f := r.URL.Query().Get("f"); f != "" && f != shortForm(nar.Form) && r.Header.Get("Range") != "" {
		return &statusError{status: http.StatusPreconditionFailed, name: "PreconditionFailed",
			msg: "This form of the NAR is gone; ask for its narinfo anew."}
	}
	p, done := s.pullers.begin(r, o.cache, hash, s.Now())
	defer done()
	if s.redirect(w, r, nar, p) {
		return nil
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-nix-nar")
	h.Set("ETag", `"`+hex.EncodeToString(nar.Form[:])+`"`)
	h.Set("Accept-Ranges", "bytes")
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range") // a thousand small ranges would be a thousand reads of the bucket
	}
	body := s.openNAR(r, o, nar)
	defer body.Close()
	s.lookAhead(r.Context(), o.cache.ID, p)
	if !o.cache.Public {
		body = s.untilRevoked(r, body)
	}
	if r.Method == http.MethodHead && r.Header.Get("Range") == "" {
		h.Set("Content-Length", strconv.FormatInt(nar.Size, 10))
	}
	source := &watchedReader{ReadSeekCloser: body}
	late := &lateHeader{ResponseWriter: w}
	http.ServeContent(late, r, "", time.Time{}, source)
	if source.err != nil {
		return fmt.Errorf("read NAR of %s: %w", o.path.StorePath, source.err)
	}
	late.flush()
	return nil
}
