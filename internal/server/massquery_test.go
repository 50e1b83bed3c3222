package server_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
)

// massQuery is a cache with n paths that each refer to ten others, and the hashes of these and of as many that
// are not there.
func massQuery(b testing.TB, n int, change ...func(*server.Server)) (s *servertest.Server, hits, misses []string) {
	b.Helper()
	s = servertest.Start(b, change...)
	s.CreateCache(b, "pub", true)
	path := func(i int) string {
		sum := sha256.Sum256(fmt.Append(nil, i))
		return nix.EncodeBase32(sum[:20]) + fmt.Sprintf("-package-%d-1.2.3", i)
	}
	for from := 0; from < n; from += 1000 {
		err := s.DB.Update(context.Background(), func(tx *meta.Tx) error {
			cache, err := tx.Cache("pub")
			if err != nil {
				return err
			}
			for i := from; i < min(from+1000, n); i++ {
				sum := sha256.Sum256(fmt.Append(nil, "nar", i))
				nar := &meta.NAR{Form: sum, Hash: sum, Size: 1000, FileSize: 500, Verified: true}
				if err := tx.InsertNAR(nar, ledger.NAR{Form: sum, Hash: sum}); err != nil {
					return err
				}
				p := &meta.Path{CacheID: cache.ID, Hash: path(i)[:32], StorePath: "/nix/store/" + path(i), NAR: nar.ID, Deriver: path(i) + ".drv", System: "x86_64-linux"}
				for j := max(0, i-10); j < i; j++ {
					p.References = append(p.References, path(j))
				}
				if err := tx.PutPath(p, ledger.Path{Cache: "pub", StorePath: p.StorePath}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range n {
		hits = append(hits, path(i)[:32])
		misses = append(misses, path(i + n)[:32])
	}
	return s, hits, misses
}

// BenchmarkMassQuery asks for ten thousand narinfos as nix path-info -r does, on one HTTP/2 connection.
func BenchmarkMassQuery(b *testing.B) {
	const paths, streams = 10_000, 64
	s, hits, misses := massQuery(b, paths)
	forgets, _, _ := massQuery(b, paths, func(s *server.Server) { s.Limits.Signatures = 1 })
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	for _, c := range []struct {
		name   string
		url    string
		hashes []string
		want   int
	}{{"hits, each signed", forgets.URL, hits, 200}, {"hits", s.URL, hits, 200}, {"misses", s.URL, misses, 404}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				work := make(chan string)
				var all sync.WaitGroup
				for range streams {
					all.Go(func() {
						for hash := range work {
							resp, err := client.Get(c.url + "/pub/" + hash + ".narinfo")
							if err != nil || resp.StatusCode != c.want || resp.ProtoMajor != 2 {
								b.Errorf("%s: %v, %v", hash, resp, err)
								continue
							}
							_, _ = io.Copy(io.Discard, resp.Body)
							_ = resp.Body.Close()
						}
					})
				}
				for _, hash := range c.hashes {
					work <- hash
				}
				close(work)
				all.Wait()
			}
			b.ReportMetric(float64(paths*b.N)/b.Elapsed().Seconds(), "narinfos/s")
		})
	}
}
