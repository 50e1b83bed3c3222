package depot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/nix"
)

func TestDropUnfoundedKeepsWhatHolds(t *testing.T) {
	good := addressed(t, nix.Flat, "good")
	sig := newKey(t, "k-1").Sign("x")
	up := good.upload()
	up.Sigs = []string{"", "x", sig, "k:x", sig + "\n"}
	up.DropUnfounded()
	if up.CA != good.ca || !slices.Equal(up.Sigs, []string{sig}) {
		t.Errorf("kept CA %q and %q", up.CA, up.Sigs)
	}
	for deriver, want := range map[string]string{"hello.drv": "", "x\u2028y": "", good.path.Base() + ".drv": good.path.Base() + ".drv", "": ""} {
		up.Deriver = deriver
		if up.DropUnfounded(); up.Deriver != want {
			t.Errorf("deriver %q is kept as %q, want %q", deriver, up.Deriver, want)
		}
	}
	for system, want := range map[string]string{"a b": "", "x\u2028y": "", "x86_64-linux": "x86_64-linux", "": ""} {
		up.System = system
		if up.DropUnfounded(); up.System != want {
			t.Errorf("system %q is kept as %q, want %q", system, up.System, want)
		}
	}
	up.Sigs = nil
	for i := range maxSigs + 1 {
		up.Sigs = append(up.Sigs, newKey(t, fmt.Sprintf("k-%d", i)).Sign("x"))
	}
	if up.DropUnfounded(); len(up.Sigs) != maxSigs {
		t.Errorf("kept %d signatures, want %d", len(up.Sigs), maxSigs)
	}
}

// A client takes a path by its content address without any signature.
func TestDropUnfoundedTakesOffForgedAddresses(t *testing.T) {
	for _, ca := range []string{"foo", "fixed:r:sha256:" + strings.Repeat("0", 52), addressed(t, nix.Flat, "evil").ca, "text:sha256:x\nSig: y"} {
		up := addressed(t, nix.Flat, "good").upload()
		if up.CA = ca; ca == "" {
			t.Fatal("no address")
		}
		if up.DropUnfounded(); up.CA != "" {
			t.Errorf("%q is kept as %q", ca, up.CA)
		}
	}
}
