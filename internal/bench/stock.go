package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nixcli"
)

// parallel is how many stock uploads run at once.
const parallel = 16

// stockUploads sends the closure's largest NARs as the stock client does, sixteen at once, to a fresh
// server.
func (b *bench) stockUploads(ctx context.Context) error {
	paths, err := b.paths(ctx, b.closure)
	if err != nil {
		return err
	}
	slices.SortFunc(paths, func(a, c nixcli.PathInfo) int { return int(int64(c.NarSize) - int64(a.NarSize)) })
	paths = paths[:min(len(paths), 4*parallel)]
	s, err := b.startServer(ctx, "stock")
	if err != nil {
		return err
	}
	defer s.stop()
	start := time.Now()
	var sent int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel) // the row is about just so many
	for _, p := range paths {
		sent += int64(p.NarSize)
		g.Go(func() error { return s.stockUpload(ctx, p) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	wall := time.Since(start)
	peak, cpu, err := s.memory()
	if err != nil {
		return err
	}
	b.add(row{what: fmt.Sprintf("%d stock uploads at once", parallel), target: "128 MiB", value: secs(wall), cpu: secs(cpu), peak: mib(peak),
		sent: mib(sent), request: fmt.Sprint(len(paths))})
	return nil
}

func (s *server) stockUpload(ctx context.Context, p nixcli.PathInfo) error {
	body, w := io.Pipe()
	go func() { w.CloseWithError(nar.Dump(w, p.Path.String())) }()
	defer body.Close()
	return s.uploadNAR(ctx, "bench", p, body)
}

// uploadNAR sends a NAR as the stock client does: its description before it in the body, whose length is
// not told, once and never again.
func (s *server) uploadNAR(ctx context.Context, cache string, p nixcli.PathInfo, nar io.Reader) error {
	refs := []string{}
	for _, r := range p.References {
		refs = append(refs, r.Base())
	}
	info, err := json.Marshal(map[string]any{
		"cache": cache, "store_path_hash": p.Path.Hash(), "store_path": p.Path.String(), "references": refs,
		"system": nil, "deriver": nil, "sigs": []string{}, "ca": nil, "nar_hash": p.NarHash.String(), "nar_size": p.NarSize,
	})
	if err != nil {
		return err
	}
	body := struct{ io.Reader }{io.MultiReader(bytes.NewReader(info), nar)}
	req, err := http.NewRequestWithContext(ctx, "PUT", s.url+"/_api/v1/upload-path", body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "bearer "+s.token)
	req.Header.Set("X-Attic-Nar-Info-Preamble-Size", fmt.Sprint(len(info)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer discard(resp.Body)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 2000)) // only for the message
		return fmt.Errorf("upload %s: %s: %s", p.Path, resp.Status, text)
	}
	return nil
}
