package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// scaleBench measures what has to look at everything, and what must not, in a cache that is as large as one gets
// after years: a million paths in 500 closures, which came over three times its retention; a tenth of them is
// pinned.
type scaleBench struct {
	bench
	paths, closures int
	few             int
	keep            string // folder
}

func scaleFlags(args []string) (*scaleBench, error) {
	b := &scaleBench{}
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	f.StringVar(&b.bin, "bin", "bin", "folder of attic-server")
	f.IntVar(&b.paths, "paths", 1_000_000, "paths, in all closures together")
	f.IntVar(&b.closures, "closures", 500, "closures")
	f.IntVar(&b.few, "few", 1000, "paths of the small cache that it is compared to")
	f.StringVar(&b.keep, "keep", "", "folder for the two caches, which are used again; empty: a temporary one")
	f.IntVar(&b.runs, "runs", 3, "runs of each timed row; the median is printed")
	return b, f.Parse(args)
}

const retention = 30 * 24 * time.Hour

func (b *scaleBench) run(ctx context.Context) (err error) {
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir = b.keep; b.keep == "" {
		if b.dir, err = os.MkdirTemp("", "attic-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dir)
	}
	small, err := b.filled(ctx, "few", b.few, 1)
	if err != nil {
		return err
	}
	large, err := b.filled(ctx, "million", b.paths, b.closures)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return b.command(ctx, large, "1 s", "stats") },
		func() error { return b.narinfos(ctx, small, "few", b.few, 1) },
		func() error { return b.narinfos(ctx, large, "million", b.paths, b.closures) },
		func() error { return b.command(ctx, large, "20 s, 150 MiB", "gc", "--dry-run") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	b.print()
	return nil
}

// filled makes a server's folder with a cache of so many paths. The server does not run.
func (b *scaleBench) filled(ctx context.Context, name string, paths, closures int) (*server, error) {
	filled := filepath.Join(b.dir, fmt.Sprintf("%s-%d-in-%d", name, paths, closures))
	if _, err := os.Stat(filled); err == nil {
		return &server{data: filepath.Join(b.dir, name), bin: filepath.Join(b.bin, "attic-server")}, nil
	}
	s, err := b.startServer(ctx, name)
	if err != nil {
		return nil, err
	}
	_, err = s.request(ctx, "PATCH", "/_api/v1/cache-config/bench", strings.NewReader(fmt.Sprintf(`{"retention_period":{"Period":%.0f}}`, retention.Seconds())),
		map[string]string{"Content-Type": "application/json"})
	if err := errors.Join(err, s.stop()); err != nil {
		return nil, err
	}
	m := &millions{file: filepath.Join(s.data, "server.db"), storage: filepath.Join(s.data, "storage"), cache: "bench",
		paths: paths, closures: closures, spread: 3 * retention}
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	if err := b.pin(ctx, s, paths, closures); err != nil {
		return nil, err
	}
	return s, os.WriteFile(filled, nil, 0o600)
}

// pin pins the toplevel of every tenth closure.
func (b *scaleBench) pin(ctx context.Context, s *server, paths, closures int) error {
	for c := 0; c < closures; c += 10 {
		top, err := millionthPath("/nix/store", c, paths/closures-1)
		if err != nil {
			return err
		}
		if _, err := timed(ctx, nil, s.bin, "pin", "set", "bench", fmt.Sprintf("bench/host-%d", c), top.String(), "--data", s.data); err != nil {
			return err
		}
	}
	return nil
}

func (b *scaleBench) command(ctx context.Context, s *server, target string, args ...string) error {
	var runs []usage
	for range b.runs {
		u, err := peaked(ctx, nil, s.bin, append(args, "--data", s.data)...)
		if err != nil {
			return err
		}
		runs = append(runs, u)
	}
	u := median(runs)
	info, err := os.Stat(filepath.Join(s.data, "server.db"))
	if err != nil {
		return err
	}
	b.add(row{what: fmt.Sprintf("%s, %d paths in %d closures (%s)", strings.Join(args, " "), b.paths, b.closures, mib(info.Size())), target: target,
		value: fmt.Sprintf("%.2f s", u.wall.Seconds()), cpu: fmt.Sprintf("%.2f s", u.cpu.Seconds()), peak: mib(u.peak)})
	return nil
}

// asks is how many narinfos are asked for.
const asks = 20_000

// narinfos asks for narinfos all over the cache, half of them missing, as Nix does when it looks for a closure.
func (b *scaleBench) narinfos(ctx context.Context, s *server, name string, paths, closures int) error {
	s, err := b.again(ctx, s, name)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	each := paths / closures
	var rates []float64
	for range b.runs + 1 { // the first fills the page cache
		var next, wrong atomic.Int64
		g, ctx := errgroup.WithContext(ctx)
		start := time.Now()
		for range 16 {
			g.Go(func() error {
				for {
					i := int(next.Add(1)) - 1
					if i >= asks {
						return nil
					}
					at := int(uint64(i) * 0x9e3779b97f4a7c15 >> 32 % uint64(paths))
					closure := at / each
					if i%2 == 1 {
						closure += closures // which is not there
					}
					path, err := millionthPath("/nix/store", closure, at%each)
					if err != nil {
						return err
					}
					req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/bench/"+path.Hash()+".narinfo", nil)
					if err != nil {
						return err
					}
					resp, err := client.Do(req)
					if err != nil {
						return err
					}
					discard(resp.Body)
					if (resp.StatusCode == http.StatusOK) != (i%2 == 0) {
						wrong.Add(1)
					}
				}
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if n := wrong.Load(); n > 0 {
			return fmt.Errorf("%d of %d narinfos were answered wrongly", n, asks)
		}
		rates = append(rates, asks/time.Since(start).Seconds())
	}
	rates = rates[1:]
	peak, _, err := s.memory()
	if err := errors.Join(err, s.stop()); err != nil {
		return err
	}
	b.add(row{what: fmt.Sprintf("narinfos in a second, half of them missing, %d paths", paths), target: "as with few", value: fmt.Sprintf("%.0f", middle(rates)), peak: mib(peak)})
	return nil
}

// again starts a server on the folder of one that has stopped.
func (b *scaleBench) again(ctx context.Context, s *server, name string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	next := &server{data: s.data, bin: s.bin, log: filepath.Join(b.dir, name+"-again.log"), url: "http://" + listen}
	log, err := os.Create(next.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the server has its own
	next.cmd = b.group.command(ctx, s.bin, "--data", s.data, "--listen", listen)
	next.cmd.Stdout, next.cmd.Stderr = log, log
	if err := next.cmd.Start(); err != nil {
		return nil, err
	}
	return next, awaitPort(ctx, listen)
}

func middle(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
