package server

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/roots"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

// asker is the caller, as roots wants him.
func asker(c caller, cache *meta.Cache) roots.Asker {
	return roots.Asker{Cache: *cache, User: c.subject(), Token: c.tokenID()}
}

// seesClosures checks that the caller may know which closures are whole: by a token that may pull or push. Either tells
// him as much, one path at a time. Of a public cache everybody may pull; but a walk costs more than a path, and a use is
// noted.
func (s *Server) seesClosures(r *http.Request, name string) (*meta.Cache, error) {
	c := callerOf(r)
	cache, err := s.permit(r, name, 0, "")
	if err != nil {
		return nil, err
	}
	switch have := c.perms(name); {
	case have&(token.Pull|token.Push) != 0:
		return cache, s.pace(r)
	case have != 0:
		return nil, forbidden("ask for closures of this cache")
	}
	return nil, denied(c, unauthorized())
}

// closure answers which closures are whole, and what one consists of.
func (s *Server) closure(w http.ResponseWriter, r *http.Request) error {
	name, err := cacheParam(r)
	if err != nil {
		return err
	}
	return s.withBody(r, func(body []byte) error {
		in, err := api.DecodeClosure(r.Header.Get("Content-Type"), body)
		if err != nil {
			return err
		}
		cache, err := s.seesClosures(r, name)
		if err != nil {
			return err
		}
		if in.List && len(in.StorePathHashes) != 1 {
			return requestError("list: one closure at a time")
		}
		result, err := s.Roots.Closure(r.Context(), asker(callerOf(r), cache), in.StorePathHashes)
		if err != nil {
			return err
		}
		if in.List {
			list, err := s.Roots.List(r.Context(), cache.ID, in.StorePathHashes[0])
			if err != nil && !errors.Is(err, meta.ErrNotFound) { // it is among the missing
				return err
			}
			if list != nil {
				result.Paths, result.Upstream = list.Paths, list.Elsewhere
			}
		}
		sendJSON(w, http.StatusOK, result)
		return nil
	})
}

// pinParam is the pin that the path names.
func pinParam(r *http.Request) (string, error) {
	name, err := param(r, "name")
	if err != nil {
		return "", err
	}
	if err := meta.ValidPinName(name); err != nil {
		return "", requestError("Pin %s: %v", quoteShort(name), err)
	}
	return name, nil
}

// readsPins checks that the caller may see the pins of a cache: by a token that may
// pull. Of a public cache everybody may pull what he knows the hash of; its pins
// would tell him all hashes, and which machines there are.
func (s *Server) readsPins(r *http.Request, name string) (*meta.Cache, error) {
	return s.pullsItself(r, name, "read the pins of this cache")
}

// pullsItself checks that the caller's token may pull, whatever the cache gives to everybody.
func (s *Server) pullsItself(r *http.Request, name, verb string) (*meta.Cache, error) {
	cache, err := s.permit(r, name, token.Pull, verb)
	if err != nil {
		return nil, err
	}
	if !callerOf(r).perms(name).Has(token.Pull) {
		return nil, denied(callerOf(r), unauthorized())
	}
	return cache, s.pace(r)
}

// mayPin checks that the caller may set and delete a pin: by a token that says so of
// the name, and that has itself some right to the cache's contents. What a public
// cache gives to everybody is not enough: a token's pins would hold in all of them.
func (s *Server) mayPin(r *http.Request, cache, pin string) (*meta.Cache, error) {
	c := callerOf(r)
	found, err := s.permit(r, cache, 0, "")
	if err != nil {
		return nil, err
	}
	if c.perms(cache)&(token.Pull|token.Push) == 0 {
		if c.perms(cache) != 0 {
			return nil, forbidden("pin in this cache")
		}
		return nil, denied(c, unauthorized())
	}
	if !trust.MayPin(c.claims.Pins, pin) {
		return nil, forbidden("pin as " + quoteShort(pin))
	}
	return found, s.pace(r)
}

func (s *Server) setPin(w http.ResponseWriter, r *http.Request) error {
	cacheName, err := cacheParam(r)
	if err != nil {
		return err
	}
	event := audited(r, audit.PinSet, cacheName)
	name, err := pinParam(r)
	if err != nil {
		return err
	}
	event.Object = name
	return s.withBody(r, func(body []byte) error {
		in, err := api.DecodePin(r.Header.Get("Content-Type"), body)
		if err != nil {
			return err
		}
		path, err := nix.ParseStorePath(in.StorePath)
		if err != nil {
			return requestError("store_path: %v", err)
		}
		event.Object += " " + path.Base()
		cache, err := s.mayPin(r, cacheName, name)
		if err != nil {
			return err
		}
		pin, err := s.Roots.Pin(r.Context(), asker(callerOf(r), cache), roots.PinRequest{
			Name: name, Path: path, Keep: in.Keep, Life: time.Duration(in.ExpiresIn) * time.Second, Upstream: in.Upstream,
		})
		if errors.Is(err, meta.ErrNotFound) { // destroyed since
			return noSuchCache()
		}
		if err != nil {
			return err
		}
		sendJSON(w, http.StatusOK, showPin(pin, nil))
		return nil
	})
}

func (s *Server) deletePin(w http.ResponseWriter, r *http.Request) error {
	cacheName, err := cacheParam(r)
	if err != nil {
		return err
	}
	event := audited(r, audit.PinDelete, cacheName)
	name, err := pinParam(r)
	if err != nil {
		return err
	}
	event.Object = name
	cache, err := s.mayPin(r, cacheName, name)
	if err != nil {
		return err
	}
	if err := s.Roots.Unpin(r.Context(), asker(callerOf(r), cache), name); err != nil {
		return pinError(err)
	}
	send(w, http.StatusOK, "", nil)
	return nil
}

func (s *Server) getPin(w http.ResponseWriter, r *http.Request) error {
	cacheName, err := cacheParam(r)
	if err != nil {
		return err
	}
	name, err := pinParam(r)
	if err != nil {
		return err
	}
	q, err := pinQuery(r)
	if err != nil {
		return err
	}
	cache, err := s.readsPins(r, cacheName)
	if err != nil {
		return err
	}
	pin, err := s.Roots.PinNamed(r.Context(), cache.ID, name)
	if err != nil {
		return pinError(err)
	}
	sizes, _, err := s.pinSizes(r, cache, q)
	if err != nil {
		return err
	}
	sendJSON(w, http.StatusOK, showPin(pin, sizes))
	return nil
}

func (s *Server) listPins(w http.ResponseWriter, r *http.Request) error {
	cacheName, err := cacheParam(r)
	if err != nil {
		return err
	}
	q, err := pinQuery(r)
	if err != nil {
		return err
	}
	cache, err := s.readsPins(r, cacheName)
	if err != nil {
		return err
	}
	pins, err := s.Roots.Pins(r.Context(), cache.ID, q.after, q.limit)
	if err != nil {
		return err
	}
	out := api.PinList{Pins: []api.Pin{}}
	sizes, unknown, err := s.pinSizes(r, cache, q)
	if err != nil {
		return err
	}
	out.SizesUnknown = unknown
	for i := range pins {
		out.Pins = append(out.Pins, showPin(&pins[i], sizes))
	}
	if len(pins) == q.limit {
		out.Next = pins[len(pins)-1].Name
	}
	sendJSON(w, http.StatusOK, out)
	return nil
}

// pagePins is how many pins an answer lists when nobody asks for fewer, or for more
// than it. With a hundred revisions each it is some megabytes.
const pagePins = 200

type pinPage struct {
	after string
	limit int
	sizes bool
}

func pinQuery(r *http.Request) (q pinPage, err error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, requestError("The query cannot be read.")
	}
	q.after, q.limit, q.sizes = values.Get("after"), pagePins, values.Get("sizes") == "1"
	if len(q.after) > meta.MaxPinName {
		return q, requestError("after: no pin has a name that long")
	}
	if text := values.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return q, requestError("limit: %s is not a number from 1 on", quoteShort(text))
		}
		q.limit = min(n, pagePins)
	}
	return q, nil
}

func (s *Server) pinSizes(r *http.Request, cache *meta.Cache, q pinPage) (sizes map[string]roots.Sizes, unknown bool, err error) {
	if !q.sizes {
		return nil, false, nil
	}
	sizes, err = s.Roots.Sizes(r.Context(), cache.ID)
	if errors.Is(err, roots.ErrTooLarge) {
		return nil, true, nil
	}
	return sizes, false, err
}

// showPin is a pin as the wire has it.
func showPin(p *meta.Pin, sizes map[string]roots.Sizes) api.Pin {
	out := api.Pin{Name: p.Name, Keep: p.Keep, Revisions: make([]api.Revision, len(p.Revisions))}
	if !p.Expires.IsZero() {
		out.Expires = &p.Expires
	}
	for i, r := range p.Revisions {
		out.Revisions[i] = api.Revision{StorePath: r.StorePath, SetBy: r.By, Policies: r.Policies, SetAt: r.At, Paths: r.Paths, Size: r.Size}
	}
	if s, ok := sizes[p.Name]; ok {
		out.Sizes = &api.PinSizes{Paths: s.Paths, Size: s.Size, OnlyPaths: s.Alone, OnlySize: s.AloneNAR, OnlyFile: s.AloneFile}
	}
	return out
}

func pinError(err error) error {
	if errors.Is(err, meta.ErrNotFound) {
		return notFound(api.NoSuchPin, "The cache has no such pin.")
	}
	return err
}

// maxNamed is how many absent paths an answer names.
const maxNamed = 10_000

func rootsError(err error) *statusError {
	var refusal *roots.Refusal
	var incomplete *roots.IncompleteError
	switch {
	case errors.As(err, &incomplete):
		return &statusError{status: http.StatusConflict, name: api.MissingReferences,
			references: incomplete.Refs[:min(len(incomplete.Refs), maxNamed)],
			msg: "Of the closure of " + incomplete.Path.Base() + " the cache lacks " + strconv.Itoa(len(incomplete.Refs)) +
				" paths that no upstream was said to have; push it whole, then pin it.", cause: err}
	case errors.As(err, &refusal):
		return &statusError{status: http.StatusBadRequest, name: api.RequestError, msg: refusal.Msg}
	}
	return nil
}
