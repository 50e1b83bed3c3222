package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// status asks for a private cache's settings.
func status(t *testing.T, method, url, jwt, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "bearer "+strings.TrimSpace(jwt))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// shortHome is a directory whose socket has a name that fits: of a test's own
// directory the name of the test is a part.
func shortHome(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "h")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

const createBody = `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`

// ok runs the program and wants it to succeed.
func ok(t *testing.T, home string, args ...string) (stdout string) {
	t.Helper()
	code, stdout, stderr := call(t, home, append([]string{"attic-server"}, args...)...)
	if code != 0 {
		t.Fatalf("%q: exit %d: %s", args, code, stderr)
	}
	return stdout
}

// jti is the id of a token.
func jti(t *testing.T, jwt string) string {
	t.Helper()
	var c struct {
		ID string `json:"jti"`
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(jwt, ".")[1])
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.ID == "" {
		t.Fatalf("read %s: %v", jwt, err)
	}
	return c.ID
}

func tokens(t *testing.T, home string, args ...string) (ids []string) {
	t.Helper()
	var rows []tokenRow
	if err := json.Unmarshal([]byte(ok(t, home, append([]string{"token", "list", "--json"}, args...)...)), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	return ids
}

func TestTokensAreListedAndRevokedWhileTheServerRuns(t *testing.T) {
	home := shortHome(t)
	url, stderr, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	mine := ok(t, home, "make-token", "--sub", "me", "--validity", "1y", "--create-cache", "*", "--pull", "*")
	other := ok(t, home, "make-token", "--sub", "other", "--validity", "1y", "--pull", "c")
	third := ok(t, home, "make-token", "--sub", "third", "--validity", "1y", "--pull", "c")
	if got, body := status(t, "POST", url+"/_api/v1/cache-config/c", mine, createBody); got != 200 {
		t.Fatalf("create: %d %s", got, body)
	}
	table := ok(t, home, "token", "list")
	for _, want := range []string{jti(t, mine), jti(t, other), "make-token", "c:pull", "*:pull,create-cache"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	config := url + "/_api/v1/cache-config/c"
	if got, _ := status(t, "GET", config, other, ""); got != 200 {
		t.Fatalf("before: %d", got)
	}
	if out := ok(t, home, "token", "revoke", jti(t, other)); out != "revoked "+jti(t, other)+" of other\n" {
		t.Errorf("revoke by id: %q", out)
	}
	// The token itself names itself: that is what somebody finds in a log.
	if out := ok(t, home, "token", "revoke", strings.TrimSpace(third)); out != "revoked "+jti(t, third)+" of third\n" {
		t.Errorf("revoke by token: %q", out)
	}
	for name, tok := range map[string]string{"by id": other, "by token": third} {
		if got, body := status(t, "GET", config, tok, ""); got != 401 {
			t.Errorf("%s: got %d %s, want 401", name, got, body)
		}
	}
	if got, _ := status(t, "GET", config, mine, ""); got != 200 {
		t.Errorf("the token that was not revoked: %d", got)
	}
	if out := ok(t, home, "token", "revoke", jti(t, other)); !strings.Contains(out, "was revoked before") {
		t.Errorf("once more: %q", out)
	}
	if out := ok(t, home, "token", "revoke", "--sub", "me"); !strings.Contains(out, jti(t, mine)) {
		t.Errorf("revoke by subject: %q", out)
	}
	if got, _ := status(t, "GET", config, mine, ""); got != 401 {
		t.Errorf("after --sub: %d", got)
	}
	if code := stop(); code != 0 {
		t.Fatalf("stop: %d: %s", code, stderr)
	}
	if got := tokens(t, home); len(got) != 0 {
		t.Errorf("good after all: %v", got)
	}
	if got := tokens(t, home, "--all"); len(got) != 3 {
		t.Errorf("all: %v", got)
	}
	// Across a restart.
	url, _, stop = start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	if got, _ := status(t, "GET", url+"/_api/v1/cache-config/c", other, ""); got != 401 {
		t.Errorf("after a restart: %d", got)
	}
}

func TestTokensAreListedWithoutAServer(t *testing.T) {
	home := shortHome(t)
	_, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	stop()
	code, jwt, stderr := call(t, home, "attic-server", "make-token", "--sub", "x", "--validity", "1d", "--pull", "c")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if got := tokens(t, home); len(got) != 1 || got[0] != jti(t, jwt) {
		t.Errorf("listed: %v, made: %s", got, jti(t, jwt))
	}
	ok(t, home, "token", "revoke", jti(t, jwt))
	if got := tokens(t, home); len(got) != 0 {
		t.Errorf("listed after revocation: %v", got)
	}
}

// On a laptop that has the secret and nothing else, a token is made all the same.
func TestTokenWithoutADatabaseSaysThatItIsNotListed(t *testing.T) {
	home := shortHome(t)
	file := writeConfig(t, home, "")
	code, jwt, stderr := call(t, home, "attic-server", "make-token", "-f", file, "--sub", "x", "--validity", "1d", "--pull", "c")
	if code != 0 || strings.Count(jwt, ".") != 2 || !strings.Contains(stderr, "not listed") || !strings.Contains(stderr, jti(t, jwt)) || strings.Contains(stderr, strings.TrimSpace(jwt)) {
		t.Errorf("exit %d, %q, %q", code, jwt, stderr)
	}
	if _, err := os.Stat(filepath.Join(home, "server.db")); err == nil {
		t.Error("a database was made")
	}
	// Its server is told its id later, and takes that.
	if out := ok(t, home, "-f", file, "token", "revoke", jti(t, jwt)); !strings.Contains(out, "was not listed") {
		t.Errorf("revoke: %q", out)
	}
	url, _, stop := start(t, home, "attic-server", "-f", file)
	defer stop()
	if got, _ := status(t, "GET", url+"/_api/v1/cache-config/c", jwt, ""); got != 401 {
		t.Errorf("got %d, want 401", got)
	}
}

func TestRevokeIsCalledRightly(t *testing.T) {
	home := shortHome(t)
	plain := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"attic"}`))
	for name, args := range map[string][]string{
		"nothing":                {},
		"an empty subject":       {"--sub", ""},
		"an empty policy":        {"--all-from", ""},
		"no id":                  {"a b"},
		"a token without an id":  {"eyJh." + plain + ".c2ln"},
		"something like a token": {"secret-a.secret-b.secret-c"},
	} {
		code, _, stderr := call(t, home, append([]string{"attic-server", "token", "revoke"}, args...)...)
		if code == 0 || strings.Contains(stderr, "secret-") || strings.Contains(stderr, plain) {
			t.Errorf("%s: exit %d: %s", name, code, stderr)
		}
	}
}

// A subject comes out of a claim: it must not move the cursor of whoever lists it.
func TestListShowsNoControlCharacters(t *testing.T) {
	home := shortHome(t)
	_, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	ok(t, home, "make-token", "--sub", "\x1b[2Jroot\n", "--validity", "1d")
	if out := ok(t, home, "token", "list"); strings.Contains(out, "\x1b") || strings.Count(out, "\n") != 2 || !strings.Contains(out, `\x1b[2Jroot`) {
		t.Errorf("got %q", out)
	}
}

func TestSecretsAreRotatedWithoutATokenLost(t *testing.T) {
	home := shortHome(t)
	url, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	old := ok(t, home, "make-token", "--sub", "me", "--validity", "1y", "--create-cache", "*", "--pull", "*")
	if got, body := status(t, "POST", url+"/_api/v1/cache-config/c", old, createBody); got != 200 {
		t.Fatalf("create: %d %s", got, body)
	}
	stop()
	file := filepath.Join(home, ".local/share/attic-server", secretFile)
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64)) + "\n"
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write(second + string(first)) // both: the new one signs
	url, _, stop = start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	fresh := ok(t, home, "make-token", "--sub", "me", "--validity", "1y", "--pull", "*")
	for name, tok := range map[string]string{"old": old, "new": fresh} {
		if got, _ := status(t, "GET", url+"/_api/v1/cache-config/c", tok, ""); got != 200 {
			t.Errorf("with both secrets, %s token: %d", name, got)
		}
	}
	stop()

	write(second) // the old one is taken out
	url, _, stop = start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	for name, c := range map[string]struct {
		tok  string
		want int
	}{"old": {old, 401}, "new": {fresh, 200}} {
		if got, _ := status(t, "GET", url+"/_api/v1/cache-config/c", c.tok, ""); got != c.want {
			t.Errorf("with the new secret alone, %s token: got %d, want %d", name, got, c.want)
		}
	}
}

// The attack: a secret that leaked was replaced, and with a copy of the storage made a year later it still opens
// the caches' signing keys.
func TestForgottenSecretOpensNothing(t *testing.T) {
	home := shortHome(t)
	file := filepath.Join(home, ".local/share/attic-server", secretFile)
	_, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	stop()
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64)) + "\n"
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() (list []secretRow) {
		if err := json.Unmarshal([]byte(ok(t, home, "secret", "list", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	write(second + string(first))
	_, _, stop = start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	both := rows()
	if len(both) != 2 || !both[0].Configured || !both[1].Configured || both[0].Since.IsZero() {
		t.Errorf("with both: %+v", both)
	}
	if code, _, errs := call(t, home, "attic-server", "secret", "forget", both[0].ID); code == 0 || !strings.Contains(errs, "still configured") {
		t.Errorf("forget what is configured: exit %d, %s", code, errs)
	}
	if out := ok(t, home, "secret", "forget", "--removed"); !strings.Contains(out, "every secret") {
		t.Errorf("nothing to forget: %s", out)
	}
	stop()
	write(second)
	_, _, stop = start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	if code, _, errs := call(t, home, "attic-server", "secret", "forget", "00"); code == 0 || !strings.Contains(errs, "no root key wrapped") {
		t.Errorf("forget what is not there: exit %d, %s", code, errs)
	}
	if out := ok(t, home, "secret", "forget", "--removed"); strings.Count(out, "forgot ") != 1 {
		t.Errorf("got %s", out)
	}
	if left := rows(); len(left) != 1 || !left[0].Configured {
		t.Errorf("left: %+v", left)
	}
	stop()
	write(string(first))
	if code, _, errs := call(t, home, "attic-server", "--listen", "127.0.0.1:0"); code == 0 || !strings.Contains(errs, "no configured token secret opens") {
		t.Errorf("with the old secret alone: exit %d, %s", code, errs)
	}
	write(second) // and the new one opens it without a server, too
	ok(t, home, "secret", "list")
	for _, wrong := range [][]string{{"secret"}, {"secret", "forget"}, {"secret", "forget", "--removed", "x"}} {
		if code, _, _ := call(t, home, append([]string{"attic-server"}, wrong...)...); code != 2 {
			t.Errorf("%v: exit %d", wrong, code)
		}
	}
}

func TestRotateKey(t *testing.T) {
	home := shortHome(t)
	url, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	tok := ok(t, home, "make-token", "--sub", "me", "--validity", "1y", "--create-cache", "*", "--pull", "*")
	if got, body := status(t, "POST", url+"/_api/v1/cache-config/c", tok, createBody); got != 200 {
		t.Fatalf("create: %d %s", got, body)
	}
	config := func() (key string, old []any) {
		_, body := status(t, "GET", url+"/_api/v1/cache-config/c", tok, "")
		var c map[string]any
		if err := json.Unmarshal([]byte(body), &c); err != nil {
			t.Fatal(err)
		}
		old, _ = c["attic_action"].(map[string]any)["old_public_keys"].([]any)
		return c["public_key"].(string), old
	}
	first, _ := config()
	out := ok(t, home, "cache", "rotate-key", "c", "--keep-old", "2 weeks")
	second, old := config()
	if !strings.HasPrefix(first, "c:") || !strings.HasPrefix(second, "c.2:") || len(old) != 1 || old[0].(map[string]any)["public_key"] != first {
		t.Errorf("first %s, second %s, old %v", first, second, old)
	}
	if !strings.Contains(out, second) || !strings.Contains(out, first) {
		t.Errorf("it said\n%s", out)
	}
	stop()
	var rotated rotateOutput // and by a command that finds no server
	if err := json.Unmarshal([]byte(ok(t, home, "cache", "rotate-key", "c", "--keep-old", "0s", "--json")), &rotated); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(rotated.PublicKey, "c.3:") || rotated.Replaced != second || len(rotated.Old) != 1 || rotated.Old[0].PublicKey != first {
		t.Errorf("got %+v", rotated)
	}
	for name, args := range map[string][]string{"unknown cache": {"d"}, "no cache": {}, "duration": {"c", "--keep-old", "soon"}, "too long": {"c", "--keep-old", "11y"}} {
		if code, _, stderr := call(t, home, append([]string{"attic-server", "cache", "rotate-key"}, args...)...); code == 0 || stderr == "" {
			t.Errorf("%s: exit %d, %q", name, code, stderr)
		}
	}
}
