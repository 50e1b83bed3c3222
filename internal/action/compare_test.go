package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/closurediff"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/github/comment"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
)

// Closure has a toplevel and a library.
func (n *fakeNix) Closure(_ context.Context, paths []nix.StorePath) ([]nixcli.PathInfo, error) {
	lib := storePath('x', "openssl-3.0.14")
	infos := []nixcli.PathInfo{{Path: lib, NarSize: 20_000}}
	for _, p := range paths {
		infos = append(infos, nixcli.PathInfo{Path: p, NarSize: 1000, References: []nix.StorePath{p, lib}})
	}
	return infos, nil
}

func (n *fakeNix) Valid(_ context.Context, paths []nix.StorePath) ([]nix.StorePath, error) {
	var built []nix.StorePath
	for _, p := range paths {
		if p.Hash() == strings.Repeat("a", 32) {
			built = append(built, p)
		}
	}
	return built, nil
}

func storePath(c byte, name string) nix.StorePath {
	p, err := nix.ParseStorePath("/nix/store/" + strings.Repeat(string(c), 32) + "-" + name)
	if err != nil {
		panic(err)
	}
	return p
}

func (c *fakeCache) Pinned(_ context.Context, name string) (nix.StorePath, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, name)
	return c.pins[name], nil
}

func (c *fakeCache) List(_ context.Context, path nix.StorePath) (closurediff.Closure, []string, error) {
	if c.lists[path] == nil {
		return nil, nil, errors.New("not there")
	}
	return maps.Clone(c.lists[path]), c.elsewhere, nil
}

// pinned is a stage whose host web was pinned as it was before openssl's update, by this branch.
func pinned(t *testing.T) *stage {
	t.Helper()
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	old := storePath('b', "nixos-system")
	s.pusher.pins = map[string]nix.StorePath{"acme/infra/main/web": old}
	s.pusher.lists = map[nix.StorePath]closurediff.Closure{old: {old.Base(): 1000}}
	s.pusher.elsewhere = []string{storePath('c', "openssl-3.0.13").Base()}
	return s
}

// signUpstream gives the stage an upstream cache, and returns its narinfos by request.
func (s *stage) signUpstream(t *testing.T, infos ...nix.NarInfo) map[string]string {
	t.Helper()
	key := keypair(t, "up-1")
	served := map[string]string{}
	for _, info := range infos {
		info.URL, info.NarHash = "nar/x.nar", nix.Hash{1}
		info.Sigs = []string{key.Sign(info.Fingerprint())}
		served["/"+info.StorePath.Hash()+".narinfo"] = string(info.Format())
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served[r.URL.Path] == "" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, served[r.URL.Path])
	}))
	t.Cleanup(srv.Close)
	s.server.other = http.DefaultTransport
	s.nix.substituters, s.nix.keys = []string{srv.URL}, []string{key.Public().String()}
	s.pusher.config.UpstreamCacheKeyNames = []string{"up-1"}
	return served
}

func TestSummaryTellsWhatChangedSinceTheLastPin(t *testing.T) {
	s := pinned(t)
	s.signUpstream(t, nix.NarInfo{StorePath: storePath('c', "openssl-3.0.13"), NarSize: 18_000})
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"| 21 kB | +2.0 kB |", "web&#58; 1 changed, 1 rebuilt in the same version; +2.0 kB since acme/infra/main/web", "| openssl | 3.0.13 | 3.0.14 | +2.0 kB |"} {
		if !strings.Contains(s.summary(), text) {
			t.Errorf("the summary lacks %q:\n%s\n%s", text, s.summary(), s.out)
		}
	}
}

// What somebody between here and the upstream cache makes up is not told.
func TestUnsignedUpstreamIsNotCompared(t *testing.T) {
	s := pinned(t)
	served := s.signUpstream(t, nix.NarInfo{StorePath: storePath('c', "openssl-3.0.13"), NarSize: 18_000})
	for url, text := range served {
		served[url] = strings.Replace(text, "18000", "9", 1)
	}
	if err := s.run(t); err != nil || !strings.Contains(s.out.String(), "web: not compared with its last pinned revision: no cache that is asked knows") || strings.Contains(s.summary(), "since acme") {
		t.Errorf("%v\n%s\n%s", err, s.out, s.summary())
	}
	if !strings.Contains(s.summary(), "| 21 kB |  |") {
		t.Errorf("the size is known all the same:\n%s", s.summary())
	}
}

// Of a pull request what matters is what it does to the branch it goes to.
func TestPullRequestIsComparedWithTheBranchItGoesTo(t *testing.T) {
	s := pinned(t)
	s.env["GITHUB_EVENT_NAME"], s.env["GITHUB_REF"], s.env["GITHUB_BASE_REF"] = "pull_request", "refs/pull/7/merge", "main"
	s.pusher.complete = []string{outPath("web")}
	path, err := nix.ParseStorePath(outPath("web"))
	if err != nil {
		t.Fatal(err)
	}
	s.pusher.lists[path] = closurediff.Closure{path.Base(): 3000}
	s.pusher.elsewhere = nil
	s.server.grants = "cache:system:pull" // and a token that may only pull knows what is cached
	if err := s.run(t); err != nil || len(s.nix.built) != 0 {
		t.Fatalf("%v, built %q", err, s.nix.built)
	}
	if !strings.Contains(s.summary(), "| cached | 3.0 kB | +2.0 kB |") || fmt.Sprint(s.pusher.asked) != "[acme/infra/main/web]" {
		t.Errorf("asked %q\n%s", s.pusher.asked, s.summary())
	}
}

func TestNothingIsComparedWithoutAToken(t *testing.T) {
	s := pinned(t)
	delete(s.env, "ACTIONS_ID_TOKEN_REQUEST_URL")
	if err := s.run(t); err != nil || len(s.pusher.asked) != 0 || !strings.Contains(s.summary(), "| 21 kB |  |") {
		t.Errorf("%v, asked %q\n%s", err, s.pusher.asked, s.summary())
	}
}

// The last job of a matrix comes when there are new pins, so the first one says what was there.
func TestLastJobOfAMatrixComparesWithWhatTheFirstFound(t *testing.T) {
	s := pinned(t)
	s.env["INPUT_MATRIX"] = "true"
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	plan, err := json.Marshal(s.outputs(t)["plan"])
	if err != nil {
		t.Fatal(err)
	}
	last := pinned(t)
	path, err := nix.ParseStorePath(outPath("web"))
	if err != nil {
		t.Fatal(err)
	}
	last.pusher.elsewhere, last.pusher.complete = nil, []string{path.String()}
	last.pusher.lists[path] = closurediff.Closure{path.Base(): 5000}
	last.pusher.pins["acme/infra/main/web"] = path
	needs, err := json.Marshal(map[string]any{"plan": map[string]any{"result": "success", "outputs": map[string]string{"plan": string(plan)}}})
	if err != nil {
		t.Fatal(err)
	}
	last.env["INPUT_NEEDS"] = string(needs)
	if err := last.run(t); err != nil || !strings.Contains(last.summary(), "| pushed | 5.0 kB | +4.0 kB |") {
		t.Errorf("%v\n%s\n%s", err, last.summary(), last.out)
	}
}

// serve is a server that answers everything alike.
func serve(t *testing.T, status int, body string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestPinnedAndListTakeARefusalForNothing(t *testing.T) {
	for _, status := range []int{401, 403, 404, 405} {
		c, err := client.New(client.Options{Endpoint: serve(t, status, `{}`), Retries: -1})
		if err != nil {
			t.Fatal(err)
		}
		remote := &Remote{Client: c, Name: "system"}
		if p, err := remote.Pinned(t.Context(), "a/b"); err != nil || !p.IsZero() {
			t.Errorf("%d: %v, %v", status, p, err)
		}
	}
	for answer, want := range map[string]string{
		`{"pins":1}`: "", `{"revisions":[{"store_path":"../x"}]}`: "read pin", `nonsense`: "answer",
	} {
		c, err := client.New(client.Options{Endpoint: serve(t, 200, answer), Retries: -1})
		if err != nil {
			t.Fatal(err)
		}
		remote := &Remote{Client: c, Name: "system"}
		if p, err := remote.Pinned(t.Context(), "a/b"); !p.IsZero() || (err == nil) != (want == "") {
			t.Errorf("%s: %v, %v", answer, p, err)
		}
		if _, _, err := remote.List(t.Context(), storePath('a', "x")); err == nil {
			t.Errorf("%s is a list", answer)
		}
	}
}

// onPull makes the stage's run one of a pull request.
func (s *stage) onPull(t *testing.T, fork bool) {
	t.Helper()
	event := filepath.Join(t.TempDir(), "event.json")
	text := fmt.Sprintf(`{"pull_request":{"number":7,"head":{"sha":"%s","repo":{"fork":%v}}}}`, strings.Repeat("a1", 20), fork)
	if err := os.WriteFile(event, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	maps.Copy(s.env, map[string]string{
		"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": event, "GITHUB_BASE_REF": "main", "GITHUB_REF": "refs/pull/7/merge",
		"GITHUB_API_URL": "https://ghe.example/api/v3", "GITHUB_SERVER_URL": "https://ghe.example", "GITHUB_RUN_ID": "99",
		"INPUT_COMMENT": "true", "INPUT_GITHUB-TOKEN": "ghs_token",
	})
}

func TestPullRequestGetsTheSummaryAsAComment(t *testing.T) {
	for name, refuse := range map[string]error{"taken": nil, "refused": errors.New("the token may not do that\nnever")} {
		s := newStage(t, map[string]string{"web": "x86_64-linux", "@acme/team": "x86_64-linux"})
		s.onPull(t, false)
		var got []comment.Comment
		s.Comment = func(_ context.Context, api string, token github.Secret, c comment.Comment) error {
			if api != "https://ghe.example/api/v3" || token.Reveal() != "ghs_token" {
				t.Errorf("%s with %s", api, token.Reveal())
			}
			got = append(got, c)
			return refuse
		}
		if err := s.run(t); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(got) != 1 || got[0].Number != 7 || got[0].Repo != "acme/infra" || len(got[0].Key) != 16 {
			t.Fatalf("%s: %+v", name, got)
		}
		for _, text := range []string{"| web |", "Commit a1a1", "https://ghe.example/acme/infra/actions/runs/99", "&#64;&#8203;acme"} {
			if !strings.Contains(got[0].Body, text) {
				t.Errorf("%s: the comment lacks %q:\n%s", name, text, got[0].Body)
			}
		}
		if n := strings.Count(s.out.String(), "no comment on the pull request"); n != map[bool]int{true: 0, false: 1}[refuse == nil] {
			t.Errorf("%s: told %d times\n%s", name, n, s.out)
		}
		if !strings.Contains(s.out.String(), "::add-mask::ghs_token\n") || strings.Count(s.out.String(), "ghs_token") != 1 {
			t.Errorf("%s: the token is printed, or not masked:\n%s", name, s.out)
		}
	}
}

func TestCommentIsOfPullRequestsAndOnRequestOnly(t *testing.T) {
	for name, change := range map[string]func(s *stage){
		"not wanted": func(s *stage) { s.onPull(t, false); s.env["INPUT_COMMENT"] = "false" },
		"a push":     func(s *stage) { s.env["INPUT_COMMENT"] = "true" },
	} {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		change(s)
		s.Comment = func(context.Context, string, github.Secret, comment.Comment) error {
			t.Errorf("%s: a comment", name)
			return nil
		}
		if err := s.run(t); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A comment is as long as GitHub takes it, and one that an earlier run wrote does not stay when this one fails at once.
func TestCommentIsBoundedAndTellsFailure(t *testing.T) {
	hosts := map[string]string{}
	for i := range 2000 {
		hosts[fmt.Sprintf("%d-broken-%s", i, strings.Repeat("x", 100))] = ""
	}
	for name, hosts := range map[string]map[string]string{"many": hosts, "none": nil} {
		s := newStage(t, hosts)
		s.onPull(t, false)
		said := ""
		s.Comment = func(_ context.Context, _ string, _ github.Secret, c comment.Comment) error {
			said = c.Body
			if n := len(comment.Marker(c.Key) + c.Body); n > comment.MaxBody {
				t.Errorf("%d bytes", n)
			}
			return nil
		}
		if err := s.run(t); err == nil || said == "" || name == "none" && !strings.Contains(said, "This run failed") {
			t.Errorf("%s: %v\n%.500s", name, err, said)
		}
	}
}
