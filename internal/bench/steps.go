package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/org/attic-action/internal/nixcli"
)

// result is what `attic-action push --json` prints.
type result struct {
	Paths    int   `json:"paths"`
	Pushed   int   `json:"pushed"`
	NARBytes int64 `json:"nar_bytes"`
	Sent     int64 `json:"bytes_sent"`
	Requests int   `json:"requests"`
}

func (b *bench) describe(ctx context.Context) error {
	paths, err := b.paths(ctx, b.closure)
	if err != nil {
		return err
	}
	var size uint64
	for _, p := range paths {
		size += p.NarSize
	}
	b.add(row{what: "closure", value: fmt.Sprintf("%d paths, %s", len(paths), mib(int64(size)))})
	return nil
}

func (b *bench) paths(ctx context.Context, top string) ([]nixcli.PathInfo, error) {
	nix := &nixcli.Nix{Bin: "nix"}
	tops, err := nix.Resolve(ctx, []string{top})
	if err != nil {
		return nil, err
	}
	return nix.Closure(ctx, tops)
}

// copies times Nix alone: the closure into a folder of zstd files.
func (b *bench) copies(ctx context.Context) error {
	var runs []usage
	for i := range b.runs {
		to := filepath.Join(b.dir, "static")
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		u, err := b.nix(ctx, i, "copy", "--to", "file://"+to+"?compression=zstd", b.closure)
		if err != nil {
			return err
		}
		runs = append(runs, u)
	}
	u := median(runs)
	b.add(row{what: "nix copy to a folder, zstd", value: secs(u.wall), cpu: secs(u.cpu), peak: mib(u.peak)})
	return nil
}

// nix runs nix with a cache folder of its own, so that no run knows what an earlier one looked up.
func (b *bench) nix(ctx context.Context, run int, args ...string) (usage, error) {
	args = append([]string{"--extra-experimental-features", "nix-command"}, args...)
	cache := filepath.Join(b.dir, "nix-cache")
	if err := os.RemoveAll(cache); err != nil {
		return usage{}, err
	}
	return timed(ctx, []string{"XDG_CACHE_HOME=" + cache}, "nix", args...)
}

func (b *bench) push(ctx context.Context, s *server, top string) (usage, result, error) {
	var r result
	u, err := timed(ctx, []string{"ATTIC_TOKEN=" + s.token}, filepath.Join(b.bin, "attic-action"),
		"push", "--server", s.url, "--json", "bench", top)
	if err != nil {
		return u, r, err
	}
	return u, r, json.Unmarshal(u.out, &r)
}

func (b *bench) pushes(ctx context.Context) error {
	var runs []usage
	var r result
	for i := range b.runs {
		s, err := b.startServer(ctx, fmt.Sprintf("push-%d", i))
		if err != nil {
			return err
		}
		u, got, err := b.push(ctx, s, b.closure)
		if err != nil {
			return err
		}
		runs, r = append(runs, u), got
		if i == b.runs-1 {
			return b.morePushes(ctx, s, median(runs), r)
		}
		if err := s.stop(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) morePushes(ctx context.Context, s *server, cold usage, r result) error {
	defer s.stop()
	peak, cpu, err := s.memory()
	if err != nil {
		return err
	}
	b.add(row{what: "cold push", target: "1.5 × nix copy; 200 MiB", value: secs(cold.wall), cpu: secs(cold.cpu), peak: mib(cold.peak),
		sent: mib(r.Sent), request: fmt.Sprint(r.Requests)})
	b.add(row{what: "  its server", target: "64 MiB", value: "", cpu: secs(cpu), peak: mib(peak)})
	stored, err := s.stored()
	if err != nil {
		return err
	}
	b.add(row{what: "stored", target: "475 MiB (design's closure)", value: mib(stored)})
	var runs []usage
	for range 10 {
		u, got, err := b.push(ctx, s, b.closure)
		if err != nil {
			return err
		}
		runs, r = append(runs, u), got
	}
	u := median(runs)
	b.add(row{what: "push, unchanged", target: "0.15 s", value: secs(u.wall), cpu: secs(u.cpu), peak: mib(u.peak), sent: mib(r.Sent), request: fmt.Sprint(r.Requests)})
	if b.rebuilt == "" {
		return nil
	}
	u, r, err = b.push(ctx, s, b.rebuilt)
	if err != nil {
		return err
	}
	b.add(row{what: "push, all rebuilt", target: "3 s; 2 MB", value: secs(u.wall), cpu: secs(u.cpu), peak: mib(u.peak), sent: mib(r.Sent), request: fmt.Sprint(r.Requests)})
	return nil
}

func (b *bench) pulls(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	static := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(b.dir, "static")))}
	go static.Serve(l)
	defer static.Close()
	last := filepath.Join(b.dir, fmt.Sprintf("push-%d", b.runs-1))
	s, err := b.restartServer(ctx, last)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, from := range []struct{ what, target, url string }{
		{"pull from a static server", "", "http://" + l.Addr().String()},
		{"pull from ours", "1.5 × static", s.url + "/bench"},
	} {
		var runs []usage
		for i := range b.runs {
			to := filepath.Join(b.dir, "fresh")
			if err := removeStore(to); err != nil {
				return err
			}
			u, err := b.nix(ctx, i, "copy", "--no-check-sigs", "--from", from.url, "--to", "local?root="+to, b.closure)
			if err != nil {
				return err
			}
			runs = append(runs, u)
		}
		u := median(runs)
		b.add(row{what: from.what, target: from.target, value: secs(u.wall), cpu: secs(u.cpu), peak: mib(u.peak)})
	}
	peak, cpu, err := s.memory()
	if err != nil {
		return err
	}
	b.add(row{what: "  its server", target: "64 MiB", cpu: secs(cpu), peak: mib(peak)})
	return nil
}

// restartServer starts a server on a data folder that is there.
func (b *bench) restartServer(ctx context.Context, data string) (*server, error) {
	s, err := b.startServer(ctx, filepath.Base(data))
	return s, err
}

// removeStore removes a Nix store, whose folders are read-only.
func removeStore(dir string) error {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755) // if it fails, so does RemoveAll, and says why
		}
		return nil
	})
	return os.RemoveAll(dir)
}

func (s *server) request(ctx context.Context, method, path string, body io.Reader, header map[string]string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "bearer "+s.token)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 && !alreadyThere(answer) {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, err
}

// alreadyThere recognises the answer to creating a cache twice, as a restarted server gives it.
func alreadyThere(answer []byte) bool {
	var e struct{ Error string }
	return json.Unmarshal(answer, &e) == nil && e.Error == "CacheAlreadyExists"
}

func secs(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mib(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}
