package server

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/token"
)

// pushScope checks that the caller may push to the cache that the path names.
// It is where too many requests of pushes wait.
func (s *Server) pushScope(r *http.Request, name string) (depot.Scope, error) {
	cache, err := s.permit(r, name, token.Push, "push to this cache")
	if err != nil {
		return depot.Scope{}, err
	}
	if err := s.pace(r); err != nil {
		return depot.Scope{}, err
	}
	return s.scope(r.Context(), callerOf(r), cache)
}

// missingChunks answers which chunks the caller would have to send. What he
// may not see is missing, like what is nowhere (design §4).
func (s *Server) missingChunks(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	scope, err := s.pushScope(r, name)
	if err != nil {
		return err
	}
	const limit = maxMissingChunks * int64(len(chunk.ID{}))
	if r.ContentLength > limit {
		return tooLargeJSON(limit)
	}
	reserve := r.ContentLength
	if reserve < 0 {
		reserve = limit
	}
	body, leave, err := s.readBody(r, limit, min(reserve, s.Limits.BodyBudget))
	if err != nil {
		return err
	}
	defer leave()
	if len(body)%len(chunk.ID{}) != 0 {
		return requestError("the body is not a row of %d-byte hashes", len(chunk.ID{}))
	}
	ids := make([]chunk.ID, len(body)/len(chunk.ID{}))
	for i := range ids {
		ids[i] = chunk.ID(body[i*len(chunk.ID{}):])
	}
	missing, err := s.Depot.MissingChunks(r.Context(), scope, ids)
	if err != nil {
		return err
	}
	send(w, http.StatusOK, api.HashesType, bitmap(missing))
	return nil
}

// bitmap sets bit i, counted from the lowest of the first byte, where bits[i].
func bitmap(bits []bool) []byte {
	b := make([]byte, (len(bits)+7)/8)
	for i, set := range bits {
		if set {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

func (s *Server) putPack(w http.ResponseWriter, r *http.Request) error {
	cacheName, err := cacheParam(r)
	if err != nil {
		return err
	}
	text, err := param(r, "name")
	if err != nil {
		return err
	}
	name, err := parseSum(text)
	if err != nil {
		return err
	}
	event := audited(r, audit.Pack, cacheName)
	event.Object = text
	var after *[32]byte
	if text := r.URL.Query().Get("after"); text != "" {
		sum, err := parseSum(text)
		if err != nil {
			return err
		}
		after = &sum
	}
	scope, err := s.pushScope(r, cacheName)
	if err != nil {
		return err
	}
	switch {
	case r.ContentLength < 0:
		return &statusError{status: http.StatusLengthRequired, name: api.RequestError, msg: "A pack needs a Content-Length."}
	case r.ContentLength > pack.MaxPackSize:
		return tooLargeJSON(pack.MaxPackSize)
	}
	leave, err := s.heavy.enter(r, s.heavy.packs, 1)
	if err != nil {
		return err
	}
	defer leave()
	result, err := s.Depot.PutPack(r.Context(), scope, name, after, r.ContentLength, r.Body)
	if err != nil {
		return err
	}
	event.Objects = int64(result.Chunks)
	sendJSON(w, http.StatusOK, result)
	return nil
}

// parseSum reads a SHA-256 in lower-case hexadecimal: one name for one pack.
func parseSum(text string) (sum [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(sum) || hex.EncodeToString(b) != text {
		return sum, requestError("%s is not a SHA-256 in lower-case hexadecimal", quoteShort(text))
	}
	return [32]byte(b), nil
}

func (s *Server) commitPaths(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	event := audited(r, audit.Commit, name)
	scope, err := s.pushScope(r, name)
	if err != nil {
		return err
	}
	leave, err := s.heavy.enter(r, s.heavy.commits, 1)
	if err != nil {
		return err
	}
	defer leave()
	body, done, err := decoded(r, s.Limits.PathsBytes)
	if err != nil {
		return err
	}
	defer done()
	results, err := s.Depot.CommitPaths(r.Context(), scope, api.ReadPaths(body, s.Limits.PathsBytes))
	if err != nil {
		return err
	}
	event.Objects = int64(len(results))
	sendJSON(w, http.StatusOK, api.PathsResult{Results: results})
	return nil
}

// decoded takes a Content-Encoding off the body. What it decodes to is bounded
// by the reader of paths; the decoder's own memory is bounded here.
func decoded(r *http.Request, limit int64) (body io.Reader, done func(), err error) {
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return r.Body, func() {}, nil
	case "zstd":
		dec, err := zstd.NewReader(r.Body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(uint64(limit)+1))
		if err != nil {
			return nil, nil, fmt.Errorf("open zstd body: %w", err)
		}
		return dec, dec.Close, nil
	default:
		return nil, nil, &statusError{status: http.StatusUnsupportedMediaType, name: api.RequestError,
			msg: "Content-Encoding " + quoteShort(encoding) + " is not zstd."}
	}
}

func tooLargeJSON(limit int64) error {
	return &statusError{status: http.StatusRequestEntityTooLarge, name: api.RequestError,
		msg: fmt.Sprintf("The request is larger than the limit of %d bytes.", limit)}
}
