package action

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/closurediff"
	"github.com/org/attic-action/internal/follow"
	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
)

// fakeNix is a flake in memory on an x86_64-linux machine. A host builds if its name holds no "broken".
type fakeNix struct {
	hosts              map[string]string   // name → system; "" does not evaluate
	others             map[string][]string // names by path, "packages.x86_64-linux"
	version            nixcli.Version
	missing            error
	fails              error // to list hosts
	ignored            []string
	netrc              string
	substituters, keys []string
	built              []string
	building           func(drv string)
	follow.Store       // for builds that name what they begin, as these don't
}

func (n *fakeNix) Version(context.Context) (nixcli.Version, error) { return n.version, n.missing }
func (n *fakeNix) Ignored(context.Context) ([]string, error)       { return n.ignored, nil }

func (n *fakeNix) Hosts(ctx context.Context, flake string) ([]string, error) {
	var names []string
	for name := range n.hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	if n.fails != nil {
		return nil, n.fails
	}
	if names == nil {
		return nil, nixcli.ErrNoHosts
	}
	return names, nil
}

func (n *fakeNix) Names(_ context.Context, _ string, at nixcli.Attr) ([]string, error) {
	names, ok := n.others[at.String()]
	if !ok {
		return nil, nixcli.ErrNoOutput
	}
	return names, nil
}

func (n *fakeNix) Eval(_ context.Context, _ string, at nixcli.Attr) (nixcli.Host, error) {
	system := "x86_64-linux"
	if name, ok := at.Host(); ok {
		system = n.hosts[name]
	}
	if system == "" {
		return nixcli.Host{}, errors.New("error: undefined variable 'x'\n  at flake.nix:3\n::error::pwned")
	}
	name := at[len(at)-1]
	return nixcli.Host{System: system, DrvPath: "/nix/store/" + strings.Repeat("d", 32) + "-" + name + ".drv", Output: "out", OutPath: outPath(name)}, nil
}

// outPath is where a host's toplevel would be: its hash tells the name's length.
func outPath(name string) string {
	return "/nix/store/" + strings.Repeat(string("0123456789abcdf"[len(name)%15]), 32) + "-nixos-system"
}

func (n *fakeNix) Plan(context.Context, string, string) (nixcli.Plan, error) {
	return nixcli.Plan{Build: make([]nix.StorePath, 3), Fetch: make([]nix.StorePath, 5)}, nil
}

func (n *fakeNix) Build(_ context.Context, drv, _, _ string, log io.Writer) (nix.StorePath, error) {
	n.built = append(n.built, drv)
	if n.building != nil {
		n.building(drv)
	}
	fmt.Fprintf(log, "building %s\n::set-output name=x::y\n", drv)
	if strings.Contains(drv, "broken") {
		return nix.StorePath{}, &nixcli.BuildError{Drv: drv, Log: []string{"cc: no such file", "::error::from the log"}, Command: "nix log x"}
	}
	return nix.ParseStorePath("/nix/store/" + strings.Repeat("a", 32) + "-nixos-system")
}

func (n *fakeNix) Settings(context.Context) (nixcli.Settings, error) {
	return nixcli.Settings{System: "x86_64-linux", Systems: []string{"x86_64-linux", "i686-linux"}, Netrc: n.netrc,
		Substituters: n.substituters, Keys: n.keys}, nil
}

// fakeCache has whatever it is told.
type fakeCache struct {
	token    TokenSource // nil: nobody's
	config   client.Config
	private  bool // without a token there is nothing
	fails    error
	down     int // answers that say the server is being deployed
	complete []string
	pinFails error
	pinned   []string
	pushed   int

	pins      map[string]nix.StorePath
	lists     map[nix.StorePath]closurediff.Closure
	elsewhere []string // that all lists refer to
	mu        sync.Mutex
	asked     []string // pins
}

func (c *fakeCache) Config(ctx context.Context) (*client.Config, error) {
	if c.down > 0 {
		c.down--
		return nil, &client.StatusError{Method: "GET", URL: &url.URL{}, Status: 503}
	}
	if c.private && c.token == nil {
		return nil, &client.StatusError{Method: "GET", URL: &url.URL{}, Status: 401}
	}
	return &c.config, nil
}

func (c *fakeCache) Complete(_ context.Context, paths []nix.StorePath) (map[nix.StorePath]bool, error) {
	some := map[nix.StorePath]bool{}
	for _, p := range paths {
		some[p] = slices.Contains(c.complete, p.String())
	}
	return some, nil
}

func (c *fakeCache) Push(ctx context.Context, _ ...nix.StorePath) (Sent, error) {
	if _, err := c.token(ctx); err != nil {
		return Sent{}, err
	}
	c.pushed++
	return Sent{Paths: 12, Pushed: 3, Bytes: 4500, Requests: 5}, c.fails
}

func (c *fakeCache) Pin(_ context.Context, name string, path nix.StorePath, keep int) error {
	c.pinned = append(c.pinned, fmt.Sprintf("%s %s %d", name, path.Name(), keep))
	return c.pinFails
}

const publicKey = "system:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// stage is an action with all its surroundings.
type stage struct {
	*Action
	nix    *fakeNix
	server *fakeServer
	pusher *fakeCache
	set    map[string]string // of Nix's environment
	out    *bytes.Buffer
	env    map[string]string
}

func newStage(t *testing.T, hosts map[string]string) *stage {
	t.Helper()
	dir := t.TempDir()
	env := map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": filepath.Join(dir, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary"),
		"INPUT_SERVER": "http://cache.example/", "INPUT_CACHE": "system",
		"RUNNER_TEMP": dir, "GITHUB_ENV": filepath.Join(dir, "env"), "GITHUB_STATE": filepath.Join(dir, "state"),
		"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main", "GITHUB_REPOSITORY": "acme/infra",
		"ACTIONS_ID_TOKEN_REQUEST_URL": "http://github.example/idtoken?v=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
	}
	s := &stage{
		nix:    &fakeNix{hosts: hosts, version: nixcli.Version{Major: 2, Minor: 8}},
		server: &fakeServer{expires: 900}, out: new(bytes.Buffer), env: env, set: map[string]string{},
		pusher: &fakeCache{config: client.Config{PublicKey: publicKey, IsPublic: true}},
	}
	runner := &github.Runner{Getenv: func(k string) string { return env[k] }, Stdout: s.out, HTTP: &http.Client{Transport: s.server}}
	s.Action = &Action{
		Runner: runner, Nix: s.nix, Now: time.Now, Home: "/home/me", Setenv: func(k, v string) { s.set[k] = v },
		Connect: func(_ Inputs, token TokenSource) (Cache, error) {
			s.pusher.token = token
			return s.pusher, nil
		},
	}
	return s
}

// run reads the inputs and runs.
func (s *stage) run(t *testing.T) error {
	t.Helper()
	in, err := ReadInputs(s.Runner)
	if err != nil {
		t.Fatal(err)
	}
	s.Action.Login = &Login{Server: in.Server, Static: in.Token, Audience: in.Audience, Cache: in.Cache, Rights: []string{"pull", "push"}, Runner: s.Runner, HTTP: &http.Client{Transport: s.server}, Now: time.Now}
	return s.Run(t.Context(), in)
}

// outputs reads the output file as the runner does.
func (s *stage) outputs(t *testing.T) map[string]any {
	t.Helper()
	b, _ := os.ReadFile(s.env["GITHUB_OUTPUT"])
	got := map[string]any{}
	lines := strings.Split(string(b), "\n")
	for len(lines) > 1 {
		name, delimiter, _ := strings.Cut(lines[0], "<<")
		end := slices.Index(lines, delimiter)
		if end < 1 {
			t.Fatalf("broken output file:\n%s", b)
		}
		var v any
		if text := strings.Join(lines[1:end], "\n"); name == "cache-public-key" {
			v = text
		} else if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("output %s: %v", name, err)
		}
		got[name] = v
		lines = lines[end+1:]
	}
	return got
}

func (s *stage) summary() string {
	b, _ := os.ReadFile(s.env["GITHUB_STEP_SUMMARY"])
	return string(b)
}

// commands are the workflow commands in the log, in order, without what stands between stop-commands and its token.
func (s *stage) commands() []string {
	var found []string
	stopped := ""
	for line := range strings.Lines(s.out.String()) {
		line = strings.TrimSpace(line)
		if stopped != "" {
			if line == "::"+stopped+"::" {
				stopped = ""
			}
		} else if token, ok := strings.CutPrefix(line, "::stop-commands::"); ok {
			stopped = token
		} else if strings.HasPrefix(line, "::") || strings.Contains(line, "##[") {
			found = append(found, line)
		}
	}
	return found
}

func TestRunBuildsAndPushesEveryHostItCan(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux", "db": "i686-linux", "pi": "aarch64-linux"})
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	path := "/nix/store/" + strings.Repeat("a", 32) + "-nixos-system"
	want := map[string]any{"hosts": []any{"db", "web"}, "failed-hosts": []any{}, "paths": map[string]any{"db": path, "web": path},
		"pushed-bytes": 9000.0, "cache-public-key": publicKey}
	if got := s.outputs(t); !reflect.DeepEqual(got, want) {
		t.Errorf("outputs %v, want %v", got, want)
	}
	if s.pusher.pushed != 2 || len(s.nix.built) != 2 {
		t.Errorf("built %q, pushed %d", s.nix.built, s.pusher.pushed)
	}
	for _, line := range []string{"| pi | aarch64-linux | skipped |  |  |  |  |", "| 3 | 0 B | 4.5 kB |", "this machine builds for x86&#95;64-linux, i686-linux", "6 paths and 9.0 kB sent in 10 requests"} {
		if !strings.Contains(s.summary(), line) {
			t.Errorf("the summary lacks %q:\n%s", line, s.summary())
		}
	}
}

func TestOneFailingHostStopsNoOther(t *testing.T) {
	s := newStage(t, map[string]string{"a-broken": "x86_64-linux", "b-noeval": "", "web": "x86_64-linux"})
	err := s.run(t)
	var failed *HostsError
	if !errors.As(err, &failed) || !slices.Equal(failed.Names, []string{"a-broken", "b-noeval"}) {
		t.Fatalf("error %v", err)
	}
	got := s.outputs(t)
	if !reflect.DeepEqual(got["hosts"], []any{"web"}) || !reflect.DeepEqual(got["failed-hosts"], []any{"a-broken", "b-noeval"}) || s.pusher.pushed != 1 {
		t.Errorf("outputs %v, pushed %d", got, s.pusher.pushed)
	}
	for _, text := range []string{"cc: no such file", "nix log x", "undefined variable"} {
		if !strings.Contains(s.out.String(), text) || !strings.Contains(s.summary(), text) && text != "undefined variable" {
			t.Errorf("log or summary lack %q:\n%s\n%s", text, s.out, s.summary())
		}
	}
	var errors int
	for _, c := range s.commands() {
		if strings.HasPrefix(c, "::error") {
			errors++
		}
		if strings.HasPrefix(c, "::set-output") || strings.HasPrefix(c, "::error::") {
			t.Errorf("the runner obeys a build's log: %s", c)
		}
	}
	if errors != 2 {
		t.Errorf("%d annotations, want one a failed host", errors)
	}
}

func TestFailedPushFailsItsHost(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.pusher.fails = errors.New("upload pack 3f: status 507: the disk is full")
	err := s.run(t)
	if err == nil || err.Error() != "1 host failed: web" || !strings.Contains(s.summary(), "push&#58; upload pack 3f&#58; status 507") {
		t.Errorf("error %v, summary\n%s", err, s.summary())
	}
}

// A flake's author names its hosts. Whatever the name, the log obeys no command of it, the outputs hold nothing but what the action
// sets, and the summary stays one table.
func TestHostileHostNamesDoNoHarm(t *testing.T) {
	for _, name := range []string{
		"a::error::x", "::error::x", "x\n::add-mask::a", "x\r::error::y", "##[error]x", "$(id)", "<img src=x onerror=alert(1)>", "a|b`c`",
		"x\n_GitHubActionsFileCommandDelimeter_\ninjected<<E\nyes\nE", "%0A::error::y", "\x1b[2J",
	} {
		for _, c := range []struct {
			state, input, cached string
		}{{"x86_64-linux", "", ""}, {"", "", ""}, {"aarch64-linux", "", ""}, {"x86_64-linux", "", outPath(name)}, {"x86_64-linux", "INPUT_DRY-RUN", ""}, {"x86_64-linux", "INPUT_MATRIX", ""}} {
			s := newStage(t, map[string]string{name: c.state})
			s.env[c.input] = "true"
			s.pusher.complete = []string{c.cached}
			lost := c.input == "INPUT_MATRIX" && strings.ContainsAny(name, "\r\n")
			err := s.run(t)
			if (err != nil) != (c.state == "" || lost) {
				t.Fatalf("%q: %v", name, err)
			}
			if got := s.outputs(t); len(got) != len(OutputNames) && (len(got) != len(OutputNames)-2 || c.input == "INPUT_MATRIX") {
				t.Errorf("%q: outputs %v", name, got)
			}
			for _, c := range s.commands() {
				verb, _, _ := strings.Cut(strings.TrimPrefix(c, "::"), "::")
				verb, _, _ = strings.Cut(verb, " ")
				want := []string{"add-mask", "group", "endgroup", "notice", "error"}
				if !slices.Contains(want, verb) || c == "::error::x" || c == "::error::y" || c == "::add-mask::a" {
					t.Errorf("%q: the runner obeys %q", name, c)
				}
			}
			if strings.Contains(s.summary(), "<img") {
				t.Errorf("%q: the summary has an image", name)
			}
			rows := 0
			for line := range strings.Lines(s.summary()) {
				if strings.HasPrefix(line, "|") {
					rows++
					if strings.Count(line, "|") != 12 {
						t.Errorf("%q: row %q", name, line)
					}
				}
			}
			if rows != 3 {
				t.Errorf("%q: %d rows in\n%s", name, rows, s.summary())
			}
		}
	}
}

func TestWithoutPermissionNothingIsPushedAndTheJobIsGreen(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	delete(s.env, "ACTIONS_ID_TOKEN_REQUEST_URL")
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	if s.pusher.pushed != 0 || len(s.nix.built) != 1 || s.server.calls != 0 {
		t.Errorf("pushed %d, built %d, %d calls", s.pusher.pushed, len(s.nix.built), s.server.calls)
	}
	for _, text := range []string{s.out.String(), s.summary()} {
		if !strings.Contains(text, "id-token: write") {
			t.Errorf("it lacks the line that would change it:\n%s", text)
		}
	}
	if !strings.Contains(s.summary(), "| built |") {
		t.Errorf("summary\n%s", s.summary())
	}
}

func TestForkIsToldThatItIsOne(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	delete(s.env, "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	event := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(event, []byte(`{"pull_request":{"head":{"repo":{"fork":true}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env["GITHUB_EVENT_PATH"], s.env["GITHUB_EVENT_NAME"] = event, "pull_request"
	if err := s.run(t); err != nil || !strings.Contains(s.summary(), "from a fork") {
		t.Errorf("error %v, summary\n%s", err, s.summary())
	}
}

func TestRefusalShowsTheClaimsAndNoToken(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.server.refuse = `{"error":"invalid_grant","error_description":"no policy matches","request_id":"r-17"}`
	err := s.run(t)
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "invalid_grant: no policy matches (request r-17)") {
		t.Fatalf("error %v", err)
	}
	if len(s.nix.built) != 0 {
		t.Error("hours of building for a push that can't be")
	}
	for _, text := range []string{"repository_id", "74", "event_name", "pull_request", "r-17"} {
		if !strings.Contains(s.out.String(), text) || !strings.Contains(s.summary(), text) {
			t.Errorf("log or summary lack %q:\n%s\n%s", text, s.out, s.summary())
		}
	}
	if strings.Contains(s.summary(), "eyJ") || strings.Contains(err.Error(), "eyJ") {
		t.Errorf("the token is in summary or error: %v\n%s", err, s.summary())
	}
	for line := range strings.Lines(s.out.String()) {
		if strings.Contains(line, "eyJ") && !strings.HasPrefix(line, "::add-mask::") {
			t.Errorf("the log holds the token: %s", line)
		}
	}
}

func TestGivenTokenNeedsNoExchange(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.env["INPUT_TOKEN"] = "given-token"
	if err := s.run(t); err != nil || s.server.calls != 0 || s.pusher.pushed != 1 {
		t.Errorf("error %v, %d calls, pushed %d", err, s.server.calls, s.pusher.pushed)
	}
	if log := s.out.String(); !strings.HasPrefix(log, "::add-mask::given-token\n") || strings.Count(log, "given-token") != 1 {
		t.Errorf("log\n%s", log)
	}
}

func TestFlakeWithoutHosts(t *testing.T) {
	if err := newStage(t, nil).run(t); !errors.Is(err, nixcli.ErrNoHosts) {
		t.Errorf("error %v", err)
	}
}

func TestPatternsThatMatchNothingAreAnError(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux", "db": "x86_64-linux"})
	s.env["INPUT_HOSTS"] = "wbe"
	if err := s.run(t); err == nil || !strings.Contains(err.Error(), "db, web") {
		t.Errorf("error %v", err)
	}
}

func TestPatternsLastMatchWins(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "db pi web-1 web-2",
		"*":                   "db pi web-1 web-2",
		"web-*":               "web-1 web-2",
		"web-*\n!web-1":       "web-2",
		"!web-*":              "db pi",
		"!web-*\nweb-1":       "db pi web-1",
		"!*\ndb":              "db",
		" web-[12] \n\n! *-2": "web-1",
		"p?\nd?":              "db pi",
	} {
		p, err := ParsePatterns(text)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc([]string{"db", "pi", "web-1", "web-2"}, func(n string) bool { return !p.Match(n) })
		if strings.Join(got, " ") != want {
			t.Errorf("%q chooses %q, want %q", text, got, want)
		}
	}
	for _, bad := range []string{"[", "!", "a\n\\"} {
		if _, err := ParsePatterns(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestBadInputsAreNamed(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, want string }{
		"no server":       {"INPUT_SERVER", "", "input server: it is missing"},
		"password in URL": {"INPUT_SERVER", "https://u:geheim@cache.example", "input server: it is not"},
		"no scheme":       {"INPUT_SERVER", "cache.example", "input server: it is not"},
		"no cache":        {"INPUT_CACHE", " ", "input cache: it is missing"},
		"path as cache":   {"INPUT_CACHE", "../x", "input cache"},
		"option as flake": {"INPUT_FLAKE", "--impure", "input flake"},
		"output of flake": {"INPUT_FLAKE", ".#web", "input flake"},
		"bad pattern":     {"INPUT_HOSTS", "[", "input hosts"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, nil)
			s.env[c.variable] = c.value
			_, err := ReadInputs(s.Runner)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
