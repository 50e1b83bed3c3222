package action

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pelletier/go-toml/v2"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/trust"
)

func TestNixThatIsMissingOrOldIsToldInOneLine(t *testing.T) {
	for want, change := range map[string]func(n *fakeNix){
		"there is no nix on the PATH; put a step before this one": func(n *fakeNix) { n.missing = exec.ErrNotFound },
		"nix (Nix) 2.3.16 is too old for flakes":                  func(n *fakeNix) { n.version = nixcli.Version{Major: 2, Minor: 3, Text: "nix (Nix) 2.3.16"} },
	} {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		change(s.nix)
		err := s.run(t)
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "- uses: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want %q", err, want)
		}
		if s.server.calls != 0 {
			t.Error("a token was asked for first")
		}
	}
}

// fromJSON of an empty output is an error in the workflow, so there are outputs whatever happens.
func TestOutputsAreSetWhenNothingBegan(t *testing.T) {
	for name, change := range map[string]func(s *stage){
		"refused":  func(s *stage) { s.server.refuse = `{"error":"invalid_grant"}` },
		"no nix":   func(s *stage) { s.nix.missing = exec.ErrNotFound },
		"no hosts": func(s *stage) { s.nix.hosts = nil },
	} {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		change(s)
		if err := s.run(t); err == nil {
			t.Errorf("%s: no error", name)
		}
		got := s.outputs(t)
		if !reflect.DeepEqual(got["hosts"], []any{}) || !reflect.DeepEqual(got["failed-hosts"], []any{}) ||
			!reflect.DeepEqual(got["paths"], map[string]any{}) || got["pushed-bytes"] != 0.0 {
			t.Errorf("%s: outputs %v", name, got)
		}
	}
}

func TestHostsWhoseClosureIsOnTheCacheAreNotBuilt(t *testing.T) {
	hosts := map[string]string{"web": "x86_64-linux", "mail": "x86_64-linux", "pi": "aarch64-linux"}
	s := newStage(t, hosts)
	s.pusher.complete = []string{outPath("web"), outPath("pi")}
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	if len(s.nix.built) != 1 || s.pusher.pushed != 1 {
		t.Errorf("built %q, pushed %d", s.nix.built, s.pusher.pushed)
	}
	got := s.outputs(t)
	if !reflect.DeepEqual(got["hosts"], []any{"mail", "web"}) || got["paths"].(map[string]any)["web"] != outPath("web") {
		t.Errorf("outputs %v", got)
	}
	if want := []string{"acme/infra/main/mail nixos-system 0", "acme/infra/main/web nixos-system 0"}; !slices.Equal(s.pusher.pinned, want) {
		t.Errorf("pinned %q, want %q", s.pusher.pinned, want)
	}
	s = newStage(t, hosts)
	s.pusher.complete = []string{outPath("web")}
	s.env["INPUT_SKIP-CACHED"] = "false"
	if err := s.run(t); err != nil || len(s.nix.built) != 2 {
		t.Errorf("error %v, built %q", err, s.nix.built)
	}
}

func TestPinsAreOfBranchesOnly(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"branch":       {map[string]string{"GITHUB_REF": "refs/heads/release/1", "INPUT_KEEP": "3"}, "acme/infra/release/1/web nixos-system 3"},
		"tag":          {map[string]string{"GITHUB_REF": "refs/tags/v1"}, ""},
		"pull request": {map[string]string{"GITHUB_EVENT_NAME": "pull_request"}, ""},
		"a stranger's": {map[string]string{"GITHUB_EVENT_NAME": "pull_request_target"}, ""},
		"not wanted":   {map[string]string{"INPUT_PIN": "false"}, ""},
	} {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		for k, v := range c.env {
			s.env[k] = v
		}
		if err := s.run(t); err != nil || strings.Join(s.pusher.pinned, "\n") != c.want {
			t.Errorf("%s: %v, pinned %q", name, err, s.pusher.pinned)
		}
	}
}

func TestAPinThatFailsFailsNoHost(t *testing.T) {
	for _, c := range []struct {
		err  error
		told bool
	}{{ErrNoPins, false}, {errors.New("the server's database is full"), true}} {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		s.pusher.pinFails = c.err
		if err := s.run(t); err != nil || strings.Contains(s.out.String(), "web not pinned") != c.told {
			t.Errorf("%v: %v\n%s", c.err, err, s.out)
		}
	}
}

func TestFailFastStopsAtTheFirstFailure(t *testing.T) {
	hosts := map[string]string{"a-web": "x86_64-linux", "b-broken": "x86_64-linux", "c-mail": "x86_64-linux"}
	s := newStage(t, hosts)
	s.env["INPUT_FAIL-FAST"] = "true"
	var failed *HostsError
	if err := s.run(t); !errors.As(err, &failed) || !slices.Equal(failed.Names, []string{"b-broken"}) {
		t.Fatalf("error %v", err)
	}
	if len(s.nix.built) != 2 || s.pusher.pushed != 1 || !strings.Contains(s.summary(), "| c-mail | x86&#95;64-linux | skipped |") {
		t.Errorf("built %q, pushed %d\n%s", s.nix.built, s.pusher.pushed, s.summary())
	}
}

func TestDryRunBuildsAndPushesNothing(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux", "mail": "x86_64-linux"})
	s.env["INPUT_DRY-RUN"] = "true"
	s.pusher.complete = []string{outPath("web")}
	if err := s.run(t); err != nil || len(s.nix.built) != 0 || s.pusher.pushed != 0 || len(s.pusher.pinned) != 0 {
		t.Fatalf("error %v, built %q, pushed %d, pinned %q", err, s.nix.built, s.pusher.pushed, s.pusher.pinned)
	}
	for _, text := range []string{"| mail | x86&#95;64-linux | planned |", "3 derivations would be built, and 5 paths fetched", "| web | x86&#95;64-linux | cached |"} {
		if !strings.Contains(s.summary(), text) {
			t.Errorf("the summary lacks %q:\n%s", text, s.summary())
		}
	}
}

func TestServerThatIsBeingDeployedIsWaitedForBeforeAnythingIsBuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		s.env["INPUT_TOKEN"] = "given" // no exchange that could have waited
		s.pusher.down = 6
		if err := s.run(t); err != nil || s.pusher.pushed != 1 {
			t.Errorf("error %v, pushed %d", err, s.pusher.pushed)
		}
		if n := strings.Count(s.out.String(), "may be asleep or being deployed"); n != 1 {
			t.Errorf("%d lines say so:\n%s", n, s.out)
		}
	})
}

func TestPrivateCacheWithoutATokenIsLeftAlone(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	delete(s.env, "ACTIONS_ID_TOKEN_REQUEST_URL")
	s.pusher.private, s.pusher.config.IsPublic = true, false
	if err := s.run(t); err != nil || len(s.nix.built) != 1 || len(s.set) != 0 {
		t.Errorf("error %v, built %q, set %q", err, s.nix.built, s.set)
	}
	if !strings.Contains(s.summary(), "it is private, or there is none called system") {
		t.Errorf("summary\n%s", s.summary())
	}
}

// A cache is no use to a fork but to save it time, so one that is down does not fail its job.
func TestForkBuildsWithoutTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		delete(s.env, "ACTIONS_ID_TOKEN_REQUEST_URL")
		s.pusher.down = 1000
		if err := s.run(t); err != nil || len(s.nix.built) != 1 || !strings.Contains(s.summary(), "Nothing was pulled from the cache") {
			t.Errorf("error %v, built %q\n%s", err, s.nix.built, s.summary())
		}
	})
}

// Without a token a public cache is still a substituter.
func TestForkPullsFromAPublicCache(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	delete(s.env, "ACTIONS_ID_TOKEN_REQUEST_URL")
	if err := s.run(t); err != nil || s.set["NIX_USER_CONF_FILES"] == "" || s.pusher.token != nil {
		t.Errorf("error %v, set %q", err, s.set)
	}
}

// A pull request is refused by most policies, and rightly; anything else that is refused is a mistake in a policy.
func TestRefusalFailsEverythingButPullRequests(t *testing.T) {
	for event, fails := range map[string]bool{"pull_request": false, "push": true, "pull_request_target": true, "schedule": true} {
		for name, refuse := range map[string]func(s *stage){
			"refused":   func(s *stage) { s.server.refuse = `{"error":"invalid_grant","error_description":"no policy matches"}` },
			"pull only": func(s *stage) { s.server.grants = "cache:system:pull" },
		} {
			s := newStage(t, map[string]string{"web": "x86_64-linux"})
			s.env["GITHUB_EVENT_NAME"] = event
			refuse(s)
			err := s.run(t)
			if (err != nil) != fails || s.pusher.pushed != 0 || (len(s.nix.built) == 0) != fails {
				t.Errorf("%s, %s: %v, built %q, pushed %d", event, name, err, s.nix.built, s.pusher.pushed)
			}
			if !fails && !strings.Contains(s.summary(), "Nothing was pushed&#58;") && !strings.Contains(s.summary(), "Nothing was pushed") {
				t.Errorf("%s, %s: summary\n%s", event, name, s.summary())
			}
		}
	}
}

func TestTokenWithoutPushStillPullsFromAPrivateCacheOnPullRequests(t *testing.T) {
	s := newStage(t, map[string]string{"web": "x86_64-linux"})
	s.env["GITHUB_EVENT_NAME"], s.server.grants = "pull_request", "cache:system:pull"
	s.pusher.private, s.pusher.config.IsPublic = true, false
	if err := s.run(t); err != nil || s.set["NIX_USER_CONF_FILES"] == "" {
		t.Errorf("error %v, set %q", err, s.set)
	}
}

func TestCancelledRunTellsWhatItDid(t *testing.T) {
	s := newStage(t, map[string]string{"a": "x86_64-linux", "b": "x86_64-linux"})
	in, err := ReadInputs(s.Runner)
	if err != nil {
		t.Fatal(err)
	}
	s.Login = login(s.server, s.out)
	ctx, cancel := context.WithCancel(t.Context())
	s.nix.building = func(string) { cancel() }
	if err := s.Run(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := s.outputs(t); !reflect.DeepEqual(got["failed-hosts"], []any{"b"}) || len(s.nix.built) != 1 {
		t.Errorf("outputs %v, built %q", got, s.nix.built)
	}
}

func TestAttrsAddOtherOutputs(t *testing.T) {
	others := map[string][]string{
		"packages":              {"aarch64-linux", "x86_64-linux"},
		"packages.x86_64-linux": {"hello", "huge", "a.b"}, "packages.aarch64-linux": {"hello"},
		"devShells.x86_64-linux": {"default"}, "darwinConfigurations": {"mac"}, "homeConfigurations": {"me@a", "you@b"},
	}
	for text, want := range map[string]string{
		"packages.*":                    `packages.x86_64-linux.hello packages.x86_64-linux.huge packages.x86_64-linux."a.b"`,
		"packages.*\n!packages.h*":      `packages.x86_64-linux."a.b"`,
		"packages.*.hello":              "packages.aarch64-linux.hello packages.x86_64-linux.hello",
		"packages.aarch64-linux.*":      "packages.aarch64-linux.hello",
		`packages."a.b"`:                `packages.x86_64-linux."a.b"`,
		"devShells":                     "devShells.x86_64-linux.default",
		"darwinConfigurations":          "darwinConfigurations.mac",
		"homeConfigurations.me*":        "homeConfigurations.me@a",
		"formatter":                     "formatter.x86_64-linux",
		"hydraJobs.a.b\nhydraJobs.a.b":  "hydraJobs.a.b",
		"packages.hello\n!packages.*\n": "",
		"nixosConfigurations.web":       "web",
		"":                              "",
	} {
		a, err := ParseAttrs(text)
		if err != nil {
			t.Fatal(err)
		}
		found, err := a.Expand(t.Context(), &fakeNix{others: others}, ".", "x86_64-linux")
		var got []string
		for _, at := range found {
			got = append(got, at.Name())
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q chooses %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"nixosConfiguratons.*", "packages.x*", "none"} {
		a, err := ParseAttrs(text)
		if err == nil {
			_, err = a.Expand(t.Context(), &fakeNix{others: others}, ".", "x86_64-linux")
		}
		if text != "none" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"*", "p*.x", "a..b", `a."b`, "a.[", "!"} {
		if _, err := ParseAttrs(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestAttrsOfAFlakeWithoutHosts(t *testing.T) {
	s := newStage(t, nil)
	s.nix.others = map[string][]string{"packages.x86_64-linux": {"hello"}}
	s.env["INPUT_ATTRS"] = "packages.*"
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	if got := s.outputs(t)["hosts"]; !reflect.DeepEqual(got, []any{"packages.x86_64-linux.hello"}) {
		t.Errorf("hosts %v", got)
	}
}

func TestEvaluationsFitTheMachine(t *testing.T) {
	for _, c := range []struct {
		cpus   int
		memory int64
		want   int
	}{{4, 16 << 30, 4}, {2, 7 << 30, 2}, {64, 512 << 30, 8}, {8, 3 << 30, 1}, {1, 1 << 29, 1}} {
		if got := evalJobs(c.cpus, c.memory); got != c.want {
			t.Errorf("%d CPUs, %d bytes: %d, want %d", c.cpus, c.memory, got, c.want)
		}
	}
}

// A branch is named by whoever may push one; the policy that is to be pasted is that name and no more, and one that the server takes.
func TestPolicyToPasteIsSafeToPaste(t *testing.T) {
	for _, ref := range []string{"refs/heads/main", "refs/heads/$(id)", "refs/heads/a'b", "refs/heads/`id`", "refs/heads/\"\n[[trust]]\n"} {
		s := newStage(t, map[string]string{"web": "x86_64-linux"})
		s.server.refuse, s.server.ref = `{"error":"invalid_grant"}`, ref
		var refused *RefusedError
		if err := s.run(t); !errors.As(err, &refused) {
			t.Fatal(err)
		}
		p, ok := refused.policy()
		if !ok {
			t.Fatal("no policy")
		}
		var file struct{ Trust []trust.Policy }
		if err := toml.Unmarshal([]byte(p.toml()), &file); err != nil || len(file.Trust) != 1 || file.Trust[0].Ref != ref {
			t.Fatalf("%v in\n%s", err, p.toml())
		}
		if _, err := (trust.Issuers{githubIssuer: trust.KindGitHub}).Compile(file.Trust); err != nil && !strings.Contains(ref, "\n") {
			t.Errorf("the server refuses it: %v\n%s", err, p.toml())
		}
		script := strings.Replace(p.command(), "attic-server", "printf '<%s>'", 1)
		if out, err := exec.Command("sh", "-c", script).Output(); err != nil || !strings.Contains(string(out), "<"+clean(ref)+">") {
			t.Errorf("%s is %s, %v", script, out, err)
		}
		if text := s.summary(); !strings.Contains(text, "attic-server trust add") || !strings.Contains(text, "repository-id = 74") {
			t.Errorf("summary\n%s", text)
		}
	}
}

// The policy names no events, so it accepts those that policies accept by themselves, and nothing else is promised.
func TestPolicyToPastePromisesWhatItHolds(t *testing.T) {
	for _, event := range append(trust.DefaultEvents, "release", "workflow_run", "pull_request_target") {
		e := &RefusedError{Cache: "system", Claims: []github.Claim{
			{Name: "repository_id", Value: "74"}, {Name: "ref", Value: "refs/heads/main"}, {Name: "event_name", Value: event}, {Name: "iss", Value: githubIssuer},
		}}
		accepted := slices.Contains(trust.DefaultEvents, event)
		if strings.Contains(e.Block(), "would accept it:") != accepted || strings.Contains(e.Block(), "though no "+event) == accepted {
			t.Errorf("%s:\n%s", event, e.Block())
		}
	}
}

// A pull request's ref is no branch, and a policy for it would let unreviewed code write.
func TestNoPolicyIsOfferedForAPullRequest(t *testing.T) {
	for name, claims := range map[string][]github.Claim{
		"pull request": {{Name: "repository_id", Value: "74"}, {Name: "ref", Value: "refs/pull/7/merge"}},
		"no id":        {{Name: "ref", Value: "refs/heads/main"}},
		"odd id":       {{Name: "repository_id", Value: "-1"}, {Name: "ref", Value: "refs/heads/main"}},
	} {
		if p, ok := (&RefusedError{Claims: claims, Cache: "system"}).policy(); ok {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestMatrixLeavesOutWhatNeedsNoJob(t *testing.T) {
	s := newStage(t, map[string]string{
		"web": "x86_64-linux", "mail": "x86_64-linux", "pi": "aarch64-linux", "noeval": "", "odd": "riscv64-linux", "mac[1]": "aarch64-darwin",
	})
	s.env["INPUT_MATRIX"], s.env["INPUT_RUNNERS"] = "true", "aarch64-linux: self-hosted, arm64"
	s.pusher.complete = []string{outPath("mail")}
	if err := s.run(t); err != nil || len(s.nix.built) != 0 {
		t.Fatalf("error %v, built %q", err, s.nix.built)
	}
	if want := []string{"acme/infra/main/mail nixos-system 0"}; !slices.Equal(s.pusher.pinned, want) {
		t.Errorf("pinned %q, want %q: no other job has what is cached", s.pusher.pinned, want)
	}
	b, _ := json.Marshal(s.outputs(t)["matrix"])
	want := `{"include":[` +
		`{"attrs":"","host":"mac[1]","hosts":"mac\\[1\\]","runner":"macos-latest","system":"aarch64-darwin"},` +
		`{"attrs":"","host":"pi","hosts":"pi","runner":["self-hosted","arm64"],"system":"aarch64-linux"},` +
		`{"attrs":"","host":"noeval","hosts":"noeval","runner":"ubuntu-latest","system":"x86_64-linux"},` +
		`{"attrs":"","host":"web","hosts":"web","runner":"ubuntu-latest","system":"x86_64-linux"}]}`
	if string(b) != want {
		t.Errorf("matrix %s, want %s", b, want)
	}
	if !strings.Contains(s.summary(), "no runner is known for riscv64-linux") {
		t.Errorf("summary\n%s", s.summary())
	}

	// The last job is told the plan, and asks the cache for the rest.
	plan, _ := json.Marshal(s.outputs(t)["plan"])
	needs, _ := json.Marshal(map[string]any{
		"discover": map[string]any{"result": "success", "outputs": map[string]string{"plan": string(plan)}},
		"build":    map[string]any{"result": "failure", "outputs": map[string]string{}},
	})
	last := newStage(t, nil)
	last.nix.missing = exec.ErrNotFound // it needs none
	last.env["INPUT_NEEDS"] = string(needs)
	last.pusher.complete = []string{outPath("web"), outPath("pi")}
	var failed *HostsError
	if err := last.run(t); !errors.As(err, &failed) || !slices.Equal(failed.Names, []string{"mac[1]", "noeval"}) {
		t.Fatalf("error %v", err)
	}
	if got := last.outputs(t); !reflect.DeepEqual(got["hosts"], []any{"mail", "pi", "web"}) {
		t.Errorf("outputs %v", got)
	}
}

func TestAggregateWithoutATokenGoesByTheJobsResults(t *testing.T) {
	const needs = `{"d":{"result":"success","outputs":{"plan":"[{\"name\":\"web\",\"result\":\"queued\",\"path\":\"/nix/store/00000000000000000000000000000000-x\"}]"}},"b":{"result":"%s"}}`
	for result, fails := range map[string]bool{"success": false, "failure": true, "cancelled": true, "skipped": false} {
		s := newStage(t, nil)
		delete(s.env, "ACTIONS_ID_TOKEN_REQUEST_URL")
		s.env["INPUT_NEEDS"] = strings.ReplaceAll(needs, "%s", result)
		if err := s.run(t); (err != nil) != fails {
			t.Errorf("%s: %v", result, err)
		}
	}
}

func TestNeedsThatAreNone(t *testing.T) {
	for _, text := range []string{"x", "{}", `{"a":{"result":"success","outputs":{"plan":"x"}}}`, `{"a":{"outputs":{"plan":""}}}`, `[]`} {
		if _, err := ParseNeeds(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestMoreHostsThanAMatrixHasEntriesShareThem(t *testing.T) {
	var hosts []nixcli.Host
	for range 600 {
		hosts = append(hosts, nixcli.Host{Name: "h", Attr: nixcli.HostAttr("h"), System: []string{"x86_64-linux", "aarch64-linux"}[len(hosts)%2]})
	}
	b, _ := json.Marshal(matrix(hosts, defaultRunners))
	var m struct{ Include []entry }
	if err := json.Unmarshal(b, &m); err != nil || len(m.Include) > matrixMax || len(m.Include) < matrixMax/2 {
		t.Errorf("%d entries, %v", len(m.Include), err)
	}
	n := 0
	for _, e := range m.Include {
		n += len(strings.Split(e.Hosts, "\n"))
	}
	if n != len(hosts) {
		t.Errorf("%d hosts of %d", n, len(hosts))
	}
}

// What the first job prints, the next one reads as patterns: each means one host, whatever it is called.
func TestMatrixEntriesMeanTheirHostAlone(t *testing.T) {
	names := []string{"web", "w*b", "!web", "[x]", " a ", `a\b`, "a/b", "?", "$(id)", "a::error::x"}
	for _, name := range names {
		e := newEntry([]nixcli.Host{{Name: name, Attr: nixcli.HostAttr(name)}}, nil)
		p, err := ParsePatterns(strings.TrimSpace(e.Hosts))
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range names {
			if p.Match(other) != (other == name) {
				t.Errorf("%q for %q and %q", e.Hosts, name, other)
			}
		}
		at := nixcli.Attr{"packages", "x86_64-linux", name}
		e = newEntry([]nixcli.Host{{Name: at.Name(), Attr: at}}, nil)
		a, err := ParseAttrs(strings.TrimSpace(e.Attrs))
		if err != nil {
			t.Fatal(err)
		}
		found, err := a.Expand(t.Context(), &fakeNix{others: map[string][]string{"packages.x86_64-linux": names}}, ".", "x86_64-linux")
		if err != nil || len(found) != 1 || !slices.Equal(found[0], at) || e.Hosts != "!*" {
			t.Errorf("%q for %q chooses %q, %v", e.Attrs, name, found, err)
		}
	}
}

func TestRunnersThatCannotBeRead(t *testing.T) {
	for _, text := range []string{"ubuntu", ": x", "x y: z"} {
		if _, err := ParseRunners(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if r, err := ParseRunners("x86_64-darwin:\n"); err != nil || len(r["x86_64-darwin"]) != 0 || len(r["x86_64-linux"]) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}
