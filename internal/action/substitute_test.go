package action

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// runnerFile reads one of the files that a runner reads after a step, and returns what it sets.
func (s *stage) runnerFile(t *testing.T, variable string) map[string]string {
	t.Helper()
	b, _ := os.ReadFile(s.env[variable])
	got := map[string]string{}
	for lines := strings.Split(string(b), "\n"); len(lines) > 1; {
		name, delimiter, _ := strings.Cut(lines[0], "<<")
		end := slices.Index(lines, delimiter)
		if end < 1 {
			t.Fatalf("broken file:\n%s", b)
		}
		got[name] = strings.Join(lines[1:end], "\n")
		lines = lines[end+1:]
	}
	return got
}

// nextStep is the environment of the job's next step, or of our post step.
func (s *stage) nextStep(t *testing.T) {
	t.Helper()
	for name, value := range s.runnerFile(t, "GITHUB_ENV") {
		s.env[name] = value
	}
	for name, value := range s.runnerFile(t, "GITHUB_STATE") {
		s.env["STATE_"+name] = value
	}
}

func (s *stage) post(t *testing.T) error {
	t.Helper()
	in, err := ReadInputs(s.Runner)
	if err != nil {
		t.Fatal(err)
	}
	return Post(t.Context(), s.Runner, &Login{Server: in.Server, Static: in.Token, Runner: s.Runner, HTTP: s.Login.HTTP, Now: s.Now}, s.Home)
}

func TestLaterStepsPullFromAPublicCacheUntilThePostStep(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.pusher.config.SubstituterEndpoint = "http://cdn.example/system"
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	s.nextStep(t)
	files := strings.Split(s.env["NIX_USER_CONF_FILES"], ":")
	if len(files) != 3 || !slices.Equal(files[1:], []string{"/home/me/.config/nix/nix.conf", "/etc/xdg/nix/nix.conf"}) {
		t.Fatalf("Nix reads %q: the user's own files are not behind ours", files)
	}
	conf, err := os.ReadFile(files[0])
	if want := "extra-substituters = http://cdn.example/system\nextra-trusted-public-keys = " + publicKey + "\n"; err != nil || string(conf) != want {
		t.Errorf("nix.conf %q, %v", conf, err)
	}
	if s.set["NIX_USER_CONF_FILES"] != s.env["NIX_USER_CONF_FILES"] {
		t.Errorf("our own builds have %q", s.set)
	}
	if _, set := s.env["NIX_CONFIG"]; set {
		t.Error("NIX_CONFIG is set without need")
	}
	if entries, _ := os.ReadDir(filepath.Dir(files[0])); len(entries) != 1 {
		t.Errorf("a public cache needs no more than nix.conf, and there is %v", entries)
	}
	if err := s.post(t); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(files[0])); !os.IsNotExist(err) {
		t.Errorf("the post step left it: %v", err)
	}
	s.nextStep(t)
	if got := s.env["NIX_USER_CONF_FILES"]; got != strings.Join(files[1:], ":") {
		t.Errorf("after the post step Nix reads %q", got)
	}
}

// What is in the netrc can be read by a builder without a sandbox, so it is no token that may push.
func TestNetrcOfAPrivateCacheHoldsATokenThatMayOnlyPull(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.pusher.config.IsPublic, s.pusher.private = false, true
	s.nix.netrc = filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(s.nix.netrc, []byte("machine github.com password geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	if want := []string{"cache:system:pull cache:system:push", "cache:system:pull"}; !slices.Equal(s.server.scopes, want) {
		t.Errorf("tokens were asked for %q, want %q", s.server.scopes, want)
	}
	s.nextStep(t)
	netrc := filepath.Join(s.env["STATE_dir"], "netrc")
	text, err := os.ReadFile(netrc)
	if want := "machine cache.example\nlogin attic-action\npassword access-2\n\nmachine github.com password geheim\n"; err != nil || string(text) != want {
		t.Errorf("netrc %q, %v", text, err)
	}
	if info, err := os.Stat(netrc); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if conf, _ := os.ReadFile(strings.Split(s.env["NIX_USER_CONF_FILES"], ":")[0]); !strings.Contains(string(conf), "netrc-file = "+netrc+"\n") {
		t.Errorf("nix.conf %q", conf)
	}
	e := &ended{fakeServer: fakeServer{expires: 900}}
	s.Login.HTTP.Transport = e
	if err := s.post(t); err != nil || !slices.Equal(e.tokens, []string{"access-2"}) {
		t.Errorf("error %v, given back %q", err, e.tokens)
	}
	if _, err := os.Stat(s.env["STATE_dir"]); !os.IsNotExist(err) {
		t.Errorf("the post step left it: %v", err)
	}
	for _, file := range []string{"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STATE", "GITHUB_STEP_SUMMARY"} {
		if b, _ := os.ReadFile(s.env[file]); strings.Contains(string(b), "access-") || strings.Contains(string(b), "geheim") {
			t.Errorf("$%s holds a token:\n%s", file, b)
		}
	}
}

// A NIX_CONFIG comes after all files: one that names substituters would drop ours.
func TestNIXCONFIGThatNamesSubstitutersIsExtendedAndRestored(t *testing.T) {
	const before = "cores = 2\nsubstituters = https://cache.nixos.org"
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.env["NIX_CONFIG"] = before
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	s.nextStep(t)
	if got := s.env["NIX_CONFIG"]; !strings.HasPrefix(got, before+"\nextra-substituters = http://cache.example/system\n") {
		t.Errorf("NIX_CONFIG %q", got)
	}
	if err := s.post(t); err != nil {
		t.Fatal(err)
	}
	if s.nextStep(t); s.env["NIX_CONFIG"] != before {
		t.Errorf("after the post step: %q", s.env["NIX_CONFIG"])
	}
}

func TestWhatKeepsTheJobFromPullingIsToldOnceAndFailsNothing(t *testing.T) {
	for name, change := range map[string]func(s *stage){
		"the Nix daemon ignores":          func(s *stage) { s.nix.ignored = []string{"http://cache.example/system"} },
		"is not a public key":             func(s *stage) { s.pusher.config.PublicKey = "x\npost-build-hook = /tmp/x" },
		"is not the URL of a substituter": func(s *stage) { s.pusher.config.SubstituterEndpoint = "http://x y" },
	} {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		change(s)
		if err := s.run(t); err != nil || s.pusher.pushed != 1 {
			t.Errorf("%s: %v, pushed %d", name, err, s.pusher.pushed)
		}
		if n := strings.Count(s.out.String(), "::warning title=not pulling from the cache::"); n != 1 || !strings.Contains(s.out.String(), name) {
			t.Errorf("%s: %d warnings in\n%s", name, n, s.out)
		}
		if s.nextStep(t); strings.Contains(s.env["NIX_USER_CONF_FILES"], "post-build-hook") {
			t.Error("the server has set a hook")
		}
	}
}

// Over https, a server behind a proxy that announces http would be shown the token in clear text.
func TestSubstituterIsNotDowngraded(t *testing.T) {
	s := newStage(t, nil)
	s.pusher.config.SubstituterEndpoint = "http://cache.example/system"
	if got := s.pusher.config.Substituter("https://cache.example", "system"); got != "https://cache.example/system" {
		t.Errorf("pulls from %s", got)
	}
}

func TestSubstituteFalseLeavesNixAlone(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.env["INPUT_SUBSTITUTE"] = "false"
	if err := s.run(t); err != nil || len(s.runnerFile(t, "GITHUB_ENV"))+len(s.runnerFile(t, "GITHUB_STATE")[stateDir])+len(s.set) != 0 {
		t.Errorf("error %v, set %q", err, s.set)
	}
}

// The state is a file that other steps can write: the post step removes nothing but a folder of ours.
func TestPostStepRemovesNothingElse(t *testing.T) {
	s := newStage(t, nil)
	s.Login = login(s.server, s.out)
	other := filepath.Join(s.env["RUNNER_TEMP"], "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{other, "/", s.env["RUNNER_TEMP"], filepath.Join(s.env["RUNNER_TEMP"], "attic-action-1", "..")} {
		s.env["STATE_dir"] = dir
		if err := s.post(t); err == nil {
			t.Errorf("%s is taken for ours", dir)
		}
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

func TestPostStepKeepsATokenThatWasGiven(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.pusher.config.IsPublic = false
	s.env["INPUT_TOKEN"] = "given-token"
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	s.nextStep(t)
	if b, _ := os.ReadFile(filepath.Join(s.env["STATE_dir"], "netrc")); !strings.Contains(string(b), "password given-token\n") {
		t.Errorf("netrc %q", b)
	}
	e := &ended{}
	s.Login.HTTP.Transport = e
	if err := s.post(t); err != nil || len(e.tokens) != 0 {
		t.Errorf("error %v, given back %q", err, e.tokens)
	}
}

// A build of hours outlives its token: the netrc always has one that is good, and leaves a new one to the later steps.
func TestNetrcIsRenewedWhileTheJobRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		s.pusher.config.IsPublic = false
		start := time.Now()
		age := func() time.Duration {
			s.server.mu.Lock()
			defer s.server.mu.Unlock()
			return time.Since(s.server.given[firstPassword(filepath.Join(s.runnerFile(t, "GITHUB_STATE")["dir"], "netrc"))])
		}
		s.nix.building = func(string) {
			for time.Since(start) < time.Hour {
				time.Sleep(time.Minute)
				if a := age(); a > 12*time.Minute {
					t.Fatalf("after %v the token is %v old, of 15 minutes", time.Since(start), a)
				}
			}
		}
		if err := s.run(t); err != nil || age() > time.Minute {
			t.Errorf("error %v; the later steps have a token %v old", err, age())
		}
		s.nextStep(t)
		kept := firstPassword(filepath.Join(s.env["STATE_dir"], "netrc"))
		for token, at := range s.server.given {
			if time.Since(at) < 15*time.Minute && slices.Contains(s.server.revoked, token) != (token != kept) {
				t.Errorf("%s: given back %q; the later steps have %s", token, s.server.revoked, kept)
			}
		}
		if entries, _ := os.ReadDir(s.env["STATE_dir"]); len(entries) != 2 {
			t.Errorf("the folder holds %v", entries)
		}
	})
}
