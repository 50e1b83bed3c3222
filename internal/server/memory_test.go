package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/budget"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
)

// crowded is a server whose memory is all taken, until release is called.
func crowded(t *testing.T, limits server.Limits) (h *house, memory *budget.Bytes, release func()) {
	t.Helper()
	memory = budget.New(1 << 20)
	h = &house{Server: servertest.Start(t, func(s *server.Server) {
		s.Memory, s.Limits = memory, limits
		s.Depot.(*depot.Depot).Memory = memory
	})}
	h.CreateCache(t, "c", true)
	release, ok := memory.TryAcquire(memory.Total())
	if !ok {
		t.Fatal("no memory on an idle server")
	}
	return h, memory, release
}

// The stock client repeats nothing: refused is lost.
func TestStockUploadWaitsForMemory(t *testing.T) {
	h, memory, release := crowded(t, server.Limits{})
	n := servertest.NewNAR(t, "waits", random(t, 1<<20))
	status := make(chan int, 1)
	go func() {
		resp, _ := h.Upload(t, h.Root, "c", n)
		status <- resp.StatusCode
	}()
	for memory.Waiting() == 0 {
		select {
		case got := <-status:
			t.Fatalf("answered %d without memory", got)
		case <-time.After(time.Millisecond):
		}
	}
	release()
	if got := <-status; got != 200 {
		t.Errorf("got %d once there was memory", got)
	}
	if memory.Used() != 0 {
		t.Errorf("%d bytes are kept after the request", memory.Used())
	}
}

// A flood of large bodies must not be decoded at once, whoever sends them; who waited for long is told when to
// come again.
func TestLargeBodyWithoutMemoryIs503(t *testing.T) {
	h, memory, release := crowded(t, server.Limits{Queue: 50 * time.Millisecond})
	body, err := json.Marshal(map[string]any{"cache": "c", "store_path_hashes": strings.Split(strings.Repeat("a", 5000), "")})
	if err != nil {
		t.Fatal(err)
	}
	padded := strings.Repeat(" ", 100<<10) + string(body)
	ask := func() *http.Response {
		resp, _ := h.put(t, h.Root, "POST", "/_api/v1/get-missing-paths", []byte(padded), "Content-Type", "application/json")
		return resp
	}
	if resp := ask(); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	release()
	if resp := ask(); resp.StatusCode == 503 {
		t.Error("still refused with all memory free")
	}
	if memory.Used() != 0 {
		t.Errorf("%d bytes are kept after the requests", memory.Used())
	}
}
