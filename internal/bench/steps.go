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
	"syscall"
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

// colds times the first push of the closure beside Nix alone, which writes it into a folder of zstd
// files, in turns: a machine that gets slower meanwhile slows both. A push after a rebuild of
// everything follows each.
func (b *bench) colds(ctx context.Context) error {
	var copies, colds, rebuilds []usage
	var cold, rebuilt result
	for i := range b.runs {
		u, err := b.copyOnce(ctx)
		if err != nil {
			return err
		}
		copies = append(copies, u)
		s, err := b.startServer(ctx, fmt.Sprintf("push-%d", i))
		if err != nil {
			return err
		}
		if u, cold, err = b.push(ctx, s, b.closure); err != nil {
			return err
		}
		colds = append(colds, u)
		if i == b.runs-1 {
			b.tellCold(median(copies), median(colds), cold)
			if err := b.tellServer(s); err != nil {
				return err
			}
			if err := b.unchanged(ctx, s); err != nil {
				return err
			}
		}
		if b.rebuilt != "" {
			if u, rebuilt, err = b.push(ctx, s, b.rebuilt); err != nil {
				return err
			}
			rebuilds = append(rebuilds, u)
		}
		if err := s.stop(); err != nil {
			return err
		}
	}
	if b.rebuilt != "" {
		b.addPush("push, all rebuilt", "3 s; 2 MB", median(rebuilds), rebuilt)
	}
	return nil
}

func (b *bench) copyOnce(ctx context.Context) (usage, error) {
	to := filepath.Join(b.dir, "static")
	if err := os.RemoveAll(to); err != nil {
		return usage{}, err
	}
	return b.nix(ctx, "copy", "--to", "file://"+to+"?compression=zstd", b.closure)
}

func (b *bench) tellCold(alone, u usage, r result) {
	b.add(row{what: "nix copy to a folder, zstd", value: secs(alone.wall), cpu: secs(alone.cpu), peak: mib(alone.peak)})
	b.addPush(fmt.Sprintf("cold push (%.2f ×)", u.wall.Seconds()/alone.wall.Seconds()), "1.5 × nix copy; 200 MiB", u, r)
}

func (b *bench) addPush(what, target string, u usage, r result) {
	b.add(row{what: what, target: target, value: secs(u.wall), cpu: secs(u.cpu), peak: mib(u.peak), sent: mib(r.Sent), request: fmt.Sprint(r.Requests)})
}

func (b *bench) tellServer(s *server) error {
	peak, cpu, err := s.memory()
	if err != nil {
		return err
	}
	b.add(row{what: "  its server", target: "64 MiB", cpu: secs(cpu), peak: mib(peak)})
	stored, err := s.stored()
	if err == nil {
		b.add(row{what: "stored", target: "475 MiB of the design's 1,224", value: mib(stored)})
	}
	return err
}

func (b *bench) unchanged(ctx context.Context, s *server) error {
	var runs []usage
	var r result
	for range 10 {
		u, got, err := b.push(ctx, s, b.closure)
		if err != nil {
			return err
		}
		runs, r = append(runs, u), got
	}
	b.addPush("push, unchanged", "0.15 s", median(runs), r)
	return nil
}

// nix runs nix with a cache folder of its own, so that no run knows what an earlier one looked up, and
// with nothing left to write from the run before.
func (b *bench) nix(ctx context.Context, args ...string) (usage, error) {
	args = append([]string{"--extra-experimental-features", "nix-command"}, args...)
	cache := filepath.Join(b.dir, "nix-cache")
	if err := os.RemoveAll(cache); err != nil {
		return usage{}, err
	}
	syscall.Sync()
	return timed(ctx, []string{"XDG_CACHE_HOME=" + cache}, "nix", args...)
}

func (b *bench) push(ctx context.Context, s *server, top string) (usage, result, error) {
	var r result
	syscall.Sync()
	u, err := timed(ctx, []string{"ATTIC_TOKEN=" + s.token}, filepath.Join(b.bin, "attic-action"),
		"push", "--server", s.url, "--json", "bench", top)
	if err != nil {
		return u, r, err
	}
	return u, r, json.Unmarshal(u.out, &r)
}

func (b *bench) pulls(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	static := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(b.dir, "static")))}
	go static.Serve(l)
	defer static.Close()
	s, err := b.startServer(ctx, fmt.Sprintf("push-%d", b.runs-1))
	if err != nil {
		return err
	}
	defer s.stop()
	urls := []string{"http://" + l.Addr().String(), s.url + "/bench"}
	runs := make([][]usage, len(urls))
	// In turns, for the file system that takes a gigabyte gets slower with each. The first round is not
	// counted: it finds the disk idle.
	for round := range b.runs + 1 {
		for i, url := range urls {
			u, err := b.pull(ctx, url)
			if err != nil {
				return err
			}
			if round > 0 {
				runs[i] = append(runs[i], u)
			}
		}
	}
	alone, ours := median(runs[0]), median(runs[1])
	b.add(row{what: "pull from a static server", value: secs(alone.wall), cpu: secs(alone.cpu), peak: mib(alone.peak)})
	b.add(row{what: fmt.Sprintf("pull from ours (%.2f ×)", ours.wall.Seconds()/alone.wall.Seconds()), target: "1.5 × static",
		value: secs(ours.wall), cpu: secs(ours.cpu), peak: mib(ours.peak)})
	peak, cpu, err := s.memory()
	if err != nil {
		return err
	}
	b.add(row{what: "  its server", target: "64 MiB", cpu: secs(cpu), peak: mib(peak)})
	return nil
}

// pull copies the closure into a store that is empty.
func (b *bench) pull(ctx context.Context, url string) (usage, error) {
	to := filepath.Join(b.dir, "fresh")
	if err := removeStore(to); err != nil {
		return usage{}, err
	}
	return b.nix(ctx, "copy", "--no-check-sigs", "--from", url, "--to", "local?root="+to, b.closure)
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
