package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/attic-action/internal/nix"
)

// store is a store in a folder. A derivation x.drv makes x.
type store struct {
	t   *testing.T
	dir string

	mu      sync.Mutex
	own     []nix.StorePath // derivations that the build consists of
	invalid map[nix.StorePath]bool
	asked   int // for validity
	rooted  []string
	fails   error
}

func newStore(t *testing.T) *store {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &store{t: t, dir: dir, invalid: map[nix.StorePath]bool{}}
}

func (s *store) path(name string) nix.StorePath {
	p, err := nix.ParseBaseName(s.dir, strings.Repeat("0", 32)+"-"+name)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// drv is one of the build's own derivations.
func (s *store) drv(name string) nix.StorePath {
	p := s.path(name + ".drv")
	s.own = append(s.own, p)
	return p
}

func (s *store) write(name string, size int) nix.StorePath {
	p := s.path(name)
	if err := os.WriteFile(p.String(), make([]byte, size), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *store) Requisites(context.Context, nix.StorePath) ([]nix.StorePath, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own, s.fails
}

func (s *store) Outputs(_ context.Context, drvs []nix.StorePath) ([]nix.StorePath, error) {
	var out []nix.StorePath
	for _, drv := range drvs {
		out = append(out, s.path(strings.TrimSuffix(drv.Name(), ".drv")))
	}
	return out, nil
}

func (s *store) Valid(_ context.Context, paths []nix.StorePath) ([]nix.StorePath, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.fails != nil {
		return nil, s.fails
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p nix.StorePath) bool { return s.invalid[p] }), nil
}

func (s *store) Root(_ context.Context, link string, paths []nix.StorePath) error {
	for _, p := range paths {
		s.rooted = append(s.rooted, p.Name())
	}
	return os.Symlink(paths[0].String(), link)
}

// take is a pusher that notes what it gets, and when.
type take struct {
	start time.Time
	busy  atomic.Bool
	got   []string
}

func (k *take) offer(m Made) bool {
	if k.busy.Load() {
		return false
	}
	k.got = append(k.got, fmt.Sprintf("%d s: %s", int(time.Since(k.start)/time.Second), names(m)))
	return true
}

func names(m Made) string {
	var all []string
	for _, p := range m.Paths {
		all = append(all, p.Name())
	}
	return strings.Join(all, " ")
}

// following runs a test in a bubble, where seconds take no time.
func following(t *testing.T, test func(t *testing.T, s *store, b *Build, k *take)) {
	s := newStore(t)
	roots := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &take{start: time.Now()}
		test(t, s, &Build{Store: s, Drv: s.drv("top"), Roots: roots, Offer: k.offer}, k)
	})
}

func begin(b *Build, drvs ...nix.StorePath) {
	for _, drv := range drvs {
		fmt.Fprintf(b, "building '%s'...\n", drv)
	}
}

func pass(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func (k *take) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(k.got, want) {
		t.Errorf("offered %q, want %q", k.got, want)
	}
}

func TestSmallPathsGatherForFiveSeconds(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		begin(b, s.drv("a"), s.drv("b"), s.drv("c"))
		stop := b.Start(t.Context())
		s.write("a", 10)
		pass(3500 * time.Millisecond)
		s.write("b", 10)
		pass(5 * time.Second)
		k.want(t, "6 s: a b")
		s.write("c", 10)
		if rest := stop(t.Context()); names(rest) != "c" {
			t.Errorf("the rest is %q", names(rest))
		}
		if s.asked != 2 {
			t.Errorf("Nix was asked %d times", s.asked)
		}
	})
}

func TestSixteenMebibytesWaitForNobody(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		begin(b, s.drv("a"), s.drv("b"))
		stop := b.Start(t.Context())
		s.write("a", gatherTo/2)
		pass(1100 * time.Millisecond)
		s.write("b", gatherTo/2)
		pass(time.Second)
		k.want(t, "2 s: a b")
		stop(t.Context())
	})
}

func TestWhatIsWrittenStillIsNotTouched(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		s.write("a.lock", 0)
		s.invalid[s.write("b", 1)] = true
		s.write("a", 1)
		begin(b, s.drv("a"), s.drv("b"))
		stop := b.Start(t.Context())
		pass(7 * time.Second)
		k.want(t)
		s.mu.Lock()
		clear(s.invalid)
		s.mu.Unlock()
		if err := os.Remove(s.path("a.lock").String()); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Second)
		if rest := stop(t.Context()); len(rest.Paths) > 0 {
			t.Errorf("the rest is %q", names(rest))
		}
		if len(k.got) == 0 || len(k.got) > 2 || s.asked > 4 {
			t.Errorf("offered %q, asked %d times", k.got, s.asked)
		}
	})
}

// A push that takes its time, or fails, costs the build nothing: what is made meanwhile goes together, later.
func TestABusyPusherIsWaitedForByNobody(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		k.busy.Store(true)
		var drvs []nix.StorePath
		for i := range 20 {
			drvs = append(drvs, s.drv(fmt.Sprintf("p%02d", i)))
		}
		stop := b.Start(t.Context())
		for i, drv := range drvs {
			begin(b, drv)
			s.write(fmt.Sprintf("p%02d", i), 1)
			pass(2 * time.Second)
		}
		k.busy.Store(false)
		pass(10 * time.Second)
		stop(t.Context())
		if len(k.got) == 0 || !strings.Contains(k.got[0], "p00 p01 p02") || len(s.rooted) != 20 {
			t.Errorf("offered %q, roots %q", k.got, s.rooted)
		}
	})
}

// Builders share Nix's log. A line of theirs must not have what another project built on this machine pushed to this
// one's cache.
func TestBuilderCannotNameForeignPaths(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		begin(b, s.path("secret.drv"), s.drv("a"))
		stop := b.Start(t.Context())
		fmt.Fprintf(b, "building '%s'...\nbuilding '%s/../x.drv'...\n", s.path("secret"), s.dir)
		s.write("secret", 1)
		s.write("a", 1)
		if rest := stop(t.Context()); names(rest) != "a" {
			t.Errorf("pushed would be %q", names(rest))
		}
	})
}

func TestSkippedPathsAreNotGathered(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		b.Skip = func(p nix.StorePath) bool { return p.Name() == "a" }
		begin(b, s.drv("a"), s.drv("b"))
		stop := b.Start(t.Context())
		s.write("a", 1)
		s.write("b", 1)
		if rest := stop(t.Context()); names(rest) != "b" {
			t.Errorf("the rest is %q", names(rest))
		}
	})
}

func TestNixThatDoesNotAnswerCostsTheBuildNothing(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		var said strings.Builder
		b.Log = slog.New(slog.NewTextHandler(&said, nil))
		begin(b, s.drv("a"))
		stop := b.Start(t.Context())
		pass(2 * time.Second)
		s.write("a", 1)
		s.mu.Lock()
		s.fails = errors.New("disk I/O error")
		s.mu.Unlock()
		pass(time.Minute)
		s.mu.Lock()
		s.fails = nil
		s.mu.Unlock()
		pass(8 * time.Second)
		stop(t.Context())
		if len(k.got) != 1 || strings.Count(said.String(), "disk I/O error") != 1 {
			t.Errorf("offered %q, said %q", k.got, &said)
		}
	})
}

func TestRootsGoWhenTheyAreReleased(t *testing.T) {
	following(t, func(t *testing.T, s *store, b *Build, k *take) {
		begin(b, s.drv("a"))
		stop := b.Start(t.Context())
		s.write("a", 1)
		made := stop(t.Context())
		if links, _ := filepath.Glob(b.Roots + "/made-*/root"); len(links) != 1 {
			t.Errorf("roots %q", links)
		}
		if err := made.Release(); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(b.Roots); len(left) != 0 {
			t.Errorf("left are %v", left)
		}
	})
}

func TestLinesMayComeInPieces(t *testing.T) {
	text := "these 2 derivations will be built:\n  /nix/store/" + strings.Repeat("0", 32) + "-x.drv\n" +
		"\x1b[1mbuilding '/nix/store/" + strings.Repeat("1", 32) + "-a.drv'...\n" +
		"building '/nix/store/" + strings.Repeat("2", 32) + "-b.drv' on 'ssh://builder'...\r\n" +
		strings.Repeat("x", 5000) + "building '/nix/store/" + strings.Repeat("3", 32) + "-no.drv'...\n" +
		"building '/nix/store/" + strings.Repeat("1", 32) + "-a.drv'...\n" + "building '/nix/store/"
	for size := 1; size < 300; size += 7 {
		var l lines
		for piece := range slices.Chunk([]byte(text), size) {
			if n, err := l.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		var got []string
		for _, p := range l.take() {
			got = append(got, p.Name())
		}
		if !slices.Equal(got, []string{"a.drv", "b.drv"}) {
			t.Fatalf("pieces of %d: %q", size, got)
		}
		if again := l.take(); len(again) != 0 {
			t.Errorf("taken twice: %v", again)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("building '/nix/store/00000000000000000000000000000000-a.drv'...\n"), 3)
	f.Add([]byte("\x1b[0mbuilding '/nix/store/0-a.drv' on 'x'...\nbuilding"), 1)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		var whole, parts lines
		_, _ = whole.Write(text)
		for piece := range slices.Chunk(text, 1+max(0, size)%64) {
			_, _ = parts.Write(piece)
		}
		if a, b := whole.take(), parts.take(); !slices.Equal(a, b) {
			t.Errorf("%v in one piece, %v in many", a, b)
		}
		if len(whole.part) > lineMax {
			t.Errorf("%d bytes of a line are kept", len(whole.part))
		}
	})
}
