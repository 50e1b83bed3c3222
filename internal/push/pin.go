package push

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
)

// Pin says what to pin.
type Pin struct {
	Cache, Name string
	Path        nix.StorePath
	Keep        int           // revisions; 0: as many as so far, or the server's default
	Life        time.Duration // in whole seconds; 0: for ever
}

// ErrNoPins says that a server cannot pin: a stock one, or one from before pins.
var ErrNoPins = errors.New("the server has no pins")

// Pin pins a path that was pushed, with all it needs. What the cache lacks of that,
// since the stock client left it to the cache's upstreams, is no hindrance where the
// local store has an upstream's signature for it.
func (p *Pusher) Pin(ctx context.Context, in Pin) (*api.Pin, error) {
	cfg, err := p.Client.CacheConfig(ctx, in.Cache)
	if err != nil {
		return nil, err
	}
	if cfg.AtticAction == nil || cfg.AtticAction.Routes["pin"] == "" {
		return nil, fmt.Errorf("pin %s: %w", in.Name, ErrNoPins)
	}
	c := p.Client
	if cfg.APIEndpoint != "" {
		if c, err = c.At(cfg.APIEndpoint); err != nil {
			return nil, err
		}
	}
	req := api.PinRequest{StorePath: in.Path.String(), Keep: in.Keep, ExpiresIn: int64(in.Life / time.Second)}
	pin, err := c.SetPin(ctx, in.Cache, in.Name, req)
	if e := client.APIError(err); e != nil && e.Name == api.MissingReferences {
		if req.Upstream = p.upstreams(ctx, cfg, e.References); len(req.Upstream) > 0 {
			return c.SetPin(ctx, in.Cache, in.Name, req)
		}
	}
	return pin, err
}

// upstreams picks of base names what an upstream of the cache has signed. Nothing is
// picked where the local store does not know them all.
func (p *Pusher) upstreams(ctx context.Context, cfg *client.Config, bases []string) (signed []string) {
	if len(bases) > api.MaxPinUpstream {
		return nil
	}
	var paths []nix.StorePath
	for _, base := range bases {
		path, err := nix.ParseBaseName(cfg.StoreDir, base)
		if err != nil {
			return nil
		}
		paths = append(paths, path)
	}
	infos, err := p.Nix.Infos(ctx, paths)
	if err != nil {
		return nil
	}
	has := upstreamFilter(cfg, Request{})
	for _, info := range infos {
		if has(info) {
			signed = append(signed, info.Path.Base())
		}
	}
	return signed
}
