package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/org/attic-action/internal/api"
)

// Config is what a push needs of a cache's configuration.
type Config struct {
	APIEndpoint           string         `json:"api_endpoint"`
	SubstituterEndpoint   string         `json:"substituter_endpoint"`
	PublicKey             string         `json:"public_key"`
	IsPublic              bool           `json:"is_public"`
	StoreDir              string         `json:"store_dir"`
	UpstreamCacheKeyNames []string       `json:"upstream_cache_key_names"`
	AtticAction           *api.Extension `json:"attic_action"` // nil: a stock server
}

// CacheConfig asks for a cache's configuration.
func (c *Client) CacheConfig(ctx context.Context, cache string) (*Config, error) {
	b, err := c.do(ctx, call{
		method: http.MethodGet, path: api.Expand(api.CacheConfigRoute, "cache", cache), limit: 1 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("get configuration of cache %s: %w", cache, err)
	}
	cfg := new(Config)
	if err := json.Unmarshal(b, cfg); err != nil {
		return nil, fmt.Errorf("get configuration of cache %s: %w: %w", cache, ErrAnswer, err)
	}
	return cfg, nil
}

// MissingPaths returns which of the store path hashes the cache does not have.
func (c *Client) MissingPaths(ctx context.Context, cache string, hashes []string) (map[string]bool, error) {
	body, err := json.Marshal(api.MissingPathsRequest{Cache: cache, StorePathHashes: hashes})
	if err != nil {
		return nil, fmt.Errorf("ask for missing paths: %w", err)
	}
	b, err := c.do(ctx, call{
		method: http.MethodPost, path: api.MissingPathsRoute, body: bytesBody(body),
		header: http.Header{"Content-Type": {"application/json"}},
		limit:  4096 + 64*int64(len(hashes)), // a hash, quotes, a comma and spaces in plenty
	})
	if err != nil {
		return nil, fmt.Errorf("ask for missing paths: %w", err)
	}
	var answer api.MissingPaths
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("ask for missing paths: %w: %w", ErrAnswer, err)
	}
	if answer.MissingPaths == nil {
		return nil, fmt.Errorf("ask for missing paths: %w: no list", ErrAnswer)
	}
	asked := make(map[string]bool, len(hashes))
	for _, h := range hashes {
		asked[h] = true
	}
	missing := make(map[string]bool, len(answer.MissingPaths))
	for _, h := range answer.MissingPaths {
		if !asked[h] {
			return nil, fmt.Errorf("ask for missing paths: %w: %q was not asked for", ErrAnswer, Clean(h, 64))
		}
		missing[h] = true
	}
	return missing, nil
}

// headerInfo is the size from which the description goes in front of the NAR:
// proxies refuse long header lines.
const headerInfo = 4096

// UploadPath sends a whole NAR to a stock server. nar is called for each
// attempt and returns the NAR from its start; a reader that is an io.Closer is
// closed.
func (c *Client) UploadPath(ctx context.Context, info api.UploadInfo, nar func() (io.Reader, error)) (api.UploadResult, error) {
	var result api.UploadResult
	text, err := json.Marshal(info)
	if err != nil {
		return result, fmt.Errorf("upload %s: %w", info.StorePath, err)
	}
	in := call{method: http.MethodPut, path: api.UploadPathRoute, body: nar, limit: 1 << 20}
	if len(text) < headerInfo {
		in.header = http.Header{api.NarInfoHeader: {string(text)}}
	} else {
		in.header = http.Header{api.NarInfoPreambleSizeHeader: {strconv.Itoa(len(text))}}
		in.body = func() (io.Reader, error) { return preamble(text, nar) }
	}
	b, err := c.do(ctx, in)
	if err != nil {
		return result, fmt.Errorf("upload %s: %w", info.StorePath, err)
	}
	if json.Unmarshal(b, &result) != nil {
		result = api.UploadResult{Kind: api.Uploaded} // any 2xx is success, whatever it says
	}
	return result, nil
}
