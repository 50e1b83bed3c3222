package server_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
)

// The rule is the cache's: a token that may do everything brings nothing in unsigned, by neither road.
func TestCacheThatWantsSignaturesTakesNothingElse(t *testing.T) {
	pair, err := nix.GenerateKeypair("builder-1", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{Server: servertest.Start(t, func(s *server.Server) {
		s.SignedBy = map[string][]nix.PublicKey{"system": {pair.Public()}}
	})}
	h.CreateCache(t, "system", true)
	h.CreateCache(t, "other", true)
	n := servertest.NewNAR(t, "path", []byte("a NAR"))
	unsigned := header(n)
	pieces := chunk.AppendLiteral(nil, n.Bytes)
	if resp, body := h.commit(t, h.Root, "system", unsigned, pieces); resp.StatusCode != 400 || !strings.Contains(body, "signed by") {
		t.Errorf("ours, unsigned: %s: %s", resp.Status, body)
	}
	if resp, body := h.Upload(t, h.Root, "system", n); resp.StatusCode != 400 {
		t.Errorf("stock, unsigned: %s: %s", resp.Status, body)
	}
	if resp, body := h.Upload(t, h.Root, "other", n); resp.StatusCode != 200 {
		t.Errorf("a cache without the rule: %s: %s", resp.Status, body)
	}
	hash, err := nix.ParseHash(unsigned.NARHash)
	if err != nil {
		t.Fatal(err)
	}
	signed := unsigned
	signed.Sigs = []string{pair.Sign((&nix.NarInfo{StorePath: n.Path, NarHash: hash, NarSize: unsigned.NARSize}).Fingerprint())}
	if resp, body := h.commit(t, h.Root, "system", signed, pieces); resp.StatusCode != 200 {
		t.Errorf("ours, signed: %s: %s", resp.Status, body)
	}
}
