package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// house is a server with a public and a private cache that hold one path each,
// a soft-deleted name and tokens of several kinds.
type house struct {
	*servertest.Server
	nar    servertest.NAR
	tokens map[string]string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{Server: servertest.Start(t), nar: servertest.NewNAR(t, "hello.txt", []byte("not much of a NAR"))}
	h.CreateCache(t, "pub", true)
	h.CreateCache(t, "priv", false)
	for _, cache := range []string{"pub", "priv"} {
		if resp, body := h.Upload(t, h.Root, cache, h.nar); resp.StatusCode != http.StatusOK {
			t.Fatalf("upload to %s: %s: %s", cache, resp.Status, body)
		}
	}
	h.tokens = map[string]string{
		"":       "",
		"root":   h.Root,
		"push":   h.Token(t, servertest.Grant{Caches: "*", Perm: token.Push}),
		"pull":   h.Token(t, servertest.Grant{Caches: "*", Perm: token.Pull}),
		"other":  h.Token(t, servertest.Grant{Caches: "other", Perm: token.All}),
		"config": h.Token(t, servertest.Grant{Caches: "*", Perm: token.ConfigureCache}),
		"bad":    "eyJhbGciOiJub25lIn0.e30.",
	}
	return h
}

// A probe is one request and what the real server answers, or what ours
// answers where design and protocol §§20, 23 decide otherwise.
type probe struct {
	name, method, path, token, body string
	status                          int
	contentType                     string // a prefix; "" means do not care
	errorName                       string // of the JSON shape
}

func (h *house) check(t *testing.T, probes []probe) {
	t.Helper()
	for _, p := range probes {
		t.Run(p.name, func(t *testing.T) {
			resp, body := h.Do(t, p.method, p.path, h.tokens[p.token], p.body)
			if resp.StatusCode != p.status {
				t.Fatalf("%s %s: got %d, want %d: %s", p.method, p.path, resp.StatusCode, p.status, body)
			}
			if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, p.contentType) {
				t.Errorf("content type: got %q, want %q", got, p.contentType)
			}
			if p.errorName == "" {
				return
			}
			var e struct {
				Code           int
				Error, Message string
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Fatalf("error is not JSON: %v: %s", err, body)
			}
			if e.Code != p.status || e.Error != p.errorName || e.Message == "" {
				t.Errorf("got %s, want code %d and error %s", body, p.status, p.errorName)
			}
		})
	}
}

const (
	jsonType = "application/json"
	textType = "text/plain"
)

func TestRoutesAreAttics(t *testing.T) {
	h := newHouse(t)
	hash := h.nar.Path.Hash()
	h.check(t, []probe{
		{"home", "GET", "/", "", "", 200, "text/html", ""},
		{"cache info", "GET", "/pub/nix-cache-info", "", "", 200, "text/x-nix-cache-info", ""},
		{"parameter percent-encoded", "GET", "/%70ub/nix-cache-info", "", "", 200, "text/x-nix-cache-info", ""},
		{"literal percent-encoded", "GET", "/pub/nix%2Dcache%2Dinfo", "", "", 404, jsonType, "NotFound"},
		{"unknown in two segments", "GET", "/pub/whatever", "", "", 404, jsonType, "NotFound"},
		{"listing that is not there", "GET", "/pub/" + hash + ".ls", "", "", 404, jsonType, "NoSuchObject"},
		{"two suffixes", "GET", "/pub/" + hash + ".narinfo.x", "", "", 404, jsonType, "NotFound"},
		{"one segment", "GET", "/pub", "", "", 404, jsonType, "NotFound"},
		{"slash at the end", "GET", "/pub/", "", "", 404, jsonType, "NotFound"},
		{"slash after a route", "GET", "/pub/nix-cache-info/", "", "", 404, jsonType, "NotFound"},
		{"double slash", "GET", "//nix-cache-info", "", "", 404, jsonType, "NotFound"},
		{"dots are not cleaned", "GET", "/pub/../nix-cache-info", "", "", 404, jsonType, "NotFound"},
		{"four segments", "GET", "/a/b/c/d", "", "", 404, jsonType, "NotFound"},
		{"log of no derivation", "GET", "/pub/log/x.drv", "", "", 404, jsonType, "NoSuchObject"},
		{"NAR by another suffix", "GET", "/pub/nar/" + hash + ".nar.xz", "", "", 404, jsonType, "NotFound"},
		{"bare api prefix", "GET", "/_api/v1", "", "", 400, textType, ""},
		{"api prefix, three segments", "GET", "/_api/v1/nothing", "", "", 404, jsonType, "NotFound"},
		{"invalid cache name in two segments", "GET", "/b%20d/nix-cache-info", "", "", 400, textType, ""},
		{"invalid cache name, unknown file", "GET", "/_x/y", "", "", 400, textType, ""},
		{"invalid cache name, NAR", "GET", "/_x/nar/" + hash + ".nar", "", "", 400, textType, ""},
		{"invalid cache name in the api", "GET", "/_api/v1/cache-config/b%20d", "", "", 400, textType, ""},
		{"cache name that is not UTF-8", "GET", "/%ff/nix-cache-info", "", "", 400, textType, ""},
		{"malformed hash", "GET", "/pub/abc.narinfo", "", "", 404, jsonType, "NoSuchObject"},
		{"malformed hash of a NAR", "GET", "/pub/nar/abc.nar", "", "", 404, jsonType, "NoSuchObject"},
	})
}

func TestMethodsThatARouteLacksAre405(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/pub/" + h.nar.Path.Hash() + ".narinfo", "GET,HEAD,PUT"},
		{"DELETE", "/pub/nar/x.nar", "GET,HEAD,PUT"},
		{"PATCH", "/pub/log/x.drv", "GET,HEAD,PUT"},
		{"POST", "/_api/v1", "GET,HEAD,PUT"}, // two segments, whatever they are
		{"DELETE", "/b%20d/x", "GET,HEAD,PUT"},
		{"POST", "/", "GET,HEAD"},
		{"OPTIONS", "/pub/nix-cache-info", "GET,HEAD,PUT"},
		{"GET", "/_api/v1/get-missing-paths", "POST"},
		{"HEAD", "/_api/v1/upload-path", "PUT"},
		{"PUT", "/_api/v1/cache-config/pub", "GET,HEAD,POST,PATCH,DELETE"},
		{"GET", "/_api/v1/cache/pub/packs/" + strings.Repeat("0", 64), "PUT"},
	} {
		resp, body := h.Do(t, c.method, c.path, "", "")
		if resp.StatusCode != 405 || resp.Header.Get("Allow") != c.allow || body != "" {
			t.Errorf("%s %s: got %d, Allow %q, body %q; want 405, %q and no body",
				c.method, c.path, resp.StatusCode, resp.Header.Get("Allow"), body, c.allow)
		}
	}
}

func TestHeadAnswersAsGetWithoutBody(t *testing.T) {
	h := newHouse(t)
	hash := h.nar.Path.Hash()
	for _, path := range []string{"/", "/pub/nix-cache-info", "/pub/" + hash + ".narinfo", "/pub/nar/" + hash + ".nar",
		"/pub/attic-cache-info", "/_api/v1/cache-config/pub", "/pub/nope.narinfo"} {
		get, text := h.Do(t, "GET", path, "", "")
		head, none := h.Do(t, "HEAD", path, "", "")
		if head.StatusCode != get.StatusCode || none != "" || head.ContentLength != int64(len(text)) {
			t.Errorf("%s: HEAD %d, length %d, body %q; GET %d, %d bytes", path, head.StatusCode, head.ContentLength, none, get.StatusCode, len(text))
		}
		for _, k := range []string{"Content-Type", "ETag", "Accept-Ranges", "X-Attic-Cache-Visibility"} {
			if get.Header.Get(k) != head.Header.Get(k) {
				t.Errorf("%s: %s: HEAD %q, GET %q", path, k, head.Header.Get(k), get.Header.Get(k))
			}
		}
	}
}

// The status matrix of protocol §4.5.
func TestStatusMatrix(t *testing.T) {
	h := newHouse(t)
	info := "/nix-cache-info"
	missing := `{"cache":"CACHE","store_path_hashes":[]}`
	for _, c := range []struct {
		token, cache       string
		pull, push, config int
	}{
		{"", "none", 401, 401, 401},
		{"", "priv", 401, 401, 401},
		{"", "pub", 200, 403, 403},
		{"bad", "priv", 401, 401, 401},
		{"bad", "pub", 200, 403, 403},
		{"other", "none", 401, 401, 401},
		{"other", "priv", 401, 401, 401},
		{"other", "pub", 200, 403, 403},
		{"pull", "none", 404, 404, 404},
		{"pull", "priv", 200, 403, 403},
		{"push", "none", 404, 404, 404},
		{"push", "priv", 403, 200, 403},
		{"push", "pub", 200, 200, 403},
		{"config", "priv", 403, 403, 200},
		{"root", "none", 404, 404, 404},
		{"root", "priv", 200, 200, 200},
	} {
		name := map[int]string{401: "Unauthorized", 403: "AccessError", 404: "NoSuchCache"}
		h.check(t, []probe{
			{c.token + " pulls " + c.cache, "GET", "/" + c.cache + info, c.token, "", c.pull, "", name[c.pull]},
			{c.token + " pushes " + c.cache, "POST", "/_api/v1/get-missing-paths", c.token, strings.Replace(missing, "CACHE", c.cache, 1), c.push, "", name[c.push]},
			{c.token + " configures " + c.cache, "PATCH", "/_api/v1/cache-config/" + c.cache, c.token, `{"priority":41}`, c.config, "", name[c.config]},
		})
	}
}

// A caller who may do nothing with a cache must not learn which paths are in
// it, nor that it is there (design §4; Attic answers 401 for paths that are).
func TestNarinfoTellsStrangersNothing(t *testing.T) {
	h := newHouse(t)
	there := h.nar.Path.Hash()
	absent := strings.Repeat("0", 32)
	for _, tok := range []string{"", "bad", "other"} {
		for _, path := range []string{"/CACHE/HASH.narinfo", "/CACHE/nar/HASH.nar"} {
			var first string
			for _, cache := range []string{"priv", "none"} {
				for _, hash := range []string{there, absent} {
					url := strings.NewReplacer("CACHE", cache, "HASH", hash).Replace(path)
					resp, body := h.Do(t, "GET", url, h.tokens[tok], "")
					resp.Header.Del("Date")
					resp.Header.Del("X-Request-Id")
					got := resp.Status + headers(resp.Header) + body
					if first == "" {
						first = got
					}
					if resp.StatusCode != 404 || got != first {
						t.Errorf("%s as %q: got %s, want what the others get: %s", url, tok, got, first)
					}
				}
			}
		}
	}
	h.check(t, []probe{
		{"some right but not pull, there", "GET", "/priv/" + there + ".narinfo", "push", "", 403, jsonType, "AccessError"},
		{"some right but not pull, absent", "GET", "/priv/" + absent + ".narinfo", "push", "", 404, jsonType, "NoSuchObject"},
		{"may pull", "GET", "/priv/" + there + ".narinfo", "pull", "", 200, "text/x-nix-narinfo", ""},
		{"public, absent", "GET", "/pub/" + absent + ".narinfo", "", "", 404, jsonType, "NoSuchObject"},
	})
}

func headers(h http.Header) string {
	b, _ := json.Marshal(h) // a map of strings always encodes
	return string(b)
}

func TestVisibilityHeaderIsOnPublicReadsOnly(t *testing.T) {
	h := newHouse(t)
	hash := h.nar.Path.Hash()
	for _, c := range []struct{ path, want string }{
		{"/pub/nix-cache-info", "public"}, {"/pub/" + hash + ".narinfo", "public"}, {"/pub/nar/" + hash + ".nar", "public"},
		{"/priv/nix-cache-info", ""}, {"/priv/" + hash + ".narinfo", ""}, {"/priv/nar/" + hash + ".nar", ""},
		{"/pub/" + strings.Repeat("0", 32) + ".narinfo", ""}, {"/_api/v1/cache-config/pub", ""}, {"/pub/attic-cache-info", ""},
	} {
		resp, _ := h.Do(t, "GET", c.path, h.Root, "")
		if got := resp.Header.Get("X-Attic-Cache-Visibility"); got != c.want {
			t.Errorf("%s: got %q, want %q", c.path, got, c.want)
		}
	}
}

// Bodies are parsed before rights are looked at (protocol §3.1).
func TestBodiesAreParsedBeforeRights(t *testing.T) {
	h := newHouse(t)
	const get = "/_api/v1/get-missing-paths"
	h.check(t, []probe{
		{"broken JSON", "POST", get, "", "{", 400, "", ""},
		{"wrong type", "POST", get, "", `{"cache":1,"store_path_hashes":[]}`, 422, "", ""},
		{"missing field", "POST", get, "", `{"cache":"pub"}`, 422, "", ""},
		{"invalid cache name", "POST", get, "", `{"cache":"_","store_path_hashes":[]}`, 422, "", ""},
		{"one bad hash", "POST", get, "root", `{"cache":"pub","store_path_hashes":["x"]}`, 422, "", ""},
		{"no content type", "POST", get, "", "", 415, "", ""},
		{"duplicate known key", "POST", get, "", `{"cache":"pub","cache":"pub","store_path_hashes":[]}`, 422, "", ""},
		{"duplicate unknown key", "POST", get, "root", `{"cache":"pub","x":1,"x":2,"store_path_hashes":[]}`, 200, jsonType, ""},
		{"create with one key missing", "POST", "/_api/v1/cache-config/new", "", `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41}`, 422, "", ""},
		{"patch with a bad read-only key", "PATCH", "/_api/v1/cache-config/pub", "", `{"public_key":1}`, 422, "", ""},
		{"upload without info", "PUT", "/_api/v1/upload-path", "", "", 400, jsonType, "RequestError"},
	})
}

func TestUnusableBodiesAreNotJSONErrors(t *testing.T) {
	h := newHouse(t)
	// Attic's framework answers these in plain text.
	h.check(t, []probe{
		{"400", "POST", "/_api/v1/get-missing-paths", "root", "{", 400, textType, ""},
		{"422", "POST", "/_api/v1/get-missing-paths", "root", "{}", 422, textType, ""},
		{"413", "POST", "/_api/v1/get-missing-paths", "", strings.Repeat(" ", 3<<20), 413, textType, ""},
	})
}
