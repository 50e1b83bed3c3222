package depot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/blob/near"
	"github.com/org/attic-action/internal/budget"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
)

// far is a bucket in memory that counts, and that a test can hold up or break.
type far struct {
	*blobtest.Mem
	mu      sync.Mutex
	gets    []string // "key off n"
	bytes   int64    // asked for
	open    int      // bodies
	onGet   func()
	onRead  func(ctx context.Context, off int64) error // before each read of a body that begins at off
	mostper int                                        // bytes of one read; 0: any
	breaks  int                                        // reads that a body takes before it breaks off; 0: any
}

func (f *far) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	f.mu.Lock()
	f.gets = append(f.gets, fmt.Sprintf("%s %d %d", key, off, n))
	f.bytes += n
	onGet := f.onGet
	f.mu.Unlock()
	if onGet != nil {
		onGet()
	}
	r, err := f.Mem.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.open++
	f.mu.Unlock()
	return &farBody{ReadCloser: r, far: f, ctx: ctx, off: off}, nil
}

type farBody struct {
	io.ReadCloser
	far   *far
	ctx   context.Context
	off   int64
	reads int
}

var errBroken = errors.New("the connection broke")

func (b *farBody) Read(p []byte) (int, error) {
	if b.far.onRead != nil {
		if err := b.far.onRead(b.ctx, b.off); err != nil {
			return 0, err
		}
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.reads++; b.far.breaks > 0 && b.reads > b.far.breaks {
		return 0, errBroken
	}
	if most := b.far.mostper; most > 0 {
		p = p[:min(len(p), most)]
	}
	return b.ReadCloser.Read(p)
}

func (b *farBody) Close() error {
	b.far.mu.Lock()
	b.far.open--
	b.far.mu.Unlock()
	return b.ReadCloser.Close()
}

func (f *far) state() (gets, open int, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.gets), f.open, f.bytes
}

// shelf is packs in a far bucket, and a depot that reads them without a database.
type shelf struct {
	*Depot
	t     *testing.T
	far   *far
	packs map[int64]meta.PackFile
	data  map[int64][]byte
}

func newShelf(t *testing.T, memory int64) *shelf {
	t.Helper()
	s := &shelf{t: t, far: &far{Mem: blobtest.NewMem()}, packs: map[int64]meta.PackFile{}, data: map[int64][]byte{}}
	s.Depot = &Depot{Blobs: s.far, Memory: budget.New(memory)}
	s.Near = &near.Cache{Dir: filepath.Join(t.TempDir(), "near"), Blobs: s.far, Limit: 64 << 20}
	s.init()
	return s
}

// parts makes parts shorter than they would be, so that small layouts have many.
func (s *shelf) parts(size int64) { s.ahead.size = size }

func (s *shelf) add(id int64, own bool, data []byte) {
	s.t.Helper()
	file := meta.PackFile{Key: fmt.Sprintf("packs/%d", id), Size: int64(len(data)), Own: own}
	if err := s.far.Put(context.Background(), file.Key, blob.Bytes(data)); err != nil {
		s.t.Fatal(err)
	}
	s.packs[id], s.data[id] = file, data
}

func (s *shelf) nar(l layout) *NAR {
	return &NAR{Size: l.size(), depot: s.Depot, layout: l, packs: s.packs, starts: l.starts()}
}

// naive is the stream as its definition says.
func (s *shelf) naive(l layout) (out []byte) {
	for _, sp := range l {
		if sp.kind == literalSpan {
			out = pack.LiteralFrame(out, sp.literal)
		} else {
			out = append(out, s.data[sp.pack][sp.off:sp.off+sp.size]...)
		}
	}
	return out
}

// ownNAR is one pack of a NAR alone.
func (s *shelf) ownNAR(size int) (*NAR, []byte) {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	s.add(1, true, data)
	return s.nar(layout{{kind: runSpan, pack: 1, count: 1, size: int64(size)}}), data
}

// randomLayout repeats, goes back, leaves out, and mixes what it can.
func (s *shelf) randomLayout(r *rand.Rand) (l layout) {
	for range r.IntN(30) {
		if r.IntN(3) == 0 {
			lit := make([]byte, r.IntN(200))
			l = append(l, span{kind: literalSpan, literal: lit})
			continue
		}
		id := int64(1 + r.IntN(len(s.packs)))
		sp := span{kind: runSpan, pack: id}
		if n := len(l); n > 0 && l[n-1].kind == runSpan && r.IntN(2) == 0 {
			sp.pack, sp.off = l[n-1].pack, l[n-1].off+l[n-1].size+int64(r.IntN(3)*r.IntN(2000)) // go on
		} else {
			sp.off = r.Int64N(s.packs[id].Size)
		}
		left := s.packs[sp.pack].Size - sp.off
		if left <= 0 {
			continue
		}
		sp.size = 1 + r.Int64N(left)
		if r.IntN(2) == 0 {
			sp.size = 1 + r.Int64N(min(left, 3000))
		}
		l = append(l, sp)
	}
	return l
}

func (s *shelf) fill(r *rand.Rand) {
	for id := range int64(5) {
		data := make([]byte, 1+r.IntN(200_000))
		rand.NewChaCha8([32]byte{byte(id), byte(r.Uint32())}).Read(data)
		s.add(id+1, r.IntN(2) == 0, data)
	}
}

// check reads ranges in every way that a request may, and compares.
func (s *shelf) check(r *rand.Rand, l layout) {
	s.t.Helper()
	nar, want := s.nar(l), s.naive(l)
	if nar.Size != int64(len(want)) {
		s.t.Fatalf("size %d, want %d", nar.Size, len(want))
	}
	for range 4 {
		from := r.Int64N(nar.Size + 1)
		to := from + r.Int64N(nar.Size-from+1)
		expect := to
		if r.IntN(4) == 0 {
			expect = r.Int64N(nar.Size + 1) // the caller was taken for another one
		}
		rd := nar.Reader(s.t.Context(), expect)
		rd.Seek(0, io.SeekEnd)
		if _, err := rd.Seek(from, io.SeekStart); err != nil {
			s.t.Fatal(err)
		}
		got := make([]byte, 0, to-from)
		buf := make([]byte, 1+r.IntN(40_000))
		for int64(len(got)) < to-from {
			n, err := rd.Read(buf[:min(int64(len(buf)), to-from-int64(len(got)))])
			got = append(got, buf[:n]...)
			if err != nil {
				s.t.Fatalf("byte %d of %d: %v", from+int64(len(got)), nar.Size, err)
			}
		}
		if !bytes.Equal(got, want[from:to]) {
			s.t.Fatalf("bytes %d to %d of %d differ, layout %+v", from, to, nar.Size, l)
		}
		if to == nar.Size {
			if n, err := rd.Read(buf); n != 0 || err != io.EOF {
				s.t.Fatalf("at the end: %d, %v", n, err)
			}
		}
		if err := rd.Close(); err != nil {
			s.t.Fatal(err)
		}
	}
	if used := s.Memory.Used(); used != 0 {
		s.t.Fatalf("%d bytes of the budget are still taken", used)
	}
}

func TestRandomLayoutsReadAsTheirBytes(t *testing.T) {
	for name, change := range map[string]func(s *shelf){
		"bucket":          func(*shelf) {},
		"no cache":        func(s *shelf) { s.Near.Limit = 0 },
		"no memory":       func(s *shelf) { s.ahead = newReadAhead(budget.New(1)) },
		"memory for two":  func(s *shelf) { s.ahead.share, s.Near.Limit = budget.New(6000), 0 },
		"disk":            func(s *shelf) { s.Near = nil },
		"one byte a read": func(s *shelf) { s.far.mostper = 700 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			for range 6 {
				s := newShelf(t, 64<<20)
				s.parts(int64(500 + r.IntN(20_000)))
				change(s)
				s.fill(r)
				for range 15 {
					s.check(r, s.randomLayout(r))
				}
				if s.Near != nil {
					s.Near.Close()
				}
				if _, open, _ := s.far.state(); open != 0 {
					t.Fatalf("%d bodies are still open", open)
				}
			}
		})
	}
}

// A bucket that breaks off is asked for the rest.
func TestReadGoesOnWhereTheBucketBrokeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		s := newShelf(t, 64<<20)
		s.parts(5000)
		s.Near.Limit = 0
		s.far.mostper, s.far.breaks = 400, 3
		s.fill(r)
		for range 20 {
			s.check(r, s.randomLayout(r))
		}
	})
}

func TestBucketThatStaysBrokenIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, 64<<20)
		nar, data := s.ownNAR(100_000)
		s.far.mostper = 30_000
		reads := 0
		s.far.onRead = func(context.Context, int64) error {
			if reads++; reads > 2 {
				return errBroken
			}
			return nil
		}
		rd := nar.Reader(t.Context(), nar.Size)
		defer rd.Close()
		got, err := io.ReadAll(rd)
		if !errors.Is(err, errBroken) || len(got) == 0 || !bytes.Equal(got, data[:len(got)]) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if n, _, _ := s.far.state(); n > 1+maxFails {
			t.Errorf("%d requests for one range", n)
		}
	})
}

// A pack that is shorter than its row says must not end a stream as if it were whole.
func TestShortPackIsAnError(t *testing.T) {
	for _, disk := range []bool{false, true} {
		s := newShelf(t, 64<<20)
		if disk {
			s.Near = nil
		}
		s.add(1, true, make([]byte, 1000))
		nar := s.nar(layout{{kind: runSpan, pack: 1, count: 1, size: 2000}})
		rd := nar.Reader(t.Context(), nar.Size)
		if _, err := io.ReadAll(rd); !errors.Is(err, blob.ErrRange) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
		rd.Close()
	}
}

// Several ranges are on their way at once: otherwise the way there is waited for, again and again.
func TestSeveralRangesAreUnderWayAtOnce(t *testing.T) {
	s := newShelf(t, 64<<20)
	s.parts(10_000)
	nar, data := s.ownNAR(100_000)
	all := make(chan struct{})
	s.far.onRead = func(context.Context, int64) error { <-all; return nil }
	s.far.onGet = func() {
		if n, _, _ := s.far.state(); n == 1+maxAhead {
			close(all) // nothing is read before so many were asked for
		}
	}
	rd := nar.Reader(t.Context(), nar.Size)
	defer rd.Close()
	if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if gets, _, n := s.far.state(); gets != 10 || n != 100_000 {
		t.Errorf("%d requests for %d bytes, want 10 for 100000: %q", gets, n, s.far.gets)
	}
}

func TestReadAheadStopsWhereTheRangeEnds(t *testing.T) {
	s := newShelf(t, 64<<20)
	s.parts(10_000)
	nar, data := s.ownNAR(100_000)
	rd := nar.Reader(t.Context(), 35_000)
	defer rd.Close()
	rd.Seek(12_000, io.SeekStart)
	got := make([]byte, 23_000)
	if _, err := io.ReadFull(rd, got); err != nil || !bytes.Equal(got, data[12_000:35_000]) {
		t.Fatal(err)
	}
	if _, _, n := s.far.state(); n != 23_000 {
		t.Errorf("%d bytes were fetched for 23000: %q", n, s.far.gets)
	}
}

// All readers together stay within half of the budget, whatever they do; who gets nothing reads all the same.
func TestReadAheadStaysInItsBudget(t *testing.T) {
	s := newShelf(t, 4<<20)
	s.Near.Limit = 0
	nar, data := s.ownNAR(4 << 20)
	if s.ahead.size != minPart || s.ahead.share.Total() != 2<<20 {
		t.Fatalf("parts of %d bytes, %d together", s.ahead.size, s.ahead.share.Total())
	}
	s.far.onRead = func(context.Context, int64) error {
		if used := s.Memory.Used(); used > 2<<20 {
			t.Errorf("%d bytes are taken", used)
		}
		return nil
	}
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			rd := nar.Reader(t.Context(), nar.Size)
			defer rd.Close()
			if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if used := s.Memory.Used(); used != 0 {
		t.Errorf("%d bytes are still taken", used)
	}
}

// The attack: clients that begin to read and then take nothing hold all memory, and nobody else is served.
func TestClientsThatStopTakeNobodysTurn(t *testing.T) {
	s := newShelf(t, 4<<20)
	s.Near.Limit = 0
	nar, data := s.ownNAR(4 << 20)
	for range 50 {
		rd := nar.Reader(t.Context(), nar.Size)
		defer rd.Close()
		if _, err := io.ReadFull(rd, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if used := s.Memory.Used(); used > 2<<20 {
		t.Errorf("%d bytes are taken by clients that do nothing", used)
	}
	rd := nar.Reader(t.Context(), nar.Size)
	defer rd.Close()
	if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	release, ok := s.Memory.TryAcquire(2 << 20)
	if !ok {
		t.Fatal("nothing is left for uploads")
	}
	release()
}

func TestClosedReaderFreesEverythingAtOnce(t *testing.T) {
	for _, how := range []string{"closed", "cancelled"} {
		t.Run(how, func(t *testing.T) {
			s := newShelf(t, 64<<20)
			s.parts(10_000)
			nar, _ := s.ownNAR(100_000)
			stuck := make(chan struct{}, 100)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s.far.onRead = func(of context.Context, off int64) error {
				if off == 0 { // the part that is read, as opposed to those behind it
					return nil
				}
				stuck <- struct{}{}
				<-of.Done()
				return of.Err()
			}
			rd := nar.Reader(ctx, nar.Size)
			if _, err := rd.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			<-stuck
			if s.Memory.Used() == 0 {
				t.Fatal("nothing is read ahead")
			}
			if how == "cancelled" {
				cancel()
				if _, err := io.ReadAll(rd); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			}
			if err := rd.Close(); err != nil {
				t.Error(err)
			}
			if _, open, _ := s.far.state(); open != 0 || s.Memory.Used() != 0 {
				t.Errorf("%d bodies are open, %d bytes taken", open, s.Memory.Used())
			}
		})
	}
}

// Hundreds of NARs in one pack: a handful of requests, and no memory.
func TestSmallNARsComeThroughTheVolume(t *testing.T) {
	s := newShelf(t, 1)
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{7}).Read(data)
	s.add(1, false, data)
	for i := range 400 {
		off := i * (8 << 20) / 400
		nar := s.nar(layout{
			{kind: runSpan, pack: 1, off: int64(off), size: 5000},
			{kind: literalSpan, literal: []byte("new hash")},
			{kind: runSpan, pack: 1, off: int64(off) + 6000, size: 100},
		})
		rd := nar.Reader(t.Context(), nar.Size)
		if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, s.naive(nar.layout)) {
			t.Fatalf("NAR %d: %d bytes, %v", i, len(got), err)
		}
		rd.Close()
	}
	s.Near.Close()
	if gets, _, n := s.far.state(); gets > 8 || n > 8<<20 {
		t.Errorf("%d requests for %d bytes: %q", gets, n, s.far.gets)
	}
}

func TestNeighboursAreReadAtOnce(t *testing.T) {
	at := func(pack, off, size int64) span { return span{kind: runSpan, pack: pack, off: off, size: size} }
	lit := span{kind: literalSpan, literal: []byte("x")}
	for name, c := range map[string]struct {
		l    layout
		want []part
	}{
		"nothing":           {nil, nil},
		"a literal":         {layout{lit}, nil},
		"one":               {layout{at(1, 10, 5)}, []part{{1, 10, 15}}},
		"neighbours":        {layout{at(1, 10, 5), lit, at(1, 15, 5), lit}, []part{{1, 10, 20}}},
		"a small gap":       {layout{at(1, 0, 5), at(1, 5+maxGap, 5)}, []part{{1, 0, 10 + maxGap}}},
		"a large gap":       {layout{at(1, 0, 5), at(1, 6+maxGap, 5)}, []part{{1, 0, 5}, {1, 6 + maxGap, 11 + maxGap}}},
		"another pack":      {layout{at(1, 0, 5), at(2, 5, 5), at(1, 5, 5)}, []part{{1, 0, 5}, {2, 5, 10}, {1, 5, 10}}},
		"back":              {layout{at(1, 10, 5), at(1, 0, 5)}, []part{{1, 10, 15}, {1, 0, 5}}},
		"again":             {layout{at(1, 10, 5), at(1, 10, 5)}, []part{{1, 10, 15}, {1, 10, 15}}},
		"long":              {layout{at(1, 0, 2500<<10)}, []part{{1, 0, 1 << 20}, {1, 1 << 20, 2 << 20}, {1, 2 << 20, 2500 << 10}}},
		"long in neighbour": {layout{at(1, 0, 5), at(1, 5, 2<<20)}, []part{{1, 0, 1 << 20}, {1, 1 << 20, 2<<20 + 5}}},
		"a little behind":   {layout{at(1, 0, 1<<20), at(1, 1<<20, 9)}, []part{{1, 0, 1<<20 + 9}}},
	} {
		w := planner{layout: c.l, starts: c.l.starts()}
		var got []part
		for {
			p, ok := w.next(c.l.size(), func(int64) int64 { return 1 << 20 })
			if !ok {
				break
			}
			got = append(got, p)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestReadAheadFollowsTheClient(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	q := &queue{}
	step := func(took time.Duration) int {
		at = at.Add(took)
		q.adapt(at)
		return q.ahead
	}
	if got := step(0); got != maxAhead {
		t.Errorf("at first %d", got)
	}
	q.fetch = 150 * time.Millisecond
	for _, c := range []struct {
		took time.Duration
		want int
	}{{0, maxAhead}, {time.Millisecond, maxAhead}, {75 * time.Millisecond, 3}, {150 * time.Millisecond, 2},
		{300 * time.Millisecond, 1}, {500 * time.Millisecond, 1}, {time.Second, 0}, {time.Hour, 0}, {100 * time.Millisecond, 2}} {
		if got := step(c.took); got != c.want {
			t.Errorf("a part in %v: %d ahead, want %d", c.took, got, c.want)
		}
	}
}

func FuzzLayoutsReadAsTheirBytes(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		s := newShelf(t, 64<<20)
		s.parts(int64(1 + r.IntN(20_000)))
		if r.IntN(3) == 0 {
			s.Near.Limit = 0
		}
		s.fill(r)
		s.check(r, s.randomLayout(r))
		s.Near.Close()
	})
}
