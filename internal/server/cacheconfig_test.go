package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

const config = "/_api/v1/cache-config/"

func (h *house) config(t *testing.T, cache string) map[string]any {
	t.Helper()
	resp, body := h.Do(t, "GET", config+cache, h.Root, "")
	if resp.StatusCode != 200 {
		t.Fatalf("get config of %s: %s: %s", cache, resp.Status, body)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCacheConfigHasAtticsKeysAndOurs(t *testing.T) {
	h := newHouse(t)
	got := h.config(t, "pub")
	for key, want := range map[string]any{
		"substituter_endpoint": h.URL + "/pub", "api_endpoint": h.URL + "/", "is_public": true,
		"store_dir": "/nix/store", "priority": 41.0, "retention_period": "Global",
	} {
		if got[key] != want {
			t.Errorf("%s: got %v, want %v", key, got[key], want)
		}
	}
	if key, _ := got["public_key"].(string); !strings.HasPrefix(key, "pub:") {
		t.Errorf("a generated key is named by the cache: got %q", key)
	}
	if _, there := got["keypair"]; there {
		t.Error("the answer holds the private key")
	}
	ours, _ := got["attic_action"].(map[string]any)
	cut, _ := ours["cut"].(map[string]any)
	if cut["version"] != 1.0 || cut["max"] != 512.0*1024 || ours["routes"].(map[string]any)["paths"] == nil {
		t.Errorf("attic_action: %v", ours)
	}
}

func TestEndpointsFollowTheRequestOrTheConfiguration(t *testing.T) {
	h := newHouse(t)
	if got := h.config(t, "pub")["api_endpoint"]; got != h.URL+"/" {
		t.Errorf("by Host: got %v", got)
	}
	for proto, want := range map[string]string{"https": "https://cache.example:1/", "HTTPS": "http://cache.example:1/", "https,http": "http://cache.example:1/"} {
		answer := h.raw(t, "GET /_api/v1/cache-config/pub HTTP/1.1\r\nHost: cache.example:1\r\nX-Forwarded-Proto: "+proto+"\r\nX-Forwarded-Proto: http\r\nConnection: close\r\n\r\n")
		if !strings.Contains(answer, `"api_endpoint":"`+want+`"`) {
			t.Errorf("X-Forwarded-Proto %s: want %s in %s", proto, want, answer)
		}
	}
	c := &house{Server: servertest.Start(t, func(s *server.Server) {
		s.APIEndpoint, s.SubstituterEndpoint = "https://a.example/x/", "https://s.example/y/"
	})}
	c.CreateCache(t, "c", true)
	if got := c.config(t, "c"); got["api_endpoint"] != "https://a.example/x/" || got["substituter_endpoint"] != "https://s.example/y/c" {
		t.Errorf("configured: got %v and %v", got["api_endpoint"], got["substituter_endpoint"])
	}
}

// A Host that cannot stand in a URL is refused where a URL is made of it, and
// only there.
func TestHostsThatAreNoAuthority(t *testing.T) {
	h := newHouse(t)
	for host, want := range map[string]int{
		"": 400, "a%41": 400, "a:1:2": 400, "[::1": 400, "::1]": 400, "[a][b]": 400, "a[%25]": 200,
		"a:b": 200, ":80": 200, "a:": 200, "[::1]:80": 200, "A_b,c;d=!$&'()*+": 200,
	} {
		ask := func(path string) string {
			return h.raw(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		}
		if got := ask("/_api/v1/cache-config/pub"); !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("Host %q: want %d, got %s", host, want, got)
		}
		if got := ask("/pub/nix-cache-info"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("Host %q, cache info: got %s", host, got)
		}
	}
}

func TestUpstreamKeyNamesThatCannotBeKeptAre400(t *testing.T) {
	h := newHouse(t)
	for names, want := range map[string]int{`[""]`: 400, `["a\nb"]`: 400, `["a\u0000"]`: 400, `["a b","ä:c"]`: 200, `[]`: 200} {
		if resp, body := h.Do(t, "PATCH", "/_api/v1/cache-config/pub", h.Root, `{"upstream_cache_key_names":`+names+`}`); resp.StatusCode != want {
			t.Errorf("%s: got %s: %s, want %d", names, resp.Status, body, want)
		}
	}
}

func TestCreateCache(t *testing.T) {
	h := newHouse(t)
	h.tokens["create"] = h.Token(t, servertest.Grant{Caches: "team-*", Perm: token.CreateCache})
	const body = `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":-1,"upstream_cache_key_names":[]}`
	h.check(t, []probe{
		{"anonymous", "POST", config + "new", "", body, 401, jsonType, "Unauthorized"},
		{"some right", "POST", config + "new", "push", body, 403, jsonType, "AccessError"},
		{"public is no right here", "POST", config + "pub", "", body, 401, jsonType, "Unauthorized"},
		{"by pattern", "POST", config + "team-a", "create", body, 200, "", ""},
		{"name taken", "POST", config + "team-a", "create", body, 400, jsonType, "CacheAlreadyExists"},
		{"store dir with a newline", "POST", config + "new", "root", strings.Replace(body, "/nix/store", `/x\nPriority: 1`, 1), 422, "", ""},
		{"relative store dir", "POST", config + "new", "root", strings.Replace(body, "/nix/store", "nix", 1), 400, jsonType, "RequestError"},
		{"priority beyond 32 bits", "POST", config + "new", "root", strings.Replace(body, "-1", "2147483648", 1), 422, "", ""},
		{"keypair of no form", "POST", config + "new", "root", strings.Replace(body, `"Generate"`, `{"Keypair":"x"}`, 1), 422, "", ""},
		{"keypair whose halves do not match", "POST", config + "new", "root",
			strings.Replace(body, `"Generate"`, `{"Keypair":"conf:AB1s7fJ26j/XSGohL9YrMvu57KpN6nBUVIZzcZndJO1aWBclVF1TPIz/sLZYx2L9jKohYSLq/OOt9IbEHp43ow=="}`, 1), 422, "", ""},
	})
	resp, answer := h.Do(t, "POST", config+"new", h.Root, body)
	if resp.StatusCode != 200 || answer != "" {
		t.Errorf("create: got %s with body %q, want 200 with none", resp.Status, answer)
	}
}

// The vectors of protocol §21.
const (
	vectorKeypair = "conf:bB1s7fJ26j/XSGohL9YrMvu57KpN6nBUVIZzcZndJO1aWBclVF1TPIz/sLZYx2L9jKohYSLq/OOt9IbEHp43ow=="
	vectorPublic  = "conf:WlgXJVRdUzyM/7C2WMdi/YyqIWEi6vzjrfSGxB6eN6M="
)

func TestImportedKeypairSignsUnderItsOwnName(t *testing.T) {
	h := newHouse(t)
	resp, body := h.Do(t, "PATCH", config+"pub", h.Root, `{"keypair":{"Keypair":"`+vectorKeypair+`"}}`)
	if resp.StatusCode != 200 || body != "" {
		t.Fatalf("patch: %s: %s", resp.Status, body)
	}
	if got := h.config(t, "pub")["public_key"]; got != vectorPublic {
		t.Errorf("public key: got %v, want %s", got, vectorPublic)
	}
	info := h.narinfo(t, "pub", h.nar)
	if !strings.HasPrefix(info.Sigs[0], "conf:") || !h.publicKey(t, "pub").Verify(info.Fingerprint(), info.Sigs[0]) {
		t.Errorf("the narinfo is not signed by the new key: %s", info.Sigs[0])
	}
	if resp, _ := h.Do(t, "PATCH", config+"pub", h.Root, `{"keypair":"Generate"}`); resp.StatusCode != 200 {
		t.Fatalf("regenerate: %s", resp.Status)
	}
	info = h.narinfo(t, "pub", h.nar)
	if key := h.publicKey(t, "pub"); key.Name != "pub" || !key.Verify(info.Fingerprint(), info.Sigs[0]) {
		t.Errorf("after a regeneration: key %s, signature %s", key, info.Sigs[0])
	}
}

func TestConfigureCache(t *testing.T) {
	h := newHouse(t)
	h.tokens["retention"] = h.Token(t, servertest.Grant{Caches: "*", Perm: token.ConfigureCacheRetention})
	h.check(t, []probe{
		{"nothing to change", "PATCH", config + "priv", "root", `{}`, 400, jsonType, "RequestError"},
		{"only read-only keys", "PATCH", config + "priv", "root", `{"public_key":"x","api_endpoint":"y"}`, 400, jsonType, "RequestError"},
		{"nulls are not given", "PATCH", config + "priv", "root", `{"is_public":null,"priority":null}`, 400, jsonType, "RequestError"},
		{"nothing to change, no right", "PATCH", config + "priv", "pull", `{}`, 403, jsonType, "AccessError"},
		{"retention without its right", "PATCH", config + "priv", "config", `{"priority":1,"retention_period":"Global"}`, 403, jsonType, "AccessError"},
		{"retention right alone", "PATCH", config + "priv", "retention", `{"retention_period":"Global"}`, 403, jsonType, "AccessError"},
		{"retention beyond 31 bits", "PATCH", config + "priv", "root", `{"retention_period":{"Period":2147483648}}`, 400, jsonType, "RequestError"},
		{"retention beyond 31 bits, no right", "PATCH", config + "priv", "config", `{"retention_period":{"Period":2147483648}}`, 403, jsonType, "AccessError"},
		{"retention beyond 32 bits", "PATCH", config + "priv", "root", `{"retention_period":{"Period":4294967296}}`, 422, "", ""},
		{"all at once", "PATCH", config + "priv", "root", `{"is_public":true,"store_dir":"/gnu/store","priority":7,"upstream_cache_key_names":["a","b"],"retention_period":{"Period":60},"unknown":1}`, 200, "", ""},
	})
	got := h.config(t, "priv")
	if got["is_public"] != true || got["store_dir"] != "/gnu/store" || got["priority"] != 7.0 ||
		len(got["upstream_cache_key_names"].([]any)) != 2 || got["retention_period"].(map[string]any)["Period"] != 60.0 {
		t.Errorf("after the patch: %v", got)
	}
	_, info := h.Do(t, "GET", "/priv/nix-cache-info", "", "")
	if want := "WantMassQuery: 1\nStoreDir: /gnu/store\nPriority: 7\n"; info != want {
		t.Errorf("nix-cache-info: got %q, want %q", info, want)
	}
	if resp, _ := h.Do(t, "PATCH", config+"priv", h.Root, `{"retention_period":"Global"}`); resp.StatusCode != 200 {
		t.Errorf("back to global: %s", resp.Status)
	}
	if got := h.config(t, "priv")["retention_period"]; got != "Global" {
		t.Errorf("retention: got %v, want Global", got)
	}
}

// No partial write when one part of a patch is forbidden.
func TestForbiddenRetentionLeavesTheRestAlone(t *testing.T) {
	h := newHouse(t)
	h.Do(t, "PATCH", config+"priv", h.tokens["config"], `{"priority":99,"retention_period":"Global"}`)
	if got := h.config(t, "priv")["priority"]; got != 41.0 {
		t.Errorf("priority: got %v, want 41", got)
	}
}

func TestDestroyedCacheIsGone(t *testing.T) {
	h := newHouse(t)
	if resp, body := h.Do(t, "DELETE", config+"pub", h.Root, ""); resp.StatusCode != 200 || body != "" {
		t.Fatalf("destroy: %s: %s", resp.Status, body)
	}
	h.check(t, []probe{
		{"config", "GET", config + "pub", "root", "", 404, jsonType, "NoSuchCache"},
		{"config, anonymous", "GET", config + "pub", "", "", 401, jsonType, "Unauthorized"},
		{"narinfo", "GET", "/pub/" + h.nar.Path.Hash() + ".narinfo", "", "", 404, jsonType, "NoSuchObject"},
		{"again", "DELETE", config + "pub", "root", "", 404, jsonType, "NoSuchCache"},
	})
	h.CreateCache(t, "pub", true) // the name is free again
	if resp, _ := h.Do(t, "GET", "/pub/"+h.nar.Path.Hash()+".narinfo", "", ""); resp.StatusCode != 404 {
		t.Errorf("a path of the old cache is in the new one: %s", resp.Status)
	}
}

func TestSoftDeletedNameStaysTaken(t *testing.T) {
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.SoftDelete = true })}
	h.CreateCache(t, "c", false)
	h.tokens = map[string]string{"root": h.Root}
	const body = `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`
	h.check(t, []probe{
		{"destroy", "DELETE", config + "c", "root", "", 200, "", ""},
		{"behaves as missing", "GET", config + "c", "root", "", 404, jsonType, "NoSuchCache"},
		{"create", "POST", config + "c", "root", body, 400, jsonType, "CacheAlreadyExists"},
	})
}

// The token of protocol §21, which another implementation signed.
func TestTokenVector(t *testing.T) {
	key, err := token.HS256([]byte("conformance-secret-0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{Server: servertest.Start(t, func(s *server.Server) { s.Auth.Keys = append(s.Auth.Keys, key) })}
	for _, c := range []string{"main", "team-x"} {
		h.CreateCache(t, c, false)
	}
	h.tokens = map[string]string{"": "", "v": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." +
		"eyJleHAiOjQxMDI0NDQ4MDAsIm5iZiI6MTcwMDAwMDAwMCwic3ViIjoiY29uZm9ybWFuY2UiLCJodHRwczovL2p3dC5hdHRpYy5ycy92MSI6eyJjYWNoZXMiOnsibWFpbiI6eyJyIjoxLCJ3IjoxfSwidGVhbS0qIjp7InIiOjF9LCIqIjp7ImNjIjoxLCJjciI6MSwiY3EiOjEsImNkIjoxfX19fQ" +
		".NNEyC07fDqb_BnsYzjetD5EDn-iywRuCM1W7HXZR13I"}
	const push = "/_api/v1/get-missing-paths"
	h.check(t, []probe{
		{"main pull", "GET", config + "main", "v", "", 200, "", ""},
		{"main configure", "PATCH", config + "main", "v", `{"priority":1}`, 403, "", "AccessError"},
		{"team-x pull", "GET", config + "team-x", "v", "", 200, "", ""},
		{"team-x push", "POST", push, "v", `{"cache":"team-x","store_path_hashes":[]}`, 403, "", "AccessError"},
		{"other is missing", "GET", config + "other", "v", "", 404, "", "NoSuchCache"},
		{"other is missing, anonymous", "GET", config + "other", "", "", 401, "", "Unauthorized"},
		{"other create", "POST", config + "other", "v", `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":1,"upstream_cache_key_names":[]}`, 200, "", ""},
		{"other push", "POST", push, "v", `{"cache":"other","store_path_hashes":[]}`, 403, "", "AccessError"},
		{"other pull", "GET", "/other/nix-cache-info", "v", "", 403, "", "AccessError"},
		{"other publish", "PATCH", config + "other", "v", `{"is_public":true}`, 200, "", ""},
		{"other pull, public", "GET", "/other/nix-cache-info", "v", "", 200, "", ""},
	})
}
