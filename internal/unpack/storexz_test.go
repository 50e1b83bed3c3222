package unpack_test

import (
	"bytes"
	"io"
	"os/exec"
	"testing"

	"github.com/org/attic-action/internal/unpack"
)

func TestStoredXZIsReadByTheTools(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 4, 1000, 1<<16 - 1, 1 << 16, 1<<16 + 1, 5 << 20} {
		data := contents()[:n]
		var packed bytes.Buffer
		if err := unpack.StoreXZ(&packed, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("xz", "-dc")
		cmd.Stdin = bytes.NewReader(packed.Bytes())
		if out, err := cmd.Output(); err != nil || !bytes.Equal(out, data) {
			t.Errorf("%d bytes: xz gives %d: %v", n, len(out), err)
		}
		r, err := unpack.NewReader("xz", &packed)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(r); err != nil || !bytes.Equal(out, data) {
			t.Errorf("%d bytes: we give %d: %v", n, len(out), err)
		}
	}
}
