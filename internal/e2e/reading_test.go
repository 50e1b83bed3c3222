package e2e

import (
	"crypto/sha256"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/blob/s3test"
)

// count counts answers to NAR requests by status.
func (s *server) count(status int) (n int) {
	for _, a := range s.requests() {
		if a.Status == status && a.Route == "/{cache}/nar/{hash}.nar" {
			n++
		}
	}
	return n
}

// owns are the paths of the closure of network that are large enough for packs of their own.
func owns(t testing.TB, top string) (paths []string) {
	t.Helper()
	for _, p := range closure(t, top) {
		if strings.Contains(p, "-own-") {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		t.Fatal("no path is large")
	}
	return paths
}

// fetch gets a NAR's bytes as a plain HTTP client does, and tells whether the bucket itself sent them.
func (s *server) fetch(path, tok, span string) (status int, body []byte, fromBucket bool) {
	s.t.Helper()
	req := s.request(http.MethodGet, "/main/nar/"+hashOf(path)+".nar", tok, nil)
	if span != "" {
		req.Header.Set("Range", span)
	}
	resp := must(http.DefaultClient.Do(req))(s.t)
	defer resp.Body.Close()
	return resp.StatusCode, must(io.ReadAll(resp.Body))(s.t), resp.Request.URL.Host != s.addr()
}

// redirect starts the server anew with another storage.redirect.
func (s *server) redirect(mode string) {
	s.t.Helper()
	s.stopped()
	s.env = append(s.env, "ATTIC_SERVER_STORAGE_REDIRECT="+mode)
	s.restart()
}

func TestWholePacksComeFromTheBucketAndAreTheSameBytes(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	large := owns(t, top)
	spans := []string{"", "bytes=0-", "bytes=1000000-", "bytes=17-4000000"}
	redirected := map[string][sha256.Size]byte{}
	for _, p := range large {
		for _, span := range spans {
			status, body, there := s.fetch(p, "", span)
			if want := map[bool]int{true: 200, false: 206}[span == ""]; !there || status != want {
				t.Errorf("%s %q: %d, from the bucket: %v", p, span, status, there)
			}
			redirected[p+span] = sha256.Sum256(body)
		}
	}
	// A Nix that takes one NAR after the other gets them from the server, which is quicker; unless it is told not to.
	t.Run("auto", func(t *testing.T) {
		eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, top) })
	})
	s.redirect("always")
	t.Run("always", func(t *testing.T) {
		eachNix(t, func(t *testing.T, nix string) {
			before := s.count(307)
			pull(t, nix, s.url+"/main", key, top)
			if n := s.count(307) - before; n != len(large) {
				t.Errorf("%d redirects for %d large NARs", n, len(large))
			}
		})
	})
	s.redirect("never")
	for _, p := range large {
		for _, span := range spans {
			_, body, there := s.fetch(p, "", span)
			if there || sha256.Sum256(body) != redirected[p+span] {
				t.Errorf("%s %q: from the bucket: %v; or other bytes than those of the redirect", p, span, there)
			}
		}
	}
	for _, nix := range rig.nixes {
		pull(t, nix, s.url+"/main", key, top)
	}
	if n := s.count(307); n != 0 {
		t.Errorf("%d redirects", n)
	}
}

// Nix asks again where its download from the bucket broke off; what comes then may come from the server.
func TestDownloadCutAtTheBucketGoesOn(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.quietServer(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	large := len(owns(t, top))
	for _, p := range closure(t, top) {
		if !strings.Contains(p, "-own-") {
			s.fetch(p, "", "") // so that small packs are on the volume, and only large ones are cut
		}
	}
	eachNix(t, func(t *testing.T, nix string) {
		before, cut := s.partial(), b.proxy.Counts().Failed
		b.proxy.Set(s3test.Faults{CutGet: large})
		pull(t, nix, s.url+"/main", key, top)
		if n := b.proxy.Counts().Failed - cut; n != int64(large) {
			t.Errorf("%d downloads were cut, want %d", n, large)
		}
		if s.partial() == before {
			t.Error("no download went on in the middle")
		}
	})
	b.proxy.Set(s3test.Faults{})
}

// netrc goes by the host's name, so here the bucket would be sent the token as well.
func TestPrivateCacheKeepsTheTokenFromABucketOnTheSameHost(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	tok, key := s.cache("main", false)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	file := netrc(t, s, tok)
	eachNix(t, func(t *testing.T, nix string) {
		p := newPuller(t, nix)
		p.env = append(p.env, nixConfig("netrc-file = "+file))
		if end := p.substitute(s.url+"/main", key, top); end.code != 0 {
			t.Fatalf("pull: exit %d\n%s", end.code, tail(end.stderr))
		}
		p.verify(top)
	})
	for _, r := range b.proxy.Seen() {
		if auth := r.Header.Get("Authorization"); auth != "" && !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 ") {
			t.Errorf("the bucket saw another Authorization than that of S3")
		}
	}
}

func TestSmallNARsAreFewRequestsOfTheBucket(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.quietServer(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	large := int64(len(owns(t, top)))
	s.redirect("always") // a large NAR is one request
	eachNix(t, func(t *testing.T, nix string) {
		b.proxy.Reset()
		pull(t, nix, s.url+"/main", key, top)
		t.Logf("%+v", b.proxy.Counts())
		if n := b.proxy.Counts().Total(); n > 25+large { // 56 NARs of 550 kB in packs of 16 MiB
			t.Errorf("%d requests", n)
		}
	})
	b.proxy.Reset()
	s.stopped()
	s.restart() // the volume is kept
	pull(t, rig.nixes[0], s.url+"/main", key, top)
	if n := b.proxy.Counts().Requests[http.MethodGet]; n > large+10 { // and some of the start
		t.Errorf("%d reads after a restart, %d NARs are large", n, large)
	}
}

// The cache on the volume belongs to nobody: it may be damaged and removed at any time.
func TestCacheOnTheVolumeMayBeDamagedAndRemoved(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	folder := filepath.Join(s.data, "near")
	pull(t, rig.nixes[0], s.url+"/main", key, top)
	damaged := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := 100; i < len(data); i += 30_000 {
			data[i] ^= 1
		}
		damaged++
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil || damaged == 0 {
		t.Fatalf("%d files damaged, %v", damaged, err)
	}
	pull(t, rig.nixes[0], s.url+"/main", key, top)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	pull(t, rig.nixes[0], s.url+"/main", key, top)
}
