package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/org/attic-action/internal/api"
)

// maxPins bounds the answer that is one page of pins.
const maxPins = 32 << 20

// SetPin makes a path the newest revision of a pin. Where the cache lacks something
// of its closure, the error is a *StatusError whose API.Name is
// api.MissingReferences, and its API.References say what.
func (c *Client) SetPin(ctx context.Context, cache, name string, in api.PinRequest) (*api.Pin, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("set pin %s: %w", name, err)
	}
	pin := new(api.Pin)
	err = c.json(ctx, call{
		method: http.MethodPut, path: api.Expand(api.PinRoute, "cache", cache, "name", name), body: bytesBody(body),
		header: http.Header{"Content-Type": {"application/json"}}, limit: 1 << 20,
	}, pin)
	if err != nil {
		return nil, fmt.Errorf("set pin %s: %w", name, err)
	}
	return pin, nil
}

// Pin reads one pin.
func (c *Client) Pin(ctx context.Context, cache, name string) (*api.Pin, error) {
	pin := new(api.Pin)
	err := c.json(ctx, call{method: http.MethodGet, path: api.Expand(api.PinRoute, "cache", cache, "name", name), limit: 1 << 20}, pin)
	if err != nil {
		return nil, fmt.Errorf("read pin %s: %w", name, err)
	}
	return pin, nil
}

// Pins lists the pins behind after, "" for the first page; the answer's Next is
// after for the next one. With sizes it takes the server longer.
func (c *Client) Pins(ctx context.Context, cache, after string, sizes bool) (*api.PinList, error) {
	query := url.Values{"after": {after}}
	if sizes {
		query.Set("sizes", "1")
	}
	list := new(api.PinList)
	err := c.json(ctx, call{method: http.MethodGet, path: api.Expand(api.PinsRoute, "cache", cache), query: query.Encode(), limit: maxPins}, list)
	if err == nil && list.Next != "" && list.Next <= after {
		err = fmt.Errorf("%w: the pages go round", ErrAnswer)
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	return list, nil
}

// DeletePin takes a pin away.
func (c *Client) DeletePin(ctx context.Context, cache, name string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: api.Expand(api.PinRoute, "cache", cache, "name", name), limit: 1 << 16})
	if err != nil {
		return fmt.Errorf("delete pin %s: %w", name, err)
	}
	return nil
}

// json reads an answer into out.
func (c *Client) json(ctx context.Context, in call, out any) error {
	b, err := c.do(ctx, in)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return nil
}
