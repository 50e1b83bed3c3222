package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/token"
)

// A handler answers a request or returns why it could not; answer turns the
// error into bytes, so that no handler writes an error itself.
type handler func(w http.ResponseWriter, r *http.Request) error

// A route is one URL shape and what it answers to. A GET answers HEAD too.
type route struct {
	name    string // for the log: the shape, never the parameters
	methods []method
}

type method struct {
	name string
	do   handler
}

// find returns the route of a path as the client escaped it, with its
// parameters still escaped: literals are compared byte for byte, so
// "/main/nix%2Dcache%2Dinfo" is not the cache info, and no path is cleaned or
// redirected. (net/http's ServeMux does both.)
func (s *Server) find(path string) (*route, []string) {
	if path == "/" {
		return s.routes.home, nil
	}
	seg := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, p := range seg {
		if p == "" { // "//", or a slash at the end
			return nil, nil
		}
	}
	switch {
	case !strings.HasPrefix(path, "/"):
		return nil, nil
	case len(seg) >= 3 && seg[0] == "_api" && seg[1] == "v1":
		if rt, params := s.findAPI(seg[2:]); rt != nil {
			return rt, params
		}
	}
	switch {
	case len(seg) == 2 && seg[1] == "nix-cache-info":
		return s.routes.cacheInfo, seg[:1]
	case len(seg) == 2 && seg[1] == "attic-cache-info":
		return s.routes.atticCacheInfo, seg[:1]
	case len(seg) == 2 && strings.HasSuffix(seg[1], ".ls"):
		return s.routes.listing, seg
	case len(seg) == 2: // "/_api/v1" as well: an invalid cache name
		return s.routes.narInfo, seg
	case len(seg) == 3 && seg[1] == "nar":
		return s.routes.nar, []string{seg[0], seg[2]}
	case len(seg) == 3 && seg[1] == "log":
		return s.routes.log, []string{seg[0], seg[2]}
	case len(seg) == 3 && seg[1] == "realisations":
		return s.routes.realisation, []string{seg[0], seg[2]}
	case len(seg) == 3 && seg[1] == "debuginfo":
		return s.routes.debugInfo, []string{seg[0], seg[2]}
	}
	return nil, nil
}

// findAPI finds what lies below /_api/v1/.
func (s *Server) findAPI(seg []string) (*route, []string) {
	switch strings.Join(seg[:min(2, len(seg))], "/") {
	case "get-missing-paths":
		return s.routes.missingPaths, nil
	case "upload-path":
		return s.routes.uploadPath, nil
	case "oidc/config":
		if len(seg) == 2 && s.routes.oidcConfig != nil {
			return s.routes.oidcConfig, nil
		}
	case "oidc/token":
		if len(seg) == 2 && s.routes.oidcToken != nil {
			return s.routes.oidcToken, nil
		}
	case "oidc/revoke":
		if len(seg) == 2 && s.routes.oidcRevoke != nil {
			return s.routes.oidcRevoke, nil
		}
	}
	switch {
	case len(seg) == 2 && seg[0] == "cache-config":
		return s.routes.cacheConfig, seg[1:]
	case len(seg) == 3 && seg[0] == "cache" && seg[2] == "paths":
		return s.routes.paths, seg[1:2]
	case len(seg) == 3 && seg[0] == "cache" && seg[2] == "closure":
		return s.routes.closure, seg[1:2]
	case len(seg) == 3 && seg[0] == "cache" && seg[2] == "pins":
		return s.routes.pins, seg[1:2]
	case len(seg) >= 4 && seg[0] == "cache" && seg[2] == "pins":
		// A proxy that unescapes %2F has made several segments of the name's one.
		return s.routes.pin, []string{seg[1], strings.Join(seg[3:], "/")}
	case len(seg) == 4 && seg[0] == "cache" && seg[2] == "chunks" && seg[3] == "missing":
		return s.routes.missingChunks, seg[1:2]
	case len(seg) == 4 && seg[0] == "cache" && seg[2] == "packs":
		return s.routes.packs, []string{seg[1], seg[3]}
	}
	return nil, nil
}

// routes are all URL shapes the server knows.
type routes struct {
	home, cacheInfo, narInfo, nar, atticCacheInfo *route
	cacheConfig, missingPaths, uploadPath         *route
	listing, log, realisation, debugInfo          *route
	missingChunks, packs, paths, closure          *route
	pins, pin                                     *route
	oidcConfig, oidcToken, oidcRevoke             *route
}

func (s *Server) buildRoutes() routes {
	get := func(h handler) method { return method{http.MethodGet, h} }
	post := func(h handler) method { return method{http.MethodPost, h} }
	put := func(h handler) method { return method{http.MethodPut, h} }
	rt := routes{
		home:           &route{"/", []method{get(s.getHome)}},
		cacheInfo:      &route{"/{cache}/nix-cache-info", []method{get(s.getCacheInfo), put(s.putCacheInfo)}},
		narInfo:        &route{"/{cache}/{hash}.narinfo", []method{get(s.getNarInfo), put(s.putNarInfo)}},
		nar:            &route{"/{cache}/nar/{hash}.nar", []method{get(s.getNAR), put(s.putNAR)}},
		listing:        &route{"/{cache}/{hash}.ls", []method{get(s.getListing), put(s.ignored)}},
		log:            &route{"/{cache}/log/{drv}", []method{get(s.getLog), put(s.putLog)}},
		realisation:    &route{"/{cache}/realisations/{id}.doi", []method{get(s.getRealisation), put(s.putRealisation)}},
		debugInfo:      &route{"/{cache}/debuginfo/{build-id}", []method{get(s.getDebugInfo), put(s.ignored)}},
		atticCacheInfo: &route{"/{cache}/attic-cache-info", []method{get(s.getCacheConfig)}},
		cacheConfig: &route{"/_api/v1/cache-config/{cache}", []method{
			get(s.getCacheConfig), post(s.createCache),
			{http.MethodPatch, s.configureCache}, {http.MethodDelete, s.destroyCache},
		}},
		missingPaths:  &route{"/_api/v1/get-missing-paths", []method{post(s.missingPaths)}},
		uploadPath:    &route{"/_api/v1/upload-path", []method{put(s.uploadPath)}},
		missingChunks: &route{"/_api/v1/cache/{cache}/chunks/missing", []method{post(s.missingChunks)}},
		packs:         &route{"/_api/v1/cache/{cache}/packs/{sha256}", []method{put(s.putPack)}},
		paths:         &route{"/_api/v1/cache/{cache}/paths", []method{get(s.listPaths), post(s.commitPaths)}},
		closure:       &route{"/_api/v1/cache/{cache}/closure", []method{post(s.closure)}},
		pins:          &route{api.PinsRoute, []method{get(s.listPins)}},
		pin:           &route{api.PinRoute, []method{get(s.getPin), put(s.setPin), {http.MethodDelete, s.deletePin}}},
	}
	if s.TrustConfig != nil {
		rt.oidcConfig = &route{"/_api/v1/oidc/config", []method{get(delegate(s.TrustConfig))}}
	}
	if s.Revoke != nil {
		rt.oidcRevoke = &route{api.OIDCRevokeRoute, []method{post(s.revokeToken)}}
	}
	if s.TokenExchange != nil {
		rt.oidcToken = &route{"/_api/v1/oidc/token", []method{post(delegate(s.TokenExchange))}}
	}
	return rt
}

// delegate makes a handler of one that answers everything itself.
func delegate(h http.Handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

// dispatch finds the route of r and runs its handler.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, rec *record) error {
	rt, params := s.find(escapedPath(r.URL))
	if rt == nil {
		return notFound("NotFound", "The requested URL was not found.")
	}
	rec.route = rt.name
	for _, m := range rt.methods {
		if m.name == r.Method || m.name == http.MethodGet && r.Method == http.MethodHead {
			for i, p := range params {
				r.SetPathValue(paramNames[i], p)
			}
			return m.do(w, r)
		}
	}
	w.Header().Set("Allow", rt.allow())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusMethodNotAllowed)
	return nil
}

var paramNames = [...]string{"cache", "name"}

func (rt *route) allow() string {
	var names []string
	for _, m := range rt.methods {
		names = append(names, m.name)
		if m.name == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	return strings.Join(names, ",")
}

// escapedPath is the path as the client wrote it. URL.EscapedPath would
// escape it anew when it holds a character that should have been escaped.
func escapedPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.EscapedPath()
}

// param decodes the path parameter called name.
func param(r *http.Request, name string) (string, error) {
	v, err := url.PathUnescape(r.PathValue(name))
	if err != nil || !utf8.ValidString(v) {
		return "", badText("Invalid URL: path parameter %q is not valid UTF-8", name)
	}
	return v, nil
}

// cacheParam is the cache that the path names. It is checked before anything
// else, so an invalid name is 400 for everybody.
func cacheParam(r *http.Request) (string, error) {
	name, err := param(r, "cache")
	if err != nil {
		return "", err
	}
	if !token.ValidCacheName(name) {
		return "", badText("Invalid URL: %s is not a cache name", quoteShort(name))
	}
	return name, nil
}

// quoteShort quotes what came from a client for an error text.
func quoteShort(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%.64q…", s)
	}
	return fmt.Sprintf("%q", s)
}
