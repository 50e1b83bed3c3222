package nar

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nixDump is the NAR as Nix itself writes it.
func nixDump(t testing.TB, path string) []byte {
	t.Helper()
	out, err := exec.Command("nix-store", "--dump", path).Output()
	if err != nil {
		t.Fatalf("nix-store --dump %s: %v (these tests compare with a real Nix)", path, err)
	}
	return out
}

func dump(t testing.TB, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Dump(&b, path); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeFile(t testing.TB, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

func symlink(t testing.TB, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// oddTree has one of everything a NAR can hold.
func oddTree(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "tree")
	for n := range 17 {
		writeFile(t, filepath.Join(dir, "padding", strings.Repeat("p", n+1)), bytes.Repeat([]byte{'x'}, n), 0o644)
	}
	for _, size := range []int{bufferSize - 200, bufferSize - 1, bufferSize, bufferSize + 1, 3*bufferSize + 5} {
		name := filepath.Join(dir, "sizes", "f"+string(rune('a'+size%26)))
		writeFile(t, name, bytes.Repeat([]byte("0123456"), size/7+1)[:size], 0o600)
	}
	for _, name := range []string{"a", "a.b", "a-b", "a b", "B", "~", "ä", "\xff\xfe", "new\nline", "a0", "A", "_", "z~nix~case~hack~1"} {
		writeFile(t, filepath.Join(dir, "names", name), []byte(name), 0o644)
		writeFile(t, filepath.Join(dir, "names", name+"dir", "inner"), []byte(name), 0o755)
	}
	writeFile(t, filepath.Join(dir, "group-exec"), []byte("#!"), 0o654)
	writeFile(t, filepath.Join(dir, "read-only"), nil, 0o444)
	if err := os.MkdirAll(filepath.Join(dir, "empty", "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	symlink(t, "nowhere at all", filepath.Join(dir, "dangling"))
	symlink(t, "empty", filepath.Join(dir, "to-dir"))
	symlink(t, "/"+strings.Repeat("l", 300), filepath.Join(dir, "long"))
	return dir
}

func TestDumpEqualsNix(t *testing.T) {
	odd := oddTree(t)
	paths := map[string]string{
		"tree of one of everything": odd,
		"executable":                filepath.Join(odd, "names", "adir", "inner"),
		"empty file":                filepath.Join(odd, "read-only"),
		"symlink":                   filepath.Join(odd, "to-dir"),
		"empty directory":           filepath.Join(odd, "empty"),
		"system documents":          "/etc/ssl",
		"Go's own sources":          filepath.Join(goroot(t), "src", "encoding"),
	}
	var d Dumper // one for all, so that its buffer is used again
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := d.Dump(&got, path); err != nil {
				t.Fatal(err)
			}
			if want := nixDump(t, path); !bytes.Equal(got.Bytes(), want) {
				t.Fatalf("NAR of %s: %d bytes unlike Nix's %d", path, got.Len(), len(want))
			}
			if err := Check(&got); err != nil {
				t.Fatalf("Check refuses Nix's NAR: %v", err)
			}
		})
	}
}

func goroot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// growingWriter changes a file in the middle of the dump that reads it.
type changingWriter struct {
	change func()
	io.Writer
}

func (w *changingWriter) Write(b []byte) (int, error) {
	if w.change != nil {
		w.change()
		w.change = nil
	}
	return w.Writer.Write(b)
}

func TestDumpNamesFileThatChangesItsSize(t *testing.T) {
	for name, size := range map[string]int64{"grows": 4 * bufferSize, "shrinks": bufferSize} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "changing")
			writeFile(t, path, make([]byte, 2*bufferSize), 0o644)
			w := changingWriter{func() {
				if err := os.Truncate(path, size); err != nil {
					t.Error(err)
				}
			}, io.Discard}
			err := Dump(&w, path)
			if err == nil || !strings.Contains(err.Error(), path+" changed its size") {
				t.Fatalf("error is %v, want one that names %s", err, path)
			}
		})
	}
}

func TestDumpRefusesWhatNoNARHolds(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Dump(io.Discard, dir); err == nil || !strings.Contains(err.Error(), "pipe is a") {
		t.Fatalf("error is %v, want one that names the pipe", err)
	}
	if err := Dump(io.Discard, filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error is %v, want fs.ErrNotExist", err)
	}
}

func TestDumpStopsAtWriteError(t *testing.T) {
	stop := errors.New("stop")
	r, w := io.Pipe()
	r.CloseWithError(stop)
	if err := Dump(w, oddTree(t)); !errors.Is(err, stop) {
		t.Fatalf("error is %v, want the writer's", err)
	}
}

func TestDumpUndoesCaseHack(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a~nix~case~hack~1"), nil, 0o644)
	writeFile(t, filepath.Join(dir, "A"), nil, 0o644)
	d := Dumper{buf: make([]byte, 0, bufferSize), unhack: true}
	var b bytes.Buffer
	if err := d.Dump(&b, dir); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), []byte("hack")) {
		t.Error("the NAR still has the suffix")
	}
	writeFile(t, filepath.Join(dir, "A~nix~case~hack~2"), nil, 0o644)
	if err := d.Dump(io.Discard, dir); err == nil || !strings.Contains(err.Error(), "one name") {
		t.Errorf("error is %v, want the collision", err)
	}
}

func BenchmarkDump(b *testing.B) {
	large := filepath.Join(b.TempDir(), "large")
	writeFile(b, large, bytes.Repeat([]byte("0123456789abcdef"), 16<<20), 0o644)
	for name, path := range map[string]string{"large": large, "many small": filepath.Join(goroot(b), "src")} {
		b.Run(name, func(b *testing.B) {
			var d Dumper
			var n counter
			for b.Loop() {
				n = 0
				if err := d.Dump(&n, path); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(n))
		})
	}
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }
