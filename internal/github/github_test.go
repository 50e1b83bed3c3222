package github

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// hostile are names that a flake's author may give to a host.
var hostile = []string{
	"a::error::x", "::error::x", "  ::set-env name=PATH::/tmp", "\t::add-mask::a", "x\n::error::y", "x\r::error::y", "x\r\n::error::y",
	"##[error]x", "web ##[add-mask]a", "%0A::error::x", "$(id)", "`id`", "<img src=x onerror=alert(1)>", "a|b", "\x00\x1b[31m", "\xff\xfe",
	"_GitHubActionsFileCommandDelimeter_\ninjected<<X\nyes\nX", "x\nATTIC\ninjected=yes", "\u2028::error::x", "\u0085::error::x", "\v::error::x",
}

// runner returns a runner in Actions, with files in a folder of the test, and what it prints.
func runner(t *testing.T, more map[string]string) (*Runner, *bytes.Buffer, map[string]string) {
	t.Helper()
	dir := t.TempDir()
	env := map[string]string{"GITHUB_ACTIONS": "true"}
	for _, name := range []string{"OUTPUT", "ENV", "STATE", "PATH", "STEP_SUMMARY"} {
		env["GITHUB_"+name] = filepath.Join(dir, name)
	}
	for k, v := range more {
		env[k] = v
	}
	out := new(bytes.Buffer)
	return &Runner{Getenv: func(k string) string { return env[k] }, Stdout: out}, out, env
}

// obeyed returns the commands that a runner finds in an output, as its own source reads lines: version 2 at the start of
// a trimmed line, version 1 anywhere.
func obeyed(output string) []string {
	v2 := regexp.MustCompile(`^::([a-z-]+)(?: [^:]*)?::`)
	v1 := regexp.MustCompile(`##\[([a-z-]+)`)
	var found []string
	stopped := ""
	for _, line := range regexp.MustCompile(`\r\n|\r|\n`).Split(output, -1) {
		line = strings.TrimSpace(line)
		if stopped != "" {
			if line == "::"+stopped+"::" {
				stopped = ""
			}
			continue
		}
		if token, ok := strings.CutPrefix(line, "::stop-commands::"); ok {
			stopped = token
		} else if m := v2.FindStringSubmatch(line); m != nil {
			found = append(found, m[1])
		} else if m := v1.FindStringSubmatch(line); m != nil {
			found = append(found, m[1])
		}
	}
	return found
}

// pairs reads a file of the runner as the runner does.
func pairs(t *testing.T, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	rest := strings.Split(string(b), "\n")
	for len(rest) > 0 && rest[0] != "" {
		name, delimiter, ok := strings.Cut(rest[0], "<<")
		end := slices.Index(rest, delimiter)
		if !ok || end < 1 {
			t.Fatalf("runner can't read line %q", rest[0])
		}
		got[name] = strings.Join(rest[1:end], "\n")
		rest = rest[end+1:]
	}
	return got
}

func TestInputsAreReadAsTheRunnerSetsThem(t *testing.T) {
	r, _, _ := runner(t, map[string]string{"INPUT_MAX-JOBS": " 4\n", "INPUT_TWO_WORDS": "x", "STATE_mode": "daemon"})
	for name, want := range map[string]string{"max-jobs": "4", "two words": "x", "none": ""} {
		if got := r.Input(name); got != want {
			t.Errorf("Input(%q) = %q, want %q", name, got, want)
		}
	}
	if got := r.State("mode"); got != "daemon" {
		t.Errorf("State = %q", got)
	}
}

func TestHostileOutputsStayValues(t *testing.T) {
	r, _, env := runner(t, nil)
	for i, v := range hostile {
		if err := r.SetOutput(fmt.Sprintf("o%d", i), v); err != nil {
			t.Fatalf("%q: %v", v, err)
		}
	}
	got := pairs(t, env["GITHUB_OUTPUT"])
	if len(got) != len(hostile) {
		t.Errorf("%d outputs, want %d: %v", len(got), len(hostile), got)
	}
	for i, v := range hostile {
		if want := strings.ToValidUTF8(v, "\uFFFD"); got[fmt.Sprintf("o%d", i)] != want {
			t.Errorf("output %d = %q, want %q", i, got[fmt.Sprintf("o%d", i)], want)
		}
	}
}

// A value that knows the delimiter would end itself and set further outputs.
func TestValueWithTheDelimiterIsRefused(t *testing.T) {
	r, _, env := runner(t, nil)
	r.Rand = bytes.NewReader(make([]byte, 16))
	err := r.SetOutput("hosts", "x\nattic_"+strings.Repeat("0", 32)+"\ninjected=yes")
	if !errors.Is(err, ErrUnsafe) {
		t.Errorf("error %v, want ErrUnsafe", err)
	}
	if _, err := os.Stat(env["GITHUB_OUTPUT"]); err == nil {
		t.Error("something was written")
	}
}

func TestNamesThatBreakOutAreRefused(t *testing.T) {
	r, _, _ := runner(t, nil)
	for _, name := range []string{"", "a=b", "a<<b", "a\nb", "1a", "-a", "a b", "ä"} {
		if err := r.SetEnv(name, "x"); !errors.Is(err, ErrUnsafe) {
			t.Errorf("SetEnv(%q): %v, want ErrUnsafe", name, err)
		}
	}
	if err := r.AddPath("/bin\n/tmp"); !errors.Is(err, ErrUnsafe) {
		t.Errorf("AddPath of two lines: %v, want ErrUnsafe", err)
	}
}

func TestFilesAreAppendedTo(t *testing.T) {
	r, _, env := runner(t, nil)
	if err := os.WriteFile(env["GITHUB_STATE"], []byte("a<<E\n1\nE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.SaveState("b", "2"), r.AddPath("/x"), r.AddPath("/y"), r.AddSummary("# hi"), r.AddSummary("there")); err != nil {
		t.Fatal(err)
	}
	if got := pairs(t, env["GITHUB_STATE"]); got["a"] != "1" || got["b"] != "2" {
		t.Errorf("state %v", got)
	}
	for file, want := range map[string]string{"GITHUB_PATH": "/x\n/y\n", "GITHUB_STEP_SUMMARY": "# hi\nthere\n"} {
		if b, _ := os.ReadFile(env[file]); string(b) != want {
			t.Errorf("%s holds %q, want %q", file, b, want)
		}
	}
}

func TestSummaryStaysBelowTheLimit(t *testing.T) {
	r, _, env := runner(t, nil)
	if err := r.AddSummary(strings.Repeat("a line\n", 300_000)); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(env["GITHUB_STEP_SUMMARY"])
	if len(b) > SummaryMax+1 || !strings.HasSuffix(string(b), "see the log._\n\n") {
		t.Errorf("%d bytes, ends with %q", len(b), b[max(0, len(b)-60):])
	}
}

func TestOutsideActionsNothingIsTold(t *testing.T) {
	var out bytes.Buffer
	r := &Runner{Getenv: func(string) string { return "" }, Stdout: &out}
	if err := errors.Join(r.SetOutput("a", "b"), r.SetEnv("a", "b"), r.AddSummary("x")); err != nil {
		t.Fatal(err)
	}
	r.Mask("geheim")
	r.EndGroup()
	if out.Len() != 0 {
		t.Errorf("printed %q", out.String())
	}
	r.Error("web", "broken")
	if got := out.String(); got != "error: web: broken\n" {
		t.Errorf("printed %q", got)
	}
}

func TestHostileNamesRunNoCommand(t *testing.T) {
	for _, name := range hostile {
		r, out, _ := runner(t, nil)
		r.Print(name)
		r.Printf("%s: built\n", name)
		l := r.Lines("")
		_, _ = io.WriteString(l, name)
		_ = l.Close()
		if err := r.Verbatim(name); err != nil {
			t.Fatal(err)
		}
		if got := obeyed(out.String()); got != nil {
			t.Errorf("%q: the runner obeys %q in\n%s", name, got, out)
		}
		out.Reset()
		r.Error(name, name)
		r.Group(name)
		if got := obeyed(out.String()); !slices.Equal(got, []string{"error", "group"}) {
			t.Errorf("%q: the runner obeys %q in\n%s", name, got, out)
		}
	}
}

func TestCommandsAreEscaped(t *testing.T) {
	r, out, _ := runner(t, nil)
	r.Error("a:b,c", "100%\nnext")
	if got, want := out.String(), "::error title=a%3Ab%2Cc::100%25%0Anext\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestForeignTextCannotResumeCommands(t *testing.T) {
	r, out, _ := runner(t, nil)
	r.Rand = bytes.NewReader(make([]byte, 16))
	err := r.Verbatim("::" + strings.Repeat("0", 32) + "::\n::error::x")
	if !errors.Is(err, ErrUnsafe) || out.Len() != 0 {
		t.Errorf("error %v, printed %q", err, out)
	}
}

func TestLinesArriveWhole(t *testing.T) {
	r, out, _ := runner(t, nil)
	l := r.Lines("web> ")
	for _, piece := range []string{"one", " line\ntwo\nthr", "ee"} {
		_, _ = io.WriteString(l, piece)
	}
	_ = l.Close()
	if got, want := out.String(), "web> one line\nweb> two\nweb> three\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, _ = l.Write(bytes.Repeat([]byte("x"), 100_000)) // no end of line in sight
	if out.Len() < 100_000-lineMax {
		t.Errorf("only %d bytes printed of a long line", out.Len())
	}
}

func FuzzPrintRunsNoCommand(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		r := &Runner{Getenv: func(string) string { return "true" }, Stdout: &out}
		r.Print(s)
		if got := obeyed(out.String()); got != nil {
			t.Errorf("%q: the runner obeys %q in %q", s, got, out.String())
		}
	})
}

func jwt(claims map[string]any) string {
	b, _ := json.Marshal(claims)
	return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString(b) + ".c2lnbmF0dXJl"
}

func TestIDTokenIsMaskedBeforeAnythingElse(t *testing.T) {
	token := jwt(map[string]any{"sub": "repo:acme/infra:ref:refs/heads/main", "jti": "geheim", "repository_id": "74", "extra": "x"})
	var query, bearer string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		query, bearer = q.URL.RawQuery, q.Header.Get("Authorization")
		fmt.Fprintf(w, `{"value":%q}`, token)
	}))
	defer s.Close()
	r, out, _ := runner(t, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": s.URL + "/idtoken?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "rt"})
	got, err := r.IDToken(t.Context(), "https://cache.example.com/?a&b")
	if err != nil {
		t.Fatal(err)
	}
	if got.Reveal() != token || bearer != "Bearer rt" {
		t.Errorf("token %q, bearer %q", got.Reveal(), bearer)
	}
	if want := "api-version=2.0&audience=https%3A%2F%2Fcache.example.com%2F%3Fa%26b"; query != want {
		t.Errorf("query %q, want %q", query, want)
	}
	if want := "::add-mask::rt\n::add-mask::" + token + "\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	for _, text := range []string{fmt.Sprint(got), fmt.Sprintf("%+v %#v %s %x", got, got, got, got), fmt.Sprintf("%+v", struct{ s Secret }{got})} {
		if strings.Contains(text, "eyJ") || strings.Contains(text, "65794a") {
			t.Errorf("prints %q", text)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", got)
	if strings.Contains(log.String(), "eyJ") {
		t.Errorf("logs %q", log.String())
	}
	claims, err := Claims(got)
	if want := []Claim{{"sub", "repo:acme/infra:ref:refs/heads/main"}, {"repository_id", "74"}}; err != nil || !slices.Equal(claims, want) {
		t.Errorf("claims %v, %v, want %v", claims, err, want)
	}
}

// A broken answer is masked too: what is no JWT for us may be one for somebody else.
func TestAnswerWithoutJWTIsMaskedAndRefused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"value":"half-a-token"}`) }))
	defer s.Close()
	r, out, _ := runner(t, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": s.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "rt"})
	_, err := r.IDToken(t.Context(), "a")
	if err == nil || strings.Contains(err.Error(), "half") || !strings.Contains(out.String(), "::add-mask::half-a-token\n") {
		t.Errorf("error %v, printed %q", err, out)
	}
}

func TestIDTokenWithoutPermission(t *testing.T) {
	r, _, _ := runner(t, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1"})
	if _, err := r.IDToken(t.Context(), "a"); !errors.Is(err, ErrNoIDToken) {
		t.Errorf("error %v, want ErrNoIDToken", err)
	}
}

// answers is a GitHub that answers with these statuses, one after the other, the last one for ever.
type answers struct {
	status []int
	body   string
	asked  atomic.Int32
}

func (a *answers) RoundTrip(q *http.Request) (*http.Response, error) {
	i := min(int(a.asked.Add(1)), len(a.status)) - 1
	return &http.Response{StatusCode: a.status[i], Header: http.Header{"Location": {"http://elsewhere.example/"}}, Body: io.NopCloser(strings.NewReader(a.body)), Request: q}, nil
}

func TestIDTokenIsAskedForAgainOnlyWhereThatHelps(t *testing.T) {
	body := `{"value":"` + jwt(nil) + `"}`
	for name, c := range map[string]struct {
		status []int
		body   string
		asked  int32
		ok     bool
	}{
		"after 503 and 500": {[]int{503, 500, 200}, body, 3, true},
		"not for ever":      {[]int{502}, body, idTokenTries, false},
		"not after 403":     {[]int{403}, body, 1, false},
		"not elsewhere":     {[]int{302}, body, 1, false},
		"not a gigabyte":    {[]int{200}, strings.Repeat(" ", idTokenAnswerMax) + body, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{status: c.status, body: c.body}
				r, _, _ := runner(t, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "http://github.example/x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "rt"})
				r.HTTP = &http.Client{Transport: a}
				_, err := r.IDToken(t.Context(), "a")
				if (err == nil) != c.ok || a.asked.Load() != c.asked {
					t.Errorf("error %v, asked %d times, want %d", err, a.asked.Load(), c.asked)
				}
			})
		})
	}
}

func TestIDTokenStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, _, _ := runner(t, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "http://github.example/x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "rt"})
	if _, err := r.IDToken(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func FuzzClaims(f *testing.F) {
	f.Add(jwt(map[string]any{"sub": "x"}))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := Claims(NewSecret(s)); err != nil && len(s) > 8 && strings.Contains(err.Error(), s) {
			t.Errorf("the error holds the token: %v", err)
		}
	})
}

// A file's name is written by whoever wrote the flake, too.
func TestErrorAtALineIsOneCommand(t *testing.T) {
	var out bytes.Buffer
	r := &Runner{Getenv: func(string) string { return "true" }, Stdout: &out}
	r.ErrorAt(Line{"hosts/a,b:c\n::error::x.nix", 12, 3}, "web,line=1", "50% broken\n::error::y")
	r.ErrorAt(Line{File: "flake.nix"}, "web", "x")
	want := "::error col=3,file=hosts/a%2Cb%3Ac\uFFFD%3A%3Aerror%3A%3Ax.nix,line=12,title=web%2Cline=1::50%25 broken%0A::error::y\n::error file=flake.nix,title=web::x\n"
	if got := out.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
