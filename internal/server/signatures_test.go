package server

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/org/attic-action/internal/nix"
)

func TestSignaturesAreKeptWithinTheirBytes(t *testing.T) {
	pairs := make([]nix.Keypair, 2)
	for i := range pairs {
		var err error
		if pairs[i], err = nix.GenerateKeypair("cache", rand.Reader); err != nil { // equal names
			t.Fatal(err)
		}
	}
	c := &signatures{limit: 100 * signatureBytes}
	for i := range 1000 {
		for _, pair := range pairs {
			text := fmt.Sprint("1;/nix/store/", i)
			for range 2 {
				if sig := c.sign(pair, text); !pair.Public().Verify(text, sig) {
					t.Fatalf("signature %q of another text or key", sig)
				}
			}
		}
		if n := len(c.young) + len(c.old); n > 100 {
			t.Fatalf("%d signatures are kept", n)
		}
	}
	first := "1;/nix/store/999"
	for range 99 { // what is used stays
		c.sign(pairs[0], first)
		c.sign(pairs[0], fmt.Sprint("other", len(c.young)))
	}
	if _, ok := c.young[keyOfSignature(pairs[0], first)]; !ok {
		if _, ok := c.old[keyOfSignature(pairs[0], first)]; !ok {
			t.Error("a signature that is asked for all the time went")
		}
	}
}
