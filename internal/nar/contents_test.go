package nar

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestContentsAreTheFilesBytes(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 9, 5000} {
		want := []byte(strings.Repeat("x", size))
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		var whole bytes.Buffer
		if err := Dump(&whole, file); err != nil {
			t.Fatal(err)
		}
		for _, step := range []int{1, 3, 8192} {
			h := sha256.New()
			c := &Contents{To: h}
			for b := whole.Bytes(); len(b) > 0; b = b[min(step, len(b)):] {
				if c.Whole() {
					t.Errorf("%d bytes by %d: whole before its end", size, step)
				}
				c.Write(b[:min(step, len(b))])
				again := &Contents{To: h} // as when the next pack comes
				if err := again.RestoreState(c.AppendState(nil)); err != nil {
					t.Fatal(err)
				}
				c = again
			}
			if !c.Whole() || [32]byte(h.Sum(nil)) != sha256.Sum256(want) {
				t.Errorf("%d bytes by %d: whole %v, or other contents", size, step, c.Whole())
			}
			c.Write([]byte{0})
			if c.Whole() {
				t.Errorf("%d bytes by %d: a byte after the end is taken", size, step)
			}
		}
	}
}

func TestContentsOfOtherObjectsAreNone(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, script} {
		c := &Contents{To: sha256.New()}
		if err := Dump(c, path); err != nil {
			t.Fatal(err)
		}
		again := &Contents{To: sha256.New()}
		if err := again.RestoreState(c.AppendState(nil)); err != nil {
			t.Fatal(err)
		}
		if c.Whole() || again.Whole() {
			t.Errorf("%s was taken for a file that is not executable", path)
		}
	}
}

func FuzzRestoreState(f *testing.F) {
	f.Add([]byte{1})
	f.Add((&Contents{head: fileHead, tail: []byte{0, 0}, left: 5}).AppendState(nil))
	f.Fuzz(func(t *testing.T, state []byte) {
		c := &Contents{To: sha256.New()}
		if c.RestoreState(state) != nil {
			return
		}
		if again := c.AppendState(nil); !bytes.Equal(again, state) {
			t.Errorf("%x became %x", state, again)
		}
		c.Write(make([]byte, 100)) // must not panic
		c.Whole()
	})
}
