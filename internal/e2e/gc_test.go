package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// other is a closure that shares nothing with network.
const other = `
let
  leaf = make "other-leaf" "mkdir $out; ${bytes 150000000 7000000} >$out/data";
  lib = make "other-lib" "mkdir $out; ln -s ${leaf} $out/leaf; ${bytes 143000000 3000000} >$out/data";
in make "other" "mkdir $out; ln -s ${lib} $out/lib; ln -s ${leaf} $out/leaf"
`

// retention sets that of a cache, in seconds, as the stock client does.
func (s *server) retention(cache string, seconds int) {
	s.t.Helper()
	tok := s.token("--configure-cache-retention", cache, "--configure-cache", cache, "--pull", cache)
	req := s.request(http.MethodPatch, "/_api/v1/cache-config/"+cache, tok, strings.NewReader(fmt.Sprintf(`{"retention_period":{"Period":%d}}`, seconds)))
	req.Header.Set("Content-Type", "application/json")
	s.want(http.StatusOK, req)
}

// collected is what a collection says that it did.
type collected struct {
	Paths, Packs int
	NARs         int `json:"nars"`
	Freed        int64
	Waiting      int
}

func (s *server) gc(args ...string) (c collected) {
	s.t.Helper()
	end := s.command(append([]string{"gc", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(end.stdout), &c); err != nil || end.code != 0 {
		s.t.Fatalf("gc: exit %d, %v\n%s%s", end.code, err, end.stdout, tail(end.stderr))
	}
	return c
}

func (s *server) mustCommand(args ...string) string {
	s.t.Helper()
	end := s.command(args...)
	if end.code != 0 {
		s.t.Fatalf("attic-server %v: exit %d\n%s", args, end.code, tail(end.stderr))
	}
	return end.stdout
}

// Two closures are pinned, one no more. A collection takes it from the server that runs, down to the files; the other is
// pulled into an empty store, and is all that a recovery brings back.
func TestCollectionTakesWhatIsNotPinnedAndNothingElse(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	collectOne(t, s, s.stored)
}

// The same with a bucket, whose objects a real S3 server deletes.
func TestCollectionTakesObjectsOfABucket(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	collectOne(t, b.server(t), func() int64 { return b.stored(t) })
}

// stored is how many bytes of packs are in the bucket.
func (b *bucket) stored(t testing.TB) (sum int64) {
	t.Helper()
	for _, name := range b.objects(t) {
		if strings.HasPrefix(name, "packs/") {
			sum += must(os.Stat(filepath.Join(b.gw.Root, b.name, name)))(t).Size()
		}
	}
	return sum
}

func collectOne(t *testing.T, s *server, stored func() int64) {
	tok, key := s.cache("main", true)
	keeps, goes := build(t, "", network)[0], build(t, "", other)[0]
	for name, top := range map[string]string{"keeps": keeps, "goes": goes} {
		mustPush(t, s.url, tok, "main", top)
		s.mustCommand("pin", "set", "main", name, top)
	}
	s.retention("main", 1)
	full := stored()
	until(t, "everything is older than its retention", func() bool {
		plan := s.mustCommand("gc", "--dry-run")
		if !strings.Contains(plan, "would delete: 0 paths") {
			t.Fatalf("of what is pinned, the plan is\n%s", plan)
		}
		return strings.Contains(plan, "pinned as keeps") && strings.Contains(plan, "pinned as goes")
	})
	s.mustCommand("pin", "remove", "main", "goes")
	gone := collected{}
	until(t, "what is not pinned is gone", func() bool {
		c := s.gc("--now")
		gone.Paths, gone.NARs, gone.Packs, gone.Freed = gone.Paths+c.Paths, gone.NARs+c.NARs, gone.Packs+c.Packs, gone.Freed+c.Freed
		return gone.Paths > 0
	})
	if gone.Paths != 3 || gone.NARs != 3 || gone.Freed < 10_000_000 || full-stored() < 10_000_000 {
		t.Errorf("%+v went, %d bytes of %d are left", gone, stored(), full)
	}
	for _, path := range closure(t, goes) {
		s.want(http.StatusNotFound, s.request(http.MethodGet, "/main/"+hashOf(path)+".narinfo", tok, nil))
	}
	paths := closure(t, keeps)
	s.verifyServed("main", tok, key, paths)
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, keeps) })

	s.stopped()
	check := s.mustCommand("recover", "--check")
	if !strings.Contains(check, " 0 are missing") {
		t.Errorf("check: %s", check)
	}
	s.loseDatabase()
	if r := s.recover(0); len(r.Lost) > 0 || r.Restored.Paths != len(paths) {
		t.Errorf("recovered: %+v, want %d paths", r, len(paths))
	}
	s.restart()
	s.verifyServed("main", tok, key, paths)
	mustPush(t, s.url, tok, "main", goes) // what went comes back
	pull(t, rig.nixes[0], s.url+"/main", key, goes)
	s.stopped()
}

// Attic's test of its NixOS module: after a retention of a second and one collection by another process, no contents
// are left in the storage.
func TestGarbageCollectorOnceLeavesNoFile(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, _ := s.cache("main", true)
	path := addTree(t, "once", map[string]string{"a": strings.Repeat("once upon a time ", 10_000)})
	mustPush(t, s.url, tok, "main", path)
	s.retention("main", 1)
	until(t, "the storage has no packs", func() bool {
		end := s.command("--mode", "garbage-collector-once")
		if end.code != 0 {
			t.Fatalf("exit %d\n%s", end.code, end.stderr)
		}
		files := must(filepath.Glob(filepath.Join(s.data, "storage", "packs", "*", "*")))(t)
		return len(files) == 0
	})
	s.want(http.StatusNotFound, s.request(http.MethodGet, "/main/"+hashOf(path)+".narinfo", tok, nil))
	s.stopped()
}

// A server collects by itself, when nobody asks it for anything, and at its start what is overdue.
func TestServerCollectsByTheClock(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "server.toml")
	text := "[garbage-collection]\ninterval = \"1 second\"\ndefault-retention-period = \"1 second\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "-f", file)
	tok, _ := s.cache("main", true)
	goes, stays := addTree(t, "clock", map[string]string{"a": "tick"}), addTree(t, "pinned", map[string]string{"a": "tock"})
	mustPush(t, s.url, tok, "main", stays)
	until(t, "it is pinned before it is collected", func() bool {
		if s.command("pin", "set", "main", "host", stays).code == 0 {
			return true
		}
		mustPush(t, s.url, tok, "main", stays)
		return false
	})
	mustPush(t, s.url, tok, "main", goes)
	// Asked on its socket: requests would keep it from being idle.
	until(t, "what is not pinned has gone", func() bool { return s.command("path", goes).code != 0 })
	s.want(http.StatusNotFound, s.request(http.MethodGet, "/main/"+hashOf(goes)+".narinfo", tok, nil))
	s.want(http.StatusOK, s.request(http.MethodGet, "/main/"+hashOf(stays)+".narinfo", tok, nil))
	s.stopped()
}
