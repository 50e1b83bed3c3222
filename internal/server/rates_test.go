package server_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/limit"
	"github.com/org/attic-action/internal/peer"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// events gathers what a server records.
type events struct {
	mu   sync.Mutex
	list []audit.Event
}

func (e *events) add(ev audit.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// of returns the events of one action, when there are as many as wanted: they are
// written when the answer is out.
func (e *events) of(t *testing.T, action string, n int) []audit.Event {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		var found []audit.Event
		for _, ev := range e.list {
			if ev.Action == action {
				found = append(found, ev)
			}
		}
		e.mu.Unlock()
		if len(found) >= n || time.Now().After(deadline) {
			if len(found) != n {
				t.Fatalf("%d events of %s, want %d: %+v", len(found), action, n, found)
			}
			return found
		}
	}
}

// limited is a server that takes five bad tokens a minute from an address, behind a
// proxy on this machine.
func limited(t *testing.T) (*servertest.Server, *events) {
	t.Helper()
	seen := new(events)
	s := servertest.Start(t, func(s *server.Server) {
		s.Rates.BadTokens = limit.PerMinute(5)
		s.Peers = peer.Finder{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		s.Audit = seen.add
	})
	s.CreateCache(t, "pub", true)
	s.CreateCache(t, "priv", false)
	return s, seen
}

func get(t *testing.T, s *servertest.Server, path, tok, from string) *http.Response {
	t.Helper()
	req, err := http.NewRequest("GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	if from != "" {
		req.Header.Set("X-Forwarded-For", from)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

const configURL = "/_api/v1/cache-config/"

// The attack: guessing tokens, or trying out found ones.
func TestBadTokensAreLimitedByAddress(t *testing.T) {
	s, seen := limited(t)
	const bad = "eyJhbGciOiJub25lIn0.e30."
	for i := range 5 {
		if resp := get(t, s, configURL+"priv", bad, "203.0.113.9"); resp.StatusCode != 401 {
			t.Fatalf("bad token %d: got %d", i, resp.StatusCode)
		}
	}
	for _, path := range []string{config + "priv", config + "no-such-cache", "/priv/nix-cache-info",
		"/priv/00000000000000000000000000000000.narinfo", "/none/00000000000000000000000000000000.narinfo"} {
		resp := get(t, s, path, bad, "203.0.113.9")
		if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != 429 || err != nil || after < 1 || after > 60 {
			t.Errorf("%s with one bad token more: got %d, Retry-After %q", path, resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	// Runners share addresses: the token is what counts.
	if resp := get(t, s, configURL+"priv", s.Root, "203.0.113.9"); resp.StatusCode != 200 {
		t.Errorf("a good token from there: got %d", resp.StatusCode)
	}
	if resp := get(t, s, configURL+"priv", "", "203.0.113.9"); resp.StatusCode != 401 {
		t.Errorf("no token from there: got %d", resp.StatusCode)
	}
	if resp := get(t, s, configURL+"priv", bad, "203.0.113.10"); resp.StatusCode != 401 {
		t.Errorf("a bad token from another address: got %d", resp.StatusCode)
	}
	got := seen.of(t, audit.Auth, 7)
	for i, e := range got {
		if e.Request == "" || e.Reason == "" || e.Object == "" || !e.Unverified {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if e := got[0]; e.Result != audit.Refused || e.Address != "203.0.113.9" || e.Status != 401 || e.Object != "GET /_api/v1/cache-config/{cache}" {
		t.Errorf("got %+v", e)
	}
	if e := got[5]; e.Result != audit.Limited || e.Status != 429 || !strings.Contains(e.Reason, "more than 5 bad tokens") {
		t.Errorf("the first over the limit, of which there is one a minute: %+v", e)
	}
}

// The attack: a header with another address for each guess.
func TestForgedForwardedForDoesNotEvadeTheLimit(t *testing.T) {
	s, _ := limited(t)
	for i := range 6 {
		resp := get(t, s, configURL+"priv", "bad", fmt.Sprintf("198.51.100.%d, 203.0.113.9", i))
		if want := map[bool]int{true: 401, false: 429}[i < 5]; resp.StatusCode != want {
			t.Errorf("guess %d: got %d, want %d", i, resp.StatusCode, want)
		}
	}
}

// Nix sends what its netrc holds with each of thousands of reads. A token that has
// expired there must not take a public cache away, nor make a private one answer what Nix
// would repeat five times.
func TestExpiredTokenOfAReaderIsCountedOnce(t *testing.T) {
	s, seen := limited(t)
	past := time.Now().Add(-time.Hour)
	expired, err := s.Authority.Sign(token.Claims{Subject: "laptop", Expires: &past})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if resp := get(t, s, "/pub/nix-cache-info", expired, ""); resp.StatusCode != 200 {
			t.Fatalf("public cache: got %d", resp.StatusCode)
		}
		if resp := get(t, s, "/priv/00000000000000000000000000000000.narinfo", expired, ""); resp.StatusCode != 404 {
			t.Fatalf("private cache: got %d", resp.StatusCode)
		}
	}
	if e := seen.of(t, audit.Auth, 1)[0]; !strings.Contains(e.Reason, "expired") || e.Result != audit.Refused {
		t.Errorf("got %+v", e)
	}
}

// The attack: reads are where guesses are not counted.
func TestGuessesByReadsAreCounted(t *testing.T) {
	s, _ := limited(t)
	for i := range 6 {
		resp := get(t, s, "/priv/00000000000000000000000000000000.narinfo", fmt.Sprintf("guess-%d", i), "")
		if want := map[bool]int{true: 404, false: 429}[i < 5]; resp.StatusCode != want {
			t.Errorf("guess %d: got %d, want %d", i, resp.StatusCode, want)
		}
	}
	if resp := get(t, s, "/pub/nix-cache-info", "guess-7", ""); resp.StatusCode != 200 {
		t.Errorf("the public cache: got %d", resp.StatusCode)
	}
}

// The stock client repeats nothing: it is slowed, not refused.
func TestUploadsOverTheLimitWait(t *testing.T) {
	s := servertest.Start(t, func(s *server.Server) { s.Rates.Uploads = limit.PerSecond(20) })
	s.CreateCache(t, "c", false)
	start := time.Now()
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			resp, body := s.Do(t, "POST", "/_api/v1/get-missing-paths", s.Root, `{"cache":"c","store_path_hashes":[]}`)
			if resp.StatusCode != 200 {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took < 400*time.Millisecond { // a bound that a slow machine cannot break
		t.Errorf("30 requests at 20 a second, 20 of them at once, took %s", took)
	}
}

// The attack: a stolen token that keeps a server busy.
func TestUploadsThatWouldWaitTooLongAreRefused(t *testing.T) {
	seen := new(events)
	s := servertest.Start(t, func(s *server.Server) {
		s.Rates.Uploads = limit.Rate{N: 3, Per: time.Hour}
		s.Audit = seen.add
	})
	s.CreateCache(t, "c", false)
	s.CreateCache(t, "d", false)
	upload := func(tok, cache, name string) *http.Response {
		resp, _ := s.Upload(t, tok, cache, servertest.NewNAR(t, name, []byte(name)))
		return resp
	}
	for i := range 3 {
		if resp := upload(s.Root, "c", fmt.Sprint("path", i)); resp.StatusCode != 200 {
			t.Fatalf("upload %d: got %d", i, resp.StatusCode)
		}
	}
	resp := upload(s.Root, "c", "fourth")
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the fourth: got %d, %v", resp.StatusCode, resp.Header)
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/_api/v1/cache/c/chunks/missing"}, {"POST", "/_api/v1/cache/c/paths"}, {"POST", "/_api/v1/cache/c/closure"},
		{"POST", "/_api/v1/get-missing-paths"},
		{"PUT", "/_api/v1/cache/c/packs/" + strings.Repeat("0", 64)},
	} {
		body := ""
		if strings.HasSuffix(c.path, "closure") || strings.HasSuffix(c.path, "paths") {
			body = `{"cache":"c","store_path_hashes":[]}`
		}
		if strings.HasSuffix(c.path, "closure") {
			body = `{"store_path_hashes":[]}`
		}
		if resp, text := s.Do(t, c.method, c.path, s.Root, body); resp.StatusCode != 429 {
			t.Errorf("%s: got %d %s", c.path, resp.StatusCode, text)
		}
	}
	// Another token is not held back by it; reads are not counted.
	exp := time.Now().Add(time.Hour)
	other := token.Claims{Subject: "other", ID: "other", Expires: &exp}
	if err := other.Caches.Add("d", token.Push|token.Pull); err != nil {
		t.Fatal(err)
	}
	tok, err := s.Authority.Sign(other)
	if err != nil {
		t.Fatal(err)
	}
	if resp := upload(tok, "d", "hers"); resp.StatusCode != 200 {
		t.Errorf("another token: got %d", resp.StatusCode)
	}
	if resp := get(t, s, "/c/nix-cache-info", s.Root, ""); resp.StatusCode != 200 {
		t.Errorf("a read: got %d", resp.StatusCode)
	}
	if e := seen.of(t, audit.Upload, 5)[3]; e.Result != audit.Limited || e.Status != 429 || e.Subject == "" || e.Cache != "c" {
		t.Errorf("got %+v", e)
	}
}

// A push of a whole system by the stock client, five requests at a time, never waits so
// long that it is refused, however fast the server is. (In made-up time.)
func TestDefaultsNeverRefuseAPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &limit.Buckets{Rate: limit.PerSecond(200)}
		var wg sync.WaitGroup
		for range 100 { // -j 100
			wg.Go(func() {
				for range 600 {
					wait, ok := b.Reserve("token", time.Now(), 30*time.Second)
					if !ok {
						t.Errorf("refused; it would have to wait %s", wait)
						return
					}
					time.Sleep(wait)
				}
			})
		}
		wg.Wait()
	})
}
