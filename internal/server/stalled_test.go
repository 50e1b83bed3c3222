package server_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// stalled is a server with two places for packs, and the bytes of its log.
func stalled(t *testing.T, patience time.Duration) (*house, *lockedBuffer) {
	log := &lockedBuffer{}
	h := &house{Server: servertest.Start(t, func(s *server.Server) {
		s.Limits = server.Limits{Packs: 2, Patience: patience, Stall: 10 * time.Minute, Queue: 5 * time.Minute, Shutdown: time.Second}
		s.Log = slog.New(slog.NewTextHandler(log, nil))
	})}
	h.CreateCache(t, "c", true)
	h.CreateCache(t, "other", true)
	return h, log
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (h *house) tokenOf(t *testing.T, subject string) string {
	t.Helper()
	exp := time.Now().Add(time.Hour)
	claims := token.Claims{Subject: subject, Expires: &exp}
	if err := claims.Caches.Add("other", token.Push); err != nil {
		t.Fatal(err)
	}
	jwt, err := h.Authority.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return jwt
}

// begin sends the header of a pack, and start of its body.
func (h *house) begin(t *testing.T, tok, start string) net.Conn {
	t.Helper()
	c := h.dial(t)
	fmt.Fprintf(c, "PUT /_api/v1/cache/other/packs/%064d HTTP/1.1\r\nHost: x\r\nAuthorization: bearer %s\r\nContent-Length: 90000000\r\n\r\n%s", 0, tok, start)
	return c
}

func (h *house) pushSmall(t *testing.T) {
	t.Helper()
	p := newPack(t, random(t, 100_000), 40_000)
	if resp, body := h.put(t, h.Root, "PUT", fmt.Sprintf("/_api/v1/cache/c/packs/%x", p.sum), p.file); resp.StatusCode != 200 {
		t.Errorf("push beside stalled ones: %s: %s", resp.Status, body)
	}
}

// Attack: many connections announce a large pack and send nothing of it.
func TestUploadsThatSendNothingTakeNoPlace(t *testing.T) {
	h, _ := stalled(t, time.Hour)
	for i := range 10 {
		h.begin(t, h.tokenOf(t, fmt.Sprint("evil", i)), "")
	}
	h.pushSmall(t)
}

// Attack: one token announces large packs and trickles.
func TestUploadsOfOneTokenLeavePlacesToOthers(t *testing.T) {
	h, _ := stalled(t, time.Hour)
	tok := h.tokenOf(t, "evil")
	for range 10 {
		h.begin(t, tok, "x")
	}
	h.pushSmall(t)
}

// Attack: the same from many tokens, which together fill the gate.
func TestUploadsThatTrickleAreCutOffForOthers(t *testing.T) {
	h, log := stalled(t, 200*time.Millisecond)
	for i := range 2 {
		c := h.begin(t, h.tokenOf(t, fmt.Sprint("evil", i)), "x")
		go func() {
			for {
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
	}
	for range 500 { // they may not have their places at the first
		h.pushSmall(t)
		if strings.Contains(log.String(), "slow while others waited") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("no line about who was cut off:\n%s", log)
}

func TestASlowUploadIsTakenWhileNobodyWaits(t *testing.T) {
	h, _ := stalled(t, 20*time.Millisecond)
	p := newPack(t, random(t, 100_000), 40_000)
	c := h.dial(t)
	fmt.Fprintf(c, "PUT /_api/v1/cache/c/packs/%x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: bearer %s\r\nContent-Length: %d\r\n\r\n", p.sum, h.Root, len(p.file))
	for rest := p.file; len(rest) > 0; rest = rest[min(len(rest), 10_000):] {
		if _, err := c.Write(rest[:min(len(rest), 10_000)]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
	}
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("got %s, %v", answer, err)
	}
}
