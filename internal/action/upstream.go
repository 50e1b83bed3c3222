package action

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
)

// upstream asks the caches whose paths are not pushed here, cache.nixos.org above all, for outputs: what one of them has
// need not be built either, and is left out of a push. Such a cache has all that a path of its refers to; ours is asked
// about closures because it need not.
type upstream struct {
	http         *http.Client
	substituters []string        // URLs
	keys         []nix.PublicKey // that count
}

const (
	upstreamSideBySide = 8
	upstreamWait       = 10 * time.Second
	narinfoMax         = 1 << 20
)

// newUpstream takes the substituters that Nix uses anyway, and of its keys those that the cache says are upstream's.
func newUpstream(client *http.Client, s nixcli.Settings, keyNames []string, own string) upstream {
	u := upstream{http: client}
	for _, url := range s.Substituters {
		url = strings.TrimRight(url, "/")
		if (strings.HasPrefix(url, "https://") || strings.HasPrefix(url, "http://")) && !strings.Contains(url, "?") && url != own {
			u.substituters = append(u.substituters, url)
		}
	}
	for _, text := range s.Keys {
		if key, err := nix.ParsePublicKey(text); err == nil && slices.Contains(keyNames, key.Name) {
			u.keys = append(u.keys, key)
		}
	}
	return u
}

// has reports which paths an upstream cache has signed. One that does not answer has none: then they are built.
func (u upstream) has(ctx context.Context, paths []nix.StorePath) map[nix.StorePath]bool {
	if len(u.keys) == 0 {
		return nil
	}
	found := make([]bool, len(paths))
	var g errgroup.Group
	g.SetLimit(upstreamSideBySide) // one small request each
	for i, path := range paths {
		g.Go(func() error {
			found[i] = slices.ContainsFunc(u.substituters, func(url string) bool { return u.signed(ctx, url, path) })
			return nil
		})
	}
	_ = g.Wait() // none fails
	some := map[nix.StorePath]bool{}
	for i, path := range paths {
		some[path] = found[i]
	}
	return some
}

// signed asks one cache for one path.
func (u upstream) signed(ctx context.Context, url string, path nix.StorePath) bool {
	return u.info(ctx, url, path) != nil
}

// info is what one cache says of one path, and has signed; nil if it does not have it.
func (u upstream) info(ctx context.Context, url string, path nix.StorePath) *nix.NarInfo {
	ctx, cancel := context.WithTimeout(ctx, upstreamWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/%s.narinfo", url, path.Hash()), nil)
	if err != nil {
		return nil
	}
	res, err := u.http.Do(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil
	}
	info, err := nix.ParseNarInfo(io.LimitReader(res.Body, narinfoMax))
	if err != nil || info.StorePath != path {
		return nil
	}
	signed := slices.ContainsFunc(info.Sigs, func(sig string) bool {
		return slices.ContainsFunc(u.keys, func(key nix.PublicKey) bool { return key.Verify(info.Fingerprint(), sig) })
	})
	if !signed {
		return nil
	}
	return info
}
