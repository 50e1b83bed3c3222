package server

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// maxListed is how many paths an answer lists: about half a megabyte, more where many have upstreams.
const maxListed = 10_000

// listPaths lists the paths of a cache, for a server that is kept alike. As with pins, a token must itself be
// allowed to pull: of a public cache everybody may pull what he knows the hash of, and here he would learn all.
func (s *Server) listPaths(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return requestError("The query cannot be read.")
	}
	limit := maxListed
	if text := values.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return requestError("limit: %s is not a number from 1 on", quoteShort(text))
		}
		limit = min(n, maxListed)
	}
	after := values.Get("after")
	if len(after) > nix.PathHashLen {
		return requestError("after: no hash of a path is that long")
	}
	cache, err := s.pullsItself(r, name, "list the paths of this cache")
	if err != nil {
		return err
	}
	var paths []meta.ListedPath
	err = s.DB.View(r.Context(), func(tx *meta.Tx) (err error) {
		paths, err = tx.ListPaths(cache.ID, after, limit)
		return err
	})
	if err != nil {
		return err
	}
	out := api.PathList{Paths: make([]api.ListedPath, len(paths))}
	for i, p := range paths {
		out.Paths[i] = api.ListedPath{Hash: p.Hash, Upstream: p.Upstream}
	}
	if len(paths) == limit {
		out.Next = paths[len(paths)-1].Hash
	}
	sendJSON(w, http.StatusOK, out)
	return nil
}
