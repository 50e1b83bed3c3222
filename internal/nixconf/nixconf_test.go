package nixconf

import (
	"slices"
	"strings"
	"testing"
)

const key = "system:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func TestLinesAddToWhatIsConfigured(t *testing.T) {
	got, err := Cache{URL: "https://c.example/system", Keys: []string{key, "old" + key[6:]}, Netrc: "/tmp/a b/netrc"}.Lines()
	want := "extra-substituters = https://c.example/system\nextra-trusted-public-keys = " + key + " old" + key[6:] + "\nnetrc-file = /tmp/a b/netrc\n"
	if err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
}

// A server that answers with a line break would set what it likes: a post-build-hook, another key.
func TestWhatAServerAnswersIsOneValue(t *testing.T) {
	for name, c := range map[string]Cache{
		"hook in the URL":      {URL: "https://c.example/x\npost-build-hook = /tmp/x", Keys: []string{key}},
		"two URLs":             {URL: "https://c.example/x https://evil.example", Keys: []string{key}},
		"another scheme":       {URL: "file:///tmp", Keys: []string{key}},
		"password in the URL":  {URL: "https://u:p@c.example/x", Keys: []string{key}},
		"hook in the key":      {URL: "https://c.example/x", Keys: []string{key + "\npost-build-hook = /tmp/x"}},
		"two keys in one":      {URL: "https://c.example/x", Keys: []string{key + " " + key}},
		"no key":               {URL: "https://c.example/x"},
		"comment in the netrc": {URL: "https://c.example/x", Keys: []string{key}, Netrc: "/tmp/#1/netrc"},
		"blanks in the netrc":  {URL: "https://c.example/x", Keys: []string{key}, Netrc: "/tmp/a  b"},
	} {
		if got, err := c.Lines(); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestOverrides(t *testing.T) {
	for text, want := range map[string]bool{
		"":                           false,
		"extra-substituters = x":     false,
		"cores = 2\nsubstituters =":  true,
		" binary-caches = x":         true,
		"# substituters = x":         false,
		"access-tokens = github.com": false,
		"netrc-file = /x # mine":     true,
		"substituters=x":             false, // as Nix reads it: no blank, no setting
	} {
		if got := Overrides(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestUserFilesAreThoseThatNixReads(t *testing.T) {
	for want, env := range map[string]map[string]string{
		"/h/.config/nix/nix.conf:/etc/xdg/nix/nix.conf": {},
		"/a:/b":                                 {"NIX_USER_CONF_FILES": "/a::/b", "XDG_CONFIG_HOME": "/x"},
		"/x/nix/nix.conf:/etc/xdg/nix/nix.conf": {"XDG_CONFIG_HOME": "/x"},
		"/n/nix.conf:/1/nix/nix.conf:/2/nix/nix.conf": {"NIX_CONFIG_HOME": "/n", "XDG_CONFIG_HOME": "/x", "XDG_CONFIG_DIRS": "/1:/2"},
	} {
		got := UserFiles(func(k string) string { return env[k] }, "/h")
		if !slices.Equal(got, strings.Split(want, ":")) {
			t.Errorf("%v: %q", env, got)
		}
	}
}

func TestNetrcKeepsWhatWasThere(t *testing.T) {
	got, err := Netrc("https://c.example:8443/system", "eyJ.x.y", []byte("machine other.example password p\n\n"))
	want := "machine c.example\nlogin attic-action\npassword eyJ.x.y\n\nmachine other.example password p\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}

// A token is never the start of another entry.
func TestNetrcRefusesTokensOfManyWords(t *testing.T) {
	for _, token := range []string{"", "a b", "a\nmachine evil.example", `a"`, "a#b", "ä"} {
		if got, err := Netrc("https://c.example/x", token, nil); err == nil || token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("%q: %q, %v", token, got, err)
		}
	}
}
