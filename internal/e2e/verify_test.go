package e2e

import (
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// files lists what lies under a directory of the storage, by name.
func (s *server) files(dir string) (list []string) {
	s.t.Helper()
	err := filepath.WalkDir(filepath.Join(s.data, "storage", dir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil || len(list) == 0 {
		s.t.Fatalf("%s: %d files, %v", dir, len(list), err)
	}
	return list
}

// flip changes a byte of a file, as far from its beginning as a part of its length.
func flip(t testing.TB, file string, part int) {
	t.Helper()
	data := must(os.ReadFile(file))(t)
	data[len(data)/part] ^= 1
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// absent lists those of the paths that are answered with 404.
func (s *server) absent(cache, tok string, paths []string) (absent []string) {
	s.t.Helper()
	for _, path := range paths {
		status, _ := s.send(s.request(http.MethodGet, "/"+cache+"/"+hashOf(path)+".narinfo", tok, nil))
		if status == http.StatusNotFound {
			absent = append(absent, path)
		}
	}
	return absent
}

// unasked is a configuration by which a server looks for nothing by itself, so that a test finds it all.
func unasked(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.toml")
	if err := os.WriteFile(file, []byte("[verify]\ninterval = \"0\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A byte of the storage is flipped, a pack is gone: verify says which, nobody gets either, and a push of either
// client brings back what was lost.
func TestDamageIsFoundHiddenAndHealed(t *testing.T) {
	t.Parallel()
	s := startServer(t, "-f", unasked(t))
	tok, key := s.cache("main", false)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	mustPush(t, s.url, tok, "main", top)
	if end := s.command("verify", "--deep"); end.code != 0 {
		t.Fatalf("before: exit %d\n%s%s", end.code, end.stdout, end.stderr)
	}
	touched := map[string]bool{}
	for _, client := range []string{"ours", "stock"} {
		packs := slices.DeleteFunc(s.files("packs"), func(file string) bool { return touched[file] })
		touched[packs[0]] = true
		flip(t, packs[0], 2)
		flip(t, s.files("log")[0], 2)
		want := []string{"damaged: packs/", "damaged: log/"}
		if len(packs) > 1 {
			if err := os.Remove(packs[len(packs)-1]); err != nil {
				t.Fatal(err)
			}
			want = append(want, "missing: packs/")
		}
		end := s.command("verify", "--deep", "--rate", "1GB")
		if end.code != 1 || strings.Count(end.stderr, "\n") < 1 {
			t.Fatalf("%s: exit %d\n%s%s", client, end.code, end.stdout, end.stderr)
		}
		for _, w := range append(want, "absent: /nix/store/") {
			if !strings.Contains(end.stdout, w) {
				t.Errorf("%s: no %q in\n%s", client, w, end.stdout)
			}
		}
		absent := s.absent("main", tok, paths)
		missing := s.stockMissing("main", tok, paths)
		if len(absent) == 0 || len(missing) != len(absent) {
			t.Errorf("%s: %d are absent, %d are listed as missing", client, len(absent), len(missing))
		}
		if client == "ours" {
			mustPush(t, s.url, tok, "main", top)
		} else {
			s.stockPush("main", tok, paths, false)
		}
		s.verifyServed("main", tok, key, paths)
		if end := s.command("verify", "--deep"); end.code != 0 {
			t.Errorf("%s, healed: exit %d\n%s%s", client, end.code, end.stdout, end.stderr)
		}
	}
	pull := newPuller(t, rig.nixes[0])
	pull.env = append(pull.env, nixConfig("netrc-file = "+netrc(t, s, tok)))
	if end := pull.copy(s.url+"/main", key, top); end.code != 0 {
		t.Errorf("nix copy: exit %d\n%s", end.code, tail(end.stderr))
	}
	if end := s.command("stats"); !strings.Contains(end.stdout, "checked: ") || !strings.Contains(end.stdout, ", deep: ") {
		t.Errorf("stats: %s%s", end.stdout, end.stderr)
	}
	s.stopped()
	all := s.files("packs")
	if err := os.Remove(all[len(all)/2]); err != nil {
		t.Fatal(err)
	}
	var out struct {
		Result struct{ Damage int }
	}
	end := s.command("verify", "--deep", "--json") // nobody runs
	if err := json.Unmarshal([]byte(end.stdout), &out); err != nil || end.code != 1 {
		t.Errorf("offline: exit %d, %v\n%s%s", end.code, err, end.stdout, end.stderr)
	}
}

// Nobody has run verify: the one whose download fails gets no whole answer, and the next one a 404.
func TestReadingNoticesWhatIsGone(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", false)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	mustPush(t, s.url, tok, "main", top)
	for _, pack := range s.files("packs") {
		data := must(os.ReadFile(pack))(t)
		if err := os.Truncate(pack, int64(len(data)/2)); err != nil {
			t.Fatal(err)
		}
	}
	var failed []string
	for _, path := range paths {
		_, text := s.send(s.request(http.MethodGet, "/main/"+hashOf(path)+".narinfo", tok, nil))
		_, rest, found := strings.Cut(text, "\nURL: ")
		url, _, _ := strings.Cut(rest, "\n")
		if !found {
			continue
		}
		resp, err := http.DefaultTransport.RoundTrip(s.request(http.MethodGet, "/main/"+url, tok, nil))
		if err != nil {
			failed = append(failed, path)
			continue
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusOK && err == nil && n != resp.ContentLength:
			t.Errorf("%s: a success of %d bytes, %d were announced", path, n, resp.ContentLength)
		case err != nil || resp.StatusCode != http.StatusOK:
			failed = append(failed, path)
		}
	}
	if len(failed) == 0 {
		t.Fatal("no download has failed")
	}
	until(t, "what is gone is absent", func() bool { return len(s.stockMissing("main", tok, failed)) == len(failed) })
	mustPush(t, s.url, tok, "main", top)
	s.verifyServed("main", tok, key, paths)
	if end := s.command("verify", "--deep"); end.code != 0 {
		t.Errorf("healed: exit %d\n%s%s", end.code, end.stdout, end.stderr)
	}
	s.stopped()
}

// With a bucket clients are sent there, and meet what is gone before the server does; they come back to it, and so
// it notices.
func TestLostObjectsOfABucketAreNoticed(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	mustPush(t, s.url, tok, "main", top)

	for _, name := range b.objects(t) {
		if strings.HasPrefix(name, "packs/") {
			if err := os.Remove(filepath.Join(b.gw.Root, b.name, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, "all that is gone is absent", func() bool {
		if end := newPuller(t, rig.nixes[0]).copy(s.url+"/main", key, top); end.code == 0 {
			t.Fatal("nix copy brought what is gone")
		}
		return len(s.stockMissing("main", tok, paths)) > 0
	})
	if end := s.command("verify"); end.code != 1 || !strings.Contains(end.stdout, "absent: /nix/store/") {
		t.Errorf("gone: exit %d\n%s%s", end.code, end.stdout, end.stderr)
	}
	mustPush(t, s.url, tok, "main", top)
	s.verifyServed("main", tok, key, paths)
	if end := s.command("verify", "--deep"); end.code != 0 {
		t.Errorf("healed: exit %d\n%s%s", end.code, end.stdout, end.stderr)
	}
	if end := newPuller(t, rig.nixes[0]).copy(s.url+"/main", key, top); end.code != 0 {
		t.Errorf("nix copy: exit %d\n%s", end.code, tail(end.stderr))
	}
	s.stopped()
}
