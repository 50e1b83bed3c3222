package api

import (
	"net/url"
	"strings"
)

// Paths of routes, as templates for Expand and as patterns of http.ServeMux
// (with a method in front).
const (
	CacheInfoRoute     = "/{cache}/nix-cache-info"
	AtticInfoRoute     = "/{cache}/attic-cache-info"
	NarInfoRoute       = "/{cache}/{narinfo}" // <hash>.narinfo
	NARRoute           = "/{cache}/nar/{nar}" // <hash>.nar
	CacheConfigRoute   = "/_api/v1/cache-config/{cache}"
	MissingPathsRoute  = "/_api/v1/get-missing-paths"
	UploadPathRoute    = "/_api/v1/upload-path"
	MissingChunksRoute = "/_api/v1/cache/{cache}/chunks/missing"
	PackRoute          = "/_api/v1/cache/{cache}/packs/{sha256}"
	PathsRoute         = "/_api/v1/cache/{cache}/paths"
	ClosureRoute       = "/_api/v1/cache/{cache}/closure"
	PinsRoute          = "/_api/v1/cache/{cache}/pins"
	PinRoute           = "/_api/v1/cache/{cache}/pins/{name}" // the name is one escaped segment
	OIDCConfigRoute    = "/_api/v1/oidc/config"
	OIDCTokenRoute     = "/_api/v1/oidc/token"
	OIDCRevokeRoute    = "/_api/v1/oidc/revoke"
)

// Media types of our routes' bodies.
const (
	PathsType  = "application/x-attic-paths"
	PackType   = "application/x-attic-pack"
	HashesType = "application/octet-stream"
)

// Routes is what a server announces in Extension.Routes.
func Routes() map[string]string {
	return map[string]string{
		"chunks_missing": MissingChunksRoute,
		"packs":          PackRoute,
		"paths":          PathsRoute,
		"closure":        ClosureRoute,
		"pins":           PinsRoute,
		"pin":            PinRoute,
		RouteList:        PathsRoute,
	}
}

// RouteList is the name under which a server announces that GET of PathsRoute lists its paths.
const RouteList = "list"

// Expand fills a template's {name}s from pairs of name and value; values are
// escaped as path segments.
func Expand(template string, pairs ...string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		template = strings.ReplaceAll(template, "{"+pairs[i]+"}", url.PathEscape(pairs[i+1]))
	}
	return template
}

// URL puts a route's path behind endpoint, which may have a path of its own,
// with or without its last slash.
func URL(endpoint, path string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	return u.JoinPath(path).String(), nil
}
