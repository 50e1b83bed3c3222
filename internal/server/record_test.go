package server_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

func TestWhatChangesSomethingIsAudited(t *testing.T) {
	seen := new(events)
	s := servertest.Start(t, func(s *server.Server) { s.Audit = seen.add })
	exp := time.Now().Add(time.Hour)
	claims := token.Claims{Subject: "ci", ID: "J1", Expires: &exp, Origin: map[string]string{"policy": "infra", "run_id": "9"}}
	if err := claims.Caches.Add("c", token.All); err != nil {
		t.Fatal(err)
	}
	tok, err := s.Authority.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	const create = `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`
	do := func(method, path, body string, want int) *http.Response {
		t.Helper()
		resp, text := s.Do(t, method, path, tok, body)
		if resp.StatusCode != want {
			t.Fatalf("%s %s: got %d %s, want %d", method, path, resp.StatusCode, text, want)
		}
		return resp
	}
	check := func(resp *http.Response, e audit.Event, result, object string) {
		t.Helper()
		if e.Request != resp.Header.Get("X-Request-Id") || e.Request == "" {
			t.Errorf("request id %q, in the answer %q", e.Request, resp.Header.Get("X-Request-Id"))
		}
		if e.Policy != "infra" || e.Claims["run_id"] != "9" {
			t.Errorf("the record does not lead to the job: %+v", e)
		}
		if e.Subject != "ci" || e.Token != "J1" || e.Cache != "c" || e.Result != result || e.Status != resp.StatusCode ||
			!strings.Contains(e.Object, object) || e.Address != "127.0.0.1" || e.Time.IsZero() || e.Unverified {
			t.Errorf("got %+v", e)
		}
	}
	resp := do("POST", configURL+"c", create, 200)
	check(resp, seen.of(t, audit.CacheCreate, 1)[0], audit.OK, "public=false")
	resp = do("POST", configURL+"c", create, 400)
	e := seen.of(t, audit.CacheCreate, 2)[1]
	check(resp, e, audit.Refused, "")
	if !strings.Contains(e.Reason, "exists") {
		t.Errorf("reason %q", e.Reason)
	}
	resp = do("PATCH", configURL+"c", `{"is_public":true,"keypair":"Generate"}`, 200)
	check(resp, seen.of(t, audit.CacheConfigure, 1)[0], audit.OK, "keypair public=true")
	nar := servertest.NewNAR(t, "hello", []byte("hello"))
	resp, body := s.Upload(t, tok, "c", nar)
	if resp.StatusCode != 200 {
		t.Fatalf("upload: %s", body)
	}
	e = seen.of(t, audit.Upload, 1)[0]
	check(resp, e, audit.OK, "-hello")
	if e.Objects != 1 || e.Bytes == 0 {
		t.Errorf("got %+v", e)
	}
	resp = do("PUT", "/_api/v1/cache/c/packs/"+strings.Repeat("0", 64), "not a pack", 400)
	check(resp, seen.of(t, audit.Pack, 1)[0], audit.Refused, strings.Repeat("0", 64))
	resp = do("POST", "/_api/v1/cache/c/paths", "", 200)
	check(resp, seen.of(t, audit.Commit, 1)[0], audit.OK, "")
	resp = do("DELETE", configURL+"c", "", 200)
	check(resp, seen.of(t, audit.CacheDestroy, 1)[0], audit.OK, "")
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if len(seen.list) != 7 {
		t.Errorf("%d events: %+v", len(seen.list), seen.list)
	}
	text, err := json.Marshal(seen.list)
	if err != nil || bytes.Contains(text, []byte(tok)) {
		t.Errorf("the record holds the token, or %v", err)
	}
}

// What is refused to a caller is told in general; the record is exact.
func TestRefusalsAreAuditedExactly(t *testing.T) {
	seen := new(events)
	s := servertest.Start(t, func(s *server.Server) { s.Audit = seen.add })
	s.CreateCache(t, "c", false)
	nar := servertest.NewNAR(t, "hello", []byte("hello"))
	for _, c := range []struct {
		name, tok      string
		status         int
		action, reason string
		stranger       bool
	}{
		{"no token", "", 401, audit.Upload, "Unauthorized", true},
		{"forged token", "eyJhbGciOiJub25lIn0.e30.", 401, audit.Auth, "no key", true},
		{"token for another cache", s.Token(t, servertest.Grant{Caches: "other", Perm: token.All}), 401, audit.Upload, "Unauthorized", false},
		{"token to pull", s.Token(t, servertest.Grant{Caches: "c", Perm: token.Pull}), 403, audit.Upload, "push", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen.mu.Lock()
			seen.list = nil
			seen.mu.Unlock()
			resp, body := s.Upload(t, c.tok, "c", nar)
			if resp.StatusCode != c.status {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			e := seen.of(t, c.action, 1)[0]
			if e.Result != audit.Refused || e.Cache != "c" || !strings.Contains(e.Reason, c.reason) || e.Unverified != c.stranger ||
				e.Request != resp.Header.Get("X-Request-Id") {
				t.Errorf("got %+v", e)
			}
			if strings.Contains(body, "no key") {
				t.Errorf("the caller is told %s", body)
			}
		})
	}
}

// The attack: a token in the query string, and the log in which it ends up.
func TestNoQueryStringIsAudited(t *testing.T) {
	seen := new(events)
	s := servertest.Start(t, func(s *server.Server) { s.Audit = seen.add })
	s.CreateCache(t, "c", false)
	s.Do(t, "PUT", "/_api/v1/cache/c/packs/"+strings.Repeat("0", 64)+"?after=hunter2&access_token=hunter2", s.Root, "x")
	if e := seen.of(t, audit.Pack, 1)[0]; strings.Contains(e.Object, "?") || strings.Contains(e.Object, "hunter2") {
		t.Errorf("got %+v", e)
	}
}
