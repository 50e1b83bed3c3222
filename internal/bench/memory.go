package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/push"
)

// memoryBench runs the server in a small memory cgroup and has stock uploads, pushes of ours and pulls
// come at the same time. It fails when one of them fails, or when the kernel killed somebody.
type memoryBench struct {
	bench
	limit    int64 // MiB of the cgroup
	parallel int   // of each kind
	upload   int64 // MB of a stock upload's NAR, and of what is pulled
	push     int64 // MB of a push
	bucket   bool  // packs go to a bucket, which is outside of the cgroup
}

func memoryFlags(args []string) (*memoryBench, error) {
	m := &memoryBench{}
	f := flag.NewFlagSet("memory", flag.ContinueOnError)
	f.StringVar(&m.bin, "bin", "bin", "folder of attic-server")
	f.StringVar(&m.dir, "dir", "", "folder for everything, which must be new; default: a temporary one")
	f.Int64Var(&m.limit, "limit", 256, "MiB of memory that the server's cgroup has")
	f.IntVar(&m.parallel, "parallel", 16, "uploads, pushes and pulls, each")
	f.Int64Var(&m.upload, "upload", 200, "MB of each stock upload and pull")
	f.Int64Var(&m.push, "push", 100, "MB of each push")
	f.BoolVar(&m.bucket, "bucket", false, "keep packs in a bucket, 50 ms away; it is not in the cgroup")
	return m, f.Parse(args)
}

func (m *memoryBench) run(ctx context.Context) (err error) {
	if m.bin, err = filepath.Abs(m.bin); err != nil {
		return err
	}
	if m.dir == "" {
		m.dir, err = os.MkdirTemp("", "attic-bench-")
	} else {
		err = os.Mkdir(m.dir, 0o700)
	}
	if err != nil {
		return err
	}
	defer os.RemoveAll(m.dir)
	if m.group, err = newCgroup(m.limit << 20); err != nil {
		return err
	}
	defer m.group.remove()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // the server, when something fails before its stop
	if m.bucket {
		far, err := startBucket(ctx, filepath.Join(m.dir, "s3"), 50*time.Millisecond, 40e6)
		if err != nil {
			return err
		}
		defer far.close()
		if m.env, err = far.env(); err != nil {
			return err
		}
	}
	load, err := m.prepare()
	if err != nil {
		return err
	}
	s, err := m.startServer(ctx, "memory")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, logTail(filepath.Join(m.dir, "memory.log")))
	}
	if err := m.group.watch(ctx, s.cmd.Process.Pid); err != nil {
		return err
	}
	if err := m.fill(ctx, s, load); err != nil {
		return fmt.Errorf("before the measurement: %w\n%s", err, logTail(s.log))
	}
	start := time.Now()
	failures := m.all(ctx, s, load)
	m.tell(s, time.Since(start), failures)
	if len(failures) > 0 {
		return fmt.Errorf("%d of %d failed: %w\n%s", len(failures), 3*m.parallel, errors.Join(failures...), logTail(s.log))
	}
	return s.stop()
}

// memoryLoad is what the clients send and want.
type memoryLoad struct {
	uploads, pushes, pulls []object
	store                  *generated
}

func (m *memoryBench) prepare() (load memoryLoad, err error) {
	load.store = &generated{dir: filepath.Join(m.dir, "store"), infos: map[nix.StorePath]nixcli.PathInfo{}}
	if err := os.Mkdir(load.store.dir, 0o700); err != nil {
		return load, err
	}
	for i := range m.parallel {
		up, err := newObject("/nix/store", "upload", uint64(i), m.upload*1e6)
		if err != nil {
			return load, err
		}
		load.uploads = append(load.uploads, up)
		if i < max(1, m.parallel/4) {
			pull, err := newObject("/nix/store", "pull", uint64(1000+i), m.upload*1e6)
			if err != nil {
				return load, err
			}
			load.pulls = append(load.pulls, pull)
		}
		ours, err := newObject(load.store.dir, "push", uint64(2000+i), m.push*1e6)
		if err != nil {
			return load, err
		}
		load.pushes = append(load.pushes, ours)
		if err := load.store.add(ours); err != nil {
			return load, err
		}
	}
	return load, nil
}

// fill uploads what will be pulled.
func (m *memoryBench) fill(ctx context.Context, s *server, load memoryLoad) error {
	if err := s.createCache(ctx, "pushes", load.store.dir); err != nil {
		return err
	}
	for _, o := range load.pulls {
		if err := s.uploadObject(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// all starts every client at once and gathers what failed.
func (m *memoryBench) all(ctx context.Context, s *server, load memoryLoad) []error {
	var mu sync.Mutex
	var failures []error
	var wg sync.WaitGroup
	do := func(fn func() error) {
		wg.Go(func() {
			if err := fn(); err != nil {
				mu.Lock()
				failures = append(failures, err)
				mu.Unlock()
			}
		})
	}
	for i := range m.parallel {
		do(func() error { return s.uploadObject(ctx, load.uploads[i]) })
		do(func() error { return load.store.push(ctx, s, load.pushes[i], m.dir) })
		do(func() error { return s.pullObject(ctx, load.pulls[i%len(load.pulls)]) })
	}
	wg.Wait()
	return failures
}

func (m *memoryBench) tell(s *server, wall time.Duration, failures []error) {
	use := m.group.use()
	peak, cpu, err := s.memory()
	if err != nil {
		peak = 0 // it was killed, which use says
	}
	if m.bucket {
		m.add(row{what: "storage", value: "a bucket, 50 ms away"})
	}
	m.add(row{what: m.group.kind, value: fmt.Sprintf("limit %d MiB, no swap", m.limit)})
	m.add(row{what: fmt.Sprintf("%d stock uploads of %d MB, %d pushes of %d MB, %d pulls", m.parallel, m.upload, m.parallel, m.push, m.parallel),
		target: "0 failures", value: fmt.Sprintf("%d failures, %s", len(failures), secs(wall)), cpu: secs(cpu)})
	m.add(row{what: "  cgroup, page cache included", peak: mib(use.all), value: fmt.Sprintf("%d killed", use.killed)})
	m.add(row{what: "  anonymous memory", peak: mib(use.anon)})
	m.add(row{what: "  server, resident", peak: mib(peak)})
	m.print()
}

func logTail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return "the server's log ends:\n" + string(tail(b))
}

func (s *server) uploadObject(ctx context.Context, o object) error {
	body, size := o.open()
	return s.uploadNAR(ctx, "bench", nixcli.PathInfo{Path: o.path, NarHash: o.hash, NarSize: uint64(size)}, body)
}

// pullObject fetches a path as Nix does, and compares its hash.
func (s *server) pullObject(ctx context.Context, o object) error {
	text, err := s.request(ctx, "GET", "/bench/"+o.path.Hash()+".narinfo", nil, nil)
	if err != nil {
		return err
	}
	info, err := nix.ParseNarInfo(bytes.NewReader(text))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/bench/"+info.URL, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("pull %s: %s", o.path, resp.Status)
	}
	dec, err := zstd.NewReader(bufio.NewReaderSize(resp.Body, 1<<20), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer dec.Close()
	h := sha256.New()
	if _, err := io.Copy(h, dec); err != nil {
		return fmt.Errorf("pull %s: %w", o.path, err)
	}
	if got := nix.Hash(h.Sum(nil)); got != o.hash {
		return fmt.Errorf("pull %s: got %s, want %s", o.path, got, o.hash)
	}
	return nil
}

// generated is a store folder of generated files, with what Nix would say of it.
type generated struct {
	dir   string
	infos map[nix.StorePath]nixcli.PathInfo
}

func (g *generated) add(o object) error {
	g.infos[o.path] = nixcli.PathInfo{Path: o.path, NarHash: o.hash, NarSize: uint64(o.nar)}
	f, err := os.Create(o.path.String())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, &content{seed: o.seed, size: o.size})
	return errors.Join(err, f.Close())
}

// Resolve, Closure and Infos make it a push.Store.
func (g *generated) Resolve(_ context.Context, paths []string) (out []nix.StorePath, err error) {
	for _, p := range paths {
		path, err := nix.ParseStorePath(p)
		if err != nil {
			return nil, err
		}
		out = append(out, path)
	}
	return out, nil
}

func (g *generated) Closure(ctx context.Context, paths []nix.StorePath) ([]nixcli.PathInfo, error) {
	return g.Infos(ctx, paths)
}

func (g *generated) Infos(_ context.Context, paths []nix.StorePath) (out []nixcli.PathInfo, err error) {
	for _, p := range paths {
		info, ok := g.infos[p]
		if !ok {
			return nil, fmt.Errorf("%s was not generated", p)
		}
		out = append(out, info)
	}
	return out, nil
}

// push pushes one path as attic-action does.
func (g *generated) push(ctx context.Context, s *server, o object, temp string) error {
	c, err := client.New(client.Options{Endpoint: strings.TrimSuffix(s.url, "/") + "/", Token: client.StaticToken(s.token)})
	if err != nil {
		return err
	}
	p := &push.Pusher{Client: c, Nix: g, TempDir: temp, Workers: 1}
	res, err := p.Push(ctx, push.Request{Cache: "pushes", Paths: []string{o.path.String()}})
	if err != nil {
		return fmt.Errorf("push %s: %w", o.path, err)
	}
	for _, f := range res.Failed {
		return fmt.Errorf("push %s: %s", f.Path, f.Reason)
	}
	return nil
}
