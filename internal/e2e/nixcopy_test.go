package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// copied is a closure of a few paths that refer to each other, with debug information in one.
const copied = `
let
  dep = make "dep" "mkdir -p $out/lib/debug/.build-id/ab; echo debug > $out/lib/debug/.build-id/ab/cdef0123456789.debug; echo said by the builder";
  big = make "big" "mkdir $out; ${bytes 0 (6 * 1024 * 1024)} > $out/noise; echo ${dep} > $out/refers; ln -s noise $out/link";
  twin = n: make "twin-${toString n}" "echo equal contents > $out";
in make "top" "mkdir $out; echo ${big} ${dep} ${twin 1} ${twin 2} > $out/all"
`

// What nix copy sends is pulled like anything else, whatever it was compressed with, and its chunks are those that
// other clients send.
func TestNixCopiesToTheCacheAndPullsFromIt(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "copied", copied)[0]
	paths := closure(t, top)
	tok, key := s.cache("pushed", true)
	mustPush(t, s.url, tok, "pushed", top)
	stored := s.stored()
	eachNix(t, func(t *testing.T, nix string) {
		for _, compression := range []string{"xz", "zstd", "bzip2", "none"} {
			name := fmt.Sprint(compression, slices.Index(rig.nixes, nix))
			tok, key := s.cache(name, true)
			p := newPuller(t, nix)
			cache := s.url + "/" + name
			file := netrc(t, s, s.token("--pull", name, "--push", name, "--pull", "pushed"))
			to := cache + "?compression=" + compression + "&write-nar-listing=true&index-debug-info=true"
			for range 2 { // the second finds all there
				if end := start(t, p.env, nix, "copy", "--option", "netrc-file", file, "--to", to, top).wait(); end.code != 0 {
					t.Fatalf("%s: exit %d\n%s", compression, end.code, tail(end.stderr))
				}
			}
			pull(t, nix, cache, key, top)
			infos := start(t, p.env, nix, "path-info", "-r", "--store", cache, top).wait()
			if got := strings.Fields(infos.stdout); len(got) != len(paths) {
				t.Errorf("path-info: %q, want %q", got, paths)
			}
			link := s.want(http.StatusOK, s.request(http.MethodGet, "/"+name+"/debuginfo/abcdef0123456789", tok, nil))
			if !strings.Contains(link, `"member":"lib/debug/.build-id/ab/cdef0123456789.debug"`) {
				t.Errorf("debug link: %s", link)
			}
		}
	})
	// Chunks were there, and a narinfo of the cache leads to them: what was added are the records of paths.
	if grown := s.stored() - stored; grown > 64<<10 {
		t.Errorf("copies in every compression have stored %d bytes more of the same contents", grown)
	}
	// Listings are the same, whether our client, Nix or nobody has said what is in a path.
	for _, path := range paths {
		var lists []string
		for _, name := range []string{"pushed", s.firstCopy()} {
			lists = append(lists, s.want(http.StatusOK, s.request(http.MethodGet, "/"+name+"/"+hashOf(path)+".ls", tok, nil)))
		}
		if len(slices.Compact(lists)) != 1 || !json.Valid([]byte(lists[0])) {
			t.Errorf("listings of %s: %q", path, lists)
		}
	}
	pull(t, rig.nixes[0], s.url+"/pushed", key, top)
}

// firstCopy is a cache that something was copied to.
func (s *server) firstCopy() string {
	s.t.Helper()
	for _, a := range s.requests() {
		if name, rest, _ := strings.Cut(strings.TrimPrefix(a.Path, "/"), "/"); a.Method == http.MethodPut && strings.HasPrefix(rest, "nar/") {
			return name
		}
	}
	s.t.Fatal("nothing was copied")
	return ""
}

// Logs, listings and realisations are acknowledged, so they come back from the storage alone.
func TestLogsAndListingsAreReadByNixAndComeBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "logged", copied)[0]
	tok, _ := s.cache("main", true)
	p := newPuller(t, rig.nixes[0])
	file := netrc(t, s, tok)
	cache := s.url + "/main"
	if end := start(t, p.env, rig.nixes[0], "copy", "--option", "netrc-file", file, "--to", cache, top).wait(); end.code != 0 {
		t.Fatalf("exit %d\n%s", end.code, tail(end.stderr))
	}
	dep := closure(t, top)[slices.IndexFunc(closure(t, top), func(p string) bool { return strings.HasSuffix(p, "-dep") })]
	drv := run(t, p.env, "nix-store", "--query", "--deriver", dep)
	copyLog := start(t, p.env, rig.nixes[0], "store", "copy-log", "--option", "netrc-file", file, "--to", cache, drv).wait()
	if copyLog.code != 0 {
		t.Fatalf("copy-log: exit %d\n%s", copyLog.code, tail(copyLog.stderr))
	}
	look := func() {
		t.Helper()
		for _, nix := range rig.nixes {
			fresh := newPuller(t, nix)
			// Of the output's path: the derivation is found by its narinfo.
			log := start(t, fresh.env, nix, "log", "--store", cache, dep).wait()
			if log.code != 0 || !strings.Contains(log.stdout, "said by the builder") {
				t.Errorf("%s log: exit %d: %q\n%s", nix, log.code, log.stdout, tail(log.stderr))
			}
			ls := start(t, fresh.env, nix, "store", "ls", "--store", cache, "-R", dep).wait()
			if ls.code != 0 || !strings.Contains(ls.stdout, "cdef0123456789.debug") {
				t.Errorf("%s store ls: exit %d: %q\n%s", nix, ls.code, ls.stdout, tail(ls.stderr))
			}
		}
	}
	look()
	listing := s.want(http.StatusOK, s.request(http.MethodGet, "/main/"+hashOf(dep)+".ls", tok, nil))
	s.stopped()
	s.loseDatabase()
	s.recover(0)
	s.restart()
	look()
	if again := s.want(http.StatusOK, s.request(http.MethodGet, "/main/"+hashOf(dep)+".ls", tok, nil)); again != listing {
		t.Errorf("the listing is %q, and was %q", again, listing)
	}
}
