package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/verify"
)

func TestVerifyTakesItsFlagsStrictly(t *testing.T) {
	home := shortHome(t)
	for _, args := range [][]string{
		{"--sample", "0"}, {"--sample", "101"}, {"--sample", "NaN"}, {"--sample", "-1"}, {"--sample", "x"},
		{"--rate", "0"}, {"--rate", "12"}, {"--rate", "fast"}, {"--rate", "1e300"}, {"--rate", "NaN"}, {"more"},
	} {
		if code, _, stderr := call(t, home, append([]string{"attic-server", "verify"}, args...)...); code != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, %q", args, code, stderr)
		}
	}
	for s, want := range map[string]int64{"500000": 500_000, "500KB": 500_000, "2MiB": 2 << 20, "1.5m/s": 3 << 19, "": 0} {
		if got, err := parseRate(s); got != want || err != nil {
			t.Errorf("rate %q: %d, %v", s, got, err)
		}
	}
	for s, want := range map[string]float64{"5": 0.05, "2.5%": 0.025, "100": 0, "": 0} {
		if got, err := parsePercent(s); got != want || err != nil {
			t.Errorf("sample %q: %v, %v", s, got, err)
		}
	}
}

// The storage's id and the wraps of the root key are small and lost with everything else: what is gone is stored
// again, what is damaged is named, and the caches' keys open all the same.
func TestVerifyBringsKeysBack(t *testing.T) {
	home := shortHome(t)
	ok(t, home, "cache", "create", "c", "--public")
	url, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	jwt := ok(t, home, "make-token", "--sub", "ci", "--validity", "1d", "--pull", "c", "--push", "c")
	upload(t, url, jwt, "c", "thing")
	storage := filepath.Join(home, ".local/share/attic-server/storage")
	keys, err := filepath.Glob(filepath.Join(storage, "keys", "*"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	files := []string{keys[0], filepath.Join(storage, "store", "id")}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := call(t, home, "attic-server", "verify")
	if code != 1 || strings.Count(stdout, "it is there again") != 2 {
		t.Errorf("gone: exit %d\n%s%s", code, stdout, stderr)
	}
	contains(t, "again", ok(t, home, "verify"), "1 paths looked at")
	for _, file := range files {
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("something else"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, stdout, stderr := call(t, home, "attic-server", "verify"); code != 1 || strings.Count(stdout, "damaged: ") != 2 || strings.Count(stdout, "delete the object") != 2 {
		t.Errorf("damaged: exit %d\n%s%s", code, stdout, stderr)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, _ := call(t, home, "attic-server", "verify"); code != 1 {
		t.Errorf("deleted: exit %d", code)
	}
	var s struct {
		Verify struct {
			Last    *verify.Result
			Waiting int64
		}
	}
	if err := json.Unmarshal([]byte(ok(t, home, "stats", "--json")), &s); err != nil || s.Verify.Last == nil || s.Verify.Last.Damage != 2 {
		t.Errorf("stats: %+v, %v", s, err)
	}
	if code := stop(); code != 0 {
		t.Errorf("stop: exit %d", code)
	}
	_, _, stop = start(t, home, "attic-server", "--listen", "127.0.0.1:0") // the keys are those that it began with
	stop()
}
