package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/nix"
)

const (
	// maxIndex bounds the page on which a web server lists a folder: a hundred bytes or two a path.
	maxIndex = 256 << 20
	// listPage is how many paths of one of our servers come at a time.
	listPage = 10_000
)

// ErrUnlistable says that a source tells of paths only by name.
var ErrUnlistable = errors.New("can't be listed")

// Listed is one path of a source, as a list has it.
type Listed struct {
	Hash     string
	Upstream []string // hashes of references that the source leaves to upstream caches
}

// List calls each for every path that the source has, as far as it lists them: a folder does, on disk or as a web
// server shows it, and one of our servers for a token that may pull. Others are ErrUnlistable.
func (s *Source) List(ctx context.Context, each func(Listed) error) error {
	if s.folder != nil {
		return s.listFolder(ctx, each)
	}
	ours, err := s.listOurs(ctx, each)
	if ours || err != nil {
		return err
	}
	return s.listIndex(ctx, each)
}

const narinfo = ".narinfo"

func (s *Source) listFolder(ctx context.Context, each func(Listed) error) error {
	dir, err := s.folder.Open(".")
	if err != nil {
		return fmt.Errorf("list source: %w", err)
	}
	defer dir.Close()
	for ctx.Err() == nil {
		entries, err := dir.ReadDir(1000)
		for _, e := range entries {
			if h, ok := strings.CutSuffix(e.Name(), narinfo); ok && len(h) == nix.PathHashLen {
				if err := each(Listed{Hash: h}); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list source: %w", err)
		}
	}
	return context.Cause(ctx)
}

// listOurs asks for the route that our servers have. It returns false of what is no Attic server at all.
func (s *Source) listOurs(ctx context.Context, each func(Listed) error) (known bool, err error) {
	cache := path.Base(s.base.Path)
	root := *s.base
	root.Path, root.RawPath = path.Dir(s.base.Path), ""
	if cache == "." || cache == "/" {
		return false, nil
	}
	text, err := s.textAt(ctx, root.JoinPath(api.Expand(api.CacheConfigRoute, "cache", cache)), maxText)
	if errors.Is(err, ErrUnauthorized) {
		return true, fmt.Errorf("list %s: %w, of a token that may pull", s.URL, err)
	}
	if err != nil {
		return false, ignore(ctx, err)
	}
	var config struct { // of api.CacheConfig, whatever else a server says
		Endpoint string        `json:"substituter_endpoint"`
		Ours     api.Extension `json:"attic_action"`
	}
	if json.Unmarshal(text, &config) != nil || config.Endpoint == "" {
		return false, nil
	}
	if config.Ours.Routes[api.RouteList] == "" {
		return true, fmt.Errorf("%w: an Attic server tells of paths by name only; name them, as with --paths-from <(nix path-info --recursive /run/current-system)", ErrUnlistable)
	}
	at := root.JoinPath(api.Expand(api.PathsRoute, "cache", cache))
	for after := ""; ; {
		at.RawQuery = url.Values{"after": {after}, "limit": {fmt.Sprint(listPage)}}.Encode()
		text, err := s.textAt(ctx, at, 64<<20)
		if err != nil {
			return true, fmt.Errorf("list %s: %w", s.URL, err)
		}
		var page api.PathList
		if err := json.Unmarshal(text, &page); err != nil {
			return true, fmt.Errorf("list %s: read answer: %w", s.URL, err)
		}
		for _, p := range page.Paths {
			l, err := listed(p)
			if err == nil {
				err = each(l)
			}
			if err != nil {
				return true, fmt.Errorf("list %s: %w", s.URL, err)
			}
		}
		if page.Next <= after || len(page.Paths) == 0 {
			return true, nil
		}
		after = page.Next
	}
}

// listed checks hashes: they become parts of URLs.
func listed(p api.ListedPath) (Listed, error) {
	for _, h := range append([]string{p.Hash}, p.Upstream...) {
		if _, err := Hash(h); err != nil || len(h) != nix.PathHashLen {
			return Listed{}, fmt.Errorf("%.100q is no hash of a path", h)
		}
	}
	return Listed{p.Hash, p.Upstream}, nil
}

// ignore leaves nothing of an error but the end of ctx, and what would go wrong again.
func ignore(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if mayPass(err) || errors.Is(err, ErrRefused) {
		return err
	}
	return nil
}

var indexed = regexp.MustCompile(`[0-9abcdfghijklmnpqrsvwxyz]{32}\.narinfo`)

// listIndex looks for narinfos on the page that web servers make of a folder.
func (s *Source) listIndex(ctx context.Context, each func(Listed) error) error {
	text, err := s.textAt(ctx, s.base.JoinPath("/"), maxIndex)
	if err := ignore(ctx, err); err != nil {
		return fmt.Errorf("list %s: %w", s.URL, err)
	}
	names := indexed.FindAll(text, -1)
	if len(names) == 0 {
		return fmt.Errorf("%s %w; name the paths to import, as with --paths-from <(nix path-info --recursive /run/current-system)", s.URL, ErrUnlistable)
	}
	for _, name := range names {
		if err := each(Listed{Hash: string(bytes.TrimSuffix(name, []byte(narinfo)))}); err != nil {
			return err
		}
	}
	return nil
}
