package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
)

// Suite checks that a store keeps blob's contract. open returns an empty store;
// it is called once for every fact.
func Suite(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, fact := range []struct {
		name string
		test func(t *testing.T, s blob.Store)
	}{
		{"an object comes back as it was put", testRoundTrip},
		{"a range is exactly what was asked for", testRanges},
		{"a range outside the object is an error", testBadRanges},
		{"a missing object is not found", testMissing},
		{"an object is never replaced", testNoOverwrite},
		{"of many puts to a key one wins", testRace},
		{"puts to many keys at once", testParallel},
		{"a list is sorted bytewise and keeps to its prefix", testList},
		{"a list ends with the error of its function", testListStops},
		{"a list may be acted on while it runs", testListActs},
		{"a list of thousands is complete", testLongList},
		{"deleting twice is no error", testDelete},
		{"a deleted key can be put again", testPutAgain},
		{"what is no key is refused", testBadKeys},
		{"a large object streams", testLarge},
		{"many read one object at once", testManyReaders},
		{"a reader is closed early, and twice", testEarlyClose},
		{"a source that breaks leaves nothing", testBrokenSource},
		{"an ended context ends everything", testCancelled},
		{"a context that ends in the middle leaves nothing", testCancelledMidway},
	} {
		t.Run(fact.name, func(t *testing.T) { fact.test(t, open(t)) })
	}
}

func put(t *testing.T, s blob.Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, blob.Bytes([]byte(data))); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s blob.Store, key string, off, n int64) (string, error) {
	t.Helper()
	r, err := s.Get(t.Context(), key, off, n)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func wantData(t *testing.T, s blob.Store, key, want string) {
	t.Helper()
	if got, err := get(t, s, key, 0, -1); err != nil || got != want {
		t.Errorf("get %s: got %q, %v, want %q", key, got, err, want)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func list(t *testing.T, s blob.Store, prefix string) []string {
	t.Helper()
	var keys []string
	err := s.List(t.Context(), prefix, func(i blob.Info) error { keys = append(keys, i.Key); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func wantList(t *testing.T, s blob.Store, prefix string, want ...string) {
	t.Helper()
	if got := list(t, s, prefix); !slices.Equal(got, want) {
		t.Errorf("list %q: got %q, want %q", prefix, got, want)
	}
}

func testRoundTrip(t *testing.T, s blob.Store) {
	before := time.Now().Add(-time.Minute) // clocks of stores and tests differ
	for key, data := range map[string]string{
		"a": "one", "packs/3f/3f9c-01": "\x00\xff\r\n", "empty": "", "A-b_c.d": "x", "log/0000000001/x": "deep",
	} {
		put(t, s, key, data)
		wantData(t, s, key, data)
		err := s.List(t.Context(), key, func(i blob.Info) error {
			if i.Key != key || i.Size != int64(len(data)) || i.Modified.Before(before) {
				t.Errorf("got %+v", i)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func testRanges(t *testing.T, s blob.Store) {
	put(t, s, "k", "0123456789")
	for _, tt := range []struct {
		off, n int64
		want   string
	}{{0, -1, "0123456789"}, {0, 10, "0123456789"}, {3, 4, "3456"}, {9, 1, "9"}, {9, -1, "9"}, {0, 1, "0"}, {4, 0, ""}} {
		if got, err := get(t, s, "k", tt.off, tt.n); err != nil || got != tt.want {
			t.Errorf("%d bytes from %d: got %q, %v, want %q", tt.n, tt.off, got, err, tt.want)
		}
	}
}

func testBadRanges(t *testing.T, s blob.Store) {
	put(t, s, "k", "0123456789")
	for _, tt := range [][2]int64{{0, 11}, {5, 6}, {11, -1}, {11, 1}, {10, 1}, {-1, 1}, {1 << 62, 1}, {1, 1<<63 - 1}} {
		_, err := get(t, s, "k", tt[0], tt[1])
		wantErr(t, fmt.Sprintf("%d bytes from %d", tt[1], tt[0]), err, blob.ErrRange)
	}
}

func testMissing(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "x")
	for _, key := range []string{"b", "a", "a/b/c", "a/c", "a/bb"} {
		_, err := get(t, s, key, 0, -1)
		wantErr(t, "get "+key, err, blob.ErrNotFound)
	}
	_, err := get(t, s, "b", 5, 2)
	wantErr(t, "range of nothing", err, blob.ErrNotFound)
}

func testNoOverwrite(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "first")
	wantErr(t, "second put", s.Put(t.Context(), "a/b", blob.Bytes([]byte("second"))), blob.ErrExists)
	wantErr(t, "same put", s.Put(t.Context(), "a/b", blob.Bytes([]byte("first"))), blob.ErrExists)
	wantData(t, s, "a/b", "first")
	wantList(t, s, "", "a/b")
}

func testRace(t *testing.T, s blob.Store) {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Put(t.Context(), "deep/er/key", blob.Bytes(bytes.Repeat([]byte{byte('0' + i)}, 1<<16)))
		})
	}
	wg.Wait()
	winner := slices.Index(errs, nil)
	if winner < 0 {
		t.Fatalf("no put won: %v", errs)
	}
	for i, err := range errs {
		if i != winner {
			wantErr(t, "other put", err, blob.ErrExists)
		}
	}
	wantData(t, s, "deep/er/key", strings.Repeat(string(rune('0'+winner)), 1<<16))
}

func testParallel(t *testing.T, s blob.Store) {
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			key := fmt.Sprintf("p/%d/%d", i%4, i)
			if err := s.Put(t.Context(), key, blob.Bytes([]byte(key))); err != nil {
				t.Error(err)
			}
			wantData(t, s, key, key)
		})
	}
	wg.Wait()
	if n := len(list(t, s, "p/")); n != 32 {
		t.Errorf("%d objects, want 32", n)
	}
}

func testList(t *testing.T, s blob.Store) {
	wantList(t, s, "")
	// Between "a-", "a.", "a/" and "a0" a walk through directories goes wrong.
	keys := []string{"A", "a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a/bc", "a0", "ab/c", "b"}
	shuffled := slices.Clone(keys)
	rand.Shuffle(len(keys), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
	for _, k := range shuffled {
		put(t, s, k, k)
	}
	wantList(t, s, "", keys...)
	wantList(t, s, "a", "a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a/bc", "a0", "ab/c")
	wantList(t, s, "a/", "a/b", "a/b-c/d", "a/b.c", "a/bc")
	wantList(t, s, "a/b", "a/b", "a/b-c/d", "a/b.c", "a/bc")
	wantList(t, s, "a/b-c/", "a/b-c/d")
	wantList(t, s, "a/b/")
	wantList(t, s, "c")
	wantList(t, s, "no/such/place")
	wantList(t, s, "../")
}

func testListStops(t *testing.T, s blob.Store) {
	for _, k := range []string{"a", "b/c", "d"} {
		put(t, s, k, k)
	}
	stop, n := errors.New("stop"), 0
	err := s.List(t.Context(), "", func(blob.Info) error {
		if n++; n == 2 {
			return stop
		}
		return nil
	})
	wantErr(t, "list", err, stop)
	if n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

func testListActs(t *testing.T, s blob.Store) {
	for _, k := range []string{"l/a", "l/b", "l/c"} {
		put(t, s, k, k)
	}
	err := s.List(t.Context(), "l/", func(i blob.Info) error {
		wantData(t, s, i.Key, i.Key)
		return s.Delete(t.Context(), i.Key)
	})
	if err != nil {
		t.Error(err)
	}
	wantList(t, s, "l/")
}

func testLongList(t *testing.T, s blob.Store) {
	const n = 1200 // an S3 page holds 1,000
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if err := s.Put(t.Context(), fmt.Sprintf("many/%05d", i), blob.Bytes(nil)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := list(t, s, "many/")
	if len(got) != n || !slices.IsSorted(got) {
		t.Errorf("%d keys, sorted: %v; want %d sorted ones", len(got), slices.IsSorted(got), n)
	}
}

func testDelete(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "x")
	for _, key := range []string{"a/b", "a/b", "a", "never", "a/b/c"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	_, err := get(t, s, "a/b", 0, -1)
	wantErr(t, "get", err, blob.ErrNotFound)
	wantList(t, s, "")
}

func testPutAgain(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "x")
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/b", "y")
	wantData(t, s, "a/b", "y")
}

func testBadKeys(t *testing.T, s blob.Store) {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".tmp/x", "a/.b",
		"a b", "a\\b", "a\x00", "é", "a?b", "a%2fb", strings.Repeat("a", 201), strings.Repeat("a/", 256) + "a"} {
		wantErr(t, fmt.Sprintf("put %.20q", key), s.Put(t.Context(), key, blob.Bytes(nil)), blob.ErrKey)
		_, err := s.Get(t.Context(), key, 0, -1)
		wantErr(t, fmt.Sprintf("get %.20q", key), err, blob.ErrKey)
		wantErr(t, fmt.Sprintf("delete %.20q", key), s.Delete(t.Context(), key), blob.ErrKey)
	}
}

// pattern is a large source that is nowhere in memory. at is called for every
// read, and may break it.
type pattern struct {
	size int64
	at   func(off int64) error
}

func (p pattern) Size() int64 { return p.size }

func (p pattern) ReadAt(b []byte, off int64) (int, error) {
	if p.at != nil {
		if err := p.at(off); err != nil {
			return 0, err
		}
	}
	n := int(min(int64(len(b)), p.size-off))
	for i := range b[:n] {
		x := uint64(off+int64(i)) * 0x9e3779b97f4a7c15
		b[i] = byte(x >> 56)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func sumOf(t *testing.T, h hash.Hash, r io.Reader) string {
	t.Helper()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func testLarge(t *testing.T, s blob.Store) {
	src := pattern{size: 33<<20 + 7}
	if err := s.Put(t.Context(), "large", src); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, want := sumOf(t, sha256.New(), r), sumOf(t, sha256.New(), io.NewSectionReader(src, 0, src.size)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	off := int64(20<<20 + 3)
	want := make([]byte, 1000)
	if _, err := src.ReadAt(want, off); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, s, "large", off, 1000); err != nil || got != string(want) {
		t.Errorf("range: wrong bytes or %v", err)
	}
}

func testManyReaders(t *testing.T, s blob.Store) {
	src := pattern{size: 2 << 20}
	if err := s.Put(t.Context(), "a/b", src); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, src.size)
	if _, err := src.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range int64(24) {
		wg.Go(func() {
			off, n := i*50_001, i*30_011+1
			if got, err := get(t, s, "a/b", off, n); err != nil || got != string(want[off:off+n]) {
				t.Errorf("%d bytes from %d: wrong bytes, or %v", n, off, err)
			}
		})
	}
	wg.Wait()
}

func testEarlyClose(t *testing.T, s blob.Store) {
	if err := s.Put(t.Context(), "k", pattern{size: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		r, err := s.Get(t.Context(), "k", 1, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		_ = r.Close() // whatever it says, it does no harm
	}
	put(t, s, "l", "after")
	wantData(t, s, "l", "after")
}

// Streams checks that a large object passes without ever being in memory: 64 MiB
// there and back allocate less than an eighth of that. It is not for stores in memory.
func Streams(t *testing.T, s blob.Store) {
	src := pattern{size: 64 << 20}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Put(t.Context(), "large", src); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err != nil || n != src.size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d MiB allocated for 64 MiB there and back", n>>20)
	}
}

// short claims more bytes than it has.
type short struct{ *bytes.Reader }

func (short) Size() int64 { return 1 << 21 }

func testBrokenSource(t *testing.T, s blob.Store) {
	broken := errors.New("broken")
	src := pattern{size: 12 << 20, at: func(off int64) error {
		if off > 6<<20 {
			return broken
		}
		return nil
	}}
	wantErr(t, "put", s.Put(t.Context(), "x/k", src), broken)
	if err := s.Put(t.Context(), "x/short", short{bytes.NewReader([]byte("few"))}); err == nil {
		t.Error("a source with fewer bytes than it says was put")
	}
	wantList(t, s, "")
	put(t, s, "x/k", "whole")
	wantData(t, s, "x/k", "whole")
}

func testCancelled(t *testing.T, s blob.Store) {
	put(t, s, "k", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Get(ctx, "k", 0, -1)
	wantErr(t, "get", err, context.Canceled)
	wantErr(t, "put", s.Put(ctx, "new", blob.Bytes(nil)), context.Canceled)
	wantErr(t, "delete", s.Delete(ctx, "k"), context.Canceled)
	wantErr(t, "list", s.List(ctx, "", func(blob.Info) error { return nil }), context.Canceled)
	wantList(t, s, "", "k")
}

func testCancelledMidway(t *testing.T, s blob.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := pattern{size: 12 << 20, at: func(off int64) error {
		if off > 4<<20 {
			cancel()
		}
		return nil
	}}
	wantErr(t, "put", s.Put(ctx, "k", src), context.Canceled)
	wantList(t, s, "")
}
