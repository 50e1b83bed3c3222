package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

func TestPinFromTheCommandLine(t *testing.T) {
	srv := servertest.Start(t)
	srv.CreateCache(t, "system", true)
	lib := servertest.NewNAR(t, "lib", []byte("lib"))
	web := servertest.NewNAR(t, "web", []byte("web"), lib.Path.Base())
	srv.Upload(t, srv.Root, "system", web)
	t.Setenv("ATTIC_SERVER", srv.URL)
	t.Setenv("ATTIC_TOKEN", srv.PinToken(t, []string{"acme/infra/*"}, servertest.Grant{Caches: "system", Perm: token.Pull | token.Push}))
	run := func(want int, args ...string) (out, errOut string) {
		t.Helper()
		code, out, errOut := command(t, t.Context(), "", append([]string{"pin"}, args...)...)
		if code != want {
			t.Errorf("%q: exit %d, want %d: %s%s", args, code, want, out, errOut)
		}
		return out, errOut
	}
	// What is missing is named, and nothing pinned.
	_, errOut := run(1, "system", "acme/infra/main/web", web.Path.String())
	if !strings.Contains(errOut, "not in the cache: "+lib.Path.Base()+"\n") || !strings.Contains(errOut, "hint: push it whole") {
		t.Errorf("got %s", errOut)
	}
	srv.Upload(t, srv.Root, "system", lib)
	out, _ := run(0, "--keep", "2", "--expires", "30 days", "system", "acme/infra/main/web", web.Path.String())
	if !strings.HasPrefix(out, "acme/infra/main/web holds "+web.Path.String()+" until ") || !strings.HasSuffix(out, ": 2 paths, 6 bytes; 1 of 2 revisions\n") {
		t.Errorf("got %q", out)
	}
	_, errOut = run(1, "system", "evil/web", web.Path.String())
	if !strings.Contains(errOut, "right to pin that name") {
		t.Errorf("got %s", errOut)
	}
	out, _ = run(0, "--list", "--sizes", "system")
	for _, want := range []string{"NAME", "ONLY THIS PIN KEEPS", "acme/infra/main/web", web.Path.String(), "test", "6 bytes in 2 paths"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var pins []api.Pin
	out, _ = run(0, "--list", "--json", "system")
	if err := json.Unmarshal([]byte(out), &pins); err != nil || len(pins) != 1 || pins[0].Keep != 2 || pins[0].Expires == nil {
		t.Errorf("got %s, %v", out, err)
	}
	run(0, "--remove", "system", "acme/infra/main/web")
	run(1, "--remove", "system", "acme/infra/main/web")
	for _, args := range [][]string{{}, {"system"}, {"system", "x"}, {"--list"}, {"--list", "a", "b"}, {"--remove", "system"}, {"--list", "--remove", "system"},
		{"--list", "--keep", "3", "system"}, {"--keep", "-1", "system", "x", web.Path.String()}, {"--expires", "soon", "system", "x", web.Path.String()},
		{"--expires", "0s", "system", "x", web.Path.String()}, {"--sizes", "system", "x", web.Path.String()}} {
		run(2, args...)
	}
}

// What a hostile server says of pins reaches a terminal.
func TestPinsOfAHostileServerAreShownAsText(t *testing.T) {
	url := stock(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/pins") {
			return false
		}
		fmt.Fprint(w, `{"pins":[{"name":"a\u001b[2J\nb","keep":1,"revisions":[{"store_path":"/nix\u0007\r\n::error::x","set_by":"\u202e\u001b]0;x"}]},{"name":"empty"}]}`)
		return true
	})
	code, out, errOut := command(t, t.Context(), "", "pin", "--server", url, "--list", "main")
	if code != 0 || strings.ContainsAny(out, "\x1b\x07\r\u202e") || strings.Count(out, "\n") != 2 {
		t.Errorf("exit %d, %q %q", code, out, errOut)
	}
	url = stock(t, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/pins") {
			fmt.Fprint(w, `{"pins":[],"next":"a"}`) // for ever
		}
		return strings.Contains(r.URL.Path, "/pins")
	})
	if code, _, errOut := command(t, t.Context(), "", "pin", "--server", url, "--list", "main"); code != 1 || !strings.Contains(errOut, "go round") {
		t.Errorf("pages without an end: exit %d, %q", code, errOut)
	}
}
