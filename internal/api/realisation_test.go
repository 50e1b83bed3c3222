package api

import (
	"strings"
	"testing"
)

func FuzzDecodeRealisation(f *testing.F) {
	id := "sha256:" + strings.Repeat("ab", 32) + "!out"
	f.Add([]byte(`{"dependentRealisations":{},"id":"` + id + `","outPath":"` + strings.Repeat("0", 32) + `-x","signatures":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := DecodeRealisation(text, id, "/nix/store")
		if err != nil {
			return
		}
		again, err := DecodeRealisation(r.Encode(), id, "/nix/store")
		if err != nil || string(again.Encode()) != string(r.Encode()) {
			t.Errorf("%s: %v", r.Encode(), err)
		}
		if strings.Contains(r.OutPath, "/") {
			t.Errorf("path %q", r.OutPath)
		}
	})
}
