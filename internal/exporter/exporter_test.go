package exporter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/nix"
)

// fake is a cache in memory.
type fake struct {
	infos []*nix.NarInfo
	files map[string][]byte // by hash
	reads int
	fail  error // of every NAR, behind its first bytes
}

func newFake(t *testing.T, n int) *fake {
	t.Helper()
	f := &fake{files: map[string][]byte{}}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		nar := bytes.Repeat([]byte(fmt.Sprint("contents ", i)), 1000)
		sum := sha256.Sum256([]byte(fmt.Sprint(i)))
		p, err := nix.ParseStorePath("/nix/store/" + nix.EncodeBase32(sum[:20]) + "-p")
		if err != nil {
			t.Fatal(err)
		}
		packed := enc.EncodeAll(nar, nil)
		packed = append(packed, 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4) // an index behind it
		f.files[p.Hash()] = packed
		f.infos = append(f.infos, &nix.NarInfo{StorePath: p, URL: "nar/x", Compression: "zstd", FileSize: uint64(len(packed)),
			NarHash: nix.Hash(sha256.Sum256(nar)), NarSize: uint64(len(nar))})
	}
	return f
}

func (f *fake) List(_ context.Context, each func([]string) error) error {
	var hashes []string
	for _, i := range f.infos {
		hashes = append(hashes, i.StorePath.Hash())
	}
	return each(hashes)
}

func (f *fake) Describe(_ context.Context, hashes []string) (infos []*nix.NarInfo, err error) {
	for _, i := range f.infos {
		for _, h := range hashes {
			if h == i.StorePath.Hash() {
				c := *i
				infos = append(infos, &c)
			}
		}
	}
	return infos, nil
}

func (f *fake) NAR(_ context.Context, info *nix.NarInfo) (io.ReadCloser, error) {
	f.reads++
	file := f.files[info.StorePath.Hash()]
	if f.fail != nil {
		return io.NopCloser(io.MultiReader(bytes.NewReader(file[:10]), iotest.ErrReader(f.fail))), nil
	}
	return io.NopCloser(bytes.NewReader(file)), nil
}

func export(t *testing.T, f *fake, dir, how string) Result {
	t.Helper()
	r, err := Run(t.Context(), f, dir, Options{Compression: how, Jobs: 1, StoreDir: "/nix/store", Priority: 41})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// read is the narinfo of a path in a folder, and its file.
func read(t *testing.T, dir, hash string) (*nix.NarInfo, []byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, hash+".narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := nix.ParseNarInfo(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, info.URL))
	if err != nil {
		t.Fatal(err)
	}
	return info, file
}

func TestFilesAreWhatTheirNarInfosSay(t *testing.T) {
	for _, how := range []string{"zstd", "none"} {
		f, dir := newFake(t, 3), filepath.Join(t.TempDir(), "made", "here")
		if r := export(t, f, dir, how); r.Written != 3 || r.Failing != 0 {
			t.Fatalf("%+v", r)
		}
		for _, want := range f.infos {
			info, file := read(t, dir, want.StorePath.Hash())
			if info.FileHash != nix.Hash(sha256.Sum256(file)) || info.FileSize != uint64(len(file)) || info.Compression != how || info.NarHash != want.NarHash {
				t.Errorf("%s: %s", how, info.Format())
			}
			if how == "zstd" && !bytes.Equal(file, f.files[want.StorePath.Hash()]) {
				t.Error("the frames were made anew")
			}
		}
	}
}

func TestStoppedExportGoesOn(t *testing.T) {
	f, dir := newFake(t, 4), t.TempDir()
	f.fail = errors.New("killed")
	if r := export(t, f, dir, "zstd"); r.Failing != 4 || r.Written != 0 {
		t.Fatalf("%+v", r)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "nar", "*")); len(left) != 0 {
		t.Errorf("half a file under its name: %v", left)
	}
	f.fail = nil
	export(t, f, dir, "zstd")
	f.reads = 0
	if r := export(t, f, dir, "zstd"); r.Present != 4 || f.reads != 0 {
		t.Errorf("again: %+v, %d NARs read", r, f.reads)
	}
	// One that a power cut has left too short is written again.
	info, _ := read(t, dir, f.infos[1].StorePath.Hash())
	if err := os.Truncate(filepath.Join(dir, info.URL), 3); err != nil {
		t.Fatal(err)
	}
	if r := export(t, f, dir, "zstd"); r.Present != 3 || r.Written != 1 {
		t.Errorf("after a cut: %+v", r)
	}
}

func TestNewSignatureIsWrittenWithoutTheNAR(t *testing.T) {
	f, dir := newFake(t, 1), t.TempDir()
	export(t, f, dir, "zstd")
	f.infos[0].Sigs = []string{"k:" + strings.Repeat("A", 86) + "=="}
	f.reads = 0
	if r := export(t, f, dir, "zstd"); r.Written != 1 || f.reads != 0 {
		t.Errorf("%+v, %d NARs read", r, f.reads)
	}
	if info, _ := read(t, dir, f.infos[0].StorePath.Hash()); len(info.Sigs) != 1 {
		t.Errorf("%s", info.Format())
	}
}

// A backup that has damaged contents under a good name is worse than none.
func TestDamagedNARIsNotWritten(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"a bit":     func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"its end":   func(b []byte) []byte { return b[:20] },
		"all of it": func([]byte) []byte { return []byte("damaged") },
	} {
		f, dir := newFake(t, 2), t.TempDir()
		h := f.infos[0].StorePath.Hash()
		f.files[h] = damage(f.files[h])
		if r := export(t, f, dir, "zstd"); r.Failing != 1 || r.Written != 1 {
			t.Errorf("%s: %+v", name, r)
		}
		if _, err := os.Stat(filepath.Join(dir, h+".narinfo")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFolderOfAnotherStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /gnu/store\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), newFake(t, 1), dir, Options{Compression: "zstd", StoreDir: "/nix/store"})
	if err == nil || !strings.Contains(err.Error(), "/gnu/store") {
		t.Errorf("%v", err)
	}
}

// Somebody else may write to the folder too: a narinfo or a link in it must not have us read or write elsewhere.
func TestFolderIsNotLeft(t *testing.T) {
	f, dir, outside := newFake(t, 1), t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "nar")); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), f, dir, Options{Compression: "zstd", StoreDir: "/nix/store"}); err == nil {
		t.Error("it was written through a link that leads out of it")
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("outside: %v", left)
	}
}

func TestErrorOfTheFolderEndsTheExport(t *testing.T) {
	f, dir := newFake(t, 2), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nar"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := Run(t.Context(), f, dir, Options{Compression: "zstd", StoreDir: "/nix/store"}); err == nil || r.Written != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
