package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// start times how long a server with many paths takes from its exec to its first narinfo. Nothing is warm but the
// system's page cache: that is a machine which was suspended, or one next to it.
func (b *bucketBench) start(ctx context.Context) (err error) {
	if b.env, err = b.bkt.env(); err != nil {
		return err
	}
	s, err := b.startServer(ctx, "start")
	if err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	m := &millions{file: filepath.Join(s.data, "server.db"), cache: "bench", paths: b.paths, closures: max(1, b.paths/2000)}
	if err := m.run(ctx); err != nil {
		return fmt.Errorf("fill the database: %w", err)
	}
	path, err := millionthPath("/nix/store", m.closures/2, 7)
	if err != nil {
		return err
	}
	info, err := os.Stat(m.file)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range 11 {
		d, err := b.startOnce(ctx, s, "/bench/"+path.Hash()+".narinfo")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, logTail(s.log))
		}
		took = append(took, d)
	}
	slices.Sort(took)
	b.add(row{what: fmt.Sprintf("start to first narinfo, %d paths (%s)", b.paths, mib(info.Size())), target: "50 ms",
		value: fmt.Sprintf("%.0f ms (%.0f to %.0f)", ms(took[len(took)/2]), ms(took[0]), ms(took[len(took)-1]))})
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (b *bucketBench) startOnce(ctx context.Context, s *server, path string) (took time.Duration, err error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	listen := "127.0.0.1:" + strconv.Itoa(port)
	log, err := os.Create(s.log)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, s.bin, "--data", s.data, "--listen", listen)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), b.env...), log, log
	client := &http.Client{Transport: &http.Transport{}}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		resp, err := client.Get("http://" + listen + path)
		if err == nil {
			took = time.Since(start)
			discard(resp.Body)
			if resp.StatusCode != http.StatusOK {
				return 0, fmt.Errorf("the first narinfo: %s", resp.Status)
			}
			break
		}
		if ctx.Err() != nil || time.Since(start) > 30*time.Second {
			return 0, err
		}
		time.Sleep(500 * time.Microsecond) // it does not listen yet
	}
	client.CloseIdleConnections()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return 0, err
	}
	return took, cmd.Wait()
}
