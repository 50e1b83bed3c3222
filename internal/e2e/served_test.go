package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/nix"
)

// verifyServed checks paths as Nix would: the narinfo is signed, and the NAR has the hash and the size
// that were signed. It is faster than Nix, so that crash tests can look at every path of every round.
func (s *server) verifyServed(cache, tok, key string, paths []string) {
	s.t.Helper()
	public := must(nix.ParsePublicKey(key))(s.t)
	for _, path := range paths {
		if err := s.checkServed(cache, tok, public, path); err != nil {
			s.t.Fatalf("cache %s, %s: %v", cache, path, err)
		}
	}
}

func (s *server) checkServed(cache, tok string, key nix.PublicKey, path string) error {
	status, text := s.send(s.request(http.MethodGet, "/"+cache+"/"+hashOf(path)+".narinfo", tok, nil))
	if status != http.StatusOK {
		return fmt.Errorf("narinfo: %d %s", status, tail(text))
	}
	info, err := nix.ParseNarInfo(strings.NewReader(text))
	if err != nil {
		return err
	}
	if info.StorePath.String() != path || len(info.Sigs) != 1 || !key.Verify(info.Fingerprint(), info.Sigs[0]) {
		return fmt.Errorf("narinfo is not signed by %s:\n%s", key, text)
	}
	resp, err := http.DefaultTransport.RoundTrip(s.request(http.MethodGet, "/"+cache+"/"+info.URL, tok, nil))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || info.Compression != "zstd" {
		return fmt.Errorf("NAR: %s, compression %s", resp.Status, info.Compression)
	}
	nar, err := zstd.NewReader(resp.Body, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer nar.Close()
	h := sha256.New()
	n, err := io.Copy(h, nar)
	if err != nil {
		return fmt.Errorf("NAR: %w", err)
	}
	if nix.Hash(h.Sum(nil)) != info.NarHash || uint64(n) != info.NarSize {
		return fmt.Errorf("the NAR has %d bytes and another hash than its narinfo says:\n%s", n, text)
	}
	return nil
}

// present lists those of the paths that a cache claims to have.
func (s *server) present(cache, tok string, paths []string) []string {
	s.t.Helper()
	missing := s.stockMissing(cache, tok, paths)
	var have []string
	for _, path := range paths {
		if !missing[hashOf(path)] {
			have = append(have, path)
		}
	}
	return have
}
