package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// command runs attic-action as a user would, with nothing configured.
func command(t *testing.T, ctx context.Context, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var stdout, stderr bytes.Buffer
	code = run(ctx, args, strings.NewReader(in), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// stock is a stock server in memory that has every path but those in missing.
func stock(t *testing.T, handle func(w http.ResponseWriter, r *http.Request) bool) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handle != nil && handle(w, r) {
			return
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/_api/v1/cache-config/main"):
			fmt.Fprint(w, `{"upstream_cache_key_names":[]}`)
		case r.URL.Path == "/_api/v1/get-missing-paths":
			var in struct {
				Hashes []string `json:"store_path_hashes"`
			}
			json.NewDecoder(r.Body).Decode(&in)
			json.NewEncoder(w).Encode(map[string]any{"missing_paths": in.Hashes})
		case r.URL.Path == "/_api/v1/upload-path":
			io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, `{"kind":"Uploaded"}`)
		default:
			w.WriteHeader(404)
			fmt.Fprint(w, `{"code":404,"error":"NoSuchCache","message":"There is no such cache."}`)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// storePath adds a file to the real store.
func storePath(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "attic-action-test")
	write(t, file, "contents of a test\n")
	out, err := exec.Command("nix-store", "--add", file).Output()
	if err != nil {
		t.Fatalf("nix-store --add: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func TestPushPrintsOneJSONObject(t *testing.T) {
	path, url := storePath(t), stock(t, nil)
	link := filepath.Join(t.TempDir(), "result")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := command(t, t.Context(), "", "push", "--server", url, "--json", "main", link)
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("output %q: %v", out, err)
	}
	var members []string
	for k := range got {
		members = append(members, k)
	}
	slices.Sort(members)
	want := []string{"bytes_sent", "failed", "kept", "missing", "nar_bytes", "new_chunks", "packs", "paths", "present", "pushed", "requests", "seconds", "upstream"}
	if !slices.Equal(members, want) {
		t.Errorf("members %v, want %v", members, want)
	}
	if code != 0 || got["pushed"] != 1.0 || got["requests"] != 3.0 || !strings.Contains(errOut, "pushed 1 of 1") {
		t.Errorf("exit %d, %s, %s", code, out, errOut)
	}
}

func TestPushDryRunListsPaths(t *testing.T) {
	path := storePath(t)
	url := stock(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			t.Error("a dry run uploads")
		}
		return false
	})
	code, out, errOut := command(t, t.Context(), "", "push", "--server", url, "--dry-run", "main", path)
	if code != 0 || out != path+"\n" || !strings.Contains(errOut, "would be pushed") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
}

func TestPushReadsPathsFromStandardInput(t *testing.T) {
	path, url := storePath(t), stock(t, nil)
	code, _, errOut := command(t, t.Context(), "\n"+path+"\n", "push", "--server", url, "--stdin", "main")
	if code != 0 || !strings.Contains(errOut, "pushed 1 of 1") {
		t.Errorf("exit %d, %q", code, errOut)
	}
}

func TestExitCodesAndHints(t *testing.T) {
	path, url := storePath(t), stock(t, nil)
	denied := func(status int, name string) string {
		return stock(t, func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"code":%d,"error":%q,"message":"no"}`, status, name)
			return true
		})
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, test := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"no arguments", []string{"push"}, 2, []string{"CACHE", "hint: "}},
		{"no path", []string{"push", "main"}, 2, []string{"PATH"}},
		{"unknown flag", []string{"push", "--frobnicate"}, 2, []string{"frobnicate"}},
		{"unknown command", []string{"pull"}, 2, []string{"pull"}},
		{"no jobs", []string{"push", "-j", "0", "main", path}, 2, []string{"-j 0"}},
		{"two readers of standard input", []string{"push", "--stdin", "--token-file", "-", "main"}, 2, []string{"standard input"}},
		{"bad cache name", []string{"push", "--server", url, "a/b", path}, 2, []string{"a/b"}},
		{"unknown cache", []string{"push", "--server", url, "nope", path}, 1, []string{"NoSuchCache", "hint: check the name"}},
		{"no token", []string{"push", "--server", denied(401, "Unauthorized"), "main", path}, 1, []string{"Unauthorized", "hint: the token is missing"}},
		{"no right", []string{"push", "--server", denied(403, "AccessError"), "main", path}, 1, []string{"AccessError", "hint: the token needs"}},
		{"not in the store", []string{"push", "--server", url, "main", "/nix/store/00000000000000000000000000000000-none"}, 1, []string{"00000000000000000000000000000000-none"}},
		{"no such file", []string{"push", "--server", url, "main", "/nowhere/result"}, 1, []string{"/nowhere/result"}},
		{"unreachable", []string{"push", "--server", closed.URL, "main", path}, 1, []string{"refused", "hint: nothing listens"}},
		{"https for http", []string{"push", "--server", strings.Replace(url, "http:", "https:", 1), "main", path}, 1, []string{"hint: the server speaks http://"}},
		{"no scheme", []string{"push", "--server", "localhost:8080", "main", path}, 1, []string{"hint: write the whole URL"}},
		{"no token file", []string{"push", "--server", url, "--token-file", "/nowhere/token", "main", path}, 1, []string{"/nowhere/token"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, out, errOut := command(t, t.Context(), "", test.args...)
			if code != test.code || out != "" {
				t.Errorf("exit %d, want %d; output %q", code, test.code, out)
			}
			for _, s := range test.says {
				if !strings.Contains(errOut, s) {
					t.Errorf("%q is not in %q", s, errOut)
				}
			}
			if n := strings.Count(errOut, "\n"); n > 2 {
				t.Errorf("%d lines: %s", n, errOut)
			}
		})
	}
}

func TestFailedPathExits1AndIsNamed(t *testing.T) {
	path := storePath(t)
	url := stock(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(400)
		fmt.Fprint(w, `{"code":400,"error":"RequestError","message":"Bad NAR hash"}`)
		return true
	})
	code, out, errOut := command(t, t.Context(), "", "push", "--server", url, "--json", "main", path)
	if code != 1 || !strings.Contains(errOut, path) || !strings.Contains(out, `"failed":[{"path":"`+path) {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
}

func TestInterruptionExits130AndSaysWhatWasKept(t *testing.T) {
	path := storePath(t)
	ctx, cancel := context.WithCancel(t.Context())
	url := stock(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		}
		return false
	})
	began := time.Now()
	code, _, errOut := command(t, ctx, "", "push", "--server", url, "main", path)
	if code != 130 || !strings.Contains(errOut, "run the same command again") {
		t.Errorf("exit %d, %q", code, errOut)
	}
	if took := time.Since(began); took > 30*time.Second { // far from any stall or retry wait
		t.Errorf("it took %v to stop", took)
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	path := storePath(t)
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "hush-hush")
	t.Setenv("RUNNER_DEBUG", "1")
	for _, status := range []int{401, 503} {
		url := stock(t, func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") != "Bearer hush-hush" {
				t.Errorf("Authorization %q", r.Header.Get("Authorization"))
			}
			if status == 503 && strings.Contains(r.URL.Path, "config") {
				status = 200
				w.WriteHeader(503)
				return true
			}
			if status == 401 {
				w.WriteHeader(401)
			}
			return status == 401
		})
		_, out, errOut := command(t, t.Context(), "", "push", "--server", url, "--token-file", file, "main", path)
		if strings.Contains(out+errOut, "hush") {
			t.Errorf("the token is in %s%s", out, errOut)
		}
	}
}
