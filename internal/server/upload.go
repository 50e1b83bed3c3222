package server

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/token"
)

func (s *Server) missingPaths(w http.ResponseWriter, r *http.Request) error {
	return s.withBody(r, func(body []byte) error {
		in, err := api.DecodeMissingPaths(r.Header.Get("Content-Type"), body)
		if err != nil {
			return asText(err)
		}
		cache, err := s.permit(r, in.Cache, token.Push, "push to this cache")
		if err != nil {
			return err
		}
		if err := s.pace(r); err != nil {
			return err
		}
		slices.Sort(in.StorePathHashes)
		hashes := slices.Compact(in.StorePathHashes)
		missing, err := s.Roots.Missing(r.Context(), asker(callerOf(r), cache), hashes)
		if err != nil {
			return err
		}
		if missing == nil {
			missing = []string{} // the client takes null for a broken answer
		}
		sendJSON(w, http.StatusOK, api.MissingPaths{MissingPaths: missing})
		return nil
	})
}

// uploadPath takes a raw NAR from the stock client: its description in a
// header or before the NAR in the body.
func (s *Server) uploadPath(w http.ResponseWriter, r *http.Request) error {
	raw, err := s.uploadInfo(r)
	if err != nil {
		return err
	}
	info, err := api.DecodeUploadInfo(raw)
	if err != nil {
		return err
	}
	event := audited(r, audit.Upload, info.Cache)
	up, err := checkUpload(info)
	if err != nil {
		return err
	}
	event.Object = up.Path.Base()
	cache, err := s.permit(r, info.Cache, token.Push, "push to this cache")
	if err != nil {
		return err
	}
	if err := s.pace(r); err != nil {
		return err
	}
	if up.Path.Dir() != cache.StoreDir {
		return requestError("store_path: %s is not in the cache's store %s", up.Path, cache.StoreDir)
	}
	leave, err := s.heavy.enter(r, s.heavy.uploads, 1)
	if err != nil {
		return err
	}
	defer leave()
	scope, err := s.scope(r.Context(), callerOf(r), cache)
	if err != nil {
		return err
	}
	up.DropUnfounded()
	result, err := s.Depot.Ingest(r.Context(), scope, up, r.Body, !s.WaivePossession)
	if err != nil {
		return err
	}
	event.Objects = 1
	if up.NARSize < uint64(s.TellShareFrom) {
		result.Frac = nil // Attic keeps such a NAR in one piece, which has no share
	}
	sendJSON(w, http.StatusOK, api.UploadResult{Kind: result.Kind, FileSize: result.FileSize, FracDeduplicated: result.Frac})
	return nil
}

// uploadInfo reads the description of an upload; the preamble wins.
func (s *Server) uploadInfo(r *http.Request) ([]byte, error) {
	if sizes := r.Header.Values(api.NarInfoPreambleSizeHeader); len(sizes) > 0 {
		size, err := parseUint(sizes[0])
		if err != nil {
			return nil, requestError("%s is not a number", api.NarInfoPreambleSizeHeader)
		}
		if size > uint64(s.MaxNarInfoSize) {
			return nil, requestError("the upload info has %d bytes; max-nar-info-size is %d", size, s.MaxNarInfoSize)
		}
		info, err := readAtMost(io.LimitReader(r.Body, int64(size)), int64(size), int64(size))
		if err != nil {
			return nil, err
		}
		if uint64(len(info)) < size {
			return nil, requestError("the body ended within the upload info")
		}
		return info, nil
	}
	if infos := r.Header.Values(api.NarInfoHeader); len(infos) > 0 {
		return []byte(infos[0]), nil
	}
	return nil, requestError("%s or %s must be set", api.NarInfoHeader, api.NarInfoPreambleSizeHeader)
}

// parseUint reads a number as Attic does: a plus and leading zeros are fine.
func parseUint(s string) (uint64, error) {
	return strconv.ParseUint(strings.TrimPrefix(s, "+"), 10, 64)
}

// checkUpload refuses descriptions that could not be served again: Attic takes
// nearly anything and signs narinfos with forged lines for it.
func checkUpload(in *api.UploadInfo) (depot.Upload, error) {
	var none depot.Upload
	path, err := nix.ParseStorePath(in.StorePath)
	if err != nil {
		return none, requestError("store_path: %v", err)
	}
	if path.Hash() != in.StorePathHash {
		return none, requestError("store_path_hash: %s is not the hash of %s", in.StorePathHash, path)
	}
	if in.NARSize == 0 {
		return none, requestError("nar_size: no NAR is empty")
	}
	if in.NARSize > maxNARSize {
		return none, requestError("nar_size: %d is more than a NAR can have", in.NARSize)
	}
	if len(in.References) > maxReferences {
		return none, requestError("references: more than %d", maxReferences)
	}
	for _, ref := range in.References {
		if _, err := nix.ParseBaseName(path.Dir(), ref); err != nil {
			return none, requestError("references: %v", err)
		}
	}
	return depot.Upload{
		Path: path, NARHash: in.NARHash, NARSize: in.NARSize, References: in.References,
		Deriver: in.Deriver, System: in.System, CA: in.CA, Sigs: in.Sigs,
	}, nil
}

const (
	maxNARSize    = 1 << 50 // a petabyte; sizes near 2^63 would overflow sums
	maxReferences = 100_000 // the largest real closures have a tenth of that
)

// depotError gives the depot's refusals their answers.
func depotError(err error) *statusError {
	var bad *depot.BadRequest
	var chunks *depot.UnknownChunksError
	var refs *depot.MissingReferencesError
	switch {
	case errors.As(err, &chunks):
		e := &statusError{status: http.StatusConflict, name: api.UnknownChunks,
			msg: "Some chunks of the commit are not here; send them and commit again.", cause: err}
		for _, id := range chunks.IDs {
			e.chunks = append(e.chunks, id.String())
		}
		return e
	case errors.As(err, &refs):
		return &statusError{status: http.StatusConflict, name: api.MissingReferences, references: refs.Refs,
			msg: "Some references are neither in the cache, nor in the request, nor an upstream's.", cause: err}
	case errors.As(err, &bad):
		return &statusError{status: http.StatusBadRequest, name: api.RequestError, msg: bad.Msg}
	}
	return nil
}
