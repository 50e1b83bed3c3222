package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/peer"
)

func TestLimitsAndAuditHaveDefaults(t *testing.T) {
	s, err := load(t, "", env())
	if err != nil {
		t.Fatal(err)
	}
	if s.Limits != DefaultLimits || s.Audit.File != "/home/u/.local/share/attic-server/audit.log" || s.Audit.MaxSize != 16<<20 || s.Audit.Keep != 8 {
		t.Errorf("got %+v, %+v", s.Limits, s.Audit)
	}
	if s.Peers.Proxies != nil || s.Peers.Header != "" {
		t.Errorf("it believes %+v", s.Peers)
	}
}

func TestLimitsAndAuditAreRead(t *testing.T) {
	s, err := load(t, `trusted-proxies = ["10.0.0.0/8", "::1"]
[limits]
bad-tokens = 1
exchanges = 2
refused-exchanges = 3
exchanges-of-policy = 4
uploads = 5
uploads-of-address = 0
[audit]
file = "/var/log/attic/audit.log"
max-size = 65536
keep = 2
`, env("FLY_APP_NAME", "cache"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Limits != (Limits{1, 2, 3, 4, 5, 0}) || s.Audit != (Audit{"/var/log/attic/audit.log", 65536, 2}) {
		t.Errorf("got %+v, %+v", s.Limits, s.Audit)
	}
	if fmt.Sprint(s.Peers.Proxies) != "[10.0.0.0/8 ::1/128]" || s.Peers.Header != "" {
		t.Errorf("it believes %+v", s.Peers)
	}
}

func TestFlysHeaderIsBelievedOnFlyOnly(t *testing.T) {
	s, err := load(t, "", env("FLY_APP_NAME", "cache"))
	if err != nil || s.Peers.Header != peer.FlyHeader {
		t.Errorf("on fly: %+v, %v", s.Peers, err)
	}
	s, err = load(t, "trusted-proxies = []", env("FLY_APP_NAME", "cache"))
	if err != nil || s.Peers.Header != "" || len(s.Peers.Proxies) != 0 {
		t.Errorf("with no trusted proxy: %+v, %v", s.Peers, err)
	}
}

func TestLimitsThatCannotBeMeantAreErrors(t *testing.T) {
	for text, want := range map[string]string{
		"trusted-proxies = [\"0.0.0.0/0\"]": "server.toml:1: key trusted-proxies: \"0.0.0.0/0\" is everybody",
		"trusted-proxies = \"10.0.0.0/8\"":  "server.toml:1: key trusted-proxies: want an array of strings",
		"[limits]\nuploads = -1":            "server.toml:2: key limits.uploads: -1",
		"[limits]\nuploads = 10000000":      "server.toml:2: key limits.uploads: 10000000",
		"[limits]\nuploads = \"5/s\"":       "server.toml:2: key limits.uploads: want an integer",
		"[limits]\nupload = 5":              "server.toml:2: key limits.upload: there is no such key; did you mean uploads?",
		"[audit]\nfile = \"audit.log\"":     "server.toml:2: key audit.file",
		"[audit]\nmax-size = 10":            "server.toml:2: key audit.max-size",
		"[audit]\nkeep = 0":                 "server.toml:2: key audit.keep",
		"[audit]\nrotate = true":            "server.toml:2: key audit.rotate: there is no such key",
	} {
		if _, err := load(t, text, env()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
