package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
)

// closure adds a closure with a NAR of every kind: all literal, a few chunks,
// larger than 4 MiB, and larger than what is kept in memory.
func closure(s *testStore) (top nix.StorePath) {
	tiny := s.add("tiny", []byte("hello"))
	small := s.add("small", s.random(300<<10), tiny)
	middle := s.add("middle", s.random(5<<20), tiny, small)
	large := s.add("large", s.random(9<<20), middle)
	return s.add("top", []byte("top"), tiny, small, middle, large)
}

func TestPushStoresWholeClosure(t *testing.T) {
	s, f := newStore(t), newFake(t)
	top := closure(s)
	res := mustPush(t, s.pusher(f), request(top))
	if res.Paths != 5 || res.Pushed != 5 || res.Missing != 5 || len(f.paths) != 5 {
		t.Errorf("result %+v, server has %d paths", res, len(f.paths))
	}
	if res.BytesSent < 14<<20 || res.NARBytes < 14<<20 || res.NewChunks != len(f.chunks) || res.Packs != len(f.packs) {
		t.Errorf("result %+v; server has %d chunks, %d packs", res, len(f.chunks), len(f.packs))
	}
	own := 0
	for _, p := range f.packs {
		if p.own {
			own++
		}
	}
	if own != 2 || len(f.packs) != 3 {
		t.Errorf("%d packs, %d of them own; want 3 and 2: %+v", len(f.packs), own, f.packs)
	}
}

func TestOwnPackIsTheNARsStream(t *testing.T) {
	s, f := newStore(t), newFake(t)
	big := s.add("big", s.random(5<<20))
	mustPush(t, s.pusher(f), request(big))
	if len(f.packs) != 1 || !f.packs[0].own || f.packs[0].raw != int64(s.infos[big].NarSize) {
		t.Fatalf("packs %+v, NAR has %d bytes", f.packs, s.infos[big].NarSize)
	}
	if got := nix.Hash(f.nars[f.packs[0].sum].Sum(nil)); got != s.infos[big].NarHash {
		t.Errorf("hash of the pack's stream is %s, want %s", got, s.infos[big].NarHash)
	}
}

func TestLongNARGetsSeveralOwnPacks(t *testing.T) {
	s, f := newStore(t), newFake(t)
	f.ext.Limits.PackBytes = 3 << 20
	big := s.add("big", s.random(10<<20))
	mustPush(t, s.pusher(f), request(big))
	if len(f.packs) < 4 {
		t.Fatalf("%d packs for 10 MiB in packs of 3", len(f.packs))
	}
	for i, p := range f.packs {
		if !p.own || p.size > 3<<20 {
			t.Errorf("pack %d: %+v", i, p)
		}
		if want := i > 0; (p.after != "") != want {
			t.Errorf("pack %d names %q as the one before it", i, p.after)
		}
		if i > 0 && p.after != fmt.Sprintf("%x", f.packs[i-1].sum) {
			t.Errorf("pack %d goes on from %s, want %x", i, p.after, f.packs[i-1].sum)
		}
	}
}

func TestNARWithKnownChunksGetsNoOwnPack(t *testing.T) {
	s, f := newStore(t), newFake(t)
	data := s.random(5 << 20)
	p := s.pusher(f)
	mustPush(t, p, request(s.add("one", data)))
	res := mustPush(t, p, request(s.add("two", append(bytes.Clone(data), s.random(1<<20)...))))
	if last := f.packs[len(f.packs)-1]; last.own || last.size > 2<<20 {
		t.Errorf("pack of the new chunks: %+v", last)
	}
	if res.BytesSent > 2<<20 {
		t.Errorf("%d bytes sent for 1 MiB of news", res.BytesSent)
	}
}

func TestUnchangedPushMakesTwoRequests(t *testing.T) {
	s, f := newStore(t), newFake(t)
	top := closure(s)
	mustPush(t, s.pusher(f), request(top))
	res := mustPush(t, s.pusher(f), request(top))
	if res.Requests != 2 || res.Pushed != 0 || res.Present != 5 {
		t.Errorf("result %+v", res)
	}
}

func TestSameContentsUnderOtherReferencesSendAlmostNothing(t *testing.T) {
	s, f := newStore(t), newFake(t)
	data := s.random(3 << 20)
	dep := s.add("dep", []byte("1"))
	mustPush(t, s.pusher(f), request(s.add("app", data, dep)))
	rebuilt := s.add("dep", []byte("1"))
	res := mustPush(t, s.pusher(f), request(s.add("app", data, rebuilt)))
	if res.NewChunks != 0 || res.Packs != 0 || res.BytesSent > 64<<10 {
		t.Errorf("rebuild: %+v", res)
	}
}

func TestDependenciesAreCommittedFirst(t *testing.T) {
	s, f := newStore(t), newFake(t)
	var below []nix.StorePath
	for i := range 40 {
		refs := below
		if len(refs) > 3 {
			refs = refs[len(refs)-3:]
		}
		below = append(below, s.add(fmt.Sprintf("p%d", i), s.random(20<<10*(i%4)+10), slices.Clone(refs)...))
	}
	mustPush(t, s.pusher(f), request(below[len(below)-1])) // the fake refuses references that are not there
	if len(f.paths) != 40 {
		t.Errorf("%d paths, want 40", len(f.paths))
	}
}

func TestSelfReferenceIsNoDependency(t *testing.T) {
	s, f := newStore(t), newFake(t)
	p := s.add("self", s.random(100<<10))
	info := s.infos[p]
	info.References = []nix.StorePath{p}
	s.infos[p] = info
	mustPush(t, s.pusher(f), request(p))
}

func TestUpstreamPathsAreDeclaredAndLeftOut(t *testing.T) {
	s, f := newStore(t), newFake(t)
	f.upstream = []string{"cache.nixos.org-1"}
	glibc := s.add("glibc", s.random(10<<10))
	s.sign(glibc, "cache.nixos.org-1")
	top := s.add("top", []byte("x"), glibc)
	res := mustPush(t, s.pusher(f), request(top))
	if res.Upstream != 1 || res.Pushed != 1 {
		t.Errorf("result %+v", res)
	}
	if got := f.paths[top.Hash()].Upstream; !slices.Equal(got, []string{glibc.Base()}) {
		t.Errorf("upstream of top: %v", got)
	}
	req := request(top)
	req.IgnoreUpstream = true
	if res := mustPush(t, s.pusher(f), req); res.Pushed != 1 || !f.has(glibc.Hash()) {
		t.Errorf("with the filter off: %+v", res)
	}
}

func TestPathsThatARequestLeavesOutAreNotSent(t *testing.T) {
	s, f := newStore(t), newFake(t)
	source := s.add("secret-source", s.random(10<<10))
	top := s.add("top", []byte("x"), source)
	req := request(top)
	req.LeaveOut = func(p nix.StorePath) bool { return strings.HasSuffix(p.Name(), "-source") }
	if res := mustPush(t, s.pusher(f), req); res.Upstream != 1 || res.Pushed != 1 || f.has(source.Hash()) {
		t.Errorf("result %+v", res)
	}
	if got := f.paths[top.Hash()].Upstream; !slices.Equal(got, []string{source.Base()}) {
		t.Errorf("elsewhere, says top: %v", got)
	}
}

func TestNoClosureAsksForReferences(t *testing.T) {
	s, f := newStore(t), newFake(t)
	dep := s.add("dep", s.random(1000))
	top := s.add("top", []byte("x"), dep)
	req := request(top)
	req.NoClosure = true
	res, err := s.pusher(f).Push(t.Context(), req)
	if err != nil || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Reason, dep.Base()) {
		t.Fatalf("without the reference: %+v, %v", res, err)
	}
	mustPush(t, s.pusher(f), request(dep))
	if res := mustPush(t, s.pusher(f), req); res.Pushed != 1 {
		t.Errorf("with the reference: %+v", res)
	}
}

func TestChangedPathIsRefusedByName(t *testing.T) {
	for _, size := range []int{100, 300 << 10, 9 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s, f := newStore(t), newFake(t)
			bad := s.add("bad", s.random(size))
			user := s.add("user", []byte("x"), bad)
			top := s.add("top", []byte("y"), user)
			fine := s.add("fine", s.random(200<<10))
			file := filepath.Join(bad.String(), "file")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			data[size/2] ^= 1
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
			res, err := s.pusher(f).Push(t.Context(), request(top, fine))
			if err != nil {
				t.Fatal(err)
			}
			reasons := map[string]string{}
			for _, fail := range res.Failed {
				reasons[fail.Path] = fail.Reason
			}
			if len(reasons) != 3 || !strings.Contains(reasons[bad.String()], "not what Nix recorded") {
				t.Errorf("failed: %v", reasons)
			}
			for _, p := range []nix.StorePath{user, top} {
				if !strings.Contains(reasons[p.String()], bad.Base()) {
					t.Errorf("reason of %s does not name the path at its root: %q", p.Name(), reasons[p.String()])
				}
			}
			if !f.has(fine.Hash()) || len(f.paths) != 1 {
				t.Errorf("the server has %d paths, want the one that is fine", len(f.paths))
			}
		})
	}
}

func TestVanishedPathFailsAlone(t *testing.T) {
	s, f := newStore(t), newFake(t)
	gone, fine := s.add("gone", s.random(10<<20)), s.add("fine", s.random(200<<10))
	if err := os.RemoveAll(gone.String()); err != nil {
		t.Fatal(err)
	}
	res, err := s.pusher(f).Push(t.Context(), request(gone, fine))
	if err != nil || res.Pushed != 1 || len(res.Failed) != 1 || res.Failed[0].Path != gone.String() {
		t.Errorf("result %+v, %v", res, err)
	}
}

func TestUnknownChunksAreSentAgain(t *testing.T) {
	s, f := newStore(t), newFake(t)
	p := s.pusher(f)
	data := s.random(2 << 20)
	mustPush(t, p, request(s.add("one", data)))
	f.mu.Lock()
	clear(f.chunks) // a collection took what nothing had committed; the Pusher still counts on it
	f.mu.Unlock()
	mustPush(t, p, request(s.add("two", data)))
	if f.requests["POST "+api.PathsRoute] != 3 {
		t.Errorf("%d commits, want one refused and two taken", f.requests["POST "+api.PathsRoute])
	}
}

func TestServerThatNeverKnowsAChunkIsGivenUp(t *testing.T) {
	s, f := newStore(t), newFake(t)
	p, path := s.pusher(f), s.add("one", s.random(300<<10))
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/paths") {
			clear(f.chunks)
		}
		return false
	}
	res, err := p.Push(t.Context(), request(path))
	if err != nil || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Reason, api.UnknownChunks) {
		t.Errorf("result %+v, %v", res, err)
	}
	if n := f.requests["POST "+api.PathsRoute]; n != maxRounds+1 {
		t.Errorf("%d commits, want %d", n, maxRounds+1)
	}
}

func TestMissingReferenceFailsItsPathOnly(t *testing.T) {
	s, f := newStore(t), newFake(t)
	dep := s.add("dep", s.random(1000))
	mustPush(t, s.pusher(f), request(dep))
	top, fine := s.add("top", []byte("x"), dep), s.add("fine", []byte("y"))
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/paths") { // collected between the question and the commit
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.paths, dep.Hash())
		}
		return false
	}
	res, err := s.pusher(f).Push(t.Context(), request(top, fine))
	if err != nil || len(res.Failed) != 1 || res.Failed[0].Path != top.String() || !strings.Contains(res.Failed[0].Reason, dep.Base()) || res.Pushed != 1 {
		t.Errorf("result %+v, %v", res, err)
	}
}

func TestRefusedPathIsFoundAmongOthers(t *testing.T) {
	s, f := newStore(t), newFake(t)
	var all []nix.StorePath
	for i := range 30 {
		all = append(all, s.add(fmt.Sprintf("p%d", i), s.random(50)))
	}
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/paths") && refuseIfBad(f, w, r, "p17")
	}
	res, err := s.pusher(f).Push(t.Context(), request(all...))
	if err != nil || len(res.Failed) != 1 || res.Failed[0].Path != all[17].String() || res.Pushed != 29 {
		t.Errorf("result %+v, %v", res, err)
	}
}

func TestPieceListLongerThanARequest(t *testing.T) {
	s, f := newStore(t), newFake(t)
	f.ext.Limits.PathsBytes = leastCommit
	// Own hash every 5 KB: a literal and a chunk each, 65 bytes of piece list.
	sum := s.add("probe", nil).Hash()
	_ = sum
	var data []byte
	for range 2500 {
		data = append(data, s.random(6<<10)...)
		data = append(data, "0123456789abcdfghijklmnpqrsvwxyz"...)
	}
	ref, err := nix.ParseBaseName(s.dir, "0123456789abcdfghijklmnpqrsvwxyz-ref")
	if err != nil {
		t.Fatal(err)
	}
	path := s.add("long", data)
	info := s.infos[path]
	info.References = []nix.StorePath{ref}
	s.infos[path] = info
	f.paths[ref.Hash()] = api.PathHeader{}
	p := s.pusher(f)
	res, err := p.Push(t.Context(), Request{Cache: "main", Paths: []string{path.String()}})
	if err != nil || len(res.Failed) > 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if f.requests["POST "+api.PathsRoute] < 3 {
		t.Errorf("%d commits for a list of 160 KB in requests of 64", f.requests["POST "+api.PathsRoute])
	}
}

func TestQuestionsKeepTheServersLimit(t *testing.T) {
	s, f := newStore(t), newFake(t)
	f.ext.Limits.MissingChunks = 7
	mustPush(t, s.pusher(f), request(s.add("big", s.random(9<<20))))
	if f.requests["POST "+api.MissingChunksRoute] < f.missing/7 {
		t.Errorf("%d hashes in %d questions", f.missing, f.requests["POST "+api.MissingChunksRoute])
	}
}

func TestSharedPackIsFilledByManyPaths(t *testing.T) {
	s, f := newStore(t), newFake(t)
	var all []nix.StorePath
	for i := range 25 {
		all = append(all, s.add(fmt.Sprintf("p%d", i), s.random(1<<20)))
	}
	mustPush(t, s.pusher(f), request(all...))
	if len(f.packs) != 2 {
		t.Errorf("%d packs for 25 MiB, want 2", len(f.packs))
	}
}

func TestServerFaultsAreRetried(t *testing.T) {
	s, f := newStore(t), newFake(t)
	top := closure(s)
	var n atomic.Int64
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		switch n.Add(1) % 4 {
		case 1:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case 2: // cut in the middle of the body
			io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}
		return false
	}
	res := mustPush(t, s.pusher(f), request(top))
	if res.Pushed != 5 || len(f.packs) != 3 {
		t.Errorf("result %+v, %d packs", res, len(f.packs))
	}
}

func TestStalledUploadIsBrokenAndRepeated(t *testing.T) {
	s, f := newStore(t), newFake(t)
	path := s.add("big", s.random(9<<20))
	again := make(chan struct{})
	var puts atomic.Int64
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		if n := puts.Add(1); n > 1 {
			if n == 2 { // on a busy machine it may stall once more
				close(again)
			}
			return false
		}
		<-again // reads nothing until the client has given up and come again
		panic(http.ErrAbortHandler)
	}
	p := s.pusher(f, func(o *client.Options) { o.Stall, o.AnswerWait = 300*time.Millisecond, 300*time.Millisecond })
	mustPush(t, p, request(path))
}

func TestForbiddenEndsThePush(t *testing.T) {
	s, f := newStore(t), newFake(t)
	top := closure(s)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			answerError(w, &api.Error{Code: 403, Name: api.AccessError, Message: "The token does not permit to push."})
			return true
		}
		return false
	}
	res, err := s.pusher(f).Push(t.Context(), request(top))
	if client.Status(err) != 403 {
		t.Fatalf("error %v", err)
	}
	if len(res.Failed) == 0 {
		t.Error("no path is reported as failed")
	}
}

func TestFullServerEndsThePush(t *testing.T) {
	s, f := newStore(t), newFake(t)
	top := closure(s)
	var puts atomic.Int64
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			puts.Add(1)
			answerError(w, &api.Error{Code: 507, Name: api.InsufficientSpace, Message: "The disk is full."})
			return true
		}
		return false
	}
	_, err := s.pusher(f).Push(t.Context(), request(top))
	if client.Status(err) != 507 || puts.Load() > 3 {
		t.Fatalf("%d uploads, error %v", puts.Load(), err)
	}
}

func TestRefusedPackFailsItsNARAndSparesOthers(t *testing.T) {
	s, f := newStore(t), newFake(t)
	big, other := s.add("big", s.random(5<<20)), s.add("other", s.random(300<<10))
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && r.ContentLength > 4<<20 {
			answerError(w, &api.Error{Code: 400, Name: api.RequestError, Message: "wrong hash in pack"})
			return true
		}
		return false
	}
	res, err := s.pusher(f).Push(t.Context(), request(big, other))
	if err != nil || res.Pushed != 1 || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Reason, "wrong hash in pack") {
		t.Errorf("result %+v, %v", res, err)
	}
}

func TestRefusedSharedPackIsTriedAgain(t *testing.T) {
	s, f := newStore(t), newFake(t)
	path := s.add("small", s.random(300<<10))
	var once atomic.Bool
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && once.CompareAndSwap(false, true) {
			answerError(w, &api.Error{Code: 400, Name: api.RequestError, Message: "a proxy ate it"})
			return true
		}
		return false
	}
	mustPush(t, s.pusher(f), request(path))
}

func TestInterruptedPushGoesOnWithoutSendingPacksAgain(t *testing.T) {
	s, f := newStore(t), newFake(t)
	var all []nix.StorePath
	for i := range 6 {
		all = append(all, s.add(fmt.Sprintf("p%d", i), s.random(5<<20)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var puts atomic.Int64
	over := make(chan struct{})
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && puts.Add(1) == 4 {
			cancel()
			<-over
			panic(http.ErrAbortHandler)
		}
		return false
	}
	p := s.pusher(f)
	p.Jobs = 1
	res, err := p.Push(ctx, request(all...))
	close(over)
	if !errors.Is(err, context.Canceled) || res.Packs < 2 {
		t.Fatalf("result %+v, %v", res, err)
	}
	first := len(f.packs)
	f.before = nil
	res = mustPush(t, s.pusher(f), request(all...))
	if len(f.packs) != 6 || res.Packs != 6-first {
		t.Errorf("%d packs at the server after %d in the first run; the second sent %d", len(f.packs), first, res.Packs)
	}
	if want := int64(6-first+1) * 5 << 20; res.BytesSent > want {
		t.Errorf("second run sent %d bytes, want less than %d", res.BytesSent, want)
	}
}

func TestKeptPathIsNoFailure(t *testing.T) {
	s, f := newStore(t), newFake(t)
	path := s.add("p", []byte("x"))
	f.kept[path.Hash()] = true
	if res := mustPush(t, s.pusher(f), request(path)); res.Kept != 1 || res.Pushed != 0 {
		t.Errorf("result %+v", res)
	}
}

func TestDryRunPushesNothing(t *testing.T) {
	s, f := newStore(t), newFake(t)
	req := request(closure(s))
	req.DryRun = true
	res := mustPush(t, s.pusher(f), req)
	if res.Missing != 5 || len(res.WouldPush) != 5 || res.Requests != 2 || len(f.paths) != 0 {
		t.Errorf("result %+v", res)
	}
}

func TestStockServerGetsWholeNARs(t *testing.T) {
	s, f := newStore(t), newFake(t)
	f.ext = nil
	top := closure(s)
	many := s.add("many", []byte("z"))
	info := s.infos[many]
	for range 60 { // a description of more than 4 KiB goes into the body
		info.Sigs = append(info.Sigs, "key:"+strings.Repeat("A", 84)+"==")
	}
	s.infos[many] = info
	var faults atomic.Int64
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && faults.Add(1) == 2 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	}
	res := mustPush(t, s.pusher(f), request(top, many))
	if res.Pushed != 6 || len(f.stock) != 6 {
		t.Errorf("result %+v, server has %d NARs", res, len(f.stock))
	}
}

func TestStockServerRefusesByName(t *testing.T) {
	s, f := newStore(t), newFake(t)
	f.ext = nil
	bad, fine := s.add("bad", s.random(1000)), s.add("fine", s.random(1000))
	if err := os.WriteFile(filepath.Join(bad.String(), "file"), s.random(1000), 0o644); err != nil {
		t.Fatal(err)
	}
	res, err := s.pusher(f).Push(t.Context(), request(bad, fine))
	if err != nil || res.Pushed != 1 || len(res.Failed) != 1 || res.Failed[0].Path != bad.String() {
		t.Errorf("result %+v, %v", res, err)
	}
}

func TestNewerServerIsUsedAsStockServer(t *testing.T) {
	s, f := newStore(t), newFake(t)
	f.ext.Cut.Version = 2
	mustPush(t, s.pusher(f), request(closure(s)))
	if len(f.stock) != 5 || len(f.packs) != 0 {
		t.Errorf("%d NARs, %d packs", len(f.stock), len(f.packs))
	}
}

func TestAbsurdAnnouncementsAreRefusedOrClamped(t *testing.T) {
	for name, change := range map[string]func(*api.Extension){
		"zero sizes":   func(e *api.Extension) { e.Cut.Min, e.Cut.Avg, e.Cut.Max = 0, 0, 0 },
		"negative":     func(e *api.Extension) { e.Cut.Min = -5 },
		"huge chunks":  func(e *api.Extension) { e.Cut.Max = 1 << 40 },
		"turned round": func(e *api.Extension) { e.Cut.Min = 512 << 10; e.Cut.Max = 64 << 10 },
		"tiny packs":   func(e *api.Extension) { e.Limits.PackBytes = 10 },
		"tiny commits": func(e *api.Extension) { e.Limits.PathsBytes = 1 },
		"everything huge": func(e *api.Extension) {
			e.Limits = api.Limits{PackBytes: 1 << 60, PathsBytes: 1 << 60, MissingChunks: 1 << 60}
		},
		"nothing said": func(e *api.Extension) { e.Limits = api.Limits{} },
	} {
		t.Run(name, func(t *testing.T) {
			ext := extension()
			change(ext)
			road, err := new(Pusher).road(ext)
			if err == nil && (road.packBytes > 96<<20 || road.pathsBytes > maxCommit || road.missingChunks > maxMissing ||
				road.missingChunks < 1 || road.cut.Validate() != nil) {
				t.Errorf("taken as %+v", road)
			}
			if wantOK := name == "everything huge" || name == "nothing said"; wantOK != (err == nil) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestWrongStoreDirIsRefusedBeforeAnythingIsRead(t *testing.T) {
	s, f := newStore(t), newFake(t)
	p := s.pusher(f)
	f.storeDir = "/nix/store"
	_, err := p.Push(t.Context(), request(s.add("p", []byte("x"))))
	if err == nil || !strings.Contains(err.Error(), "/nix/store") || f.requests["POST "+api.MissingPathsRoute] != 0 {
		t.Errorf("error %v", err)
	}
}

func TestResultJSONHasTheDocumentedMembers(t *testing.T) {
	s, f := newStore(t), newFake(t)
	res := mustPush(t, s.pusher(f), request(s.add("p", []byte("x"))))
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"paths", "pushed", "nar_bytes", "bytes_sent", "new_chunks", "requests", "seconds", "failed"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no member %q in %s", key, b)
		}
	}
	if failed, ok := got["failed"].([]any); !ok || len(failed) != 0 {
		t.Errorf("failed is %v, want an empty list", got["failed"])
	}
}

// refuseIfBad answers 400 to a commit that holds a path of the name.
func refuseIfBad(f *fakeServer, w http.ResponseWriter, r *http.Request, name string) bool {
	names, body := commitNames(f.t, r)
	if slices.Contains(names, name) {
		answerError(w, &api.Error{Code: 400, Name: api.RequestError, Message: "a field holds a control character"})
		return true
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return false
}
