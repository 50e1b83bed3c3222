package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
)

func (h *house) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw sends bytes as they are and reads until the server closes.
func (h *house) raw(t *testing.T, request string) string {
	t.Helper()
	c := h.dial(t)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return string(b)
}

func TestHostIsChecked(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct{ name, request string }{
		{"missing", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"},
		{"missing in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n"},
		{"not ASCII", "GET / HTTP/1.1\r\nHost: caf\xc3\xa9\r\nConnection: close\r\n\r\n"},
	} {
		got := h.raw(t, c.request)
		if !strings.Contains(got, " 400 Bad Request\r\n") || !strings.Contains(got, "Content-Type: application/json\r\n") ||
			!strings.Contains(got, `"error":"RequestError"`) {
			t.Errorf("%s: got %s", c.name, got)
		}
	}
	listed := &house{Server: servertest.Start(t, func(s *server.Server) { s.AllowedHosts = []string{"cache.example:8080"} })}
	for host, status := range map[string]string{
		"cache.example:8080": "200", "cache.example": "400", "CACHE.example:8080": "400", "other": "400",
	} {
		got := listed.raw(t, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+status) {
			t.Errorf("Host %s: want %s, got %s", host, status, got)
		}
	}
	// Before everything else: even what has no route.
	if got := listed.raw(t, "PATCH /no/such/route HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400") {
		t.Errorf("unknown route with a bad host: %s", got)
	}
}

func TestAuthorizationForms(t *testing.T) {
	h := newHouse(t)
	basic := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for header, status := range map[string]int{
		"bearer " + h.Root:                    200,
		"BeArEr " + h.Root:                    200,
		"bearer  " + h.Root:                   401,
		"bearer":                              401,
		h.Root:                                401,
		"token " + h.Root:                     401,
		"Basic " + basic(":"+h.Root):          200,
		"basic " + basic("user:"+h.Root):      200,
		"Basic " + basic(h.Root):              401,
		"Basic " + basic("a:b:"+h.Root):       401,
		"Basic !!!":                           401,
		"bearer " + strings.Repeat("x", 9000): 401,
	} {
		req, err := http.NewRequest("GET", h.URL+"/priv/nix-cache-info", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", header)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status || resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%.40s…: got %s, want %d", header, resp.Status, status)
		}
	}
}

func TestHTTP2WithPriorKnowledge(t *testing.T) {
	h := newHouse(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	get := func(path string) (*http.Response, []byte) {
		resp, err := (&http.Client{Transport: transport}).Get(h.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, b
	}
	big := servertest.NewNAR(t, "big", random(t, 5<<20))
	if resp, body := h.Upload(t, h.Root, "pub", big); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	resp, body := get("/pub/nar/" + big.Path.Hash() + ".nar")
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 || !bytes.Equal(unzstd(t, string(body)), big.Bytes) {
		t.Errorf("NAR over %s: %s, %d bytes", resp.Proto, resp.Status, len(body))
	}
	n := servertest.NewNAR(t, "h2", random(t, 3<<20))
	req, err := http.NewRequest("PUT", h.URL+"/_api/v1/upload-path", struct{ io.Reader }{bytes.NewReader(n.Bytes)})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Attic-Nar-Info", n.Info(t, "pub", nil))
	req.Header.Set("Authorization", "bearer "+h.Root)
	up, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	up.Body.Close()
	if up.StatusCode != 200 {
		t.Errorf("upload over HTTP/2: %s", up.Status)
	}
}

// A client that sends nothing, or so little that it never ends, is cut off.
func TestSlowUploadIsCutOff(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) {
		s.Limits = server.Limits{Stall: 200 * time.Millisecond, DrainTime: 100 * time.Millisecond}
	})}
	h.CreateCache(t, "c", true)
	n := servertest.NewNAR(t, "slow", random(t, 1<<20))
	for name, send := range map[string]func(net.Conn){
		"silent": func(net.Conn) {},
		"a byte now and then": func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "1\r\nx\r\n"); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
	} {
		c := h.dial(t)
		fmt.Fprintf(c, "PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nAuthorization: bearer %s\r\nX-Attic-Nar-Info: %s\r\nTransfer-Encoding: chunked\r\n\r\n",
			h.Root, n.Info(t, "c", nil))
		go send(c)
		answer, _ := io.ReadAll(c) // a reset is a cut, too
		if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 408") {
			t.Errorf("%s: got %s", name, answer)
		}
	}
	if resp, _ := h.Do(t, "GET", "/c/"+n.Path.Hash()+".narinfo", "", ""); resp.StatusCode != 404 {
		t.Errorf("something of it was kept: %s", resp.Status)
	}
}

// A client that does not take what it asked for is cut off.
func TestSlowDownloadIsCutOff(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Limits.Stall = 200 * time.Millisecond })}
	h.CreateCache(t, "c", true)
	n := servertest.NewNAR(t, "large", random(t, 32<<20)) // more than sockets buffer
	if resp, body := h.Upload(t, h.Root, "c", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	c := h.dial(t)
	fmt.Fprintf(c, "GET /c/nar/%s.nar HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", n.Path.Hash())
	time.Sleep(time.Second) // well over Stall; what comes after it must be less than all
	got, _ := io.Copy(io.Discard, c)
	if got >= int64(len(n.Bytes)) {
		t.Errorf("the whole NAR came after a pause, %d bytes", got)
	}
}

// An answer that takes longer than Stall to make is not cut off for it.
func TestLongDownloadWithoutPausesIsServed(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Limits.Stall = 300 * time.Millisecond })}
	h.CreateCache(t, "c", true)
	n := servertest.NewNAR(t, "large", random(t, 24<<20))
	if resp, body := h.Upload(t, h.Root, "c", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	resp, err := http.Get(h.URL + "/c/nar/" + n.Path.Hash() + ".nar")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got int64
	for {
		k, err := io.CopyN(io.Discard, resp.Body, 1<<20)
		got += k
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", got, resp.ContentLength, err)
		}
		time.Sleep(40 * time.Millisecond)
	}
	if got != resp.ContentLength {
		t.Errorf("got %d of %d bytes", got, resp.ContentLength)
	}
}

// A client may close its half of the connection after a body that is too short,
// and still read why it was refused.
func TestBodyThatEndsEarlyIsAnswered(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "short", []byte("a NAR that does not arrive as a whole"))
	upload := fmt.Sprintf("PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nAuthorization: bearer %s\r\nX-Attic-Nar-Info: %s\r\n", h.Root, n.Info(t, "pub", nil))
	for name, request := range map[string]string{
		"upload by length": upload + "Content-Length: 37\r\n\r\na NAR",
		"upload in chunks": upload + "Transfer-Encoding: chunked\r\n\r\n5\r\na NAR\r\n",
		"JSON":             "POST /_api/v1/get-missing-paths HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n{}",
	} {
		c := h.dial(t)
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), `"error":"RequestError"`) {
			t.Errorf("%s: got %q, %v", name, answer, err)
		}
	}
}

func TestVanishedClientLeavesNothing(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "vanished", random(t, 8<<20))
	c := h.dial(t)
	fmt.Fprintf(c, "PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nAuthorization: bearer %s\r\nX-Attic-Nar-Info: %s\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n",
		h.Root, n.Info(t, "pub", nil))
	if _, err := c.Write(n.Bytes[:1<<19]); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if resp, _ := h.Do(t, "GET", "/pub/"+n.Path.Hash()+".narinfo", "", ""); resp.StatusCode != 404 {
		t.Errorf("a torn upload is served: %s", resp.Status)
	}
	if resp, body := h.Upload(t, h.Root, "pub", n); resp.StatusCode != 200 {
		t.Errorf("the whole upload afterwards: %s: %s", resp.Status, body)
	}
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	h := newHouse(t)
	n := servertest.NewNAR(t, "inflight", random(t, 1<<20))
	body, more := io.Pipe()
	req, err := http.NewRequestWithContext(context.Background(), "PUT", h.URL+"/_api/v1/upload-path", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Attic-Nar-Info", n.Info(t, "pub", nil))
	req.Header.Set("Authorization", "bearer "+h.Root)
	answer := make(chan string, 1)
	go func() {
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		resp.Body.Close()
		answer <- resp.Status
	}()
	if _, err := more.Write(n.Bytes[:1<<19]); err != nil { // the server has the request now, or soon
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	time.Sleep(50 * time.Millisecond)
	go func() { defer close(stopped); h.Stop(t) }()
	for { // until it listens no more
		c, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	if _, err := more.Write(n.Bytes[1<<19:]); err != nil {
		t.Fatal(err)
	}
	more.Close()
	if got := <-answer; got != "200 OK" {
		t.Errorf("the upload in flight: got %s", got)
	}
	<-stopped
	again := &house{Server: servertest.StartIn(t, h.Dir)}
	again.narinfo(t, "pub", n)
}

func TestStopCutsOffWhatDoesNotEnd(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Limits.Shutdown = 100 * time.Millisecond })}
	c := h.dial(t)
	fmt.Fprintf(c, "PUT /_api/v1/upload-path HTTP/1.1\r\nHost: x\r\nX-Attic-Nar-Info-Preamble-Size: 10\r\nTransfer-Encoding: chunked\r\n\r\n")
	time.Sleep(20 * time.Millisecond)
	h.Stop(t) // fails the test if it hangs, or errs
	if _, err := bufio.NewReader(c).ReadByte(); err == nil {
		t.Log("an answer came before the cut, which is fine")
	}
}
