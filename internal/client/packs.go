package client

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
)

// MissingChunks returns, for each id, whether the cache lacks it.
func (c *Client) MissingChunks(ctx context.Context, cache string, ids []chunk.ID) ([]bool, error) {
	body := make([]byte, 0, len(ids)*len(chunk.ID{}))
	for _, id := range ids {
		body = append(body, id[:]...)
	}
	want := (len(ids) + 7) / 8
	b, err := c.do(ctx, call{
		method: http.MethodPost, path: api.Expand(api.MissingChunksRoute, "cache", cache), body: bytesBody(body),
		header: http.Header{"Content-Type": {api.HashesType}}, limit: int64(want),
	})
	if err != nil {
		return nil, fmt.Errorf("ask for missing chunks: %w", err)
	}
	if len(b) != want {
		return nil, fmt.Errorf("ask for missing chunks: %w: %d bytes for %d chunks", ErrAnswer, len(b), len(ids))
	}
	missing := make([]bool, len(ids))
	for i := range ids {
		missing[i] = b[i/8]>>(i%8)&1 == 1
	}
	return missing, nil
}

// Pack is a pack file to be sent.
type Pack struct {
	SHA256 [32]byte
	After  *[32]byte // the own pack before this one of the same NAR
	Body   io.ReaderAt
	Size   int64 // bytes
}

// PutPack sends a pack. The body is read again for each attempt.
func (c *Client) PutPack(ctx context.Context, cache string, p Pack) (api.PackResult, error) {
	var result api.PackResult
	name := hex.EncodeToString(p.SHA256[:])
	in := call{
		method: http.MethodPut, path: api.Expand(api.PackRoute, "cache", cache, "sha256", name),
		body:   func() (io.Reader, error) { return section{io.NewSectionReader(p.Body, 0, p.Size)}, nil },
		header: http.Header{"Content-Type": {api.PackType}}, limit: 1 << 16,
	}
	if p.After != nil {
		in.query = "after=" + hex.EncodeToString(p.After[:])
	}
	b, err := c.do(ctx, in)
	if err != nil {
		return result, fmt.Errorf("upload pack %s: %w", name[:12], err)
	}
	if err := json.Unmarshal(b, &result); err != nil {
		return result, fmt.Errorf("upload pack %s: %w: %w", name[:12], ErrAnswer, err)
	}
	if result.Size != p.Size {
		return result, fmt.Errorf("upload pack %s: %w: it stored %d of %d bytes", name[:12], ErrAnswer, result.Size, p.Size)
	}
	return result, nil
}

// PostPaths commits paths, framed by api.AppendPath. n is how many there are.
func (c *Client) PostPaths(ctx context.Context, cache string, framed []byte, n int) ([]api.PathResult, error) {
	b, err := c.do(ctx, call{
		method: http.MethodPost, path: api.Expand(api.PathsRoute, "cache", cache), body: bytesBody(zstdBytes(framed)),
		header: http.Header{"Content-Type": {api.PathsType}, "Content-Encoding": {"zstd"}},
		limit:  4096 + 256*int64(n),
	})
	if err != nil {
		return nil, fmt.Errorf("commit paths: %w", err)
	}
	var answer api.PathsResult
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("commit paths: %w: %w", ErrAnswer, err)
	}
	if len(answer.Results) != n {
		return nil, fmt.Errorf("commit paths: %w: %d results for %d paths", ErrAnswer, len(answer.Results), n)
	}
	return answer.Results, nil
}

// zstdBytes compresses a request body. Piece lists are mostly hashes and shrink
// little; the headers around them shrink to a quarter.
func zstdBytes(b []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true))
	if err != nil { // fixed options; they are valid or no test passes
		panic("client: internal error: " + err.Error())
	}
	defer enc.Close()
	return enc.EncodeAll(b, make([]byte, 0, len(b)/2+64))
}

// Closure asks which of the paths are in the cache with all they reference, and
// refreshes their last use.
func (c *Client) Closure(ctx context.Context, cache string, hashes []string) (api.ClosureResult, error) {
	return c.closure(ctx, cache, api.ClosureRequest{StorePathHashes: hashes})
}

// ListClosure asks what the closure of one path consists of, as far as the cache
// has it: the answer's Paths and Upstream.
func (c *Client) ListClosure(ctx context.Context, cache, hash string) (api.ClosureResult, error) {
	return c.closure(ctx, cache, api.ClosureRequest{StorePathHashes: []string{hash}, List: true})
}

func (c *Client) closure(ctx context.Context, cache string, in api.ClosureRequest) (api.ClosureResult, error) {
	var result api.ClosureResult
	body, err := json.Marshal(in)
	if err != nil {
		return result, fmt.Errorf("ask for closures: %w", err)
	}
	b, err := c.do(ctx, call{
		method: http.MethodPost, path: api.Expand(api.ClosureRoute, "cache", cache), body: bytesBody(body),
		header: http.Header{"Content-Type": {"application/json"}}, limit: maxErrorBody,
	})
	if err != nil {
		return result, fmt.Errorf("ask for closures: %w", err)
	}
	if err := json.Unmarshal(b, &result); err != nil {
		return result, fmt.Errorf("ask for closures: %w: %w", ErrAnswer, err)
	}
	return result, nil
}
