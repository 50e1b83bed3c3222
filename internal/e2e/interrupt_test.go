package e2e

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestInterruptedPushSaysWhatItKeptAndGoesOn(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "", network)[0]
	tok, _ := s.cache("measure", false)
	cold := mustPush(t, s.url, tok, "measure", top)
	for name, sig := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		for part, name := range map[int64]string{0: name + " before the first byte", 1: name + " after some packs", 3: name + " near the end"} {
			t.Run(name, func(t *testing.T) {
				cache := strings.ReplaceAll(name, " ", "-")
				tok, _ := s.cache(cache, false)
				net := startProxy(t, s)
				net.pass(1 + cold.json.BytesSent*part/4)
				p := pushing(t, net.url, tok, cache, top)
				net.held(t)
				begin := time.Now()
				p.signal(t, sig)
				got := p.pushed(t)
				if took := time.Since(begin); took > 5*time.Second {
					t.Errorf("it went on for %v", took)
				}
				oneLine(t, got.ended, 130, "attic-action: interrupted", "stay")
				if got.json.Pushed+len(got.json.Failed) != got.json.Missing {
					t.Errorf("the result does not tell of every path: %+v", got.json)
				}
				net.pass(-1)
				s.quiet()
				sent := s.packBytes(cache)
				again := mustPush(t, s.url, tok, cache, top)
				if again.json.BytesSent > cold.json.BytesSent-sent+64<<10 {
					t.Errorf("%d bytes of packs were stored, the next run sent %d of %d", sent, again.json.BytesSent, cold.json.BytesSent)
				}
			})
		}
	}
}

// A request that is under way when the server is asked to stop has its time to end.
func TestStoppedServerFinishesTheUploadInFlight(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	tok, key := s.cache("main", false)
	for _, path := range paths {
		if !strings.Contains(path, "-own-") {
			continue
		}
		info, nar := stockPath(t, "main", path)
		body, feed := io.Pipe()
		answer := make(chan int, 1)
		go func() {
			resp, err := http.DefaultTransport.RoundTrip(stockRequest(t, s.url, tok, info, body, false))
			defer body.Close() // an early answer must not leave the feed waiting
			if err != nil {
				t.Error(err)
				answer <- 0
				return
			}
			defer resp.Body.Close()
			answer <- resp.StatusCode
		}()
		must(io.Copy(feed, bytes.NewReader(nar[:len(nar)/2])))(t)
		// What was fed may still lie in the socket of a connection that waits to be accepted. A newer one
		// that is answered shows that this one was.
		later := &http.Transport{DisableKeepAlives: true}
		resp, err := later.RoundTrip(s.request(http.MethodGet, "/", "", nil))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		s.proc.signal(t, syscall.SIGTERM)
		until(t, "the server takes nobody new", func() bool {
			req := s.request(http.MethodGet, "/", "", nil)
			req.Close = true
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			return err != nil
		})
		must(io.Copy(feed, bytes.NewReader(nar[len(nar)/2:])))(t)
		_ = feed.Close() // a pipe's never fails
		if status := <-answer; status != http.StatusOK {
			t.Errorf("the upload in flight got %d", status)
		}
		if end := s.proc.wait(); end.code != 0 {
			t.Errorf("server: exit %d\n%s", end.code, tail(end.stderr))
		}
		s.restart()
		s.verifyServed("main", tok, key, []string{path})
	}
}

func TestPushOutlivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "", network)[0]
	tok, key := s.cache("main", false)
	net := startProxy(t, s)
	net.pass(10 << 20)
	p := pushing(t, net.url, tok, "main", top)
	net.held(t)
	s.proc.signal(t, syscall.SIGTERM)
	time.Sleep(100 * time.Millisecond) // some of the body comes after the signal
	net.pass(-1)
	if end := s.proc.wait(); end.code != 0 {
		t.Errorf("the server's exit code is %d\n%s", end.code, tail(end.stderr))
	}
	time.Sleep(500 * time.Millisecond) // nobody listens for a while
	s.restart()
	p.pushed(t).ok(t)
	s.verifyServed("main", tok, key, closure(t, top))
}
