package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/org/attic-action/internal/config"
)

// flyToml is what fly.toml may have, of what fly.io knows. A key that is not here is
// one that nobody has looked at; fly.io itself passes over what it does not know.
type flyToml struct {
	App           string `toml:"app"`
	PrimaryRegion string `toml:"primary_region"`
	KillSignal    string `toml:"kill_signal"`
	KillTimeout   string `toml:"kill_timeout"`
	Build         struct {
		Dockerfile string `toml:"dockerfile"`
	} `toml:"build"`
	Deploy struct {
		ReleaseCommand string `toml:"release_command"`
		Strategy       string `toml:"strategy"`
	} `toml:"deploy"`
	Mounts []struct {
		Source      string `toml:"source"`
		Destination string `toml:"destination"`
		InitialSize string `toml:"initial_size"`
		Threshold   int    `toml:"auto_extend_size_threshold"`
		Increment   string `toml:"auto_extend_size_increment"`
		Limit       string `toml:"auto_extend_size_limit"`
	} `toml:"mounts"`
	HTTPService struct {
		InternalPort int    `toml:"internal_port"`
		ForceHTTPS   bool   `toml:"force_https"`
		AutoStop     string `toml:"auto_stop_machines"`
		AutoStart    bool   `toml:"auto_start_machines"`
		MinRunning   *int   `toml:"min_machines_running"`
		Concurrency  struct {
			Type string `toml:"type"`
			Soft int    `toml:"soft_limit"`
			Hard int    `toml:"hard_limit"`
		} `toml:"concurrency"`
		Checks []struct {
			Method      string `toml:"method"`
			Path        string `toml:"path"`
			GracePeriod string `toml:"grace_period"`
			Interval    string `toml:"interval"`
			Timeout     string `toml:"timeout"`
		} `toml:"checks"`
	} `toml:"http_service"`
	Restart []struct {
		Policy  string `toml:"policy"`
		Retries int    `toml:"retries"`
	} `toml:"restart"`
	VM []struct {
		Size   string `toml:"size"`
		Memory string `toml:"memory"`
	} `toml:"vm"`
}

// stopTime is how long the server takes to stop at most, and a second for its last words.
const stopTime = 26 * time.Second

// maxConnections is of package server.
const maxConnections = 2048

func TestFlyTomlFitsTheServer(t *testing.T) {
	text, err := os.ReadFile("../../fly.toml")
	if err != nil {
		t.Fatal(err)
	}
	var f flyToml
	if err := toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields().Decode(&f); err != nil {
		t.Fatal(err)
	}
	if d, err := time.ParseDuration(f.KillTimeout); err != nil || d < stopTime || d > 5*time.Minute {
		t.Errorf("kill_timeout %q: the server takes up to %s, fly.io gives 5m at most (%v)", f.KillTimeout, stopTime, err)
	}
	if f.KillSignal != "SIGTERM" && f.KillSignal != "SIGINT" {
		t.Errorf("kill_signal %q is not one that the server drains on", f.KillSignal)
	}

	// What the image is and what fly.io sets, and nothing else.
	image := dockerfile(t)
	fly := map[string]string{"FLY_APP_NAME": f.App}
	for _, pair := range strings.Fields(image["ENV"]) {
		name, value, _ := strings.Cut(pair, "=")
		fly[name] = value
	}
	cfg, err := config.Load(config.Options{Getenv: func(name string) string { return fly[name] }})
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil || port != strconv.Itoa(f.HTTPService.InternalPort) || !strings.HasPrefix(cfg.Listen, "[::]:") {
		t.Errorf("the server listens on %s, fly's proxy asks port %d", cfg.Listen, f.HTTPService.InternalPort)
	}
	if cfg.APIEndpoint != "https://"+f.App+".fly.dev/" || !f.HTTPService.ForceHTTPS {
		t.Errorf("api-endpoint %q, https %t", cfg.APIEndpoint, f.HTTPService.ForceHTTPS)
	}
	if len(f.Mounts) != 1 || !strings.HasPrefix(cfg.Data+"/", f.Mounts[0].Destination+"/") || image["VOLUME"] != f.Mounts[0].Destination {
		t.Errorf("data lies in %s, mounts are %v, the image's volume is %s", cfg.Data, f.Mounts, image["VOLUME"])
	}
	if h := f.HTTPService; h.AutoStop != "stop" || !h.AutoStart || h.MinRunning == nil || *h.MinRunning != 0 {
		t.Errorf("it does not sleep when it is idle: %+v", h)
	}
	if c := f.HTTPService.Concurrency; c.Type != "requests" || c.Soft >= c.Hard || c.Hard > maxConnections/2 {
		t.Errorf("concurrency %+v; the server takes %d connections", c, maxConnections)
	}
	if f.Restart[0].Policy != "on-failure" || f.Restart[0].Retries == 0 || f.Restart[0].Retries > 5 {
		t.Errorf("a configuration that is wrong would be tried again and again: %+v", f.Restart)
	}
	if f.VM[0].Memory != "256mb" || f.VM[0].Size != "shared-cpu-1x" {
		t.Errorf("machine %+v", f.VM)
	}
	// The entrypoint stays: this is what the deploy runs first.
	if code, _, stderr := call(t, t.TempDir(), append([]string{"attic-server"}, strings.Fields(f.Deploy.ReleaseCommand)...)...); code != 0 || stderr != "" {
		t.Errorf("release_command %q: exit %d, %s", f.Deploy.ReleaseCommand, code, stderr)
	}

	url, _, stop := start(t, t.TempDir(), "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	for _, check := range f.HTTPService.Checks {
		req, err := http.NewRequest(check.Method, url+check.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "172.19.0.2:8080"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Errorf("the health check %s %s gets %s", check.Method, check.Path, resp.Status)
		}
		if every, err := time.ParseDuration(check.Interval); err != nil || every < 15*time.Second {
			t.Errorf("a check every %q", check.Interval)
		}
	}
}

// dockerfile returns the last instruction of each kind in the last stage.
func dockerfile(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	for line := range strings.Lines(string(text)) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if verb == "FROM" {
			last = map[string]string{}
		}
		last[verb] = rest
	}
	return last
}

// The attack: whoever gets code to run in the server's process is root of its machine.
func TestImageRunsAsNobodySpecial(t *testing.T) {
	image := dockerfile(t)
	if image["FROM"] != "scratch" {
		t.Errorf("the image is made from %s", image["FROM"])
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(image["USER"]) {
		t.Errorf("USER %s: want numbers, which Kubernetes can tell from root's", image["USER"])
	}
	var entrypoint, cmd []string
	if err := json.Unmarshal([]byte(image["ENTRYPOINT"]), &entrypoint); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(image["CMD"]), &cmd); err != nil {
		t.Fatal(err)
	}
	// CMD is replaced by what people have for Attic's image.
	if !slices.Equal(entrypoint, []string{"/bin/attic-server"}) || !slices.Equal(cmd, []string{"--listen", "[::]:8080"}) {
		t.Errorf("it starts %q %q", entrypoint, cmd)
	}
	dir := t.TempDir()
	for _, cmd := range [][]string{
		{"-f", writeConfig(t, dir, ""), "--mode", "check-config"},
		{"check-config", "-f", filepath.Join(dir, "server.toml")},
	} {
		if code, _, stderr := call(t, dir, append(entrypoint, cmd...)...); code != 0 {
			t.Errorf("%q: exit %d, %s", cmd, code, stderr)
		}
	}
}

func TestUnitFitsTheServer(t *testing.T) {
	text, err := os.ReadFile("../../contrib/attic-server.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			unit[key] = value
		}
	}
	if d, err := time.ParseDuration(unit["TimeoutStopSec"]); err != nil || d < stopTime {
		t.Errorf("TimeoutStopSec=%s: the server takes up to %s", unit["TimeoutStopSec"], stopTime)
	}
	if unit["RestartPreventExitStatus"] != "2 78" || unit["Restart"] != "on-failure" {
		t.Errorf("it restarts %s, but not after %s", unit["Restart"], unit["RestartPreventExitStatus"])
	}
	if unit["User"] == "" || unit["User"] == "root" || unit["NoNewPrivileges"] != "yes" || unit["StateDirectory"] == "" {
		t.Errorf("%v", unit)
	}
	// Package budget looks at /proc/meminfo.
	if unit["ProcSubset"] != "" {
		t.Errorf("ProcSubset=%s hides how much memory there is", unit["ProcSubset"])
	}
}
