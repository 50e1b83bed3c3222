package nar

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// plain does not compress, so that tests see the skeleton.
func plain(dst, raw []byte) []byte { return append(dst, raw...) }

func skeletonOf(nar []byte) []byte {
	s := &Skeleton{Compress: plain, Limit: 1 << 20}
	_, _ = io.Copy(s, iotest.OneByteReader(bytes.NewReader(nar)))
	return s.Bytes()
}

func listingOf(t testing.TB, nar []byte) string {
	t.Helper()
	var out strings.Builder
	if err := WriteListing(&out, bytes.NewReader(skeletonOf(nar))); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestListingIsAsNixWritesIt(t *testing.T) {
	tree := oddTree(t)
	nar := nixDump(t, tree)
	file := t.TempDir() + "/x.nar"
	writeFile(t, file, nar, 0o644)
	out, err := exec.Command("nix", "--extra-experimental-features", "nix-command", "nar", "ls", "--json", "-R", file, "/").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Version int
		Root    any
	}
	var want any
	if err := json.Unmarshal([]byte(listingOf(t, nar)), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	if got.Version != 1 || !reflect.DeepEqual(got.Root, want) {
		t.Errorf("got  %v\nwant %v", got.Root, want)
	}
}

func TestSkeletonHasNoContentsAndTheSizeOfItsNAR(t *testing.T) {
	secret := strings.Repeat("contents ", 1000)
	nar := archive(dir(named("a", file(secret)), named("lib", dir(named("debug", dir(named(".build-id",
		dir(named("ab", dir(named("cdef0123456789.debug", file("x")))), named("no", dir(named("hex.debug", file("x"))))))))))))
	skeleton := skeletonOf(nar)
	if bytes.Contains(skeleton, []byte("contents contents")) || len(skeleton) > len(nar)-len(secret) {
		t.Errorf("the skeleton has %d bytes", len(skeleton))
	}
	ids, err := ReadSkeleton(bytes.NewReader(skeleton), uint64(len(nar)))
	if err != nil || !reflect.DeepEqual(ids, []string{"abcdef0123456789"}) {
		t.Errorf("%v, %v", ids, err)
	}
	for _, size := range []int{0, 100, len(nar) - 1, len(nar) + 8} {
		if _, err := ReadSkeleton(bytes.NewReader(skeleton), uint64(size)); err == nil {
			t.Errorf("it is taken for the skeleton of %d bytes", size)
		}
	}
}

// A listing that names ".." makes whoever unpacks by it write elsewhere.
func TestSkeletonThatEscapesIsRefused(t *testing.T) {
	for _, name := range []string{"..", ".", "a/b", "", "a\x00"} {
		bad := archive(dir(named(name, []string{"(", "type", "symlink", "target", "x", ")"})))
		if _, err := ReadSkeleton(bytes.NewReader(bad), uint64(len(bad))); err == nil {
			t.Errorf("an entry named %q is taken", name)
		}
		if skeletonOf(bad) != nil {
			t.Errorf("a NAR with an entry named %q has a skeleton", name)
		}
	}
}

func TestSkeletonAboveItsLimitIsNone(t *testing.T) {
	var many [][]string
	for i := range 5000 {
		many = append(many, named("file"+strings.Repeat("0", 5)+string(rune('a'+i/625%8))+string(rune('a'+i/25%25))+string(rune('a'+i%25)), file("")))
	}
	nar := archive(dir(many...))
	s := &Skeleton{Compress: plain, Limit: 300 << 10}
	_, _ = s.Write(nar)
	if s.Bytes() != nil {
		t.Error("it is there")
	}
}

func TestListingEscapesWhatIsNoUTF8(t *testing.T) {
	text := listingOf(t, archive(dir(named("a\"<\xff", file("")))))
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil || !strings.Contains(text, `a\"<`) {
		t.Errorf("%s: %v", text, err)
	}
}

// FuzzWalker holds the walker to Check: both take the same NARs.
func FuzzWalker(f *testing.F) {
	f.Add(archive(dir(named("B", file("")), named("a", dir()), named("a.", file("12345678")))), 3)
	f.Add(archive([]string{"(", "type", "regular", "executable", "", "contents", "x", ")"}), 1)
	f.Add(archive([]string{"(", "type", "symlink", "target", "../x", ")"}), 100)
	f.Fuzz(func(t *testing.T, nar []byte, step int) {
		step = max(step, 1)
		w := &Walker{}
		for rest := nar; len(rest) > 0; {
			n := min(step, len(rest))
			if _, err := w.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		got, want := w.Close(), Check(bytes.NewReader(nar))
		if (got == nil) != (want == nil) {
			t.Fatalf("walker: %v, Check: %v", got, want)
		}
		if got != nil {
			return
		}
		if _, err := ReadSkeleton(bytes.NewReader(skeletonOf(nar)), uint64(len(nar))); err != nil {
			t.Error(err)
		}
		listingOf(t, nar)
	})
}

func FuzzReadSkeleton(f *testing.F) {
	f.Add(skeletonOf(archive(dir(named("a", file("12345"))))), uint64(500))
	f.Fuzz(func(t *testing.T, skeleton []byte, size uint64) {
		if _, err := ReadSkeleton(bytes.NewReader(skeleton), size); err != nil {
			return
		}
		var out bytes.Buffer
		if err := WriteListing(&out, bytes.NewReader(skeleton)); err != nil || !json.Valid(out.Bytes()) {
			t.Errorf("%v: %s", err, out.Bytes())
		}
	})
}
