package near

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
)

// bucket is a store in memory that counts, and that a test can hold up.
type bucket struct {
	*blobtest.Mem
	mu   sync.Mutex
	gets []string            // "key off n"
	hold func(n int64) error // called with the number of bytes of a range that were read so far; may block
}

func (b *bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	b.mu.Lock()
	b.gets = append(b.gets, fmt.Sprintf("%s %d %d", key, off, n))
	hold := b.hold
	b.mu.Unlock()
	r, err := b.Mem.Get(ctx, key, off, n)
	if err != nil || hold == nil {
		return r, err
	}
	return &held{ReadCloser: r, hold: hold}, nil
}

type held struct {
	io.ReadCloser
	hold func(int64) error
	n    int64
}

func (h *held) Read(b []byte) (int, error) {
	if err := h.hold(h.n); err != nil {
		return 0, err
	}
	n, err := h.ReadCloser.Read(b[:min(len(b), slice)])
	h.n += int64(n)
	return n, err
}

func (b *bucket) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.gets)
}

// house is a cache before a bucket of packs.
type house struct {
	*Cache
	t      *testing.T
	bucket *bucket
	packs  map[Object][]byte
}

func newHouse(t *testing.T, sizes ...int) *house {
	t.Helper()
	h := &house{t: t, bucket: &bucket{Mem: blobtest.NewMem()}, packs: map[Object][]byte{}}
	for i, size := range sizes {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		o := Object{Key: fmt.Sprintf("packs/aa/%d", i), Size: int64(size)}
		if err := h.bucket.Put(t.Context(), o.Key, blob.Bytes(data)); err != nil {
			t.Fatal(err)
		}
		h.packs[o] = data
	}
	h.open(filepath.Join(t.TempDir(), "near"))
	return h
}

// open starts a cache on dir, as after a restart.
func (h *house) open(dir string) {
	c := &Cache{Dir: dir, Blobs: h.bucket, Limit: 64 << 20}
	h.Cache = c
	h.t.Cleanup(func() { c.Close() })
}

func (h *house) pack(i int) Object {
	for o := range h.packs {
		if o.Key == fmt.Sprintf("packs/aa/%d", i) {
			return o
		}
	}
	h.t.Fatalf("no pack %d", i)
	return Object{}
}

// read reads a range and compares it with what the bucket has.
func (h *house) read(o Object, off, n int64) {
	h.t.Helper()
	r, err := h.Open(h.t.Context(), o, off, n)
	if err != nil {
		h.t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, h.packs[o][off:off+n]) {
		h.t.Fatalf("%d bytes from %d of %s: got %d bytes, %v, or other ones", n, off, o.Key, len(got), err)
	}
	if err := r.Close(); err != nil {
		h.t.Error(err)
	}
}

// settle waits until nothing is on its way.
func (h *house) settle() {
	h.t.Helper()
	for {
		h.mu.Lock()
		var f *flight
		for _, e := range h.entries {
			if len(e.flights) > 0 {
				f = e.flights[0]
			}
		}
		var progress chan struct{}
		if f != nil {
			progress = f.progress
		}
		h.mu.Unlock()
		if f == nil {
			return
		}
		select {
		case <-progress:
		case <-time.After(10 * time.Millisecond): // a flight that is whole ends without a word
		}
	}
}

// onDisk is what the folder takes.
func (h *house) onDisk() (n int64) {
	h.t.Helper()
	err := filepath.Walk(h.Dir, func(_ string, info fs.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n += allocated(info)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // deleted meanwhile
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *house) random(r *rand.Rand, i int) (o Object, off, n int64) {
	o = h.pack(i)
	off = r.Int64N(o.Size + 1)
	n = r.Int64N(o.Size - off + 1)
	if r.IntN(4) > 0 {
		n = min(n, r.Int64N(100_000))
	}
	return o, off, n
}

func dice(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func TestRandomRangesAreWhatTheBucketHas(t *testing.T) {
	h := newHouse(t, 3<<20+17, slice, slice-1, slice+1, 1, 5<<20)
	h.Limit = MinLimit // less than all packs together
	seed := dice(t).Uint64()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			for range 150 {
				o, off, n := h.random(r, r.IntN(6))
				h.read(o, off, n)
			}
		})
	}
	wg.Wait()
	h.settle()
	if n := h.onDisk(); n > h.Limit+1<<20 { // whole blocks of the file system
		t.Errorf("%d bytes on the volume, limit %d", n, h.Limit)
	}
}

func TestRangeOutsideThePackIsRefused(t *testing.T) {
	h := newHouse(t, 100)
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 101}, {101, 0}, {1, 1<<63 - 1}, {1 << 62, 1 << 62}} {
		if _, err := h.Open(t.Context(), h.pack(0), r[0], r[1]); !errors.Is(err, blob.ErrRange) {
			t.Errorf("%d bytes from %d: got %v", r[1], r[0], err)
		}
	}
	if _, err := h.Open(t.Context(), Object{Key: "packs/aa/other", Size: 10}, 0, 10); err != nil {
		t.Fatal(err)
	}
	r, err := h.Open(t.Context(), Object{Key: "packs/aa/other", Size: 10}, 0, 10)
	if err == nil {
		_, err = r.Read(make([]byte, 1))
	}
	if !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("missing object: got %v", err)
	}
}

// Hundreds of small NARs lie in one pack. One request for each is what makes a pull slow.
func TestSmallReadsOfAPackAreFewRequests(t *testing.T) {
	for name, order := range map[string]func(*rand.Rand, []int){
		"in order": func(*rand.Rand, []int) {},
		"in the order of 16 who pull": func(r *rand.Rand, at []int) {
			for i := range len(at) - 16 {
				k := i + r.IntN(16)
				at[i], at[k] = at[k], at[i]
			}
		},
		"in any order": func(r *rand.Rand, at []int) {
			r.Shuffle(len(at), func(i, k int) { at[i], at[k] = at[k], at[i] })
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, 16<<20)
			o, at := h.pack(0), make([]int, 500)
			for i := range at {
				at[i] = i * (16 << 20) / len(at)
			}
			order(dice(t), at)
			for _, off := range at {
				h.read(o, int64(off), 30_000)
			}
			if n := h.bucket.requests(); n > 12 {
				t.Errorf("%d requests for 500 reads of a pack of 16 MiB: %q", n, h.bucket.gets)
			}
		})
	}
}

func TestReadersOfOneBlockMakeOneRequest(t *testing.T) {
	h := newHouse(t, 1<<20)
	gate := make(chan struct{})
	h.bucket.hold = func(int64) error { <-gate; return nil }
	var wg sync.WaitGroup
	for i := range int64(32) {
		r, err := h.Open(t.Context(), h.pack(0), i*1000, 900) // all of them are open before any byte has come
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer r.Close()
			if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, h.packs[h.pack(0)][i*1000:i*1000+900]) {
				t.Errorf("reader %d: %d bytes, %v", i, len(b), err)
			}
		})
	}
	close(gate)
	wg.Wait()
	if h.bucket.requests() != 1 {
		t.Errorf("requests %q, want one", h.bucket.gets)
	}
}

func TestFirstReaderDoesNotWaitForTheBlock(t *testing.T) {
	h := newHouse(t, 1<<20)
	gate := make(chan struct{})
	h.bucket.hold = func(n int64) error {
		if n >= 2*slice {
			<-gate
		}
		return nil
	}
	h.read(h.pack(0), 100, slice) // returns although the rest of the block does not come
	close(gate)
	h.settle()
	h.read(h.pack(0), 0, 1<<20)
	if h.bucket.requests() != 1 {
		t.Errorf("requests %q, want one", h.bucket.gets)
	}
}

func TestRestartFindsWhatIsThere(t *testing.T) {
	h := newHouse(t, 2<<20, 1<<20)
	h.read(h.pack(0), 0, 2<<20)
	h.read(h.pack(1), 0, 100)
	h.settle()
	h.Close()
	before := h.bucket.requests()
	h.open(h.Dir)
	h.read(h.pack(0), 5, 2<<20-5)
	h.read(h.pack(1), 90, 20)
	if n := h.bucket.requests(); n != before {
		t.Errorf("requests %q after the restart", h.bucket.gets[before:])
	}
}

// The attack, or the accident: somebody changes the folder while it is in use.
func TestFolderMayBeDamagedAtAnyTime(t *testing.T) {
	file := func(t *testing.T, h *house) string {
		list, err := os.ReadDir(h.Dir)
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		return filepath.Join(h.Dir, fileName(h.pack(0).Key))
	}
	do := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(t *testing.T, h *house){
		"a bit of each slice": func(t *testing.T, h *house) {
			b, err := os.ReadFile(file(t, h))
			do(t, err)
			for i := range slicesOf(h.pack(0).Size) {
				b[h.pack(0).place(i)+100] ^= 4
			}
			do(t, os.WriteFile(file(t, h), b, 0o600))
		},
		"a bit of the sums": func(t *testing.T, h *house) {
			b, err := os.ReadFile(file(t, h))
			do(t, err)
			b[5] ^= 1
			do(t, os.WriteFile(file(t, h), b, 0o600))
		},
		"cut":     func(t *testing.T, h *house) { do(t, os.Truncate(file(t, h), 100_000)) },
		"empty":   func(t *testing.T, h *house) { do(t, os.Truncate(file(t, h), 0)) },
		"deleted": func(t *testing.T, h *house) { do(t, os.Remove(file(t, h))) },
		"the folder deleted": func(t *testing.T, h *house) {
			do(t, os.RemoveAll(h.Dir))
		},
		"another pack's file": func(t *testing.T, h *house) {
			do(t, os.Rename(filepath.Join(h.Dir, fileName(h.pack(1).Key)), file(t, h)))
		},
		"slices exchanged": func(t *testing.T, h *house) {
			b, err := os.ReadFile(file(t, h))
			do(t, err)
			o := h.pack(0)
			for _, p := range [][3]int64{{0, sumSize, sumSize}, {o.place(0), o.place(1), slice}} {
				x, y := bytes.Clone(b[p[0]:p[0]+p[2]]), bytes.Clone(b[p[1]:p[1]+p[2]])
				copy(b[p[0]:], y)
				copy(b[p[1]:], x)
			}
			do(t, os.WriteFile(file(t, h), b, 0o600))
		},
		"a folder in its place": func(t *testing.T, h *house) {
			do(t, os.Remove(file(t, h)))
			do(t, os.Mkdir(filepath.Join(h.Dir, fileName(h.pack(0).Key)), 0o700))
		},
		"a link to what is not ours": func(t *testing.T, h *house) {
			victim := filepath.Join(t.TempDir(), "victim")
			do(t, os.WriteFile(victim, []byte("precious"), 0o600))
			do(t, os.Remove(file(t, h)))
			do(t, os.Symlink(victim, filepath.Join(h.Dir, fileName(h.pack(0).Key))))
			t.Cleanup(func() {
				if b, err := os.ReadFile(victim); string(b) != "precious" || err != nil {
					t.Errorf("the victim is now %d bytes, %v", len(b), err)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, 1<<20, 1<<20)
			all := func() {
				for i := range 2 {
					h.read(h.pack(i), 0, h.pack(i).Size)
				}
			}
			all()
			h.settle()
			damage(t, h)
			all()
			h.settle()
			h.Close()
			damaged := h.Dir
			h.open(damaged)
			all()
		})
	}
}

func TestFileDeletedInTheMiddleOfARead(t *testing.T) {
	h := newHouse(t, 4<<20)
	r, err := h.Open(t.Context(), h.pack(0), 0, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got bytes.Buffer
	for i := 0; ; i++ {
		_, err := io.CopyN(&got, r, 100_000)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			os.RemoveAll(h.Dir)
		}
	}
	if !bytes.Equal(got.Bytes(), h.packs[h.pack(0)]) {
		t.Error("other bytes")
	}
}

func TestBoundedInBytesOldestGoFirst(t *testing.T) {
	h := newHouse(t, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20)
	h.Limit = MinLimit
	clock := time.Unix(1_800_000_000, 0)
	h.now = func() time.Time { clock = clock.Add(2 * time.Minute); return clock }
	for i := range 12 {
		h.read(h.pack(i), 0, 100)
		h.settle()
		h.read(h.pack(0), 0, 100) // is used again and again
		if n := h.onDisk(); n > h.Limit+1<<20 {
			t.Fatalf("%d bytes on the volume, limit %d", n, h.Limit)
		}
	}
	before := h.bucket.requests()
	if before != 12 {
		t.Fatalf("requests %q: the pack in use was dropped", h.bucket.gets)
	}
	h.Close()
	h.open(h.Dir) // with the order that the files' times tell
	h.Limit = 2 * MinLimit
	for _, i := range []int{0, 11, 10, 9} {
		h.read(h.pack(i), 0, 100)
	}
	if n := h.bucket.requests(); n != before {
		t.Errorf("requests %q: not the oldest were dropped", h.bucket.gets[before:])
	}
	h.read(h.pack(1), 0, 100)
	if n := h.bucket.requests(); n == before {
		t.Error("the oldest one is still there")
	}
}

func TestVolumeKeepsItsReserve(t *testing.T) {
	h := newHouse(t, 1<<20, 1<<20, 1<<20, 1<<20)
	h.Reserve = 100 << 20
	volume := int64(102 << 20)
	h.free = func(string) (int64, error) { return volume - h.onDiskOrNone(), nil }
	for range 3 {
		for i := range 4 {
			h.read(h.pack(i), 0, 1<<20)
			h.settle()
			if free, _ := h.free(""); free < h.Reserve {
				t.Fatalf("%d bytes free, reserve %d", free, h.Reserve)
			}
		}
	}
	if h.onDisk() == 0 {
		t.Error("nothing is kept, where there is room for one pack")
	}
	volume = 100 << 20 // the database has grown
	h.read(h.pack(0), 0, 1<<20)
	h.read(h.pack(1), 0, 1<<20)
	h.settle()
	if n := h.onDisk(); n > 0 {
		t.Errorf("%d bytes stay, below the reserve", n)
	}
}

func (h *house) onDiskOrNone() int64 {
	if _, err := os.Stat(h.Dir); err != nil {
		return 0
	}
	return h.onDisk()
}

func TestMakeRoomGivesBytesBack(t *testing.T) {
	h := newHouse(t, 1<<20, 1<<20, 1<<20)
	for i := range 3 {
		h.read(h.pack(i), 0, 1<<20)
		h.settle()
	}
	h.MakeRoom(1)
	if n := h.onDisk(); n < 2<<20 || n > 3<<20 {
		t.Errorf("%d bytes stay, want two packs", n)
	}
	h.MakeRoom(1 << 40)
	if n := h.onDisk(); n != 0 {
		t.Errorf("%d bytes stay", n)
	}
	h.read(h.pack(0), 0, 1<<20)
}

// A volume that takes nothing costs the cache, not the answer.
func TestVolumeThatTakesNothingIsDoneWithout(t *testing.T) {
	h := newHouse(t, 1<<20)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"a file": file, "below a file": filepath.Join(file, "x"), "read-only": "/proc/near"} {
		h.open(dir)
		before := h.bucket.requests()
		for range 10 {
			h.read(h.pack(0), 0, 100)
		}
		if n := h.bucket.requests() - before; n > 12 {
			t.Errorf("%s: %d requests for 10 reads", name, n)
		}
	}
}

func TestErrorOfTheBucketIsTheReaders(t *testing.T) {
	h := newHouse(t, 1<<20)
	broken := errors.New("the bucket broke off")
	came := 0
	h.bucket.hold = func(int64) error {
		if came++; came > 3 {
			return broken
		}
		return nil
	}
	r, err := h.Open(t.Context(), h.pack(0), 10, 1<<20-10)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if !errors.Is(err, broken) || !bytes.Equal(b, h.packs[h.pack(0)][10:3*slice]) {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
	h.bucket.mu.Lock()
	h.bucket.hold = nil
	h.bucket.mu.Unlock()
	if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, h.packs[h.pack(0)][3*slice:]) {
		t.Errorf("going on: %d bytes, %v", len(rest), err)
	}
	r.Close()
}

func TestCancelledReaderReturnsAndCloseEndsWhatIsUnderWay(t *testing.T) {
	h := newHouse(t, 1<<20)
	reached := make(chan struct{}, 10)
	ended := make(chan struct{})
	h.bucket.hold = func(int64) error {
		reached <- struct{}{}
		<-h.Cache.ctx.Done() // as a real bucket's connection
		close(ended)
		return h.Cache.ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := h.Open(ctx, h.pack(0), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	r.Close()
	h.Close()
	<-ended
}

func TestTooSmallALimitKeepsNothing(t *testing.T) {
	h := newHouse(t, 1<<20)
	h.Limit = MinLimit - 1
	h.read(h.pack(0), 0, 1<<20)
	if _, err := os.Stat(h.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a folder: %v", err)
	}
}
