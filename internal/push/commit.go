package push

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/client"
)

const (
	// commitEvery is how long paths gather while others are still on their
	// way: often enough that an interruption loses little, seldom enough that
	// a push of thousands of paths is tens of transactions.
	commitEvery = 500 * time.Millisecond
	// maxBatch is the most paths in one request. It bounds how many fail
	// together before the culprit is looked for.
	maxBatch = 2048
)

// commitAll commits what is ready until nothing is left.
func (r *run) commitAll(ctx context.Context) error {
	defer close(r.done)
	c := &committer{run: r, max: maxBatch}
	last := r.p.now()
	for {
		open, moving := r.track.left()
		if open == 0 && r.active.Load() == 0 {
			return nil
		}
		if wait := commitEvery - r.p.now().Sub(last); moving > 0 && wait > 0 {
			if err := r.pause(ctx, wait); err != nil {
				return err
			}
			continue
		}
		batch := r.track.ready(c.max)
		if len(batch) == 0 {
			if open > 0 && moving == 0 {
				return errors.New("internal error: paths wait for each other")
			}
			if err := r.pause(ctx, time.Hour); err != nil {
				return err
			}
			continue
		}
		last = r.p.now()
		if err := c.commit(ctx, batch); err != nil {
			return err
		}
	}
}

// pause waits for a change, at most for d.
func (r *run) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.track.wake:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// committer sends paths in order.
type committer struct {
	*run
	max int // paths in a request; shrinks while one of them is refused

	body  []byte
	items []*item // with their last part in body
	parts int
	long  *item // has earlier parts in body or sent, and more to come
	stop  bool  // the batch is to be put together anew
}

// commit sends a batch, in as many requests as its piece lists need.
func (c *committer) commit(ctx context.Context, batch []*item) error {
	c.stop = false
	for _, it := range batch {
		if err := c.add(ctx, it); err != nil || c.stop {
			return err
		}
	}
	return c.flush(ctx)
}

// add frames one path. A piece list that is longer than a request goes in
// several, one after another.
func (c *committer) add(ctx context.Context, it *item) error {
	header := it.header()
	rest, offset := it.pieces, 0
	for {
		header.Listing = it.listing
		room := int(c.road.pathsBytes) - len(c.body) - headerSize(header)
		if len(rest) > room && c.parts > 0 {
			if err := c.flush(ctx); err != nil || c.stop {
				return err
			}
			continue
		}
		if len(rest) > room && room < leastCommit/4 && len(it.listing) > 0 {
			it.listing = nil // a path can do without
			continue
		}
		n := min(len(rest), room)
		if n < len(rest) && n < leastCommit/4 {
			c.track.fail(it, "its description is longer than the server takes")
			return nil
		}
		header.Offset, header.More = int64(offset), n < len(rest)
		if header.More {
			header.Listing = nil // once, with the last part
		}
		body, err := api.AppendPath(c.body, header, rest[:n])
		if err != nil {
			return fmt.Errorf("commit %s: %w", it, err)
		}
		c.body, rest, offset = body, rest[n:], offset+n
		c.parts++
		c.long = it
		if !header.More {
			c.long = nil
			c.items = append(c.items, it)
			return nil
		}
	}
}

// headerSize is an upper bound of what AppendPath adds to a piece list.
func headerSize(h api.PathHeader) int {
	n := 512 + len(h.StorePath) + len(h.Deriver) + len(h.CA) + base64.StdEncoding.EncodedLen(len(h.Listing))
	for _, list := range [][]string{h.References, h.Upstream, h.Sigs} {
		for _, s := range list {
			n += len(s) + 8
		}
	}
	return n
}

func (it *item) header() api.PathHeader {
	h := api.PathHeader{
		StorePath: it.info.Path.String(), NARHash: it.info.NarHash.String(), NARSize: it.info.NarSize,
		References: []string{}, Upstream: it.upstream, CA: it.info.CA, Sigs: it.info.Sigs,
	}
	for _, ref := range it.info.References {
		h.References = append(h.References, ref.Base())
	}
	if it.info.Deriver != "" {
		h.Deriver = path.Base(it.info.Deriver) // as narinfo has it
	}
	return h
}

// flush sends what was framed.
func (c *committer) flush(ctx context.Context) error {
	body, items, parts := c.body, c.items, c.parts
	c.body, c.items, c.parts = c.body[:0], nil, 0
	if parts == 0 {
		return nil
	}
	results, err := c.api.PostPaths(ctx, c.cache, body, parts)
	switch {
	case err == nil:
		for _, it := range items {
			c.track.commit(it)
		}
		for _, res := range results {
			if res.Result == api.Kept {
				c.kept.Add(1)
				c.p.log().Warn("the cache has this path with other contents, which stay", "hash", client.Clean(res.StorePathHash, 40))
			}
		}
		c.max = min(2*c.max, maxBatch)
		return nil
	case !refused(err):
		return err
	}
	c.stop = true
	return c.settle(ctx, items, err)
}

// settle finds out which of the paths a refusal means; the others are sent again.
func (c *committer) settle(ctx context.Context, items []*item, refusal error) error {
	e := client.APIError(refusal)
	if e != nil && e.Code == http.StatusConflict {
		if found, err := c.blame(ctx, items, e); found || err != nil {
			return err
		}
	}
	if len(items) > 1 {
		c.max = max(1, len(items)/2) // the culprit is in one of the halves
		return nil
	}
	for _, it := range items {
		c.track.fail(it, reasonOf(refusal))
	}
	if len(items) == 0 && c.long != nil {
		c.track.fail(c.long, reasonOf(refusal))
	}
	return nil
}

// blame acts on a refusal that names chunks or references.
func (c *committer) blame(ctx context.Context, items []*item, e *api.Error) (found bool, err error) {
	chunks, refs := map[chunk.ID]bool{}, map[string]bool{}
	for _, s := range e.Chunks {
		if id, err := chunk.ParseID(s); err == nil {
			chunks[id] = true
			c.book.forget([]chunk.ID{id}, atServer)
		}
	}
	for _, s := range e.References {
		refs[s] = true
	}
	for _, it := range items {
		if it.hasAny(chunks) {
			found = true
			if err := c.repeat(ctx, it, reasonOf(&client.StatusError{Status: e.Code, API: e})); err != nil {
				return true, err
			}
		}
		for _, ref := range it.info.References {
			if refs[ref.Base()] {
				found = true
				c.track.fail(it, fmt.Sprintf("refers to %s, which the cache does not have", ref))
			}
		}
	}
	return found, nil
}

func (it *item) hasAny(ids map[chunk.ID]bool) bool {
	if len(ids) == 0 {
		return false
	}
	for id := range it.chunks() {
		if ids[id] {
			return true
		}
	}
	return false
}
