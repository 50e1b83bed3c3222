package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/issued"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// wary is a house whose server knows revoked tokens.
type wary struct {
	*house
	register *issued.Register
}

func newWary(t *testing.T) *wary {
	t.Helper()
	w := &wary{house: newHouse(t)}
	w.Stop(t)
	w.Server = servertest.StartIn(t, w.Dir, func(s *server.Server) {
		w.register = &issued.Register{DB: s.DB}
		s.Revoked = w.register
		s.Revoke = func(ctx context.Context, id string) error {
			_, err := w.register.Revoke(ctx, issued.Selection{IDs: []string{id}})
			return err
		}
	})
	return w
}

// issue makes a token with an id.
func (w *wary) issue(t *testing.T, id string, perm token.Perm) string {
	t.Helper()
	exp := time.Now().Add(time.Hour)
	claims := token.Claims{ID: id, Subject: "ci", Expires: &exp}
	if err := claims.Caches.Add("*", perm); err != nil {
		t.Fatal(err)
	}
	if err := w.register.Trade(t.Context(), issued.Used{Issuer: "https://issuer", ID: claims.ID, Until: *claims.Expires}, claims, []string{"infra"}); err != nil {
		t.Fatal(err)
	}
	jwt, err := w.Authority.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return jwt
}

func (w *wary) revoke(t *testing.T, id string) {
	t.Helper()
	if done, err := w.register.Revoke(t.Context(), issued.Selection{IDs: []string{id}}); err != nil || len(done) != 1 {
		t.Fatalf("revoke %s: %v, %v", id, done, err)
	}
}

func TestRevokedTokenIsNobodys(t *testing.T) {
	w := newWary(t)
	w.tokens["good"], w.tokens["revoked"] = w.issue(t, "good", token.All), w.issue(t, "revoked", token.All)
	w.revoke(t, "revoked")
	missing := `{"cache":"priv","store_path_hashes":["` + w.nar.Path.Hash() + `"]}`
	w.check(t, []probe{
		{"settings", "GET", config + "priv", "revoked", "", 401, jsonType, "Unauthorized"},
		{"settings, another token", "GET", config + "priv", "good", "", 200, jsonType, ""},
		{"settings, a token without an id", "GET", config + "priv", "root", "", 200, jsonType, ""},
		{"narinfo", "GET", "/priv/" + w.nar.Path.Hash() + ".narinfo", "revoked", "", 404, jsonType, "NoSuchObject"},
		{"missing paths", "POST", "/_api/v1/get-missing-paths", "revoked", missing, 401, jsonType, "Unauthorized"},
		{"destroy", "DELETE", config + "priv", "revoked", "", 401, jsonType, "Unauthorized"},
		// As with an expired token: the public stays public, or a machine with an old netrc gets nothing.
		{"a public cache", "GET", "/pub/" + w.nar.Path.Hash() + ".narinfo", "revoked", "", 200, "text/x-nix-narinfo", ""},
	})
}

// A slow upload must not outlive the revocation of its token: whoever notices a stolen token cannot
// wait for what the thief has begun.
func TestRevocationStopsWhatIsUnderWay(t *testing.T) {
	for _, size := range []int{300_000, 9 << 20} { // of one pack, and of packs of its own
		n := servertest.NewNAR(t, fmt.Sprint("slow-", size), random(t, size))
		p := newPack(t, n.Bytes, 300_000)
		known := servertest.NewNAR(t, "known", []byte("a NAR that the public cache has under another name"))
		for name, c := range map[string]struct {
			method, path string
			header       []string
			body         []byte
		}{
			"stock upload":            {"PUT", "/_api/v1/upload-path", []string{api.NarInfoHeader, n.Info(t, "priv", nil)}, n.Bytes},
			"stock upload of a known": {"PUT", "/_api/v1/upload-path", []string{api.NarInfoHeader, known.Info(t, "priv", nil)}, known.Bytes},
			"pack":                    {"PUT", fmt.Sprintf("/_api/v1/cache/priv/packs/%x", p.sum), nil, p.file},
			"commit": {"POST", "/_api/v1/cache/priv/paths", []string{"Content-Type", api.PathsType}, func() []byte {
				b, err := api.AppendPath(nil, header(n), p.pieces)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}()},
		} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				w := newWary(t)
				if resp, body := w.Upload(t, w.Root, "pub", servertest.NAR{Path: n.Path, Bytes: known.Bytes}); resp.StatusCode != 200 {
					t.Fatalf("upload: %s: %s", resp.Status, body)
				}
				if name == "commit" {
					if resp, body := w.put(t, w.Root, "PUT", fmt.Sprintf("/_api/v1/cache/priv/packs/%x", p.sum), p.file); resp.StatusCode != 200 {
						t.Fatalf("pack: %s: %s", resp.Status, body)
					}
				}
				packs := w.packs(t)
				resp, body := w.interrupted(t, w.issue(t, "stolen", token.Push|token.Pull), c.method, c.path, c.header, c.body, func() { w.revoke(t, "stolen") })
				if resp.StatusCode != 401 || !strings.Contains(body, "Unauthorized") {
					t.Errorf("got %s: %s", resp.Status, body)
				}
				for _, n := range []servertest.NAR{n, known} {
					if resp, _ := w.Do(t, "GET", "/priv/"+n.Path.Hash()+".narinfo", w.Root, ""); resp.StatusCode != 404 {
						t.Errorf("%s is in the cache: %s", n.Path, resp.Status)
					}
				}
				if got := w.packs(t); got != packs {
					t.Errorf("%d packs are stored, before there were %d", got, packs)
				}
			})
		}
	}
}

// interrupted sends a request and calls between once the server has the first half of the body.
func (w *wary) interrupted(t *testing.T, tok, method, path string, header []string, body []byte, between func()) (*http.Response, string) {
	t.Helper()
	r, pipe := io.Pipe()
	req, err := http.NewRequest(method, w.URL+path, r)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Authorization", "bearer "+tok)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Header.Set("Expect", "100-continue") // the body begins when a handler reads: after the token was looked at
	transport := &http.Transport{ExpectContinueTimeout: time.Hour}
	defer transport.CloseIdleConnections()
	go func() {
		_, err := pipe.Write(body[:len(body)/2])
		if err == nil {
			between()
			_, err = pipe.Write(body[len(body)/2:])
		}
		pipe.CloseWithError(err) // nil is the end
	}()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// packs counts what is stored.
func (w *wary) packs(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.Dir, "storage/packs/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestRevocationCutsADownload(t *testing.T) {
	w := newWary(t)
	n := servertest.NewNAR(t, "large", random(t, 32<<20)) // more than the sockets between us hold
	if resp, body := w.Upload(t, w.Root, "priv", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	req, err := http.NewRequest("GET", w.URL+"/priv/"+w.narinfo(t, "priv", n).URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "bearer "+w.issue(t, "stolen", token.Pull))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.revoke(t, "stolen")
	rest, err := io.Copy(io.Discard, resp.Body)
	if err == nil || 1+rest >= resp.ContentLength {
		t.Errorf("%d of %d bytes came, %v", 1+rest, resp.ContentLength, err)
	}
}

// unknown is a list of revoked tokens that cannot be read.
type unknown struct{}

func (unknown) Revoked(context.Context, string) (bool, error) {
	return false, errors.New("the disk is gone, says hunter2")
}

// A token that may have been revoked must not be believed.
func TestUnreadableRevocationsAreAnError(t *testing.T) {
	s := servertest.Start(t, func(s *server.Server) { s.Revoked = unknown{} })
	exp := time.Now().Add(time.Hour)
	claims := token.Claims{ID: "x", Expires: &exp}
	if err := claims.Caches.Add("*", token.All); err != nil {
		t.Fatal(err)
	}
	jwt, err := s.Authority.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	resp, body := s.Do(t, "GET", "/_api/v1/cache-config/any", jwt, "")
	if resp.StatusCode != 500 || strings.Contains(body, "hunter2") {
		t.Errorf("got %s: %s", resp.Status, body)
	}
	if resp, _ := s.Do(t, "GET", "/_api/v1/cache-config/any", "", ""); resp.StatusCode != 401 {
		t.Errorf("without a token: %s", resp.Status)
	}
}

func (w *wary) give(t *testing.T, form string, header ...string) (*http.Response, string) {
	t.Helper()
	return w.put(t, "", "POST", api.OIDCRevokeRoute, []byte(form), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

// RFC 7009: what a job no longer needs, nobody can steal from it.
func TestBearersEndTheirTokens(t *testing.T) {
	w := newWary(t)
	mine, other := w.issue(t, "mine", token.Pull), w.issue(t, "other", token.Pull)
	settings := func(tok string) int {
		resp, _ := w.Do(t, "GET", config+"priv", tok, "")
		return resp.StatusCode
	}
	if settings(mine) != 200 {
		t.Fatal("the token is no good")
	}
	done, body := w.give(t, "token="+mine+"&token_type_hint=access_token")
	if done.StatusCode != 200 || body != "" || done.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %s: %s", done.Status, body)
	}
	if got := settings(mine); got != 401 {
		t.Errorf("the token after its end: %d", got)
	}
	if got := settings(other); got != 200 {
		t.Errorf("another token: %d", got)
	}
	forged := other[:len(other)-3] + "AAA"
	for name, tok := range map[string]string{"once more": mine, "forged": forged, "no token": "x"} {
		resp, text := w.give(t, "token="+tok)
		if resp.StatusCode != done.StatusCode || text != body {
			t.Errorf("%s is answered otherwise: %s: %s", name, resp.Status, text)
		}
	}
	if got := settings(other); got != 200 {
		t.Errorf("a forged token ended a good one: %d", got)
	}
	for name, c := range map[string]struct {
		form, kind string
		status     int
	}{
		"without an id": {"token=" + w.Root, "", 400},
		"two":           {"token=" + other + "&token=" + other, "", 400},
		"none":          {"token_type_hint=access_token", "", 400},
		"JSON":          {`{"token":"` + other + `"}`, "application/json", 400},
		"large":         {"token=" + strings.Repeat("x", 16<<10), "", 413},
	} {
		header := []string{}
		if c.kind != "" {
			header = []string{"Content-Type", c.kind}
		}
		if resp, text := w.give(t, c.form, header...); resp.StatusCode != c.status || strings.Contains(text, other) {
			t.Errorf("%s: got %s: %s, want %d", name, resp.Status, text, c.status)
		}
	}
	if resp, _ := w.put(t, other, "POST", api.OIDCRevokeRoute, []byte("token="+other), "Content-Type", "application/x-www-form-urlencoded"); resp.StatusCode != 400 {
		t.Errorf("with two credentials: %s", resp.Status)
	}
	if got := settings(other); got != 200 {
		t.Errorf("a refused request ended the token: %d", got)
	}
}
