package server_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// bucket signs URLs of a bucket that everybody can reach.
type bucket struct {
	mu    sync.Mutex
	asked []string
	life  time.Duration
	err   error
}

func (b *bucket) Presign(_ context.Context, key string, life time.Duration) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked, b.life = append(b.asked, key), life
	return "https://bucket.s3.amazonaws.com/" + key + "?X-Amz-Signature=0123", b.err
}

func (b *bucket) signed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.asked)
}

// redirecting is a server with a NAR of one own pack, and one of a shared pack, in a public and a private cache.
func redirecting(t *testing.T) (h *house, b *bucket, own, shared servertest.NAR) {
	t.Helper()
	b = &bucket{}
	h = &house{Server: servertest.Start(t, func(s *server.Server) { s.Presigner = b })}
	own = servertest.NewNAR(t, "own", random(t, 5<<20))
	shared = servertest.NewNAR(t, "shared", random(t, 1<<20))
	for _, cache := range []string{"pub", "priv"} {
		h.CreateCache(t, cache, cache == "pub")
		for _, n := range []servertest.NAR{own, shared} {
			if resp, body := h.Upload(t, h.Root, cache, n); resp.StatusCode != 200 {
				t.Fatalf("upload: %s: %s", resp.Status, body)
			}
		}
	}
	return h, b, own, shared
}

func TestNARThatIsOneObjectIsARedirect(t *testing.T) {
	h, b, own, shared := redirecting(t)
	path := "/pub/" + h.narinfo(t, "pub", own).URL
	for _, header := range [][]string{nil, {"Range", "bytes=0-"}, {"Range", "bytes=4000000-"}, {"Range", "bytes=5-9"}} {
		resp, body := h.get(t, path, header...)
		if resp.StatusCode != 307 || body != "" || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("ETag") != "" ||
			resp.Header.Get("X-Attic-Cache-Visibility") != "public" {
			t.Errorf("%q: %s %v", header, resp.Status, resp.Header)
		}
		if want := "https://bucket.s3.amazonaws.com/" + b.asked[len(b.asked)-1] + "?X-Amz-Signature=0123"; resp.Header.Get("Location") != want {
			t.Errorf("%q: Location %s, want %s", header, resp.Header.Get("Location"), want)
		}
	}
	if b.life > 15*time.Minute {
		t.Errorf("a URL is good for %v", b.life)
	}
	asked := b.signed()
	etag := h.do(t, http.MethodHead, path).Header.Get("ETag")
	for _, c := range []struct {
		header []string
		status int
	}{
		{[]string{"If-None-Match", etag}, 304},
		{[]string{"Range", "bytes=5-", "If-Range", etag}, 206},
		{[]string{"Range", "bytes=5-", "If-Range", `"x"`}, 200},
		{[]string{"If-Match", `"x"`}, 412},
		{[]string{"Range", "bytes=0-1,3-4"}, 200},
		{[]string{"Range", "bytes=-5"}, 206},
		{[]string{"Range", "bytes=99000000-"}, 416},
		{[]string{"Range", "lines=1-"}, 416},
	} {
		if resp, _ := h.get(t, path, c.header...); resp.StatusCode != c.status {
			t.Errorf("%q: got %s, want %d", c.header, resp.Status, c.status)
		}
	}
	// A URL that is signed for GET refuses HEAD.
	head := h.do(t, http.MethodHead, path)
	if size, _ := strconv.Atoi(head.Header.Get("Content-Length")); head.StatusCode != 200 || size < 5<<20 || head.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("HEAD: %s %v", head.Status, head.Header)
	}
	if resp, _ := h.get(t, "/pub/nar/"+own.Path.Hash()+".nar?f=0123456789abcdef", "Range", "bytes=1-"); resp.StatusCode != 412 {
		t.Errorf("a range of a form that is gone: %s", resp.Status)
	}
	if resp, body := h.get(t, "/pub/"+h.narinfo(t, "pub", shared).URL); resp.StatusCode != 200 || !bytes.Equal(unzstd(t, body), shared.Bytes) {
		t.Errorf("shared pack: %s", resp.Status)
	}
	if n := b.signed(); n != asked {
		t.Errorf("%d URLs were signed that nobody got", n-asked)
	}
}

func (h *house) do(t *testing.T, method, path string) *http.Response {
	t.Helper()
	resp, _ := h.Do(t, method, path, "", "")
	return resp
}

// The attack: a URL of the bucket for whoever asks; it needs no token any more.
func TestURLOfAPrivateNARNeedsTheRightToPull(t *testing.T) {
	h, b, own, _ := redirecting(t)
	path := "/priv/nar/" + own.Path.Hash() + ".nar"
	for name, tok := range map[string]string{
		"nobody": "", "another cache": h.Token(t, servertest.Grant{Caches: "pub", Perm: token.All}),
		"push alone": h.Token(t, servertest.Grant{Caches: "priv", Perm: token.Push}), "forged": "eyJhbGciOiJub25lIn0.e30.",
	} {
		resp, body := h.Do(t, "GET", path, tok, "")
		if resp.StatusCode < 400 || resp.Header.Get("Location") != "" || bytes.Contains([]byte(body), []byte("X-Amz")) {
			t.Errorf("%s: %s %v", name, resp.Status, resp.Header)
		}
	}
	if n := b.signed(); n != 0 {
		t.Errorf("%d URLs were signed", n)
	}
	resp, _ := h.Do(t, "GET", path, h.Token(t, servertest.Grant{Caches: "priv", Perm: token.Pull}), "")
	if resp.StatusCode != 307 || resp.Header.Get("X-Attic-Cache-Visibility") != "" {
		t.Errorf("who may pull: %s %v", resp.Status, resp.Header)
	}
}

func TestBytesAreSentWhereNoURLCanBeHad(t *testing.T) {
	h, b, own, _ := redirecting(t)
	b.err = errors.New("no credentials")
	if resp, body := h.get(t, "/pub/nar/"+own.Path.Hash()+".nar"); resp.StatusCode != 200 || !bytes.Equal(unzstd(t, body), own.Bytes) {
		t.Errorf("got %s", resp.Status)
	}
}

// A bucket that refuses a client, or that it does not reach, must not cost it the path.
func TestNixThatComesBackAtOnceGetsTheBytes(t *testing.T) {
	h, _, own, _ := redirecting(t)
	path := "/pub/nar/" + own.Path.Hash() + ".nar"
	for _, c := range []struct {
		agent string
		want  int
	}{{"curl/7.88.1 Nix/2.8.0", 307}, {"curl/7.88.1 Nix/2.8.0", 200}, {"curl/8.4.0 Nix/2.34.1", 307}, {"curl/7.88.1", 307}, {"curl/7.88.1", 307}} {
		if resp, _ := h.get(t, path, "User-Agent", c.agent); resp.StatusCode != c.want {
			t.Errorf("%s: got %s, want %d", c.agent, resp.Status, c.want)
		}
	}
}

// `nix copy` takes one NAR after the other: a redirect gives it one connection, and we read ahead over several.
func TestNixThatTakesFewNARsAtATimeGetsThemFromHere(t *testing.T) {
	for _, ahead := range []bool{true, false} {
		b := &bucket{}
		h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Presigner, s.ReadAhead = b, ahead })}
		h.CreateCache(t, "pub", true)
		var nars []servertest.NAR
		for i := range 6 {
			n := servertest.NewNAR(t, "own"+strconv.Itoa(i), random(t, 5<<20))
			if resp, body := h.Upload(t, h.Root, "pub", n); resp.StatusCode != 200 {
				t.Fatalf("upload: %s: %s", resp.Status, body)
			}
			nars = append(nars, n)
		}
		for _, agent := range []string{"curl/7.85.0 Nix/2.8.0", "curl/8.0"} {
			for i, n := range nars {
				url := "/pub/nar/" + n.Path.Hash() + ".nar"
				resp, body := h.get(t, url, "User-Agent", agent)
				want := 307
				if ahead && i >= 3 && agent != "curl/8.0" {
					want = 200
				}
				if resp.StatusCode != want || want == 200 && !bytes.Equal(unzstd(t, body), n.Bytes) {
					t.Errorf("ahead %v, %s, NAR %d: got %s, want %d", ahead, agent, i, resp.Status, want)
				}
			}
		}
	}
}
