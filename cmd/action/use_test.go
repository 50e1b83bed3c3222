package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testKey = "system:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// desk is a user with a folder of his own, a real Nix, and a server with a public and a private cache.
type desk struct {
	t    *testing.T
	home string
	url  string
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, home: t.TempDir()}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/_api/v1/cache-config/")
		if name != "open" && r.Header.Get("Authorization") != "Bearer eyJ.secret.x" {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"code":401,"error":"Unauthorized","message":"Unauthorized."}`)
			return
		}
		fmt.Fprintf(w, `{"substituter_endpoint":"%s/%s","public_key":%q,"is_public":%v,"attic_action":{"old_keys":[]}}`, d.url, name, testKey, name == "open")
	}))
	t.Cleanup(srv.Close)
	d.url = srv.URL
	for name, value := range map[string]string{
		"HOME": d.home, "XDG_CONFIG_HOME": "", "XDG_CONFIG_DIRS": d.home + "/none", "NIX_USER_CONF_FILES": "", "NIX_CONFIG": "", "ATTIC_SERVER": d.url, "ATTIC_TOKEN": "",
	} {
		t.Setenv(name, value)
		if value == "" { // for Nix an empty list of files is a list
			os.Unsetenv(name)
		}
	}
	return d
}

func (d *desk) run(args ...string) (code int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	code = run(d.t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func (d *desk) want(code int, says string, args ...string) {
	d.t.Helper()
	if got, _, errOut := d.run(args...); got != code || !strings.Contains(errOut, says) {
		d.t.Fatalf("%q: exit %d, want %d and %q\n%s", args, got, code, says, errOut)
	}
}

func (d *desk) file(name string) string { return filepath.Join(d.home, ".config", "nix", name) }

func (d *desk) read(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(d.file(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

func (d *desk) write(name, text string) {
	d.t.Helper()
	if err := os.MkdirAll(d.file("."), 0o755); err != nil {
		d.t.Fatal(err)
	}
	write(d.t, d.file(name), text)
}

func TestUseTellsNixAndRemoveTakesItBack(t *testing.T) {
	d := newDesk(t)
	const mine = "# mine\ncores = 2\n"
	d.write("nix.conf", mine)
	d.want(0, "Nix pulls from "+d.url+"/open", "use", "open")
	once := d.read("nix.conf")
	if !strings.HasPrefix(once, mine) || !strings.Contains(once, "extra-substituters = "+d.url+"/open\nextra-trusted-public-keys = "+testKey+"\n") {
		t.Errorf("nix.conf:\n%s", once)
	}
	if _, err := os.Stat(d.file("netrc")); err == nil {
		t.Error("a public cache got a netrc")
	}
	d.want(0, "nothing to change", "use", "open")
	if got := d.read("nix.conf"); got != once {
		t.Errorf("a second time:\n%s", got)
	}
	d.want(0, "wrote", "use", "--remove", "open")
	if got := d.read("nix.conf"); got != mine {
		t.Errorf("removed:\n%s", got)
	}
	d.want(1, "has nothing of attic-action", "use", "--remove", "open")
}

func TestUseWritesTheTokenForTheUserAlone(t *testing.T) {
	d := newDesk(t)
	d.want(1, "hint: the token is missing", "use", "private")
	t.Setenv("ATTIC_TOKEN", "eyJ.secret.x")
	const theirs = "machine other.example password p\n"
	d.write("netrc", theirs)
	if err := os.Chmod(d.file("netrc"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.want(0, "Nix pulls from", "use", "private")
	info, err := os.Stat(d.file("netrc"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("netrc: %v, %v", info.Mode(), err)
	}
	if got := d.read("netrc"); !strings.Contains(got, "password eyJ.secret.x\n") || !strings.Contains(got, theirs) {
		t.Errorf("netrc:\n%s", got)
	}
	if got := d.read("nix.conf"); !strings.Contains(got, "netrc-file = "+d.file("netrc")+"\n") || strings.Contains(got, "eyJ") {
		t.Errorf("nix.conf:\n%s", got)
	}
	d.want(0, "", "use", "second")
	d.want(0, "", "use", "--remove", "private")
	if got := d.read("netrc"); !strings.Contains(got, "eyJ.secret.x") {
		t.Errorf("the second cache lost its token:\n%s", got)
	}
	d.want(0, "", "use", "--remove", "second")
	if got := d.read("netrc"); got != theirs {
		t.Errorf("netrc:\n%s", got)
	}
	if _, err := os.Stat(d.file("nix.conf")); err == nil {
		t.Errorf("an empty nix.conf stays: %s", d.read("nix.conf"))
	}
}

// The file that Nix reads already keeps its place and what is in it: a second one would take its place.
func TestUseAddsToTheNetrcThatNixReads(t *testing.T) {
	d := newDesk(t)
	t.Setenv("ATTIC_TOKEN", "eyJ.secret.x")
	d.write("mine", "machine other.example password p\n")
	d.write("nix.conf", "netrc-file = "+d.file("mine")+"\n")
	d.want(0, "Nix pulls from", "use", "private")
	if got := d.read("mine"); !strings.Contains(got, "eyJ.secret.x") || !strings.Contains(got, "machine other.example password p\n") {
		t.Errorf("mine:\n%s", got)
	}
	if _, err := os.Stat(d.file("netrc")); err == nil {
		t.Error("there is a second netrc")
	}
}

// A link into the store belongs to a tool that makes it again; replacing it would undo everything else in it.
func TestUseLeavesWhatHomeManagerMakes(t *testing.T) {
	d := newDesk(t)
	d.write("x", "")
	if err := os.Symlink(storePath(t), d.file("nix.conf")); err != nil {
		t.Fatal(err)
	}
	d.want(1, "attic-action use --print", "use", "open")
	if info, err := os.Lstat(d.file("nix.conf")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// A link to a file elsewhere, as people keep them in a repository, stays one.
func TestUseFollowsLinks(t *testing.T) {
	d := newDesk(t)
	d.write("dotfile", "cores = 2\n")
	if err := os.Symlink(d.file("dotfile"), d.file("nix.conf")); err != nil {
		t.Fatal(err)
	}
	d.want(0, "", "use", "open")
	if info, err := os.Lstat(d.file("nix.conf")); err != nil || info.Mode()&os.ModeSymlink == 0 || !strings.Contains(d.read("dotfile"), "/open\n") {
		t.Errorf("%v, %v\n%s", info, err, d.read("dotfile"))
	}
}

func TestUsePrintsAModuleWithoutTheToken(t *testing.T) {
	d := newDesk(t)
	t.Setenv("ATTIC_TOKEN", "eyJ.secret.x")
	code, out, errOut := d.run("use", "--print", "private")
	if code != 0 || !strings.Contains(out, `netrc-file = "/etc/nix/netrc";`) || !strings.Contains(out, d.url+"/private") || strings.Contains(out+errOut, "eyJ") {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	if _, err := os.Stat(d.file("nix.conf")); err == nil {
		t.Error("it wrote nix.conf, too")
	}
	module := filepath.Join(d.home, "cache.nix")
	write(t, module, out)
	value, err := exec.Command("nix-instantiate", "--eval", "--strict", "--json", module).Output()
	want := fmt.Sprintf(`{"nix":{"settings":{"netrc-file":"/etc/nix/netrc","substituters":["%s/private"],"trusted-public-keys":["%s"]}}}`, d.url, testKey)
	if err != nil || strings.TrimSpace(string(value)) != want {
		t.Errorf("Nix reads %s, want %s: %v", value, want, err)
	}
}

// Lines that do not count are worse than none: the user believes in them.
func TestUseSaysWhenItDoesNotCount(t *testing.T) {
	d := newDesk(t)
	t.Setenv("NIX_CONFIG", "substituters = https://other.example")
	d.want(0, "$NIX_CONFIG sets the substituters anew", "use", "open")
}

func TestUseWantsOneCache(t *testing.T) {
	d := newDesk(t)
	d.want(2, "use takes one CACHE", "use")
	d.want(2, "are two things", "use", "--print", "--remove", "open")
	d.want(2, "is not the name of a cache", "use", "a b")
}
